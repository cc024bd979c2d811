"""The runner: passes on the reference numbers, fails on wrong ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.parity import Deviation, checks, compare
from tests.parity.__main__ import main, run, run_file
from tests.shared import SHARED, needs_shared

_FILES = sorted(checks())


@needs_shared
@pytest.mark.parametrize("name", _FILES)
def test_reference_numbers(name):
    result = run_file(SHARED / "parity" / name, checks()[name])
    assert result.verdict == "pass", result.text


def _copy(tmp_path, name, **changes):
    """Write a fixture again, with some arrays replaced or (None) left out."""
    with np.load(SHARED / "parity" / name) as file:
        arrays = {key: file[key] for key in file.files} | {
            key.replace("__", "/"): value for key, value in changes.items()
        }
    np.savez(tmp_path / name, **{key: value for key, value in arrays.items() if value is not None})
    return tmp_path / name


def _noisy(name, key):
    with np.load(SHARED / "parity" / name) as file:
        return file[key] + 0.05 * (1 + np.abs(file[key]).max())


def _results(name):
    with np.load(SHARED / "parity" / name) as file:
        inputs = ("in/", "w/", "w_", "cfg")
        results = [key for key in file.files if not key.startswith(inputs) and "conv_pool" not in key]
        return [key for key in results if not key.startswith("pe/") or key.endswith("/out")]


@needs_shared
@pytest.mark.parametrize(
    "name",
    [
        "01_vit_mim.npz",
        "02_pyramid.npz",
        "03_uperhead.npz",
        "04_parsing_task.npz",
        "05_alignment_task.npz",
        "10_clip_joint.npz",
        "15_attribute_head.npz",
    ],
)
def test_every_reference_result_is_compared(tmp_path, name):
    """Every result is read, and a changed number in it is noticed."""
    read = set()

    class Recorder(dict):
        def __getitem__(self, key):
            read.add(key)
            return super().__getitem__(key)

    keys = _results(name)
    file = _copy(tmp_path, name, **{key.replace("/", "__"): _noisy(name, key) for key in keys})
    with np.load(file) as arrays:
        deviations = checks()[name](Recorder(arrays))
    assert set(keys) <= read
    assert [d.name for d in deviations if d.deviation <= d.tolerance] == []


@needs_shared
def test_a_wrong_weight_is_noticed(tmp_path):
    key = "w/transformer.resblocks.1.mlp.c_fc.bias"
    file = _copy(tmp_path, "01_vit_mim.npz", **{key.replace("/", "__"): _noisy("01_vit_mim.npz", key)})
    assert run_file(file, checks()[file.name]).verdict == "FAIL"


@needs_shared
def test_missing_keys_and_other_masks(tmp_path, capsys):
    _copy(tmp_path, "01_vit_mim.npz", out__feature=None)
    assert main([str(tmp_path)]) == 1
    assert "LookupError: key 'out/feature' is missing" in capsys.readouterr().out


@needs_shared
def test_masks_of_another_distribution_are_noticed(tmp_path):
    name = "12_blockwise_masking.npz"
    changes = {key.replace("/", "__"): None for key in _results(name) if key.startswith("1/")}
    changes["0__cfg_h_w_num_min_max_aspect"] = np.array([14.0, 14.0, 75.0, 10.0, -1.0, 0.3])  # smaller blocks
    file = _copy(tmp_path, name, **changes)
    assert run_file(file, checks()[file.name]).verdict == "FAIL"


@needs_shared
def test_wrong_tokens_are_noticed(tmp_path):
    data = json.loads((SHARED / "parity" / "10_tokenizer.json").read_text())
    data["ids_short"][3][1] += 1
    (tmp_path / "10_tokenizer.json").write_text(json.dumps(data))
    assert run(tmp_path)[0].verdict == "FAIL"


def test_files_without_a_check_and_broken_files(tmp_path, capsys):
    np.savez(tmp_path / "99_unknown.npz", a=np.zeros(1))
    assert main([str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "99_unknown.npz" in output
    assert "no check" in output
    assert "nothing to check" in output
    (tmp_path / "01_vit_mim.npz").write_bytes(b"PK not an archive")
    assert main([str(tmp_path)]) == 1
    assert "ERROR" in capsys.readouterr().out


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "01_vit_mim.npz", cfg=np.array([{"a": 1}], dtype=object))
    assert run(tmp_path)[0].verdict == "ERROR"


def test_a_folder_that_is_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "none")])
    assert stop.value.code == 2
    assert "no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("deviations", "verdict"),
    [
        ([Deviation("a", 0.5, 1.0)], "pass"),
        ([Deviation("a", 1.0, 1.0)], "pass"),
        ([Deviation("a", 0.5, 1.0), Deviation("b", 1.5, 1.0)], "FAIL"),
        ([Deviation("a", float("nan"), 1.0)], "FAIL"),
        ([Deviation("a", float("inf"), 1.0)], "FAIL"),
        ([], "ERROR"),
    ],
)
def test_verdicts(tmp_path, deviations, verdict):
    (tmp_path / "x.json").write_text("{}")
    assert run_file(tmp_path / "x.json", lambda data: deviations).verdict == verdict


def test_compare():
    assert compare("x", np.array([1.0, 2.0]), np.array([1.0, 2.0])).deviation == 0
    assert compare("x", np.array([1.1]), np.array([1.0]), rtol=0.0, atol=0.1).deviation == pytest.approx(1)
    assert compare("x", np.array([11.0]), np.array([10.0]), rtol=0.1, atol=0.0).deviation == pytest.approx(1)
    assert compare("x", np.array([np.nan]), np.array([np.nan])).deviation == 0
    assert compare("x", np.array([np.nan]), np.array([1.0])).deviation == float("inf")
    with pytest.raises(ValueError, match=r"x: shape \(2,\), reference \(1,\)"):
        compare("x", np.zeros(2), np.zeros(1))
