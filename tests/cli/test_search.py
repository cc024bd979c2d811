"""The faces that a text describes best: against the towers themselves, from features, with bad files, in words."""

from __future__ import annotations

import csv
import json

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from farl_lightning.functional.zero_shot import class_features
from farl_lightning.models import FaceCLIP, ZeroShotClassifier
from farl_lightning.models.zero_shot import text_encoder
from farl_lightning.objectives import Contrastive, MaskedImage
from farl_lightning.tasks import PretrainTask
from farl_lightning.types import FaceSpec
from tests.tasks import tiny

SIZE = tiny.config().image.image_size
SPEC = FaceSpec(image_size=SIZE)
TEXT = "a smiling woman with glasses"


def save(task: PretrainTask, path) -> None:
    task.set_spec(SPEC)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)


@pytest.fixture
def album(here):
    """A checkpoint, seven pictures in two folders, one file that is no picture."""
    save(tiny.task({"contrastive": Contrastive()}), here / "last.ckpt")
    draws = np.random.default_rng(0)
    for number in range(7):
        folder = here / "album" / ("old" if number % 2 else "new")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 255, (SIZE, SIZE, 3)) // 4 + draws.integers(0, 190, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    (here / "album" / "bad.jpg").write_bytes(b"no picture")
    return here / "album"


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def search(run, *words):
    return run("search", TEXT, "--input", "album", "--ckpt_path", "last.ckpt", "--device", "cpu", *words)


def test_scores_are_the_cosines_of_the_towers(run, here, album):
    status, out, err = search(run, "--cropped", "--top", "4", "--batch_size", "3")
    assert status == 0, err
    clip = FaceCLIP.from_checkpoint(here / "last.ckpt").eval()
    query = class_features(text_encoder(clip), [[TEXT, f"a photo of {TEXT}"]])
    mean, std = torch.tensor(SPEC.mean).view(3, 1, 1), torch.tensor(SPEC.std).view(3, 1, 1)
    expected = {}
    for path in album.rglob("*.png"):
        pixels = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1) / 255
        with torch.no_grad():
            feature = clip(images=((pixels - mean) / std)[None]).image_features
        expected[path.relative_to(album).as_posix()] = torch.cosine_similarity(feature, query).item()
    table = rows(here / "search.csv")
    found = {row["key"]: float(row["score"]) for row in table if row["rank"]}
    assert found == pytest.approx(expected, abs=1e-4)
    assert list(found) == sorted(expected, key=expected.get, reverse=True)
    assert "not_an_image" in next(row["problem"] for row in table if row["key"] == "bad.jpg")
    assert "left out: not_an_image 1" in out
    assert "wrote search.png (4 of 7 faces)" in out
    with Image.open(here / "search.png") as grid:
        assert grid.width > 4 * SIZE


def test_embedded_folders_need_no_reading(run, here, album):
    search(run, "--cropped", "--output", "one.png")
    status, _, err = run(
        "embed", "--ckpt_path", "last.ckpt", "--input", "album", "--cropped", "--output", "f.npz", "--device", "cpu"
    )
    assert status == 0, err
    status, _, err = search(run, "--cropped", "--features", "f.npz", "--output", "two.png")
    assert status == 0, err
    one, two = (
        {r["key"]: float(r["score"]) for r in rows(here / name) if r["rank"]} for name in ("one.csv", "two.csv")
    )
    assert two == pytest.approx(one, abs=1e-5)
    assert list(two) == list(one)


def test_several_faces_of_a_photograph_are_found_apart(run, here, album):
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 120, 3), np.uint8)).save(album / "two.png")
    faces = {"two.png": [{"box": [5, 5, 40, 60]}, {"box": [60, 10, 110, 80]}]}
    (here / "faces.json").write_text(json.dumps(faces))
    status, _, err = run(
        "search", "a photo of a man", "--input", "album/two.png", "--ckpt_path", "last.ckpt", "--faces", "faces.json",
        "--crop", "box", "--output", "pictures/grid.png",
    )  # fmt: skip
    assert status == 0, err
    table = rows(here / "pictures" / "grid.csv")
    assert {row["key"] for row in table} == {"two.png#0", "two.png#1"}
    assert table[0]["score"] != table[1]["score"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("search", " ", "--input", "album", "--ckpt_path", "last.ckpt"), "the text is empty"),
        (("search", "x", "--input", "album", "--ckpt_path", "last.ckpt", "--top", "0"), "--top 0: give 1 or more"),
        (("search", "x", "--inptu", "album", "--ckpt_path", "last.ckpt", "--input", "a"), "Did you mean '--input'?"),
        (("search", "x", "--input", "album", "--ckpt_path", "mim.ckpt"), "needs a text tower"),
        (("search", "x", "--input", "album/bad.jpg", "--cropped", "--ckpt_path", "last.ckpt"), "not_an_image 1"),
        (("search", "x", "--input", "none", "--cropped", "--ckpt_path", "last.ckpt"), "no photograph at 'none'"),
    ],
)
def test_what_cannot_work(run, here, album, words, message):
    if "mim.ckpt" in words:
        config = tiny.config()
        config.text = None
        save(PretrainTask(config, {"m": MaskedImage(depth=1)}), here / "mim.ckpt")
    status, _, err = run(*words)
    assert status in (1, 2)
    assert message in err
    assert "Traceback" not in err


def test_classes_are_the_softmax_of_scaled_cosines():
    clip = tiny.task({"contrastive": Contrastive()}).model.clip.eval()
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    classifier = ZeroShotClassifier(clip, {"calm": ["a calm face"], "glad": ["a glad face", "joy"]}).eval()
    with torch.no_grad():
        features = class_features(text_encoder(clip), [["a calm face"], ["a glad face", "joy"]])
        cosines = torch.cosine_similarity(clip(images=images).image_features[:, None], features[None], dim=-1)
        expected = (clip.logit_scale.exp() * cosines).softmax(1)
        torch.testing.assert_close(classifier(images), expected)
    assert classifier.classes == ("calm", "glad")
    assert not any("text" in name for name, _ in classifier.named_parameters())
    with pytest.raises(ValueError, match="one phrasing or more for each class"):
        ZeroShotClassifier(clip, {"calm": []})
