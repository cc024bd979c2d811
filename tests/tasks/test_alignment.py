"""Face alignment: errors in source pixels against a sum by hand, subsets, views on points, and learning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from farl_lightning.errors import ConfigError
from farl_lightning.losses import AlignmentLoss
from farl_lightning.models.dense import AlignmentOutput
from farl_lightning.tasks import AlignmentTask, OptimConfig
from tests.tasks import faces, tiny

SHIFT = 1.6  # pixels of the crop, to the right: two pixels of the source


class Shifted(nn.Module):
    """Knows the landmarks of every face and is off by some pixels, towards the right of what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.known = [faces.Faces(8)[index] for index in range(8)]

    def forward(self, images: Tensor) -> AlignmentOutput:
        points = torch.stack([self._find(image) for image in images])
        normalised = (points + 0.5) / images.shape[-1] + self.anchor
        return AlignmentOutput(normalised, torch.zeros(len(images), 19, 8, 8) + self.anchor)

    def _find(self, image: Tensor) -> Tensor:
        for face in self.known:
            if torch.equal(image, face["image"]):
                return face["landmarks"] + torch.tensor([SHIFT, 0.0])
            if torch.equal(image, face["image"].flip(-1)):
                order = list(range(19))
                order[6], order[11], order[7], order[10] = 11, 6, 10, 7
                points = face["landmarks"] * torch.tensor([-1.0, 1.0]) + torch.tensor([faces.SIZE - 1.0, 0.0])
                return points[order] + torch.tensor([SHIFT, 0.0])
        raise AssertionError("an image that is neither a face nor its mirror image")


def oracle(**changes) -> AlignmentTask:
    task = faces.aligner(**changes)
    task.set_spec(faces.SPEC)
    task.model = Shifted()
    return task


def distances() -> list[float]:
    """Between the outer corners of the eyes, of the six faces that count, in source pixels."""
    landmarks = [faces.Faces(7)[index]["source_landmarks"] for index in range(6)]
    return [float((points[6] - points[11]).norm()) for points in landmarks]


def test_errors_in_source_pixels_by_subset_without_the_repeat(tmp_path):
    task = oracle(more_normalizers=["box", "none"], ced_threshold=0.27)
    (found,) = tiny.trainer(tmp_path).test(task, datamodule=faces.FaceData(), verbose=False)
    errors = [2 / distance for distance in distances()]
    assert found["test/nme"] == pytest.approx(100 * np.mean(errors), rel=1e-4)
    assert found["test/nme_odd"] == pytest.approx(100 * np.mean(errors[1::2]), rel=1e-4)
    assert found["test/nme_none"] == pytest.approx(2.0, rel=1e-4)
    assert found["test/nme_box"] == pytest.approx(100 * 2 / (32 * 30) ** 0.5, rel=1e-4)
    assert found["test/nme_box_even"] == pytest.approx(100 * 2 / (32 * 30) ** 0.5, rel=1e-4)
    assert found["test/fr"] == pytest.approx(100 * np.mean([error > 0.27 for error in errors]))
    assert found["test/auc"] == pytest.approx(100 * np.mean([max(0, 1 - e / 0.27) for e in errors]), rel=1e-3)
    rows = {row["subset"]: row for row in task.tables["per_subset"]}
    assert set(rows) == {"all", "even", "odd", "rare"}
    assert rows["all"]["nme"] == pytest.approx(found["test/nme"], rel=1e-6)
    assert rows["rare"]["nme_box"] == pytest.approx(found["test/nme_box_odd"], rel=1e-6)
    thresholds, shares = task.findings["ced"]["rare"]
    assert thresholds[-1] == pytest.approx(0.27, abs=1e-6)
    assert shares[-1] in (0.0, 1.0) or 0 < shares[-1] < 1


def test_metrics_start_anew(tmp_path):
    task = oracle()
    (first,) = tiny.trainer(tmp_path).validate(task, datamodule=faces.FaceData(), verbose=False)
    (second,) = tiny.trainer(tmp_path).validate(task, datamodule=faces.FaceData(), verbose=False)
    assert first == second
    assert first["val/loss_point"] == pytest.approx(SHIFT / faces.SIZE, rel=1e-4)


def test_crops_are_judged_where_there_is_no_source(tmp_path):
    task = oracle(normalizer="none")
    (found,) = tiny.trainer(tmp_path).test(task, datamodule=faces.FaceData(source=False), verbose=False)
    assert found["test/nme"] == pytest.approx(SHIFT, rel=1e-4)


def test_a_mirror_cancels_a_shift_and_swaps_landmarks(tmp_path):
    task = oracle(tta_flip=True, normalizer="none")
    run = tiny.trainer(tmp_path)
    (found,) = run.test(task, datamodule=faces.FaceData(), verbose=False)
    assert found["test/nme"] == pytest.approx(0.0, abs=1e-4)
    (validated,) = run.validate(task, datamodule=faces.FaceData(), verbose=False)
    assert validated["val/nme"] == pytest.approx(2.0, rel=1e-4)


def test_predictions_are_points_of_the_source_with_a_confidence(tmp_path):
    batches = tiny.trainer(tmp_path).predict(oracle(), datamodule=faces.FaceData())
    points = torch.cat([batch["landmarks"] for batch in batches])
    truth = torch.stack([faces.Faces(7)[index]["source_landmarks"] for index in range(7)])
    torch.testing.assert_close(points, truth + torch.tensor([2.0, 0.0]), atol=1e-3, rtol=0)
    assert torch.equal(batches[0]["confidence"], torch.full((4, 19), 0.5))
    assert batches[1]["valid"].tolist() == [True, True, False]


def test_previews():
    shown = faces.aligner(num_landmarks=19).preview({"image": torch.randn(2, 3, 32, 32)})
    assert shown["landmarks"].shape == (2, 19, 2)
    assert shown["heatmaps"].shape[:2] == (2, 19)
    assert 0 <= shown["heatmaps"].min() <= shown["heatmaps"].max() <= 1


def test_a_wrong_normaliser_is_told_at_once():
    with pytest.raises(ConfigError, match="Did you mean 'inter_ocular'"):
        faces.aligner(normalizer="interocular")
    with pytest.raises(ConfigError, match="threshold=0"):
        faces.aligner(ced_threshold=0)


def test_an_aligner_learns(tmp_path):
    torch.manual_seed(0)
    loss = AlignmentLoss(heatmap_size=32, radius=2.0)
    network = replace(faces.network(), channels=16)
    task = AlignmentTask(network, loss=loss, optim=OptimConfig(lr=1e-2), normalizer="none")
    run = tiny.trainer(tmp_path, max_steps=60, limit_val_batches=0)
    run.fit(task, datamodule=faces.FaceData())
    (found,) = run.test(task, datamodule=faces.FaceData(), verbose=False)
    assert found["test/nme"] < 3  # pixels; the middle of the picture is about 7 away
