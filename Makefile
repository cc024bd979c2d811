# Three commands that do everything on a fresh machine: `make quickstart`, `make test`, `make prove`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# two processes on two cores: one thread each, or they wait for each other
TEST_WORKERS ?= 2

.DEFAULT_GOAL := help

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --editable '.[test,dev,notebooks]'
	@touch $(STAMP)

install: $(STAMP)  ## make .venv and install the package with what its tests need

quickstart: $(STAMP)  ## install, pretrain on drawn faces (minutes, no download), show what was learned
	@$(BIN)/farl-lightning fit --config pretrain.yaml

lint: $(STAMP)  ## style, docstrings, types, direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

unit: $(STAMP)  ## the whole suite in its short form
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal --durations 15

test: lint unit  ## install, then lint, types and the whole suite

prove: $(STAMP)  ## every bar at full length, one table: bar, goal, measured, holds or not
	@$(BIN)/python -m benchmarks.prove

soak: $(STAMP)  ## an hour of killed and resumed trainings, then a cable cut between two hosts: what was lost and repeated
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.soak

notebooks: $(STAMP)  ## rebuild and run the notebooks from their scripts
	@$(BIN)/python notebooks/build.py

clean:  ## remove what the other commands made
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.PHONY: help install quickstart lint unit test prove soak notebooks clean
