"""LaPa, CelebAMask-HQ, FaceSynthetics and iBugMask from fake folders whose truth is known, and from real renders."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from farl_lightning.datasets import CelebAMaskHQ, FaceSynthetics, IBugMask, LaPa
from farl_lightning.datasets import bad_sample as reasons
from farl_lightning.datasets.bad_sample import BadSample
from farl_lightning.datasets.celebamask_hq import LAYERS, resize_linear
from farl_lightning.datasets.drawn import DrawnFaces
from farl_lightning.datasets.synthetic import SyntheticFaces
from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError
from farl_lightning.testing.benchmarks import (
    write_celebamask_hq,
    write_face_synthetics,
    write_ibugmask,
    write_lapa,
)
from farl_lightning.testing.benchmarks.face_synthetics import face_synthetics_mask
from farl_lightning.testing.benchmarks.lapa import lapa_landmarks
from tests.shared import SHARED, needs_shared

LEFT_36 = slice(36, 42)


@pytest.fixture(scope="module")
def lapa(tmp_path_factory):
    root = tmp_path_factory.mktemp("lapa")
    return root, write_lapa(root, count=4)


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    root = tmp_path_factory.mktemp("celeba")
    return root, write_celebamask_hq(root, count=5)


@pytest.fixture(scope="module")
def renders(tmp_path_factory):
    root = tmp_path_factory.mktemp("renders")
    return root, write_face_synthetics(root, count=5)


@pytest.fixture(scope="module")
def ibugmask(tmp_path_factory):
    root = tmp_path_factory.mktemp("ibugmask")
    return root, write_ibugmask(root, count=4)


def middle(mask: np.ndarray, label: int) -> float:
    """Return the mean column of a label."""
    assert (mask == label).any(), label
    return float(np.nonzero(mask == label)[1].mean())


def difference(image: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(image.astype(int) - other).mean())


def reason(dataset, index: int) -> str:
    with pytest.raises(BadSample) as caught:
        dataset[index]
    return caught.value.reason


def test_lapa_is_read_as_it_was_drawn(lapa):
    root, splits = lapa
    for split, faces in splits.items():
        dataset = LaPa(root, split)
        assert dataset.keys == sorted(dataset.keys)
        for face, record in zip(faces, dataset, strict=True):
            assert np.array_equal(record.mask, face.mask_lapa)
            assert difference(record.image, face.image) < 3  # stored as JPEG once
            np.testing.assert_allclose(record.landmarks, lapa_landmarks(face), atol=1e-3)
            np.testing.assert_allclose(record.points, face.landmarks(98)[[96, 97, 54, 76, 82]], atol=1e-3)
    assert len({face.identity for faces in splits.values() for face in faces}) == 12


def test_celebamask_hq_paints_and_joins_as_the_reference(celeba):
    root, splits = celeba
    ids = []
    for split, faces in splits.items():
        dataset = CelebAMaskHQ(root, split)
        ids += dataset.ids
        for face, record in zip(faces, dataset, strict=True):
            assert np.array_equal(record.mask, face.mask_celebamask)
            assert record.image.shape == (64, 64, 3)  # stored at 128
            assert difference(record.image, face.image) < 4
    assert ids == list(range(2005, 1990, -1))  # the partition's order, across mask folders 0 and 1


def test_later_layers_overwrite_earlier_ones(celeba, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(celeba[0], root)
    folder = root / "CelebAMask-HQ-mask-anno" / "1"
    for path in folder.glob("02005_*.png"):
        path.unlink()
    for layer, columns in {"neck": (0, 8), "hair": (2, 8), "skin": (4, 8), "neck_l": (6, 8)}.items():
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[:, slice(*columns)] = 255
        Image.fromarray(pixels).save(folder / f"02005_{layer}.png")
    mask = CelebAMaskHQ(root)[0].mask
    assert mask[0, :9].tolist() == [1, 1, 14, 14, 14, 14, 18, 18, 0]  # skin (2) lies beneath hair (14)
    assert LAYERS[13] == "hair"


def test_painted_masks_are_kept_and_read_again(celeba, tmp_path, monkeypatch):
    root, splits = celeba
    dataset = CelebAMaskHQ(root, "test", tmp_path / "masks")
    first = [record.mask for record in dataset]
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [
        f"0{number}.png" for number in range(1991, 1996)
    ]
    (tmp_path / "masks" / "01993.png").write_bytes(b"broken")
    with monkeypatch.context() as patch:
        patch.setattr(CelebAMaskHQ, "_mask", None)
        for index in (0, 1, 3, 4):
            assert np.array_equal(dataset[index].mask, first[index])
    assert np.array_equal(dataset[2].mask, splits["test"][2].mask_celebamask)  # painted anew


def test_halving_averages_two_by_two():
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    blocks = image.reshape(4, 2, 3, 2, 3).astype(int).sum((1, 3))
    assert np.array_equal(resize_linear(image, (4, 3)), (blocks + 2) // 4)  # OpenCV rounds a half up
    assert resize_linear(image, (8, 6)) is image


def test_face_synthetics_is_read_as_it_was_drawn(renders):
    root, faces = renders
    dataset = FaceSynthetics(root)
    for face, record in zip(faces, dataset, strict=True):
        assert np.array_equal(record.mask, face_synthetics_mask(face))
        assert np.array_equal(record.image, face.image)
        np.testing.assert_allclose(record.landmarks, face.landmarks(68), atol=1e-3)
        np.testing.assert_allclose(record.points[2:], face.landmarks(68)[[30, 48, 54]], atol=1e-3)
        left, top, right, bottom = record.box
        assert right - left == pytest.approx(np.ptp(face.landmarks(68), axis=0).max(), abs=2e-3)
        assert bottom - top == pytest.approx(right - left)
    bare = FaceSynthetics(root, masks=False)
    assert bare[0].mask is None
    assert bare.spec.classes == ()


def test_ibugmask_is_read_as_it_was_drawn(ibugmask):
    root, splits = ibugmask
    for split, faces in splits.items():
        for face, record in zip(faces, IBugMask(root, split), strict=True):
            assert np.array_equal(record.mask, face.mask_lapa)
            np.testing.assert_allclose(record.landmarks, face.landmarks(68), atol=1e-3)


@pytest.mark.parametrize("name", ["lapa", "celeba", "renders", "ibugmask"])
def test_left_and_right_lie_where_they_should(name, request):
    """Whatever the names say: these ids lie on the image's left, those on its right (and flips exchange the two)."""
    root, _ = request.getfixturevalue(name)
    make, left_right = {
        "lapa": (LaPa, ((2, 3), (4, 5))),
        "celeba": (CelebAMaskHQ, ((7, 6), (9, 8))),
        "renders": (FaceSynthetics, ((4, 3), (6, 5))),
        "ibugmask": (IBugMask, ((2, 3), (4, 5))),
    }[name]
    dataset = make(root)
    spec, seen = dataset.spec, 0
    for record in dataset:
        for left, right in left_right:
            assert tuple(sorted((left, right))) in spec.class_flips
            if (record.mask == left).any() and (record.mask == right).any():
                assert middle(record.mask, left) < middle(record.mask, right)
                swapped = flip(record.mask, spec.class_flips)
                assert middle(swapped, left) < middle(swapped, right)
                seen += 1
        if spec.num_landmarks == 68:
            assert record.landmarks[LEFT_36, 0].mean() < record.landmarks[42:48, 0].mean()
    assert seen >= 4


