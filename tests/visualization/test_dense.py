"""Pictures of dense results: every colour is where it should be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from farl_lightning.datasets.face_synthetics import FACE_SYNTHETICS_CLASSES
from farl_lightning.datasets.ibugmask import IBUGMASK_CLASSES
from farl_lightning.datasets.synthetic.classes import CELEBAMASK_CLASSES, LAPA_CLASSES
from farl_lightning.functional.verification import roc_curve
from farl_lightning.visualization import (
    alignment_panel,
    ced_plot,
    class_palette,
    colorize,
    confusion_picture,
    error_map,
    heatmap_panel,
    overlay_heatmap,
    overlay_landmarks,
    overlay_mask,
    parsing_panel,
    roc_plot,
)
from farl_lightning.visualization.overlay import MISTAKES, PREDICTION, TRUTH, outline
from farl_lightning.visualization.palette import IGNORED
from farl_lightning.visualization.plots import _curve_label, _short

LISTS = [LAPA_CLASSES, CELEBAMASK_CLASSES, FACE_SYNTHETICS_CLASSES, IBUGMASK_CLASSES]


def _grey(height=40, width=60, value=100):
    return np.full((height, width, 3), value, dtype=np.uint8)


def _has(picture, color):
    return int((picture == np.array(color, dtype=np.uint8)).all(-1).sum())


@pytest.mark.parametrize("names", LISTS)
def test_colours_of_the_known_lists_are_far_apart(names):
    palette = class_palette(names)
    assert (palette.shape, palette.dtype) == ((len(names), 3), np.uint8)
    assert palette[0].tolist() == [0, 0, 0]
    for (i, a), (j, b) in itertools.combinations(enumerate(palette.astype(int)), 2):
        assert np.abs(a - b).sum() >= 60, (names[i], names[j])


def test_a_part_has_one_colour_in_every_dataset():
    lapa, celeb = class_palette(LAPA_CLASSES), class_palette(CELEBAMASK_CLASSES)
    for one, other in (("nose", "nose"), ("ul", "ulip"), ("face_lr_rr", "face"), ("le", "le"), ("im", "imouth")):
        assert lapa[LAPA_CLASSES.index(one)].tolist() == celeb[CELEBAMASK_CLASSES.index(other)].tolist()


def test_any_list_gets_distinct_colours():
    names = ["background", "skin", "face", *(f"part{i}" for i in range(150))]  # two names of one part, many unknown
    palette = class_palette(names)
    assert len({tuple(color) for color in palette.tolist()}) == len(names)
    assert class_palette([]).shape == (0, 3)


def test_colorize():
    palette = class_palette(LAPA_CLASSES)
    picture = colorize(np.array([[0, 6], [255, 200]], dtype=np.uint8), palette)
    assert picture[0].tolist() == palette[[0, 6]].tolist()
    assert picture[1].tolist() == [list(IGNORED)] * 2


def test_overlay_tints_what_is_not_background():
    mask = np.zeros((40, 60), dtype=np.int64)
    mask[10:30, 20:40] = 1
    mask[35:] = 255
    palette = np.array([[0, 0, 0], [200, 0, 50]], dtype=np.uint8)
    picture = overlay_mask(_grey(), mask, palette, strength=0.5)
    assert picture[20, 30].tolist() == [150, 50, 75]
    assert picture[0, 0].tolist() == picture[38, 3].tolist() == [100, 100, 100]
    assert picture[10, 30, 0] > 150  # the outline is stronger
    assert overlay_mask(_grey(), mask, palette, strength=0.5, background=None)[2, 2].tolist() == [50, 50, 50]
    assert overlay_mask(_grey(), mask, palette, strength=1.0)[20, 30].tolist() == [200, 0, 50]


def test_outline_marks_both_sides():
    mask = np.zeros((5, 6), dtype=np.uint8)
    mask[:, 3:] = 7
    assert outline(mask).sum(axis=0).tolist() == [0, 0, 5, 5, 0, 0]


def test_error_map_tells_the_kinds_of_mistakes():
    target = np.array([[0, 0, 1, 1, 2, 255]])
    pred = np.array([[0, 1, 1, 0, 1, 1]])
    picture = error_map(pred, target)[0].tolist()
    assert picture[0] == picture[2] == [255, 255, 255]
    assert picture[1] == list(MISTAKES["surplus"])
    assert picture[3] == list(MISTAKES["missed"])
    assert picture[4] == list(MISTAKES["confused"])
    assert picture[5] not in [[255, 255, 255], *map(list, MISTAKES.values())]
    plain = error_map(pred, target, background=None)
    assert _has(plain, MISTAKES["confused"]) == 3
    assert _has(error_map(target, target, _grey(1, 6)), MISTAKES["confused"]) == 0


def test_landmarks_lie_where_they_should():
    truth, pred = np.array([[10.0, 20.0], [np.nan, 5.0]]), np.array([[30.0, 20.0], [50.0, 5.0]])
    image = _grey()
    picture = overlay_landmarks(image, pred, truth, radius=2.0)
    assert picture[20, 10].tolist() == list(TRUTH)
    assert picture[20, 30].tolist() == picture[5, 50].tolist() == list(PREDICTION)
    assert picture[20, 20].min() > 200  # the line between the two
    assert picture[35, 20].tolist() == [100, 100, 100]
    assert (image == 100).all()
    near = np.argwhere((picture == TRUTH).all(-1))
    assert near.mean(axis=0).tolist() == [20.0, 10.0]


def test_dots_are_placed_between_pixels():
    picture = overlay_landmarks(np.zeros((21, 21, 3), dtype=np.uint8), np.array([[10.25, 9.5]]), radius=3.0)
    weight = picture[..., 0].astype(float)
    rows, columns = np.mgrid[:21, :21]
    centre = [(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()]
    assert centre == pytest.approx([10.25, 9.5], abs=0.05)


def test_landmarks_outside_do_not_show_and_do_not_fail():
    far = np.array([[-500.0, 3.0], [1e9, 1e9], [30.0, -40.0], [np.inf, 0.0]])
    assert (overlay_landmarks(_grey(), far) == 100).all()
    assert not (overlay_landmarks(_grey(), np.array([[-1.0, 20.0]]), radius=3.0) == 100).all()


def test_heatmap_is_stretched_over_the_picture():
    heat = np.zeros((10, 15), dtype=np.float32)
    heat[2, 12] = 1.0
    picture = overlay_heatmap(_grey(), heat)
    brightest = np.unravel_index(picture.sum(axis=2).argmax(), picture.shape[:2])
    assert np.abs(np.array(brightest) - (9.5, 49.5)).max() <= 1.5
    assert picture[35, 5].tolist() == [90, 90, 90]
    both = overlay_heatmap(_grey(), np.stack([heat, np.flip(heat)]))
    assert (both[9, 49] == picture[9, 49]).all()
    assert both[30, 10, 0] > 150
    assert overlay_heatmap(_grey(), np.full((3, 3), np.nan)).max() == 90


@pytest.mark.parametrize("with_truth", [True, False])
def test_panels_show_every_column(with_truth):
    rng = np.random.default_rng(0)
    images = [_grey(32, 32, 90), _grey(32, 32, 91)]
    masks = [rng.integers(0, 11, (32, 32)) for _ in images]
    picture = parsing_panel(images, masks if with_truth else None, masks[::-1], LAPA_CLASSES, title="a")
    assert _has(picture, (90, 90, 90)) > 1000
    assert (_has(picture, MISTAKES["confused"]) > 1000) == with_truth
    for color in class_palette(LAPA_CLASSES)[1:]:
        assert _has(picture, color) > 10  # the legend
    points = [rng.uniform(5, 25, (19, 2)) for _ in images]
    heatmaps = [rng.uniform(0, 1, (19, 8, 8)) for _ in images]
    aligned = alignment_panel(images, points if with_truth else None, points, heatmaps)
    assert (_has(aligned, TRUTH) > 10) == with_truth
    assert _has(aligned, PREDICTION) > 10
    assert aligned.shape[1] > alignment_panel(images, None, points).shape[1]


@pytest.mark.parametrize("count", [1, 3, 68])
def test_heatmap_panel_of_any_number(count):
    heatmaps = np.zeros((count, 8, 8), dtype=np.float32)
    heatmaps[:, 4, 4] = 1
    points = np.full((count, 2), 16.0)
    picture = heatmap_panel(_grey(32, 32), heatmaps, points, names=[f"p{i}" for i in range(count)], title="t")
    assert picture.dtype == np.uint8
    assert _has(picture, PREDICTION) > 3 * min(count, 11)


def test_ced_plot():
    grid = np.linspace(0, 0.1, 1001)
    curves = {"": (grid, np.minimum(1, grid / 0.05)), "pose_$x": (grid, grid / 0.2)}
    picture = ced_plot(curves, threshold=0.1, normalizer="inter_ocular")
    assert picture.shape[2] == 3
    assert _has(picture, (0x24, 0x29, 0x2F)) > 200  # the bold line of all faces
    assert _has(picture, (0x1F, 0x77, 0xB4)) > 100
    empty = ced_plot({"": (grid, np.full(1001, np.nan))})
    assert _has(empty, (0x24, 0x29, 0x2F)) < _has(picture, (0x24, 0x29, 0x2F))


def test_roc_plot():
    scores, same = torch.linspace(0, 1, 200), torch.arange(200) >= 100
    perfect, reversed_ = roc_curve(scores, same), roc_curve(-scores, same)
    blue, orange = (0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)
    picture = roc_plot({"good $x": perfect, "bad": reversed_})
    assert min(_has(picture, blue), _has(picture, orange)) > 100
    half = picture.shape[0] // 2  # a perfect one runs along the top, a reversed one along the bottom
    assert _has(picture[:half], blue) > 5 * _has(picture[:half], orange)
    one_kind = roc_plot({"pairs of one kind": roc_curve(scores, torch.ones(200).bool())})
    assert _has(one_kind, blue) == 0


def test_labels_of_curves_carry_area_and_failures():
    grid = np.linspace(0, 0.1, 1001)
    assert _curve_label("", grid, grid / 0.2, 0.1) == "all faces  ·  AUC 25.0  FR 50.0"
    assert _curve_label("blur", grid, np.ones(1001), 0.05).endswith("AUC 100.0  FR 0.0")


def test_confusion_picture_by_colour():
    table = np.array([[90, 10, 0], [0, 50, 0], [0, 0, 0]])
    picture = confusion_picture(table, ["a", "b", "never"])
    full, empty = (0x08, 0x30, 0x6B), (0xF6, 0xF8, 0xFA)
    assert _has(picture, full) > 500
    assert _has(picture, empty) > 1500  # the row of a class that does not occur
    assert (
        confusion_picture(table, ["a", "b", "$c"], percent=False) != confusion_picture(table, ["a", "b", "$c"])
    ).any()


def test_counts_are_written_short():
    assert [_short(count) for count in (7, 999, 1234, 5.6e6, 2e9)] == ["7", "999", "1.23k", "5.6M", "2G"]
