"""Prompts of zero-shot recognition: several phrasings of each answer, for CelebA's 40 attributes and for classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from farl_lightning.errors import ConfigError, did_you_mean

Prompts = Mapping[str, Sequence[str]]
"""Phrasings by answer."""


def _people(*facts: str) -> list[str]:
    """Write prompts about a man and a woman, so that neither is what tells two answers apart."""
    return [f"a photo of {_article(fact.format(person))}" for fact in facts for person in ("man", "woman")]


def _article(word: str) -> str:
    """Put "a" or "an" before a word."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _men(*facts: str) -> list[str]:
    """Write prompts about men alone, for beards."""
    return [f"a photo of a man {fact}" for fact in facts]


_SHAVEN = [*_men("with no beard", "who is clean-shaven"), "a photo of a woman"]
_OTHER_HAIR = {
    "black": _people("{} with brown hair", "{} with blond hair", "{} with gray hair"),
    "blond": _people("{} with black hair", "{} with brown hair", "{} with gray hair"),
    "brown": _people("{} with black hair", "{} with blond hair", "{} with gray hair"),
    "gray": _people("{} with black hair", "{} with brown hair", "{} with blond hair"),
}

ATTRIBUTE_PROMPTS: dict[str, tuple[list[str], list[str]]] = {
    "5_o_Clock_Shadow": (_men("with stubble", "with a five o'clock shadow", "who has not shaved today"), _SHAVEN),
    "Arched_Eyebrows": (_people("{} with arched eyebrows"), _people("{} with straight eyebrows", "{} with flat brows")),
    "Attractive": (
        _people("good-looking {}", "beautiful {}", "{} with an attractive face"),
        _people("plain {}", "{} with an ordinary face", "{} who is not pretty"),
    ),
    "Bags_Under_Eyes": (
        _people("{} with bags under the eyes", "tired {} with puffy eyes"),
        _people("{} with smooth skin under the eyes", "well rested {}"),
    ),
    "Bald": (
        ["a photo of a bald man", "a photo of a man with a bald head"],
        _people("{} with short hair", "{} with long hair"),
    ),
    "Bangs": (_people("{} with bangs", "{} with a fringe over the forehead"), _people("{} with a bare forehead")),
    "Big_Lips": (_people("{} with big lips", "{} with full lips"), _people("{} with thin lips", "{} with small lips")),
    "Big_Nose": (_people("{} with a big nose", "{} with a wide nose"), _people("{} with a small nose")),
    "Black_Hair": (_people("{} with black hair"), _OTHER_HAIR["black"]),
    "Blond_Hair": (_people("{} with blond hair"), _OTHER_HAIR["blond"]),
    "Blurry": (
        ["a blurry photo of a person", "an out-of-focus photo of a face", "a low-resolution photo of a person"],
        ["a sharp photo of a person", "a photo of a face in focus", "a high-resolution photo of a person"],
    ),
    "Brown_Hair": (_people("{} with brown hair"), _OTHER_HAIR["brown"]),
    "Bushy_Eyebrows": (_people("{} with bushy eyebrows", "{} with thick brows"), _people("{} with thin eyebrows")),
    "Chubby": (_people("chubby {}", "{} with a round, full face"), _people("thin {}", "{} with a lean face")),
    "Double_Chin": (_people("{} with a double chin"), _people("{} with a firm chin", "{} with a clear jawline")),
    "Eyeglasses": (_people("{} wearing glasses"), _people("{} with no glasses")),
    "Goatee": (_men("with a goatee", "with a small beard on the chin"), _SHAVEN),
    "Gray_Hair": (_people("{} with gray hair", "{} with white hair"), _OTHER_HAIR["gray"]),
    "Heavy_Makeup": (
        ["a photo of a woman with heavy makeup", "a photo of a person wearing a lot of makeup"],
        ["a photo of a woman without makeup", "a photo of a man", "a photo of a person with a natural face"],
    ),
    "High_Cheekbones": (_people("{} with high cheekbones"), _people("{} with flat cheeks", "{} with low cheekbones")),
    "Male": (
        ["a photo of a man", "a photo of a young man", "a photo of an old man", "a photo of a smiling man"],
        ["a photo of a woman", "a photo of a young woman", "a photo of an old woman", "a photo of a smiling woman"],
    ),
    "Mouth_Slightly_Open": (
        _people("{} with an open mouth", "{} with parted lips", "{} showing teeth"),
        _people("{} with a closed mouth", "{} with lips pressed together"),
    ),
    "Mustache": (
        _men("with a mustache", "with hair on the upper lip"),
        [*_men("without a mustache"), "a photo of a woman"],
    ),
    "Narrow_Eyes": (
        _people("{} with narrow eyes", "squinting {}"),
        _people("{} with wide open eyes", "{} with big eyes"),
    ),
    "No_Beard": (
        ["a photo of a man with no beard", "a photo of a woman"],
        ["a photo of a man with a beard", "a photo of a man with a goatee"],
    ),
    "Oval_Face": (_people("{} with an oval face"), _people("{} with a round face", "{} with a square face")),
    "Pale_Skin": (
        _people("{} with pale skin", "{} with very fair skin"),
        _people("{} with tanned skin", "{} with dark skin"),
    ),
    "Pointy_Nose": (
        _people("{} with a pointy nose", "{} with a sharp nose"),
        _people("{} with a round nose", "{} with a flat nose"),
    ),
    "Receding_Hairline": (
        _people("{} with a receding hairline", "{} with a high forehead"),
        _people("{} with a full head of hair", "{} with a low hairline"),
    ),
    "Rosy_Cheeks": (_people("{} with rosy cheeks", "{} with blush on the cheeks"), _people("{} with pale cheeks")),
    "Sideburns": (
        _men("with sideburns", "with whiskers beside the ears"),
        [*_men("without sideburns"), "a photo of a woman"],
    ),
    "Smiling": (_people("smiling {}"), _people("serious {}", "sad {}", "angry {}", "surprised {}")),
    "Straight_Hair": (_people("{} with straight hair"), _people("{} with wavy hair", "{} with curly hair")),
    "Wavy_Hair": (
        _people("{} with wavy hair", "{} with curly hair"),
        _people("{} with straight hair", "{} with short hair"),
    ),
    "Wearing_Earrings": (_people("{} wearing earrings"), _people("{} without earrings", "{} with bare ears")),
    "Wearing_Hat": (_people("{} wearing a hat"), _people("{} with no hat")),
    "Wearing_Lipstick": (
        ["a photo of a woman wearing lipstick", "a photo of a person with red lips"],
        ["a photo of a woman without lipstick", "a photo of a man", "a photo of a person with natural lips"],
    ),
    "Wearing_Necklace": (_people("{} wearing a necklace"), _people("{} without a necklace", "{} with a bare neck")),
    "Wearing_Necktie": (
        _people("{} wearing a necktie", "{} in a suit and tie"),
        _people("{} without a tie", "{} with an open collar"),
    ),
    "Young": (_people("young {}"), [*_people("middle-aged {}"), "a photo of an old man", "a photo of an old woman"]),
}
"""CelebA attribute -> prompts of a face that has it, prompts of a face that does not."""


