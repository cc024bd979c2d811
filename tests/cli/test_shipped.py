from __future__ import annotations

import shutil

import pytest

from farl_lightning.cli import shipped
from farl_lightning.errors import ConfigError


def test_names_have_no_suffix_and_every_config_says_what_it_does():
    configs = shipped.shipped_configs()
    assert {"pretrain", "trainer/cpu", "trainer/ddp"} <= set(configs)
    assert list(configs) == sorted(configs)
    for name, path in configs.items():
        assert len(shipped.headline(path)) > 20, name


def test_a_file_on_disk_comes_first(here):
    assert shipped.find_config("pretrain.yaml") == shipped.shipped_configs()["pretrain"]
    (here / "pretrain.yaml").write_text("# mine\n")
    assert shipped.find_config("pretrain").read_text() == "# mine\n"


@pytest.mark.parametrize("name", ["trainer/cpu", "trainer/cpu.yaml"])
def test_shipped_configs_are_found_from_any_folder(here, name):
    assert shipped.find_config(name) == shipped.shipped_configs()["trainer/cpu"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("pretrian", "Did you mean 'pretrain'?"), ("cpu", "Did you mean 'trainer/cpu'?"), ("fak.yaml", "'fake'?")],
)
def test_the_nearest_config_is_named(here, name, text):
    with pytest.raises(ConfigError) as error:
        shipped.find_config(name)
    assert text in str(error.value)


def test_a_wheel_has_its_configs_inside_the_package(tmp_path, monkeypatch):
    package = tmp_path / "farl_lightning"
    (package / "cli").mkdir(parents=True)
    monkeypatch.setattr(shipped, "__file__", str(package / "cli" / "shipped.py"))
    shipped.shipped_folder.cache_clear()
    try:
        with pytest.raises(ConfigError, match="reinstall"):
            shipped.shipped_folder()
        shutil.copytree(shipped_source, package / "configs")
        assert shipped.find_config("trainer/gpu") == package / "configs/trainer/gpu.yaml"
    finally:
        shipped.shipped_folder.cache_clear()


shipped_source = shipped.shipped_folder()


def test_listing_and_showing(run):
    status, out, _ = run("configs")
    assert status == 0
    assert "trainer/ddp" in out
    assert len(out.splitlines()) == len(shipped.shipped_configs())
    status, out, _ = run("configs", "show", "trainer/cpu")
    assert status == 0
    assert out.startswith("# Overlay: one process on the CPU")
    status, _, err = run("configs", "shw")
    assert status == 2
    assert "configs show NAME" in err
