"""Crop matrices, warp maps, warped pictures and points, in both half-pixel conventions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from farl_lightning.functional import geometry, warp
from tests.parity import Deviation, compare, fixture, tensor

_MATRIX = {"rtol": 1e-5, "atol": 2e-4}
_IMAGE = 0.03  # OpenCV rounds its weights to 1/32 of a pixel
_CELEBA_ATTRIBUTES = ((85.82991, 85.7792), (169.0532, 84.3381), (127.574, 137.0006), (90.6964, 174.7014))
_CELEBA_ATTRIBUTES += ((167.3069, 173.3733),)  # facer's attribute crop, on 256 pixels


@fixture("08_crop_warp")
def check(data: Mapping[str, Any]) -> list[Deviation]:
    """Every result of the file."""
    parts = (_align, _boxes, _training_boxes, _compose, _facer_grids, _blueprint_maps)
    return [deviation for part in parts for deviation in part(data)]


def _sizes(name: str) -> list[int]:
    """Return the whole numbers in a key's last part."""
    return [int(text) for text in re.findall(r"\d+", name.rsplit("/", 1)[-1])]


def _align(data: Mapping[str, Any]) -> Iterator[Deviation]:
    points = tensor(data["in/face_pts"]).double()
    for name, scale, offset in (
        ("lapa_448_scale1", 1.0, (0, 0)),
        ("landmark_448_scale0.8", 0.8, (0, 0)),
        ("offset_320x256_scale0.9_off3_-5", 0.9, (3, -5)),
    ):
        numbers = _sizes(name)
        size = (numbers[0], numbers[1]) if "x" in name else numbers[0]
        ours = geometry.align_matrix(points, size, scale=scale, offset=offset)
        yield compare(name, ours, data[f"facer_align/{name}"], **_MATRIX)
    yield compare("align_512", geometry.align_matrix(points, 512), data["blueprint/align_512"], rtol=1e-5, atol=1e-4)
    yield compare("quad", geometry.quad_corners(points), data["facer_align/celebm_quad"], rtol=1e-5, atol=2e-4)
    yield compare("celebm", geometry.quad_matrix(points, 448), data["facer_align/celebm_448"], **_MATRIX)
    target = (torch.tensor(_CELEBA_ATTRIBUTES).double() + torch.tensor([0, 30]) - 128 + 250) * 224 / 500
    yield compare("attribute targets", target, data["facer_align/attr_target_pts_224_500"])
    template = (2 * target / 223 - 1).tolist()
    yield compare("attr_224", geometry.align_matrix(points, 224, template), data["facer_align/attr_224"], **_MATRIX)


def _boxes(data: Mapping[str, Any]) -> Iterator[Deviation]:
    box = tensor(data["in/box_x1y1x2y2"]).double()
    size = (256, 192)
    for name, source, corners in (
        ("default", geometry.square_box(box), True),
        ("scale08", geometry.square_box(box, 0.8), True),
        ("rect", box, True),
        ("noalign", geometry.square_box(box), False),
    ):
        ours = geometry.box_matrix(source, size, align_corners=corners)
        yield compare(name, ours, data[f"facer_box/{name}_256x192"], **_MATRIX)
    # the offset is not in the file: it is one for all boxes, whole pixels, less half a pixel that boxes counted from
    # the pixels' outer corner lie off
    reference = tensor(data["facer_box/offset_256x192"]).double()
    left_top = geometry.apply_matrix(torch.full((1, 2), -0.5).double(), geometry.invert_matrix(reference))[:, 0]
    offset = (left_top - box[:, :2] + 0.5).mean(0).round() - 0.5
    ours = geometry.box_matrix(box + offset.repeat(2), size)
    yield compare("offset", ours, reference, **_MATRIX)


