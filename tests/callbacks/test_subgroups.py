"""Results by subgroup of every kind of task: the right faces in the right groups, files, errors, several processes."""

from __future__ import annotations

import csv
import math
import tempfile

import pytest
import torch
from torch.utils.data import DataLoader

from farl_lightning.callbacks import SubgroupResults
from farl_lightning.callbacks.subgroups import batch_groups
from farl_lightning.errors import ConfigError
from farl_lightning.tasks.parsing import face_f1
from farl_lightning.testing.distributed import run_distributed
from farl_lightning.types import FaceSpec
from farl_lightning.visualization import subgroup_picture
from tests.tasks import faces, labelled, people, tiny
from tests.tasks.test_dense_ranks import trainer as rank_trainer

COLUMNS = ["mood", "age", "Red", "mood x Red"]
BINS = {"age": [30.0, 45.0]}


def evaluate(kind: str, folder, stage: str = "test", **changes):
    task = labelled.task(kind)
    callback = SubgroupResults(COLUMNS, BINS, min_faces=1)
    run = tiny.trainer(folder, callbacks=[callback], **changes)
    (found,) = getattr(run, stage)(task, datamodule=labelled.LabelledData(), verbose=False)
    return task, callback._tables, found


def read(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", labelled.KINDS)
def test_every_face_is_judged_in_its_group(tmp_path, kind, capsys):
    task, tables, found = evaluate(kind, tmp_path)
    crops = labelled.collate_faces([labelled.Crops(10)[index] for index in range(10)])  # the eleventh is a repeat
    with torch.no_grad():
        answers = task(crops["image"])
    outcomes = task.judge_each(answers, crops)
    groups = {"Red": ["not Red", "Red"] * 5}
    moods = [("calm", "glad", "sad")[index % 3] if index % 5 < 4 else "" for index in range(10)]
    groups |= {
        "mood": moods,
        "mood x Red": [f"{m} x {r}" if m else "" for m, r in zip(moods, groups["Red"], strict=True)],
    }
    groups["age"] = [{"calm": "<30", "glad": "30-45", "sad": ">=45", "": ""}[mood] for mood in moods]
    for column, names in groups.items():
        rows = {row["group"]: row for row in tables[column].rows}
        for name in set(names):
            own = [float(outcomes[i]) for i in range(10) if names[i] == name and not outcomes[i].isnan()]
            assert rows.get(name or "unknown", {"faces": 0})["faces"] == len(own)
            if own:
                assert rows[name or "unknown"]["mean"] == pytest.approx(sum(own) / len(own), abs=1e-5)
    judged = [float(value) for value in outcomes if not value.isnan()]
    overall = found[f"test/{task.outcome_name}"]
    if kind != "attributes":  # whose mean is over attributes first
        assert overall == pytest.approx(sum(judged) / len(judged), abs=1e-5)
    gap = tables["Red"].gap
    assert found[f"test/{task.outcome_name}_gap_mood_x_Red"] == pytest.approx(tables["mood x Red"].gap.value, abs=1e-5)
    entry = task.references[f"test/{task.outcome_name}_gap_Red"]
    assert (entry["baseline"], entry["kind"]) == (gap.chance, "chance")
    worst = (max if kind == "age" else min)(row["mean"] for row in tables["Red"].rows)
    assert found[f"test/{task.outcome_name}_worst_Red"] == pytest.approx(worst, abs=1e-5)
    assert task.outcomes is not None
    assert not task.wants_outcomes  # the next evaluation pays nothing
    assert f"worst {task.outcome_name}" in capsys.readouterr().out


def test_tables_and_picture_are_written(tmp_path):
    _, tables, _ = evaluate("classification", tmp_path)
    rows = read(tmp_path / "test_subgroups.csv")
    assert [row["group"] for row in rows if row["column"] == "age"] == [r["group"] for r in tables["age"].rows]
    assert {row["column"] for row in rows} == set(COLUMNS)
    gaps = {row["column"]: row for row in read(tmp_path / "test_gaps.csv")}
    assert float(gaps["Red"]["gap"]) == tables["Red"].gap.value
    assert (tmp_path / "test_subgroups.png").read_bytes().startswith(b"\x89PNG")


def test_validate_is_split_and_training_is_not(tmp_path):
    _, tables, found = evaluate("age", tmp_path, "validate")
    assert found["val/mae_gap_Red"] == pytest.approx(tables["Red"].gap.value, abs=1e-5)
    assert (tmp_path / "validate_subgroups.csv").is_file()
    callback = SubgroupResults(["no such column"])
    run = tiny.trainer(tmp_path / "fit", callbacks=[callback], val_check_interval=1)
    run.fit(labelled.task("age"), datamodule=labelled.LabelledData())
    assert not (tmp_path / "fit" / "validate_subgroups.csv").exists()


def test_a_trial_writes_nothing(tmp_path, capsys):
    evaluate("age", tmp_path, fast_dev_run=True)
    assert "split by" in capsys.readouterr().out
    assert not list(tmp_path.glob("test_*"))


class GroupedFaces(faces.FaceData):
    """Faces with subgroups of the data's own; those of the fourth face are not known."""

    def test_dataloader(self) -> DataLoader:
        def _collate(samples: list[dict]) -> dict:
            numbers = [int(sample["key"].rpartition("-")[2]) for sample in samples]
            side = ["" if n == 3 else ("left", "right")[n % 2] for n in numbers]
            return {**faces.collate(samples), "groups": {"side": side, "place": ["a"] * len(samples)}}

        return DataLoader(faces.Faces(7, self.invalid, self.source), batch_size=4, collate_fn=_collate)


@pytest.mark.parametrize("make", [faces.parser, faces.aligner])
def test_parsing_and_alignment_are_split_too(tmp_path, make):
    task, callback = make(), SubgroupResults(min_faces=1)
    run = tiny.trainer(tmp_path, callbacks=[callback])
    (found,) = run.test(task, datamodule=GroupedFaces(), verbose=False)
    tables = callback._tables
    assert list(tables) == ["side", "place"]  # all that the data have
    sizes = {row["group"]: row["faces"] for row in tables["side"].rows}
    assert sizes == {"left": 3, "right": 2, "unknown": 1}  # the seventh is a repeat
    if make is faces.aligner:
        assert tables["side"].mean == pytest.approx(found["test/nme"], rel=1e-6)
        assert tables["side"].worst in ("left", "right")
    else:
        assert 0 <= tables["side"].mean <= 100
        # pixels of all pictures together weigh otherwise, but of one picture alone they are the same
        alone = SubgroupResults(min_faces=1)
        data = GroupedFaces()
        data.test_dataloader = one_face
        (single,) = tiny.trainer(tmp_path, callbacks=[alone]).test(task, datamodule=data, verbose=False)
        assert alone._tables["side"].mean == pytest.approx(single["test/f1_mean"], rel=1e-6)


def one_face() -> DataLoader:
    return DataLoader(
        faces.Faces(1),
        batch_size=1,
        collate_fn=lambda samples: {**faces.collate(samples), "groups": {"side": ["left"]}},
    )


def test_f1_of_one_picture_by_hand():
    target = torch.tensor([[0, 1, 1, 255], [0, 2, 2, 2]])
    pred = torch.tensor([[0, 1, 2, 1], [0, 2, 2, 0]])
    # class 1: 1 right of 2 and 1 named; class 2: 2 right of 3 and 3 named; class 3 does not occur
    assert face_f1(pred, target, 4).item() == pytest.approx(100 * (2 / 3 + 4 / 6) / 2)
    assert math.isnan(face_f1(torch.zeros(2, 2).long(), torch.zeros(2, 2).long(), 4).item())


def on_rank() -> dict[str, float]:
    import tempfile

    torch.set_num_threads(1)
    task = labelled.task("classification")
    with tempfile.TemporaryDirectory() as folder:
        run = rank_trainer(folder)
        run.callbacks.append(SubgroupResults(COLUMNS, BINS, min_faces=1))
        (found,) = run.test(task, datamodule=labelled.LabelledData(), verbose=False)
    return {name: value for name, value in found.items() if "worst" in name or "gap" in name}


def test_two_processes_compare_the_groups_of_all(capsys):
    (alone,) = run_distributed(on_rank, 1)
    assert len(alone) == 2 * len(COLUMNS)
    for found in run_distributed(on_rank, 2):
        assert found == pytest.approx(alone, abs=1e-5)


SIDES = ("left", "right", "")


class GroupedPeople(people.PeopleData):
    """Two lists of the same pairs; whole people are of a side, the fourth is of one that nobody knows."""

    def test_dataloader(self) -> list[DataLoader]:
        loaders = super().test_dataloader()
        for loader in loaders:
            loader.collate_fn = collate_sides
        return loaders


def side(key: str) -> str:
    person = int(key.rpartition("-")[2]) // people.PICTURES
    return "" if person == 3 else SIDES[person % 2]


def collate_sides(samples: list[dict]) -> dict:
    return {**labelled.collate_faces(samples), "groups": {"side": [side(sample["key"]) for sample in samples]}}


def judge_people(columns: list[str] | None = None):
    torch.set_num_threads(1)
    task, callback = people.task(), SubgroupResults(columns, min_faces=1)
    with tempfile.TemporaryDirectory() as folder:
        run = rank_trainer(folder)
        run.callbacks.append(callback)
        (found, *_) = run.test(task, datamodule=GroupedPeople(), verbose=False)
    return callback._tables, {name: value for name, value in found.items() if "worst" in name or "gap" in name}


def test_verification_is_split_by_the_groups_of_both_faces():
    tables, found = judge_people()
    assert list(tables) == ["side", "list"]
    rows = {row["group"]: row for row in tables["side"].rows}
    pairs = people.trial().pairs
    task = people.task()
    with tempfile.TemporaryDirectory() as folder:
        (whole, *_) = tiny.trainer(folder).test(task, datamodule=GroupedPeople(), verbose=False)
    groups = [(side(f"-{first}"), side(f"-{second}")) for first, second in zip(pairs.first, pairs.second, strict=True)]
    expected = {name: 2 * sum(group == (name, name) for group in groups) for name in SIDES[:2]}
    expected["unknown"] = 2 * sum("" in group for group in groups)
    expected["different groups"] = 80 - sum(expected.values())
    assert {name: row["faces"] for name, row in rows.items()} == expected
    assert min(expected.values()) > 0
    assert tables["side"].mean == pytest.approx(whole["test/accuracy_mean"], abs=1e-4)
    assert {tables["side"].worst, tables["side"].best} == {"left", "right"}
    assert [row["group"] for row in tables["list"].rows] == ["cfp", "lfw"]
    assert {row["faces"] for row in tables["list"].rows} == {40}
    assert found["test/accuracy_gap_list"] == 0
    assert judge_people(["list"])[0].keys() == {"list"}


def sides_on_rank() -> dict[str, float]:
    return judge_people()[1]


def test_two_processes_split_pairs_alike():
    (alone,) = run_distributed(sides_on_rank, 1)
    assert len(alone) == 4
    for found in run_distributed(sides_on_rank, 2):
        assert found == pytest.approx(alone, abs=1e-5)


def test_what_cannot_work(tmp_path):
    with pytest.raises(ConfigError, match="each once"):
        SubgroupResults(["a", "a"])
    with pytest.raises(ConfigError, match="min_faces=0"):
        SubgroupResults(min_faces=0)
    with pytest.raises(ConfigError, match="bins of 'age' must be rising"):
        SubgroupResults(["age"], {"age": [30, 20]})
    spec = FaceSpec(attributes=("Male",), label_names={"age": (), "mood": ("calm", "glad")})
    batch = {"groups": {"skin": ["dark"]}, "labels": {"age": torch.tensor([3.0]), "attributes": torch.tensor([[-1]])}}
    assert batch_groups(batch, ["skin x Male"], {}, spec)["Male"] == [""]
    with pytest.raises(ConfigError, match="'age' is a number; give bins"):
        batch_groups(batch, ["age"], {}, spec)
    with pytest.raises(ConfigError, match=r"no column 'skn'\. Did you mean 'skin'"):
        batch_groups(batch, ["skn"], {}, spec)
    run = tiny.trainer(tmp_path, callbacks=[SubgroupResults()])
    with pytest.raises(ConfigError, match="the data have no subgroups"):
        run.test(labelled.task("age"), datamodule=labelled.LabelledData(), verbose=False)


def test_a_picture_without_groups_is_drawn():
    assert subgroup_picture({"skin": []}).shape[2] == 3
