"""Tables and page: means, deviations, gains, published rows, failures, and nothing that could be executed."""

from __future__ import annotations

import base64
import csv
import json
import re
import statistics
from html.parser import HTMLParser

import pytest

from farl_lightning.benchmark import run_benchmark, summarise, write_reports
from farl_lightning.benchmark.runner import pretrainings_of, records_of
from farl_lightning.benchmark.summary import average, best, deviation
from farl_lightning.errors import DataError
from tests.benchmark.fakes import TREE, FakeWorker, make

EVIL = '<script>alert("x")</script>|`*'


def reports(benchmark, worker):
    """Measure, and return the text of every file."""
    run_benchmark(benchmark, worker, lambda line: None)
    known = records_of(benchmark, worker), pretrainings_of(benchmark, worker)
    return {name: path.read_text() for name, path in write_reports(benchmark, *known, {"torch": "2.0"}).items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return reports(make(tmp_path_factory.mktemp("reports")), FakeWorker())


def test_means_and_deviations():
    values = [1.0, 2.5, 7.25]
    assert average(values) == pytest.approx(statistics.mean(values), abs=1e-12)
    assert deviation(values) == pytest.approx(statistics.stdev(values), abs=1e-12)
    assert (average([]), deviation([1.0])) == (None, None)


def test_seeds_are_joined_and_gains_are_paired(tmp_path):
    benchmark, worker = make(tmp_path), FakeWorker()
    worker.fails["parsing.plain.frozen.10pct.seed1"] = DataError("gone")
    run_benchmark(benchmark, worker, lambda line: None)
    found = {
        (entry.task.name, entry.encoder.name, entry.labels): entry
        for entry in summarise(benchmark, records_of(benchmark, worker))
    }
    good, plain = found["parsing", "good", 0.1], found["parsing", "plain", 0.1]
    assert (good.mean, good.std, list(good.gains)) == (4.5, pytest.approx(0.5**0.5), [3.0])  # seed 0 alone has both
    assert (plain.mean, plain.std, plain.seeds, list(plain.reasons)) == (1.0, None, 2, ["gone"])
    assert list(found["age", "good", 1.0].gains) == [-3.0, -3.0]  # a larger error is worse
    assert best([good, plain]) is good
    age = [entry for key, entry in found.items() if key[0] == "age" and key[2] == 1.0]
    assert best(age).encoder.name == "plain"


def test_markdown_shows_ours_beside_published_rows(files):
    text = files["table.md"]
    assert "## Parsing: f1 (%), higher is better" in text
    assert "| Good one | **4.50 ± 0.71** | **13.50 ± 0.71** |  |" in text
    assert "| plain | 1.50 ± 0.71 | 10.50 ± 0.71 |  |" in text
    assert "| FaRL (published on LaPa) |  | 93.88 |  |" in text
    assert "| Older (published) |  |  | 9.5 (recalled) |" in text
    assert "fine-tuned, 1 % labels" in text
    assert "lower is better" in text
    assert "| Good one | 3 | 7 |" in text  # seconds and steps of the pretraining
    assert "over 2 seeds (0, 1)" in text


def test_published_numbers_of_one_model_share_a_row(tmp_path):
    rows = [{"model": "FaRL", "value": 91.39, "method": "frozen"}, {"model": "FaRL", "value": 90.99, "labels": 0.1}]
    rows[1]["method"] = "frozen"
    text = reports(make(tmp_path, tasks={"p": {**TREE["tasks"]["parsing"], "reference": rows}}), FakeWorker())
    assert "| FaRL (published) | 90.99 | 91.39 |" in text["table.md"]


def test_csv_and_json_hold_the_same_rows(files):
    rows = list(csv.DictReader(files["table.csv"].splitlines()))
    plain = json.loads(files["table.json"])
    assert len(rows) == len(plain["rows"]) == 8 + 2
    first = rows[0]
    assert (first["task"], first["encoder"], first["method"], first["labels"]) == ("parsing", "good", "frozen", "0.1")
    assert (float(first["mean"]), float(first["std"]), float(first["gain"])) == (4.5, pytest.approx(0.5**0.5), 3.0)
    published = [row for row in rows if row["published"] == "True"]
    assert [row["mean"] for row in published] == ["93.88", "9.5"]
    assert published[0]["source"] == "LaPa; confirmed; its log"
    assert len(plain["cells"]) == 16
    assert plain["versions"] == {"torch": "2.0"}


def test_one_seed_has_no_deviation(tmp_path):
    text = reports(make(tmp_path, seeds=[3]), FakeWorker())["table.md"]
    assert "One seed (3): no deviation is known." in text
    assert "**7.00**" in text
    assert "±" not in text


class Page(HTMLParser):
    """Collects tags, attributes and the text of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.handlers += [name for name in values if name.startswith("on")]
        self.links += [values[name] for name in ("href", "src") if name in values]
        if tag == "img":
            self.pictures.append(values["src"])


def test_the_page_needs_nothing_else(files):
    found = Page(files["index.html"])
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert len(found.pictures) == 2  # one for each task
    assert all(link.startswith("data:image/svg+xml;base64,") for link in found.links)
    for picture in found.pictures:
        drawing = base64.b64decode(picture.partition(",")[2]).decode()
        assert "<svg" in drawing
        assert "<script" not in drawing
    assert "16 of 16 cells have a result" in files["index.html"]
    assert "+3.00 ± 0.00" in files["index.html"]  # gains over the baseline
    assert "-3.00 ± 0.00" in files["index.html"]
    assert "torch 2.0" in files["index.html"]


def test_failures_are_shown_with_their_reason(tmp_path):
    worker = FakeWorker()
    for seed in (0, 1):
        worker.fails[f"parsing.plain.frozen.100pct.seed{seed}"] = DataError("the disk is full")
    worker.fails["parsing.plain.frozen.10pct.seed0"] = DataError("a face is missing")
    files = reports(make(tmp_path), worker)
    assert "| plain | 2.00 (1 of 2 failed) | failed |" in files["table.md"]
    reason = "failed: plain, frozen encoder, 100 % labels: the disk is full"
    assert reason in files["table.md"]
    assert reason in files["index.html"]
    assert '<td class="bad" title="the disk is full">failed</td>' in files["index.html"]
    assert "a face is missing" in files["index.html"]


def test_cells_that_were_not_run_are_shown(tmp_path):
    worker = FakeWorker()
    run_benchmark(make(tmp_path, seeds=[0], labels=[0.1]), worker, lambda line: None)
    benchmark = make(tmp_path)
    files = write_reports(benchmark, records_of(benchmark, worker), pretrainings_of(benchmark, worker), {})
    text = files["table.md"].read_text()
    assert "4.00 (1 of 2 seeds)" in text
    assert "| not run |" in text
    assert "4 of 16 cells have a result" in files["index.html"].read_text()


def test_whatever_is_given_is_escaped(tmp_path):
    tree = {**TREE["tasks"]["parsing"], "title": EVIL, "unit": EVIL}
    encoders = {"good": {"title": EVIL, "pretrain": {"config": "p.yaml"}}, "plain": None}
    worker = FakeWorker()
    worker.fails["parsing.plain.frozen.10pct.seed0"] = DataError(EVIL)
    benchmark = make(tmp_path, title=EVIL, about=EVIL, tasks={"parsing": tree}, encoders=encoders)
    files = reports(benchmark, worker)
    found = Page(files["index.html"])
    assert "script" not in found.tags
    assert not found.handlers
    assert "<script" not in files["table.md"]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in files["table.md"].splitlines() if line.startswith("|")}
    assert widths == {5, 4}  # four columns of the task, three of the pretraining: no text added one


def test_a_formula_does_not_reach_a_spreadsheet(tmp_path):
    tree = {**TREE["tasks"]["parsing"], "reference": [{"model": "=1+1", "value": 1.0}]}
    text = reports(make(tmp_path, tasks={"parsing": tree}), FakeWorker())["table.csv"]
    assert "'=1+1" in text