def _faces(*moods: str) -> list[str]:
    """Write prompts of an expression."""
    return [
        prompt for mood in moods for prompt in (*_people(f"{mood} {{}}"), f"a face with {_article(mood)} expression")
    ]


CLASS_PROMPTS: dict[str, dict[str, list[str]]] = {
    "gender": {"male": ATTRIBUTE_PROMPTS["Male"][0], "female": ATTRIBUTE_PROMPTS["Male"][1]},
    "expression": {
        "neutral": _faces("serious", "calm", "neutral"),
        "happiness": _faces("smiling", "happy", "laughing"),
        "sadness": _faces("sad", "crying"),
        "surprise": _faces("surprised", "astonished"),
        "fear": _faces("scared", "frightened"),
        "disgust": _faces("disgusted", "revolted"),
        "anger": _faces("angry", "furious"),
        "contempt": _faces("scornful", "contemptuous"),
    },
}
"""Label -> class -> prompts."""

_SAME = {
    "man": "male",
    "m": "male",
    "woman": "female",
    "f": "female",
    "happy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
    "fearful": "fear",
    "disgusted": "disgust",
    "angry": "anger",
}
"""Other names of the same classes, in lower case."""

AGE_LIMITS = (3, 10, 20, 30, 40, 50, 60, 70)
"""Years at which FairFace's age groups part: those that numbers are told apart in."""

