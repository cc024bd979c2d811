"""The proof: every bar is found, a failing one stops nothing, the exit code tells."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks import prove, registry
from benchmarks.bars import quickstart, startup
from benchmarks.registry import ROOT, Bar, CommandError, Proof


def test_every_bar_is_found():
    names = set(registry.load_bars())
    assert {"parity", "resume", "import", "help", "drawn faces", "40,000 shards", "speed d: stream"} <= names
    assert sum(name.startswith("quickstart") for name in names) == 4
    assert sum(name.startswith("speed") for name in names) >= 5


def test_a_name_is_taken_once():
    registry.load_bars()
    with pytest.raises(ValueError, match="two bars named 'parity'"):
        registry.bar("parity", "again")(lambda proof: ("", True))


def run(monkeypatch, tmp_path, bars, *arguments):
    monkeypatch.setattr(prove, "load_bars", lambda: {bar.name: bar for bar in bars})
    code = prove.main(["--output", str(tmp_path), *arguments])
    return code, json.loads((tmp_path / "prove.json").read_text())["bars"]


def test_a_failing_bar_stops_nothing(monkeypatch, tmp_path, capsys):
    def broken(proof):
        raise RuntimeError("no\nluck")

    bars = [
        Bar("first", "g", broken),
        Bar("second", "g", lambda proof: ("2", True)),
        Bar("third", "g", lambda proof: ("why", None)),
    ]
    code, rows = run(monkeypatch, tmp_path, bars)
    assert code == 1
    assert [row["verdict"] for row in rows] == ["DOES NOT HOLD", "holds", "not applicable"]
    assert rows[0]["measured"] == "RuntimeError: no luck"
    assert "DOES NOT HOLD" in capsys.readouterr().out


def test_all_bars_hold(monkeypatch, tmp_path):
    bars = [Bar("first", "g", lambda proof: ("1", True)), Bar("second", "g", lambda proof: ("none here", None))]
    assert run(monkeypatch, tmp_path, bars)[0] == 0


def test_only_runs_the_bars_named(monkeypatch, tmp_path):
    bars = [Bar("speed a", "g", lambda proof: ("1", True)), Bar("parity", "g", lambda proof: ("1", False))]
    code, rows = run(monkeypatch, tmp_path, bars, "--only", "speed")
    assert code == 0
    assert [row["name"] for row in rows] == ["speed a"]


def test_an_interrupted_proof_goes_on(monkeypatch, tmp_path, capsys):
    measured = []

    def bar(name, holds, goal="g"):
        return Bar(name, goal, lambda proof: (measured.append(name) or name, holds))

    def stopped(proof):
        raise KeyboardInterrupt

    bars = [bar("a", True), bar("b", False), bar("c", None, "reported"), bar("d", None)]
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, tmp_path, [*bars, Bar("e", "g", stopped)])
    capsys.readouterr()
    code, rows = run(monkeypatch, tmp_path, [*bars, bar("e", True)], "--resume")
    assert (code, [row["name"] for row in rows]) == (1, list("abcde"))
    assert measured == [*"abcd", *"bde"]
    assert "\na " in capsys.readouterr().out  # in the table, too
    _, rows = run(monkeypatch, tmp_path, [*bars, bar("e", True)], "--resume", "--only", "b")
    assert [row["name"] for row in rows] == list("abce")  # what still stands, and what is new
    monkeypatch.setattr(prove, "source_digest", lambda: "other code")
    run(monkeypatch, tmp_path, bars, "--resume", "--only", "a")
    assert measured[-1] == "a"


def test_other_code_has_another_digest(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("1")
    digests = {prove.source_digest(tmp_path)}
    (tmp_path / "src/a.py").write_text("2")
    digests.add(prove.source_digest(tmp_path))
    (tmp_path / "src/a.txt").write_text("no code")
    digests.add(prove.source_digest(tmp_path))
    assert len(digests) == 2


def test_an_unknown_bar_gets_the_nearest_name(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="Did you mean 'parity'"):
        run(monkeypatch, tmp_path, [Bar("parity", "g", lambda proof: ("1", True))], "--only", "partiy")


def test_bars_share_one_run_and_its_failure(tmp_path):
    proof, calls = Proof(tmp_path), []

    def fail():
        calls.append(1)
        raise CommandError("broken")

    for _ in range(2):
        with pytest.raises(CommandError, match="broken"):
            proof.once("run", fail)
    assert len(calls) == 1
    assert proof.once("other", lambda: 3) == proof.once("other", lambda: 4) == 3


def test_a_command_leaves_its_output_and_its_last_line(tmp_path):
    finished = Proof(tmp_path).run("talk", [sys.executable, "-c", "print('said'); raise SystemExit('wrong number')"])
    assert finished.code == 1
    assert "said" in (tmp_path / "talk.log").read_text()
    with pytest.raises(CommandError, match="exit code 1: wrong number"):
        finished.check()


def test_a_command_that_hangs_is_stopped(tmp_path):
    with pytest.raises(CommandError, match="stopped after"):
        Proof(tmp_path).run("hang", [sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.5)


def results(**changes):
    """The part of results.json that the bars read, at values that hold just so."""
    values = {
        "val/image_to_text_r1": {"value": 0.5, "baseline": 1 / 256},
        "val/mim_accuracy": {"value": 0.2},
        "val/mim_majority": {"value": 0.1},
        "val/mim_majority_share": {"value": 0.15},
        **{f"val/zero_shot_{name}": {"difference": 0.11, "low": 0.01, "value": 0.7} for name in ("A", "B", "C")},
        # none of these is an attribute beside its majority, so none of them counts
        **{f"val/zero_shot_{name}": {"difference": 0.4, "low": 0.3, "value": 0.9} for name in ("A_balanced", "mean")},
    }
    target = {"class_path": "KMeansTokens", "init_args": {"vocab_size": 256}}
    model = {"objectives": {"masked_image": {"init_args": {"target": target}}}}
    settings = {"data": {"val_count": 256}, "model": model}
    return {"metrics": values | changes, "steps": 9, "settings": settings}


BARS = [quickstart.time, quickstart.retrieval, quickstart.masked_tokens, quickstart.zero_shot]


def judged(tmp_path, measure, seconds=299.0, short=False, **changes):
    proof = Proof(tmp_path, short)
    proof.once("quickstart", lambda: quickstart.Quickstart(seconds, results(**changes)))
    return measure(proof)[1]


@pytest.mark.parametrize("measure", BARS)
def test_quickstart_bars_hold_at_their_limits(tmp_path, measure):
    assert judged(tmp_path, measure) is True


@pytest.mark.parametrize("measure", BARS)
def test_a_short_quickstart_is_not_judged(tmp_path, measure):
    assert judged(tmp_path, measure, short=True) is None


@pytest.mark.parametrize(
    ("measure", "changes"),
    [
        (quickstart.time, {"seconds": 301.0}),
        (quickstart.retrieval, {"val/image_to_text_r1": {"value": 0.49, "baseline": 0.004}}),
        (quickstart.masked_tokens, {"val/mim_accuracy": {"value": 0.19}}),
        (quickstart.masked_tokens, {"val/mim_majority_share": {"value": 0.16}}),
        (quickstart.zero_shot, {"val/zero_shot_A": {"difference": 0.09, "low": 0.01, "value": 0.7}}),
        (quickstart.zero_shot, {"val/zero_shot_A": {"difference": 0.2, "low": -0.01, "value": 0.7}}),
    ],
)
def test_quickstart_bars_fail_below_their_limits(tmp_path, measure, changes):
    assert judged(tmp_path, measure, **changes) is False


def test_many_shards_are_links_in_the_native_layout(tmp_path):
    few, many = startup._write_shards(tmp_path, parts=3, per_part=5)
    found = sorted(path.relative_to(many).as_posix() for path in many.rglob("*.tar"))
    assert len(found) == 15
    assert found[0] == "split_00000/00000.tar"
    assert (many / found[0]).samefile(next(few.rglob("00000.tar")))


def test_naming_the_bars_imports_nothing_heavy():
    code = "import sys; from benchmarks.registry import load_bars; print(len(load_bars()), 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    count, heavy = found.stdout.split()
    assert int(count) > 20
    assert heavy == "False"