def flip(mask: np.ndarray, pairs) -> np.ndarray:
    """Mirror a label map."""
    table = np.arange(256, dtype=np.uint8)
    for one, other in pairs:
        table[[one, other]] = other, one
    return table[mask[:, ::-1]]


def test_all_ids_of_a_side_are_paired():
    assert CelebAMaskHQ.spec.class_flips == ((4, 5), (6, 7), (8, 9))
    names = FaceSynthetics.spec.classes
    assert [(names[a], names[b]) for a, b in FaceSynthetics.spec.class_flips] == [
        (f"right_{part}", f"left_{part}") for part in ("eye", "brow", "ear")
    ]
    assert len(names) == 19


def test_paired_landmarks_of_lapa_face_each_other(lapa):
    """The mirror image of a point lies on the other side, level with it: a frontal drawn face is symmetric."""
    pairs = LaPa.spec.landmark_flips
    assert len(pairs) == 48  # 10 of 106 points lie on the middle line
    face = min(SyntheticFaces(60, 128), key=lambda face: abs(face.yaw) + abs(face.roll))
    points = lapa_landmarks(face)
    axis = points[[51, 52, 53, 54, 16], 0].mean()
    for pair in pairs:
        left, right = sorted(pair, key=lambda index: points[index, 0])
        assert points[left, 0] < axis - 1 < axis + 1 < points[right, 0]
        assert abs(points[left, 1] - points[right, 1]) < 4
        assert abs(points[left, 0] + points[right, 0] - 2 * axis) < 6


def test_verify_names_what_is_missing(lapa, celeba, tmp_path):
    root = tmp_path / "lapa"
    shutil.copytree(lapa[0], root)
    label = root / "val" / "labels" / "00000002_0.png"
    label.unlink()
    found = LaPa(root, "val").verify()
    assert found[0] == "4 samples are listed, the official split has 2000"
    assert found[1] == f"00000002_0: {label} is missing"
    assert found[2].startswith("Get LaPa.tar.gz from https://")
    assert len(found) == 3
    assert reason(LaPa(root, "val"), 2) == reasons.MISSING_ANNOTATION
    root = tmp_path / "celeba"
    shutil.copytree(celeba[0], root)
    for path in (root / "CelebAMask-HQ-mask-anno" / "0").glob("01999_*"):
        path.unlink()
    (root / "CelebA-HQ-img" / "2000.jpg").unlink()
    dataset = CelebAMaskHQ(root, "val")
    found = dataset.verify()
    assert any(line.startswith("2000: ") and line.endswith("is missing") for line in found)
    assert "1999: no mask" in found
    assert [reason(dataset, 0), reason(dataset, 1)] == [reasons.MISSING_IMAGE, reasons.MISSING_ANNOTATION]


