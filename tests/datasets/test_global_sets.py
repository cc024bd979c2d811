"""Datasets with labels of the whole face, from fake folders in their native layout whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from farl_lightning.datasets import (
    LFWA,
    MORPH2,
    RAFDB,
    AffectNet,
    CelebA,
    FairFace,
    UTKFace,
    affectnet,
    fairface,
    rafdb,
)
from farl_lightning.datasets.bad_sample import BROKEN_ANNOTATION, MISSING_IMAGE, BadSample
from farl_lightning.datasets.celeba import CELEBA_SPLITS
from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError
from farl_lightning.testing import benchmarks
from farl_lightning.testing.benchmarks.people import affect, fairface_age, is_male


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    root = tmp_path_factory.mktemp("celeba")
    return root, benchmarks.write_celeba(root, 4)


def same_picture(record, face) -> bool:
    return np.abs(record.image.astype(int) - face.image).mean() < 4  # stored as JPEG once


def answers(face):
    return [int(value == 1) for value in face.attributes]


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def reason(dataset, index):
    with pytest.raises(BadSample) as caught:
        dataset[index]
    return caught.value.reason, caught.value.detail


def test_celeba(celeba):
    root, splits = celeba
    for split, faces in splits.items():
        dataset = CelebA(root, split)
        assert len(dataset) == 4
        assert dataset.expected == CELEBA_SPLITS[split]
        for record, face in zip(dataset, faces, strict=True):
            assert same_picture(record, face)
            assert record.labels["attributes"].tolist() == answers(face)
            np.testing.assert_allclose(record.points, face.five_points, atol=0.5)  # CelebA's are whole pixels
            assert record.groups["gender"] == ("male" if is_male(face) else "female")
            assert record.groups["age"] == ("young" if face.attributes[39] == 1 else "old")
        assert dataset.photographs == [str(face.identity) for face in faces]
    assert dataset.verify()[0] == "4 samples are listed, the official split has 19962"
    assert "Get img_align_celeba.zip" in dataset.verify()[-1]


def test_celeba_from_a_mirror_of_csv_files(celeba, tmp_path):
    """Lists as .csv beside pictures in twice the same folder, landmarks and identities left out."""
    (tmp_path / "img_align_celeba").mkdir()
    (tmp_path / "img_align_celeba" / "img_align_celeba").symlink_to(celeba[0] / "img_align_celeba")
    lines = (celeba[0] / "Anno" / "list_attr_celeba.txt").read_text().splitlines()[1:]
    csv = ["image_id," + ",".join(lines[0].split()), *(",".join(line.split()) for line in lines[1:])]
    (tmp_path / "list_attr_celeba.csv").write_text("\n".join(csv))
    lines = (celeba[0] / "Eval" / "list_eval_partition.txt").read_text().split("\n")
    (tmp_path / "list_eval_partition.csv").write_text(
        "\n".join(["image_id,partition", *(",".join(line.split()) for line in lines)])
    )
    dataset, original = CelebA(tmp_path, "val"), CelebA(celeba[0], "val")
    assert dataset.keys == original.keys == dataset.photographs
    assert np.array_equal(dataset.table.labels["attributes"], original.table.labels["attributes"])
    assert dataset.table.points is None
    swapped = csv[0].replace("Male", "Young_", 1).replace("Young", "Male").replace("Male_", "Young")
    (tmp_path / "list_attr_celeba.csv").write_text("\n".join([swapped, *csv[1:]]))
    with pytest.raises(DataError, match="in another order"):
        CelebA(tmp_path, "val")


def test_celeba_tells_what_is_wrong(tmp_path):
    benchmarks.write_celeba(tmp_path, 4)
    lines = (tmp_path / "Anno" / "list_attr_celeba.txt").read_text().splitlines()
    lines[2] = lines[2][:-3]
    lines[3] = lines[3][:-2] + " 7"
    del lines[4]
    (tmp_path / "Anno" / "list_attr_celeba.txt").write_text("\n".join(lines))
    (tmp_path / "img_align_celeba" / "000004.jpg").unlink()
    dataset = CelebA(tmp_path)
    assert reason(dataset, 0) == (BROKEN_ANNOTATION, "000001.jpg has 39 attributes instead of 40")
    assert reason(dataset, 1) == (BROKEN_ANNOTATION, "000002.jpg has an attribute of '7'")
    assert reason(dataset, 2) == (BROKEN_ANNOTATION, "000003.jpg has no attributes")
    assert reason(dataset, 3)[0] == MISSING_IMAGE
    found = dataset.verify()
    assert [line.split(":")[0] for line in found[:3]] == ["000001.jpg", "000002.jpg", "000003.jpg"]
    assert "000004.jpg is missing" in found[4]
    (tmp_path / "Eval" / "list_eval_partition.txt").unlink()
    with pytest.raises(
        DatasetNotFoundError, match=r"lacks pictures, attributes or partition[\s\S]*Get img_align_celeba"
    ):
        CelebA(tmp_path)
    with pytest.raises(ConfigError, match=r"CelebA has no split 'valid'. Did you mean 'val'"):
        CelebA(tmp_path, "valid")


def test_lfwa(tmp_path):
    pytest.importorskip("scipy")
    splits = benchmarks.write_lfwa(tmp_path, 3)
    for split, faces in splits.items():
        dataset = LFWA(tmp_path, split)
        for record, face in zip(dataset, faces, strict=True):
            assert same_picture(record, face)
            assert record.labels["attributes"].tolist() == answers(face)  # the file has them in another order
            assert record.groups["gender"] == ("male" if is_male(face) else "female")
        assert dataset.photographs == [f"Person_{face.identity}" for face in faces]
    (tmp_path / "lfw_att_40.mat").write_bytes(b"no MATLAB")
    with pytest.raises(DataError, match="mat' cannot be read"):
        LFWA(tmp_path)


def test_utkface(tmp_path):
    faces = benchmarks.write_utkface(tmp_path, 12)
    dataset = UTKFace(tmp_path)
    assert len(dataset) == 12
    for record in dataset:
        index = int(record.key.rpartition("_")[2][6:19])
        assert same_picture(record, faces[index])
        assert record.labels["age"] == pytest.approx(faces[index].age, abs=0.5)
        assert record.labels["gender"] == (0 if is_male(faces[index]) else 1)
        assert record.groups["gender"] == ("male" if is_male(faces[index]) else "female")
        assert record.labels["race"] == index % 5
        assert record.groups["race"] == ("white", "black", "asian", "indian", "other")[index % 5]
    pictures = tmp_path / "UTKFace"
    next(pictures.glob("*0000000000000.jpg.chip.jpg")).rename(pictures / "61_1_20170109142408075.jpg.chip.jpg")
    dataset = UTKFace(tmp_path, ages=(30, 50))
    inside = sum(30 <= round(face.age) <= 50 for face in faces[1:])
    assert len(dataset) == inside + 1
    wrong = dataset.keys.index("UTKFace/61_1_20170109142408075.jpg.chip.jpg")
    assert (
        reason(dataset, wrong)[1]
        == f"'{dataset.keys[wrong]}' is not named {{age}}_{{gender 0-1}}_{{race 0-4}}_{{date}}"
    )
    (pictures / "61_1_20170109142408075.jpg.chip.jpg").unlink()
    with pytest.raises(DatasetNotFoundError, match="no picture of ages 110 to 116"):
        UTKFace(tmp_path, ages=(110, 116))
    with pytest.raises(ConfigError, match="ages are the youngest and the oldest"):
        UTKFace(tmp_path, ages=(50, 20))


def test_morph2(tmp_path):
    faces = benchmarks.write_morph2(tmp_path, 3)
    dataset = MORPH2(tmp_path)
    for record, face in zip(dataset, faces, strict=True):
        assert same_picture(record, face)
        assert record.labels["age"] == pytest.approx(face.age, abs=0.5)
        assert ("male", "female")[record.labels["gender"]] == record.groups["gender"]
        assert (record.groups["gender"] == "male") == is_male(face)
    assert dataset.photographs == ["000000", "000000", "000001", "000001", "000002", "000002"]
    assert MORPH2(tmp_path, protocol="random").photographs == dataset.keys
    (tmp_path / "Album2" / "portrait.JPG").write_bytes(b"")
    assert reason(MORPH2(tmp_path), 6)[1] == "'Album2/portrait.JPG' is not named {person}_{number}{M or F}{age}"
    with pytest.raises(ConfigError, match="Did you mean 'subject'"):
        MORPH2(tmp_path, protocol="subjects")


def test_fairface(tmp_path):
    for split, faces in benchmarks.write_fairface(tmp_path, 7).items():
        dataset = FairFace(tmp_path, split)
        for index, (record, face) in enumerate(zip(dataset, faces, strict=True)):
            assert same_picture(record, face)
            assert fairface.AGES[record.labels["age"]] == fairface_age(face) == record.groups["age"]
            assert (fairface.GENDERS[record.labels["gender"]] == "Male") == is_male(face)
            assert record.labels["race"] == index
            assert record.groups["race"] == fairface.RACES[index]
    edit(tmp_path / "fairface_label_val.csv", "East Asian", "Martian")
    assert reason(FairFace(tmp_path, "test"), 3)[1].startswith("line 5: race 'Martian' is none of White, Black")


def test_rafdb(tmp_path):
    splits = benchmarks.write_rafdb(tmp_path, 7)
    for split, faces in splits.items():
        aligned, original = RAFDB(tmp_path, split), RAFDB(tmp_path, split, aligned=False)
        for index, face in enumerate(faces):
            record, large = aligned[index], original[index]
            assert same_picture(record, face)
            assert record.points is None
            assert large.image.shape == (128, 128, 3)
            np.testing.assert_allclose((large.points + 0.5) / 2 - 0.5, face.five_points, atol=0.3)
            assert record.labels == large.labels == {"expression": index}
            assert (
                rafdb.EXPRESSIONS[index]
                == ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"][index]
            )
            assert record.groups["gender"] == ("male" if is_male(face) else "female")
            assert record.groups["race"] == ("Caucasian", "African-American", "Asian")[index % 3]
            low, _, high = record.groups["age"].replace("+", "-200").partition("-")
            assert int(low) <= face.age < int(high) + 1
    edit(tmp_path / "basic" / rafdb.LIST, "test_00002.jpg 2", "test_00002.jpg 8")
    (tmp_path / "basic" / rafdb.MANUAL / "test_00001_manu_attri.txt").write_text("1 2 3")
    dataset = RAFDB(tmp_path / "basic", "test", aligned=False)
    assert reason(dataset, 1)[1] == "'test_00002.jpg 8' names no expression 1 to 7"
    assert dataset[0].points is None
    assert set(dataset[0].groups.values()) == {""}


@pytest.mark.parametrize("first_release", [False, True])
def test_affectnet(tmp_path, first_release):
    for split, faces in benchmarks.write_affectnet(tmp_path, 9, first_release=first_release).items():
        dataset = AffectNet(tmp_path, split)
        assert len(dataset) == 8  # one has no expression
        assert len(AffectNet(tmp_path, split, 7)) == 7
        for index, (record, face) in enumerate(zip(dataset, faces[:8], strict=True)):
            assert same_picture(record, face)
            assert record.labels["expression"] == index
            assert (record.labels["valence"], record.labels["arousal"]) == pytest.approx(affect(index))
            landmarks = face.landmarks(68)
            np.testing.assert_allclose(
                record.points[[0, 2, 4]], landmarks[[[36, 37, 38, 39, 40, 41], [30] * 6, [54] * 6]].mean(1), atol=0.01
            )
            if first_release:
                np.testing.assert_allclose(record.box, face.box, atol=1)
    assert AffectNet(tmp_path, "test", 7).spec.label_names["expression"] == affectnet.EXPRESSIONS[:7]
    assert dataset.expected == (None if first_release else 3999)


def test_affectnet_tells_what_is_wrong(tmp_path):
    benchmarks.write_affectnet(tmp_path, 9)
    (tmp_path / "train_set" / "annotations" / "1_exp.npy").unlink()
    np.save(tmp_path / "train_set" / "annotations" / "2_exp.npy", np.array({"a": 1}, object), allow_pickle=True)
    np.save(tmp_path / "train_set" / "annotations" / "3_val.npy", np.array("-2.0"))
    dataset = AffectNet(tmp_path)
    assert reason(dataset, 1) == (BROKEN_ANNOTATION, "1_exp.npy is missing or no number")
    assert reason(dataset, 2)[0] == BROKEN_ANNOTATION  # a pickle, which is never opened
    assert np.isnan(dataset[3].labels["valence"])
    other = tmp_path / "first"
    benchmarks.write_affectnet(other, 9, first_release=True)
    edit(other / "Manually_Annotated_file_lists" / "validation.csv", ",4,0.04,-0.04", ",four,0.04,-0.04")
    assert reason(AffectNet(other, "test"), 4)[1] == "line 5: not 9 columns with seven numbers"
    with pytest.raises(ConfigError, match="expressions are 7 or 8"):
        AffectNet(other, expressions=6)
    with pytest.raises(DatasetNotFoundError, match=r"has neither train_set nor training.csv"):
        AffectNet(tmp_path / "val_set")
