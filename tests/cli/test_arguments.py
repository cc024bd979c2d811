from __future__ import annotations

import pytest

from farl_lightning.cli.arguments import Raw, UsageError, read_settings


def test_files_merge_in_order_and_flags_win(here):
    (here / "b.yaml").write_text("model:\n  init_args:\n    clip: {embed_dim: 5}\ntrainer:\n  max_steps: 9\n")
    settings = read_settings("fit", ["--config", "fake", "-c", "b.yaml", "--model.clip.embed_dim=6"])
    assert settings.tree["trainer"]["max_steps"] == 9
    assert settings.tree["trainer"]["devices"] == 1
    assert settings.tree["model"]["init_args"]["clip"]["embed_dim"] == "6"
    assert settings.place(("trainer", "max_steps")) == "b.yaml:5"
    assert settings.place(("trainer", "devices")) == "fake.yaml:5"
    assert settings.place(("model", "init_args", "clip", "embed_dim")) == "--model.clip.embed_dim"


def test_lists_are_replaced_or_appended_to(here):
    (here / "more.yaml").write_text("trainer:\n  callbacks+:\n    - class_path: Timer\n")
    callbacks = read_settings("fit", ["--config=fake", "--config=more"]).tree["trainer"]["callbacks"]
    assert [callback["class_path"] for callback in callbacks] == ["ModelCheckpoint", "Timer"]
    settings = read_settings(
        "fit", ["--config=fake", "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "x"]
    )
    assert settings.tree["trainer"]["callbacks"][1] == {"class_path": "EarlyStopping", "init_args": {"monitor": "x"}}
    assert settings.place(("trainer", "callbacks", 1)) == "--trainer.callbacks+"
    (here / "other.yaml").write_text("trainer:\n  callbacks: []\n")
    assert read_settings("fit", ["--config=fake", "--config=other"]).tree["trainer"]["callbacks"] == []


def test_flags_leave_out_init_args_at_any_depth(here):
    flags = ["--model.objectives.contrast.weight", "0.5", "--model.objectives.masked.target.normalize", "false"]
    objectives = read_settings("fit", ["--config=fake", *flags]).tree["model"]["init_args"]["objectives"]
    assert objectives["contrast"]["init_args"]["weight"] == "0.5"
    assert objectives["masked"]["init_args"]["target"]["init_args"]["normalize"] == "false"


def test_another_class_keeps_the_arguments_as_inherited(here):
    settings = read_settings("fit", ["--config=fake", "--model", "OtherTask"])
    assert settings.tree["model"]["class_path"] == "OtherTask"
    assert ("model", "init_args", "clip") in settings.inherited
    assert settings.place(("model", "class_path")) == "--model"


def test_negative_numbers_are_values_and_switches_take_none(here):
    settings = read_settings("fit", ["--trainer.max_steps", "-1", "--ckpt_override", "--seed_everything", "3"])
    assert settings.tree["trainer"]["max_steps"] == "-1"
    assert settings.tree["ckpt_override"] == "true"
    assert settings.argv == ["--trainer.max_steps=-1", "--ckpt_override", "--seed_everything=3"]


def test_mappings_and_lists_of_a_flag_are_read_at_once(here):
    settings = read_settings("fit", ["--config=fake", "--model.clip", "{embed_dim: 7}", "--model.names", "[a, b]"])
    assert settings.tree["model"]["init_args"]["clip"] == {"embed_dim": 7}
    assert settings.tree["model"]["init_args"]["names"] == ["a", "b"]


def test_raw_values_load_as_yaml_and_text_stays_text():
    assert Raw("3").load() == 3
    assert Raw("a: b: c").load() == "a: b: c"


def test_everything_wrong_is_told_at_once(here):
    (here / "broken.yaml").write_text("trainer:\n  max_steps: 2\n  a: [1,\n")
    (here / "list.yaml").write_text("- a\n")
    words = ["--config", "nothing", "fake.yaml", "--config", "broken", "--config=list", "--model.x"]
    with pytest.raises(UsageError) as error:
        read_settings("fit", words)
    text = str(error.value).splitlines()
    assert len(text) == 5
    assert "config 'nothing' is neither a file nor a shipped config" in text[0]
    assert text[1] == "'fake.yaml' stands alone. Did you mean --config fake.yaml?"
    assert text[2].startswith("broken.yaml:4: not valid YAML")
    assert text[3].startswith("list.yaml: a config is a mapping")
    assert text[4] == "--model.x: a value is missing"


def test_settings_of_a_checkpoint_lie_below(here):
    settings = read_settings("fit", ["--model.clip.embed_dim", "6"])
    saved = {"class_path": "m.Task", "init_args": {"clip": {"embed_dim": 4}, "names": ["a"]}}
    settings.lay_below("model", saved, "x.ckpt")
    assert settings.tree["model"]["init_args"] == {"clip": {"embed_dim": "6"}, "names": ["a"]}
    assert settings.place(("model", "init_args", "names")) == "x.ckpt"
    assert settings.place(("model", "init_args", "clip", "embed_dim")) == "--model.clip.embed_dim"
    assert saved["init_args"]["clip"] == {"embed_dim": 4}


def test_print_config_leaves_out_what_is_unset(here):
    settings = read_settings("fit", ["--config=fake", "--print_config"])
    assert settings.informs
    assert settings.argv[-1] == "--print_config=skip_null"