def test_a_complete_set_has_no_findings(renders):
    assert FaceSynthetics(renders[0]).verify() == []


def test_wrong_annotations_are_told_apart(lapa, tmp_path):
    root = tmp_path / "lapa"
    shutil.copytree(lapa[0] / "test", root / "test")
    base = root / "test"
    Image.fromarray(np.full((128, 128), 11, np.uint8)).save(base / "labels" / "00000000_0.png")
    Image.fromarray(np.zeros((64, 128), np.uint8)).save(base / "labels" / "00000001_0.png")
    (base / "landmarks" / "00000002_0.txt").write_text("98\n" + "1 2\n" * 98)
    lines = ["106", *["1 2"] * 105, "nan 3"]
    (base / "landmarks" / "00000003_0.txt").write_text("\n".join(lines))
    dataset = LaPa(root, "test")
    assert [reason(dataset, index) for index in range(4)] == [
        reasons.UNKNOWN_LABEL,
        reasons.MASK_SIZE,
        reasons.BROKEN_ANNOTATION,
        reasons.BAD_LANDMARKS,
    ]


def test_missing_folders_and_lists_are_explained(celeba, tmp_path):
    for make, archive in ((LaPa, "LaPa.tar.gz"), (CelebAMaskHQ, "CelebAMask-HQ.zip"), (IBugMask, "ibugmask_release")):
        with pytest.raises(DatasetNotFoundError, match=archive):
            make(tmp_path / "none")
        with pytest.raises(ConfigError, match=r"has no split 'tset'\. Did you mean 'test'"):
            make(tmp_path, "tset")
    with pytest.raises(DatasetNotFoundError, match=r"dataset_100\.zip"):
        FaceSynthetics(tmp_path / "none")
    (tmp_path / "dataset_100").mkdir()
    with pytest.raises(DatasetNotFoundError, match="but folders: dataset_100"):
        FaceSynthetics(tmp_path)
    for folder in ("images", "labels", "landmarks"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    with pytest.raises(DatasetNotFoundError, match="no pictures in 'train/images'"):
        LaPa(tmp_path)
    root = tmp_path / "celeba"
    shutil.copytree(celeba[0], root)
    (root / "list_eval_partition.txt").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"has no 'list_eval_partition.txt'"):
        CelebAMaskHQ(root)
    (root / "list_eval_partition.txt").write_text("000001.jpg 0 1\n")
    with pytest.raises(DataError, match="3 words instead of 2"):
        CelebAMaskHQ(root)


@pytest.mark.parametrize(("classes", "landmarks"), [(11, 0), (19, 98), (0, 68)])
def test_drawn_faces_are_the_same_cached_and_fresh(classes, landmarks):
    faces = SyntheticFaces(3, 48, start=7)
    fresh, cached = (DrawnFaces(faces, classes, landmarks, cache) for cache in (False, True))
    assert fresh.keys == cached.keys == [face.key for face in faces]
    for one, other, face in zip(fresh, cached, faces, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.points, face.five_points)
        assert (one.mask is None, one.landmarks is None) == (not classes, not landmarks)
        if classes:
            assert np.array_equal(one.mask, other.mask)
            assert np.array_equal(one.mask, face.mask_lapa if classes == 11 else face.mask_celebamask)
        if landmarks:
            assert np.array_equal(other.landmarks, face.landmarks(landmarks))


@needs_shared
@pytest.mark.shared
def test_real_renders_follow_the_conventions():
    dataset = FaceSynthetics(SHARED / "real" / "facesynthetics")
    assert dataset.verify() == []
    sides, offsets, ids = [], [], set()
    for record in dataset:
        mask, points = record.mask, record.landmarks
        ids |= set(np.unique(mask).tolist())
        eyes = [(mask == label) for label in (4, 3)]
        if all(eye.sum() > 60 for eye in eyes):
            sides.append(middle(mask, 4) < middle(mask, 3))
            offsets.append(np.mean([centre(eyes[0]) - extent(points[36:42]), centre(eyes[1]) - extent(points[42:48])]))
        assert points[LEFT_36, 0].mean() < points[42:48, 0].mean()
    assert len(dataset) == 60
    assert len(sides) > 35
    assert all(sides)
    assert 255 in ids
    assert max(ids - {255}) <= 18
    assert abs(np.mean(offsets)) < 0.25  # half a pixel off would be 0.5


def centre(covered: np.ndarray) -> float:
    columns = np.nonzero(covered.any(0))[0]
    return (columns[0] + columns[-1]) / 2


def extent(points: np.ndarray) -> float:
    return float(points[:, 0].min() + points[:, 0].max()) / 2
