"""Prompts: all answers have some, classes are found under any of their names, one's own come first."""

from __future__ import annotations

import pytest

from farl_lightning.datasets.affectnet import EXPRESSIONS as AFFECTNET
from farl_lightning.datasets.fairface import AGES, GENDERS
from farl_lightning.datasets.rafdb import EXPRESSIONS as RAFDB
from farl_lightning.datasets.synthetic import EXPRESSIONS as DRAWN
from farl_lightning.datasets.synthetic.attributes import CELEBA_ATTRIBUTES
from farl_lightning.errors import ConfigError
from farl_lightning.text import Tokenizer, bin_name
from farl_lightning.text.prompts import (
    AGE_LIMITS,
    ATTRIBUTE_PROMPTS,
    CLASS_PROMPTS,
    age_interval,
    age_prompts,
    attribute_prompts,
    class_prompts,
)


def test_all_forty_attributes_have_two_sides():
    assert set(ATTRIBUTE_PROMPTS) == set(CELEBA_ATTRIBUTES)
    for present, absent in ATTRIBUTE_PROMPTS.values():
        assert min(len(present), len(absent)) >= 2
        assert not set(present) & set(absent)
        assert len(set(present)) == len(present)


def test_prompts_are_english_and_fit_the_tokenizer():
    every = [text for sides in ATTRIBUTE_PROMPTS.values() for side in sides for text in side]
    every += [text for classes in CLASS_PROMPTS.values() for side in classes.values() for text in side]
    every += [text for low in (0, 8, 18, 70) for text in age_prompts(low, None)]
    assert "a photo of an angry man" in every
    assert "a photo of an 18 year old man" in every
    for text in every:
        assert "{" not in text
        assert not any(f" a {vowel}" in text for vowel in "aeio")
    assert (Tokenizer(32)(every) == Tokenizer.eot_id).any(1).all()
    assert not (Tokenizer(32)(every)[:, -1] == Tokenizer.eot_id).any()  # none was cut


@pytest.mark.parametrize("names", [AFFECTNET, AFFECTNET[:7], RAFDB, DRAWN])
def test_expressions_of_every_dataset_have_prompts(names):
    prompts = class_prompts("expression", names)
    assert len(prompts) == len(names)
    everything = [text for side in prompts for text in side]
    assert len(set(everything)) == len(everything)  # no phrasing stands for two classes
    assert "a photo of a sad woman" in prompts[[name[:3] for name in names].index("sad")]


def test_genders_are_found_in_any_order_and_case():
    male, female = class_prompts("gender", GENDERS)
    assert class_prompts("gender", ("female", "male")) == [female, male]
    assert "a photo of a woman" in female
    assert class_prompts("gender", ("x", "y")) is None
    assert class_prompts("mood", ("male", "female")) is None


@pytest.mark.parametrize(
    ("name", "years"),
    [
        ("0-2", (0, 2)),
        ("more than 70", (70, None)),
        ("70+", (70, None)),
        (">=60", (60, None)),
        ("<30", (0, 30)),
        ("20 to 29", (20, 29)),
        ("old", None),
    ],
)
def test_age_groups_are_read_off_their_names(name, years):
    assert age_interval(name) == years


def test_age_groups_have_prompts_of_their_years():
    prompts = class_prompts("age", AGES)
    assert "a photo of a 24 year old woman" in prompts[AGES.index("20-29")]
    assert "a photo of a 1 year old baby girl" in prompts[0]
    assert "a photo of a person over 70 years of age" in prompts[-1]
    assert len(class_prompts("age_group", [bin_name(year, AGE_LIMITS) for year in (-1, *AGE_LIMITS)])) == 9
    assert class_prompts("age", ("young", "old")) is None
    assert class_prompts("age", ()) is None


def test_own_prompts_come_first_and_must_be_complete():
    own = {"mood": {"calm": ["a calm face"], "glad": ["a glad face", "joy"]}, "Odd": {"yes": ["odd"], "no": ["even"]}}
    assert class_prompts("mood", ("glad", "calm"), own) == [["a glad face", "joy"], ["a calm face"]]
    assert attribute_prompts("Odd", own) == (["odd"], ["even"])
    assert attribute_prompts("Smiling", own) == ATTRIBUTE_PROMPTS["Smiling"]
    with pytest.raises(ConfigError, match="prompts of 'mood' need a list of phrasings for 'sad'; given: calm, glad"):
        class_prompts("mood", ("sad",), own)
    with pytest.raises(ConfigError, match="need a list of phrasings for 'calm'"):
        class_prompts("mood", ("calm",), {"mood": {"calm": "no list"}})
    with pytest.raises(ConfigError, match="Did you mean 'Wearing_Hat'"):
        attribute_prompts("Wearing_Hats")
