"""Face parsing: scores in source pixels against a count by hand, views on pixels, and learning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from farl_lightning.functional.restore import restore_labels
from farl_lightning.losses import ParsingLoss
from farl_lightning.tasks import OptimConfig, ParsingTask
from tests.tasks import faces, tiny


class ByColour(nn.Module):
    """Tells classes by colour; "left" and "right" by the side of the picture on which a square lies, as people do."""

    def __init__(self, confused: bool = False) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.confused = confused
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        skin, one, other = (images[:, channel] > 0.4 for channel in range(3))
        eye = (one | other) & ~skin
        half = images.shape[-1] // 2
        side = torch.zeros_like(eye)
        side[..., :half] = True
        labels = torch.where(eye & side, 2, torch.where(eye, 3, torch.where(skin, 1, 0)))
        if self.confused:
            labels = torch.where(labels == 3, 2, labels)
        return 5 * nn.functional.one_hot(labels, 5).permute(0, 3, 1, 2).float() + self.anchor


def oracle(task, **options):
    task.set_spec(faces.SPEC)
    task.model = ByColour(**options)
    return task


def by_hand(confused: bool) -> tuple[dict[str, float], np.ndarray]:
    """F1 from sets of pixels of the six faces that count."""
    model, both = ByColour(confused), np.zeros((3, 5), np.int64)
    for index in range(6):
        face = faces.Faces(7)[index]
        labels = restore_labels(model(face["image"][None])[0].detach(), face["matrix"], tuple(face["size"].tolist()))
        for label in range(5):
            mine, true = labels == label, face["source_mask"] == label
            both[:, label] += [int((mine & true).sum()), int(mine.sum()), int(true.sum())]
    hits, predicted, real = both
    counts = zip(faces.SPEC.classes, hits, predicted, real, strict=True)
    scores = {name: 200 * both_ways / (p + r) for name, both_ways, p, r in counts if p + r}
    return scores, real


@pytest.mark.parametrize("confused", [False, True])
def test_scores_in_source_pixels_without_the_repeat(tmp_path, confused):
    task = oracle(faces.parser(), confused=confused)
    (found,) = tiny.trainer(tmp_path).test(task, datamodule=faces.FaceData(), verbose=False)
    scores, pixels = by_hand(confused)
    for name, score in scores.items():
        assert found[f"test/f1_{name}"] == pytest.approx(score, abs=1e-4)
    foreground = [score for name, score in scores.items() if name != "background"]
    assert found["test/f1_mean"] == pytest.approx(np.mean(foreground), abs=1e-4)
    assert "test/f1_hat" not in found  # no pixel of it, neither true nor predicted
    assert found["test/absent_classes"] == 1
    rows = task.tables["per_class"]
    assert [row["class"] for row in rows] == list(faces.SPEC.classes)
    assert [row["pixels"] for row in rows] == pixels.tolist()
    assert rows[2]["f1"] == pytest.approx(scores["left"])
    assert task.findings["confusion"].sum(1).tolist() == pixels.tolist()
    if confused:
        assert task.findings["confusion"][3, 2] > 100
        assert scores["right"] == 0
    else:
        assert min(scores.values()) > 85


def test_metrics_start_anew_and_validation_loss_leaves_the_repeat_out(tmp_path):
    task = oracle(faces.parser())
    (first,) = tiny.trainer(tmp_path).validate(task, datamodule=faces.FaceData(), verbose=False)
    (second,) = tiny.trainer(tmp_path).validate(task, datamodule=faces.FaceData(), verbose=False)
    assert first == second
    losses = []
    for index in range(6):
        face = faces.Faces(7)[index]
        losses.append(ParsingLoss()(task.model(face["image"][None]), face["mask"][None])[0].item())
    assert first["val/loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_crops_are_judged_where_there_is_no_source(tmp_path):
    task = oracle(faces.parser())
    (found,) = tiny.trainer(tmp_path).test(task, datamodule=faces.FaceData(source=False), verbose=False)
    assert found["test/f1_mean"] == 100
    assert found["test/accuracy"] == 100


def test_views_are_used_in_the_test_alone_and_the_mirror_swaps_sides(tmp_path):
    task = oracle(faces.parser(tta_flip=True, tta_scales=[0.75]))
    run = tiny.trainer(tmp_path)
    run.validate(task, datamodule=faces.FaceData(), verbose=False)
    assert len(task.model.seen) == 2
    task.model.seen.clear()
    (found,) = run.test(task, datamodule=faces.FaceData(source=False), verbose=False)
    assert len(task.model.seen) == 2 * 4
    plain, mirrored, small, _ = task.model.seen[:4]
    assert torch.equal(plain.flip(-1), mirrored)
    assert torch.allclose(small[:, :, 0, 0], torch.tensor(-2.0))  # black: (0 - 0.5) / 0.25
    assert found["test/f1_left"] > 90  # would be half wrong if the mirror did not swap left and right
    task.views = task.views[1:2]
    (mirror,) = run.test(task, datamodule=faces.FaceData(source=False), verbose=False)
    assert mirror["test/f1_left"] == mirror["test/f1_right"] == 100


def test_predictions_are_labels_of_whole_pictures(tmp_path):
    task = oracle(faces.parser())
    batches = tiny.trainer(tmp_path).predict(task, datamodule=faces.FaceData())
    assert [key for batch in batches for key in batch["key"]] == [f"face-{index}" for index in range(7)]
    assert torch.cat([batch["valid"] for batch in batches]).tolist() == [True] * 6 + [False]
    for index, labels in enumerate(labels for batch in batches for labels in batch["labels"]):
        truth = faces.Faces(7)[index]["source_mask"]
        assert labels.shape == truth.shape
        assert labels.dtype == torch.uint8
        assert (labels == truth).float().mean() > 0.97


def test_boundaries_are_an_option(tmp_path):
    task = oracle(faces.parser(boundary=True))
    (found,) = tiny.trainer(tmp_path).test(task, datamodule=faces.FaceData(source=False), verbose=False)
    assert found["test/boundary_f1_mean"] == 100
    (validated,) = tiny.trainer(tmp_path).validate(task, datamodule=faces.FaceData(), verbose=False)
    assert "val/boundary_f1_mean" not in validated


def test_previews_are_labels_of_crops():
    task = oracle(faces.parser())
    face = faces.Faces(1)[0]
    assert torch.equal(task.preview({"image": face["image"][None]})["labels"][0], face["mask"])


def test_a_parser_learns(tmp_path):
    torch.manual_seed(0)
    task = ParsingTask(replace(faces.network(), channels=32), optim=OptimConfig(lr=1e-2))
    run = tiny.trainer(tmp_path, max_steps=80, limit_val_batches=0)
    run.fit(task, datamodule=faces.FaceData())
    (found,) = run.test(task, datamodule=faces.FaceData(), verbose=False)
    assert found["test/f1_mean"] > 70  # the squares, too: skin alone makes a third