def _training_boxes(data: Mapping[str, Any]) -> Iterator[Deviation]:
    box = tensor(data["in/box_y1x1y2x2"]).double()[:, [1, 0, 3, 2]]
    crop = geometry.box_matrix(box, 512)
    yield compare("crop_512", crop, data["blueprint/crop_512"], **_MATRIX)
    aligned = geometry.box_matrix(box, 512, align_corners=True)
    yield compare("crop_512_aligncorners", aligned, data["blueprint/crop_512_aligncorners"], **_MATRIX)
    for scale in (0.8, 1.0):
        name = f"crop_512_then_scale{scale}"
        yield compare(name, _scaled(crop, scale), data[f"blueprint/{name}"], **_MATRIX)
    scale, center = tensor(data["in/hrnet_scale_cw_ch"]).split([1, 2], -1)
    # 300W's csv counts from 1 and from the pixels' corner, which its readers undo by 2 in all
    for name, origin in (("wflw", 0.0), ("ibug300w", 2.0)):
        box = torch.cat([center - origin - 100 * scale, center - origin + 100 * scale], -1)
        reference = data[f"hrnet/{name}_box_y1x1y2x2"][:, [1, 0, 3, 2]]
        yield compare(f"{name} box", box, reference)
        crop = geometry.box_matrix(box, 512)
        yield compare(f"{name} crop", crop, data[f"hrnet/{name}_crop_512"], **_MATRIX)
        yield compare(f"{name} crop 0.8", _scaled(crop, 0.8), data[f"hrnet/{name}_crop_512_scale0.8"], **_MATRIX)
    box = tensor(data["in/aflw_bbox_left_right_top_bottom"])[:, [0, 2, 1, 3]]
    yield compare("aflw box", box, data["aflw/box_y1x1y2x2"][:, [1, 0, 3, 2]])
    yield compare("aflw crop", geometry.box_matrix(box, 512), data["aflw/crop_512"], **_MATRIX)
    landmarks = tensor(data["in/aflw_data_row"]).unflatten(-1, (2, -1)).mT
    yield compare("aflw landmarks", landmarks, data["aflw/landmarks"])


def _scaled(crop: torch.Tensor, scale: float) -> torch.Tensor:
    zero = crop.new_zeros(())
    update = geometry.similarity_matrix(zero, zero + scale, crop.new_zeros(2), 512)
    return geometry.compose_matrices(crop, update)


def _compose(data: Mapping[str, Any]) -> Iterator[Deviation]:
    for run in sorted({name.split("/")[1] for name in data if re.match(r"compose/\d+/", name)}):
        angle, scale, *shift = tensor(data[f"compose/{run}/params_angle_scale_sx_sy"]).unbind()
        for name in sorted(name for name in data if name.startswith(f"compose/{run}/matrix_")):
            numbers = _sizes(name)
            source, target = ((numbers[0],) * 2, (numbers[1],) * 2) if len(numbers) == 2 else (numbers[:2], numbers[2:])
            ours = geometry.similarity_matrix(angle, scale, torch.stack(shift), tuple(target), tuple(source))
            yield compare(name, ours, data[name], **_MATRIX)
    for name in sorted(name for name in data if name.startswith("compose/flip_")):
        ours = geometry.flip_matrix(_sizes(name)[0], vertical="flip_y" in name)
        yield compare(name, ours, data[name])


