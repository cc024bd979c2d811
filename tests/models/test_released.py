"""What is known of released networks."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.datasets.synthetic.classes import (
    CELEBAMASK_CLASSES,
    CELEBAMASK_FLIPS,
    LAPA_CLASSES,
    LAPA_FLIPS,
)
from farl_lightning.functional.geometry import FARL_TEMPLATE, template_points
from farl_lightning.models.released import released_spec
from farl_lightning.models.weights import KNOWN_WEIGHTS


def test_parsing_classes_are_those_of_the_datasets():
    lapa, celeba = released_spec("parsing", 11, 448), released_spec("parsing", 19, 512)
    assert (lapa.classes, lapa.class_flips) == (LAPA_CLASSES, LAPA_FLIPS)
    assert (celeba.classes, celeba.class_flips) == (CELEBAMASK_CLASSES, CELEBAMASK_FLIPS)
    assert (lapa.image_size, lapa.crop, lapa.warp_factor, lapa.template) == (448, "align", 0.8, FARL_TEMPLATE)
    assert (celeba.image_size, celeba.crop, celeba.warp_factor) == (512, "quad", 0.0)


def test_landmarks_and_attributes():
    for count in (19, 68, 98):
        spec = released_spec("alignment", count, 448)
        assert (spec.num_landmarks, spec.crop, spec.warp_factor) == (count, "align", 0.0)
        assert spec.template[2] == (0.0, pytest.approx(0.8 * (286 / 256 - 1)))
    spec = released_spec("attributes", 40, 224)
    assert len(set(spec.attributes)) == 40
    assert (spec.attributes[0], spec.attributes[20], spec.attributes[-1]) == ("5_o_Clock_Shadow", "Male", "Young")
    points = template_points(224, spec.template, like=torch.empty(0, dtype=torch.float64))
    expected = torch.tensor([(85.82991 + 122) * 0.448, (85.7792 + 152) * 0.448], dtype=torch.float64)
    torch.testing.assert_close(points[0], expected)


def test_others_are_not_known():
    assert released_spec("parsing", 14, 448) is None
    assert released_spec("alignment", 5, 448) is None
    assert released_spec("attributes", 7, 224) is None


def test_every_downstream_file_of_the_table_is_described():
    outputs = {"lapa": 11, "celebm": 19, "300w": 68, "wflw": 98, "aflw19": 19, "celeba": 40}
    seen = 0
    for name, known in KNOWN_WEIGHTS.items():
        if known.kind != "clip":
            spec = released_spec(known.kind, outputs[name.rpartition("-")[2]], known.image_size)
            assert spec.image_size == known.image_size, name
            seen += 1
    assert seen == 6
