"""Captions and attributes: true, varied, and of use."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from farl_lightning.datasets import SyntheticFace, SyntheticFaces
from farl_lightning.datasets.synthetic import CELEBA_ATTRIBUTES, EXPRESSIONS
from farl_lightning.text import clean_caption


@pytest.fixture(scope="module")
def faces() -> list[SyntheticFace]:
    return list(SyntheticFaces(600, seed=2))


def _named(face: SyntheticFace) -> dict[str, int]:
    return dict(zip(CELEBA_ATTRIBUTES, face.attributes, strict=True))


def _says(caption: str, words: str) -> bool:
    return re.search(rf"\b(?:{words})\b", caption.lower()) is not None


def test_attribute_names_are_celebas():
    assert len(CELEBA_ATTRIBUTES) == len(set(CELEBA_ATTRIBUTES)) == 40
    assert CELEBA_ATTRIBUTES[0] == "5_o_Clock_Shadow"
    assert CELEBA_ATTRIBUTES.index("Eyeglasses") == 15
    assert CELEBA_ATTRIBUTES.index("Male") == 20
    assert CELEBA_ATTRIBUTES.index("Smiling") == 31
    assert CELEBA_ATTRIBUTES.index("Wearing_Hat") == 35
    assert CELEBA_ATTRIBUTES[-1] == "Young"
    # CelebA sorts its names as ASCII does
    assert list(CELEBA_ATTRIBUTES) == sorted(CELEBA_ATTRIBUTES)


def test_unknown_is_said_only_where_documented(faces):
    for face in faces:
        unknown = {name for name, value in _named(face).items() if value == -1}
        expected = {"Attractive"}
        if face.look.hat is not None:
            expected |= {"Bald", "Receding_Hairline"}
        if face.look.glasses is not None and face.look.glasses.kind == "sun":
            expected |= {"Bags_Under_Eyes", "Narrow_Eyes"}
        assert unknown == expected


def test_every_drawable_attribute_occurs_with_and_without(faces):
    table = np.array([face.attributes for face in faces])
    for name, column in zip(CELEBA_ATTRIBUTES, table.T, strict=True):
        if name not in ("Attractive", "Blurry"):
            assert (column == 1).mean() > 0.01, name
            assert (column == 0).mean() > 0.1, name


def test_attributes_for_zero_shot_are_balanced(faces):
    table = np.array([face.attributes for face in faces])
    for name in ("Male", "Eyeglasses", "Smiling", "Wearing_Hat", "Young"):
        share = (table[:, CELEBA_ATTRIBUTES.index(name)] == 1).mean()
        assert 0.2 < share < 0.8, name


def test_attributes_agree_with_each_other(faces):
    for face in faces:
        named = _named(face)
        hair = [named[name] for name in ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")]
        assert sum(hair) <= 1
        if named["Bald"] == 1:
            assert sum(hair) == named["Bangs"] == named["Wavy_Hair"] == named["Straight_Hair"] == 0
        if named["Goatee"] or named["5_o_Clock_Shadow"]:
            assert named["Male"] == 1
            assert named["No_Beard"] == 0
        if named["Heavy_Makeup"]:
            assert named["Wearing_Lipstick"] == 1
        assert named["Smiling"] == (EXPRESSIONS[face.expression] == "happy")
        assert named["Young"] == (face.age < 40)


def test_captions_tell_the_truth(faces):
    for face in faces:
        named, look = _named(face), face.look
        for caption in face.captions:
            without = _says(caption, "no glasses")
            if not _says(caption, "person"):
                assert _says(caption, "man|boy") == bool(named["Male"]), caption
                assert _says(caption, "woman|girl") != bool(named["Male"]), caption
            if _says(caption, "glasses|eyeglasses|sunglasses"):
                assert (look.glasses is not None) != without, caption
                if _says(caption, "sunglasses"):
                    assert look.glasses.kind == "sun"
            if _says(caption, "hat|cap|beanie"):
                assert (look.hat is not None) != _says(caption, "no hat"), caption
                assert look.hat is None or look.hat.colour in caption or _says(caption, "a hat|hat"), caption
            if _says(caption, "beard|goatee|moustache|mustache|stubble"):
                assert bool(look.beard) != _says(caption, "no beard"), caption
            if _says(caption, "smile|smiling"):
                assert named["Smiling"] == 1, caption
            if _says(caption, "bald head|shaved head"):
                assert face.person.hair_length == "bald"
            if _says(caption, "earrings"):
                assert look.earrings is not None
            if _says(caption, "tie"):
                assert look.tie.colour in caption
            if _says(caption, "young"):
                assert named["Young"] == 1
            if _says(caption, "old|elderly"):
                assert face.age >= 60
            for words, expression in _MOODS.items():
                if _says(caption, words):
                    assert EXPRESSIONS[face.expression] == expression, caption


_MOODS = {
    "surprised?": "surprise",
    "angry": "anger",
    "sad": "sad",
    "scared": "fear",
    "disgust|disgusted": "disgust",
    "neutral|serious": "neutral",
    "happy": "happy",
}


def test_hair_is_named_by_its_colour(faces):
    words = {
        "black": "black",
        "brown": "brown",
        "blond": "blond",
        "red": "red",
        "gray": "gray",
        "white": "white",
    }
    mentioned = 0
    for face in faces:
        for caption in face.captions:
            if match := re.search(r"\b(\w+) hair\b", caption.lower()):
                assert re.fullmatch(words[face.person.hair], match[1]), caption
                mentioned += 1
    assert mentioned > 2000


def test_captions_never_tell_left_from_right(faces):
    """So a mirror image keeps its captions."""
    assert not any(_says(caption, "left|right") for face in faces for caption in face.captions)


def test_captions_are_clean_sentences(faces):
    for face in faces:
        assert len(face.captions) == 5
        for caption in face.captions:
            assert caption == clean_caption(caption)
            assert len(caption.split()) >= 3
            assert not re.search(r"\b(a [aeio]|an [^aeiou])|,,| ,|\.\.|\{|\bNone\b", caption), caption


def test_different_faces_rarely_share_a_caption(faces):
    count = Counter(caption for face in faces for caption in set(face.captions))
    # some have few facts to tell, such as "a smiling old woman with gray hair and no glasses"
    assert sum(number > 1 for number in count.values()) / len(count) < 0.05


def test_captions_of_a_face_differ_and_are_asked_for_by_number():
    faces = SyntheticFaces(100, num_captions=8)
    assert all(len(face.captions) == 8 for face in faces)
    assert np.mean([len(set(face.captions)) for face in faces]) > 7.5
    # the first ones do not depend on how many there are
    assert faces[3].captions[:5] == SyntheticFaces(100)[3].captions


def test_captions_say_enough_to_tell_faces_apart():
    """Rank 256 faces by how many words of a caption their other captions hold: words alone find most of them."""
    faces = SyntheticFaces(256, seed=9)
    words = [set(re.findall(r"\w+", face.captions[0].lower())) for face in faces]
    others = [set(re.findall(r"\w+", " ".join(face.captions[1:]).lower())) for face in faces]
    hits = [
        int(np.argmax([len(query & other) - 0.1 * len(other) for other in others])) == row
        for row, query in enumerate(words)
    ]
    assert np.mean(hits) > 0.5  # a caption names four facts, and those that others name may be different ones


def test_captions_rarely_name_the_background():
    captions = [caption for face in SyntheticFaces(400, seed=4) for caption in face.captions]
    named = [_says(caption, "background|wall|behind") for caption in captions]
    assert 0.08 < np.mean(named) < 0.16


def test_the_background_tells_nothing_about_the_face():
    """Under each of the twelve background colours every attribute is as frequent as anywhere."""
    faces = list(SyntheticFaces(6000, seed=5, pictures_per_identity=1))
    labels = np.array([face.attributes for face in faces])
    colours = np.array([face.look.backdrop.colour for face in faces])
    for colour in np.unique(colours):
        for column in range(labels.shape[1]):
            known = labels[:, column] >= 0
            if not known.any():
                continue
            rate, here = labels[known, column].mean(), labels[known & (colours == colour), column]
            assert abs(here.mean() - rate) < 5 * max(rate * (1 - rate) / len(here), 1e-6) ** 0.5


def test_background_alone_does_not_tell_the_person(faces):
    """Colour of the background and attributes are drawn independently."""
    dark = np.array([face.look.backdrop.colour in ("black", "brown", "gray", "purple") for face in faces])
    for name in ("Male", "Smiling", "Eyeglasses"):
        column = np.array([face.attributes[CELEBA_ATTRIBUTES.index(name)] for face in faces])
        assert abs(column[dark].mean() - column[~dark].mean()) < 0.13