def _facer_grids(data: Mapping[str, Any]) -> Iterator[Deviation]:
    matrix, image = tensor(data["facer_grid/matrix20"]), tensor(data["facer_grid/image"])
    for factor in sorted(float(name.split("/")[1][2:]) for name in data if re.match(r"facer_grid/wf.*/grid", name)):
        cut, back = (data[f"facer_grid/wf{factor}/{name}"] for name in ("grid", "inv_grid"))
        crop, source = cut.shape[1:3], back.shape[1:3]
        ours = warp.crop_to_source_grid(matrix.double(), crop, factor, "facer")
        yield compare(f"wf{factor} grid", _relative(ours, source), cut, rtol=1e-5, atol=1e-4)
        # rows in two tiles, as pictures that are too large are worked through
        tiles = [(0, source[0] // 3), (source[0] // 3, source[0])]
        ours = torch.cat(
            [warp.source_to_crop_grid(matrix.double(), source, crop, factor, "facer", rows=r) for r in tiles], 1
        )
        yield compare(f"wf{factor} inv_grid", _relative(ours, crop), back)
    size = data["facer_grid/warped_wf0.8"].shape[-2:]
    grid = warp.crop_to_source_grid(matrix, size, 0.8, "facer")
    yield compare("warped_wf0.8", warp.sample(image, grid), data["facer_grid/warped_wf0.8"], atol=2e-4)
    quick = warp.read(image, warp.Warp(matrix, size, 0.8, "facer").grid(image.shape[-2:]))
    yield compare("warped_wf0.8, in one step", quick, data["facer_grid/warped_wf0.8"], atol=2e-4)


def _relative(grid: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return the units of ``grid_sample(align_corners=False)``."""
    return (2 * grid + 1) / torch.tensor([size[1], size[0]]) - 1


def _blueprint_maps(data: Mapping[str, Any]) -> Iterator[Deviation]:
    for key in sorted({name.split("/")[1] for name in data if name.startswith("blueprint/wf")}):
        factor, index = re.fullmatch(r"wf([\d.]+)_(\d+)", key).groups()  # type: ignore[union-attr]
        yield from _blueprint_map(data, f"blueprint/{key}", float(factor), int(index))


def _blueprint_map(data: Mapping[str, Any], key: str, factor: float, index: int) -> Iterator[Deviation]:
    matrix, points = tensor(data["blueprint/map_matrix"])[[index]], tensor(data["blueprint/points"]).double()[None]
    reference, back = data[f"{key}/map"], data[f"{key}/inv_map"]
    crop, source = reference.shape[:2], back.shape[:2]
    grid = warp.crop_to_source_grid(matrix, crop, factor)
    yield compare(f"{key}/map", grid[0], reference, rtol=1e-5, atol=3e-4)
    inverse = warp.source_to_crop_grid(matrix, source, crop, factor)
    yield compare(f"{key}/inv_map", inverse[0], back, rtol=1e-5, atol=2e-5)
    forward = warp.points_to_crop(points, matrix, crop, factor)
    yield compare(f"{key}/points_fwd", forward[0], data[f"{key}/points_fwd"])
    returned = warp.points_to_source(tensor(data[f"{key}/points_fwd"]).double()[None], matrix, crop, factor)
    yield compare(f"{key}/points_inv", returned[0], data[f"{key}/points_inv"], rtol=1e-5, atol=3e-4)

    image = tensor(data["blueprint/map_image"]).permute(2, 0, 1)[None]
    quick = warp.Warp(matrix, crop, factor).grid(image.shape[-2:])
    for name, ours in (("sample", warp.sample(image, grid.float())), ("one step", warp.read(image, quick))):
        yield _image(f"{key}/image_bilinear, {name}", ours, data[f"{key}/image_bilinear"])
    warped = tensor(data[f"{key}/image_bilinear"]).permute(2, 0, 1)[None]
    yield _image(f"{key}/back_bilinear", warp.sample(warped, inverse.float()), data[f"{key}/back_bilinear"])
    label = tensor(data["blueprint/map_label"]).float()[None, None]
    ours = warp.read(label, quick, "nearest")[0, 0].numpy()
    tie = (np.abs(grid[0].numpy() % 1 - 0.5) < 1e-3).any(-1)  # exact halves may be rounded either way
    wrong = (ours != data[f"{key}/label_nearest"]) & ~tie
    yield Deviation(f"{key}/label_nearest", float(wrong.sum()), 0.5)


def _image(name: str, ours: torch.Tensor, reference: Any) -> Deviation:
    if ours[0].permute(1, 2, 0).shape != reference.shape:
        raise ValueError(f"{name}: shape {tuple(ours.shape)}, reference {reference.shape}")
    return Deviation(name, float(np.abs(ours[0].permute(1, 2, 0).numpy() - reference).max()), _IMAGE)