_INTERVALS = (
    (re.compile(r"(\d+)\s*(?:-|to)\s*(\d+)"), lambda low, high: (low, high)),
    (re.compile(r"(?:more than|over|above|>=?)\s*(\d+)|(\d+)\s*\+"), lambda low, more: (low or more, None)),
    (re.compile(r"(?:less than|under|below|<)\s*(\d+)"), lambda high: (0, high)),
)


def age_interval(name: str) -> tuple[int, int | None] | None:
    """Read the years of an age group off its name.

    Args:
        name: Such as ``"20-29"``, ``"more than 70"``, ``"70+"``, ``">=60"`` or ``"<30"``.

    Returns:
        First and last year, None for no end; None if the name says no years.

    Example:
        >>> age_interval("20-29"), age_interval("more than 70"), age_interval("calm")
        ((20, 29), (70, None), None)
    """
    for pattern, ends in _INTERVALS:
        if match := pattern.fullmatch(name.strip().lower()):
            low, high = ends(*(None if part is None else int(part) for part in match.groups()))
            return low, high
    return None


def age_prompts(low: int, high: int | None) -> list[str]:
    """Write prompts of an age group: of a few ages in it, and in words.

    Args:
        low: First year.
        high: Last year; None for no end.
    """
    last = low + 15 if high is None else high
    ages = sorted({low + (last - low) * part // 4 for part in (0, 1, 2, 3, 4)})
    told = [f"a photo of {_article_of_age(age)} {age} year old {{}}" for age in ages]
    prompts = [text.format(person) for text in told for person in _persons((low + last) / 2)]
    span = f"over {low}" if high is None else f"between {low} and {high}"
    return [*prompts, f"a photo of a person {span} years of age"]


def _article_of_age(age: int) -> str:
    """Return the article before a number: an eight, an eleven, an eighteen, an eighty."""
    return "an" if age in (8, 11, 18) or 80 <= age < 90 else "a"


def _persons(age: float) -> tuple[str, str]:
    """Name people of an age."""
    if age < 3:
        return "baby boy", "baby girl"
    return ("boy", "girl") if age < 16 else ("man", "woman")


def attribute_prompts(name: str, own: Mapping[str, Prompts] | None = None) -> tuple[list[str], list[str]]:
    """Return the prompts of presence and of absence of an attribute.

    Args:
        name: Of the attribute, as CelebA has it or as in ``own``.
        own: One's own prompts by attribute, under ``yes`` and ``no``; they come first.

    Raises:
        ConfigError: If it has none.
    """
    if own and name in own:
        yes, no = _all_of(name, ["yes", "no"], own[name])
        return yes, no
    if name not in ATTRIBUTE_PROMPTS:
        raise ConfigError(f"zero_shot attribute '{name}' has no prompts. {did_you_mean(name, ATTRIBUTE_PROMPTS)}")
    return ATTRIBUTE_PROMPTS[name]


def class_prompts(
    column: str, names: Sequence[str], own: Mapping[str, Prompts] | None = None
) -> list[list[str]] | None:
    """Return the prompts of every class of a label.

    Args:
        column: Name of the label.
        names: Its classes as the data call them.
        own: One's own prompts by label and class; they come first.

    Returns:
        Several for each class; None where they are not known: of labels other than gender, expression and age groups.

    Raises:
        ConfigError: If one's own prompts lack a class.
    """
    if own and column in own:
        return _all_of(column, names, own[column])
    if names and column.lower().startswith("age"):
        intervals = [age_interval(name) for name in names]
        found = [age_prompts(*interval) for interval in intervals if interval]
        return found if len(found) == len(names) else None
    known = CLASS_PROMPTS.get(column.lower(), {})
    plain = [_SAME.get(name.lower(), name.lower()) for name in names]
    return [known[name] for name in plain] if plain and set(plain) <= set(known) else None


def _all_of(label: str, names: Sequence[str], own: Prompts) -> list[list[str]]:
    """Return one's own prompts in the order of the classes."""
    for name in names:
        if isinstance(own.get(name, ""), str) or not own[name]:
            raise ConfigError(f"prompts of '{label}' need a list of phrasings for '{name}'; given: {', '.join(own)}")
    return [list(own[name]) for name in names]
