"""What a stranger might write under a picture: many sentences, all of them true."""

from __future__ import annotations

from farl_lightning.datasets.synthetic.draws import Draws
from farl_lightning.datasets.synthetic.parameters import EXPRESSIONS, Appearance, Garment, Identity

_MOODS = {
    "neutral": ("with a neutral expression", "looking serious", "with a calm face", "not smiling"),
    "happy": ("smiling", "with a smile", "with a happy face", "smiling happily", "with a cheerful smile"),
    "sad": ("looking sad", "with a sad face", "with a sorrowful expression"),
    "surprise": ("looking surprised", "with a surprised face", "with a look of surprise"),
    "fear": ("looking scared", "with a frightened face", "looking afraid"),
    "disgust": ("looking disgusted", "with a look of disgust", "with a disgusted face"),
    "anger": ("looking angry", "with an angry face", "frowning angrily"),
}
_MOOD_WORDS = {
    "neutral": "serious",
    "happy": "smiling",
    "sad": "sad",
    "surprise": "surprised",
    "fear": "scared",
    "disgust": "disgusted",
    "anger": "angry",
}
_SKIN = {
    "pale": ("pale", "very fair"),
    "light": ("light", "fair"),
    "tan": ("tan", "tanned"),
    "brown": ("brown",),
    "dark": ("dark", "deep brown"),
}
_HAIR = {
    "black": ("black",),
    "brown": ("brown",),
    "blond": ("blond", "blonde"),
    "red": ("red", "ginger"),
    "gray": ("gray", "grey"),
    "white": ("white",),
}
_BEARDS = {
    "full": ("a full beard", "a beard", "a thick beard"),
    "stubble": ("stubble", "a short stubble beard"),
    "goatee": ("a goatee", "a goatee beard"),
    "moustache": ("a moustache", "a mustache"),
}
_GLASSES = {
    "round": ("round {} glasses", "{} round eyeglasses", "round spectacles in {}", "{} glasses"),
    "square": ("square {} glasses", "{} rectangular eyeglasses", "square spectacles in {}", "{} glasses"),
    "sun": ("sunglasses with a {} frame", "dark sunglasses", "{} sunglasses"),
}
_SHOTS = ("a photo of", "a picture of", "a portrait of", "a close-up of", "an image of", "a headshot of", "")
_GROUNDS = {
    "plain": ("{0} background", "plain {0} background", "{0} wall"),
    "gradient": ("{0} and {1} gradient background", "background that fades from {0} to {1}"),
    "stripes": ("{0} and {1} striped background", "wall with {0} and {1} stripes"),
    "spots": ("{0} background with {1} spots", "{0} wall with {1} dots"),
}


def write_captions(person: Identity, look: Appearance, seed: int, count: int) -> list[str]:
    """Write captions of one picture.

    Each names most of what can be seen, in words and an order drawn anew; what is not mentioned may still be there.
    Left and right are never named, so that a mirror image keeps its captions.

    Args:
        person: Who is shown.
        look: How.
        seed: Seed of the dataset.
        count: Number of captions.

    Returns:
        ``count`` captions, each at least 3 words long; now and then two are the same.
    """
    return [_Writer(person, look, Draws(seed, "caption", look.index, row)).caption() for row in range(count)]


class _Writer:
    """Writes one caption."""

    def __init__(self, person: Identity, look: Appearance, draws: Draws) -> None:
        self.person, self.look, self.draws = person, look, draws

    def caption(self) -> str:
        """Draw a frame and fill it."""
        frames = (self.one_sentence, self.one_sentence, self.facts, self.keywords, self.wearing_first, self.brief)
        frame = self.draws.choice(frames)
        text = " ".join(frame().split())
        return text[0].upper() + text[1:] if self.draws.chance(0.5) else text

    def one_sentence(self) -> str:
        """A photo of a young man with short brown hair, wearing a red hat, smiling, in front of a blue wall."""
        parts = [self.with_parts(), self.wearing_parts(), self.mood(), self.ground()]
        return f"{self.draws.choice(_SHOTS)} {_article(self.subject())} " + ", ".join(part for part in parts if part)

    def facts(self) -> str:
        """A young man. He has short brown hair and wears a red hat. He is smiling. The background is blue."""
        pronoun = "he" if self.person.male else "she"
        has, wears = _list(self.traits()), _list(self.worn())
        verbs = " and ".join(part for part in (has and f"has {has}", wears and f"wears {wears}") if part)
        mood, ground = self.mood(), self.ground()
        first = f"{_article(self.subject())} {mood}" if mood else _article(self.subject())
        said = f"{first}. {pronoun.capitalize()} {verbs}." if verbs else f"{first}."
        return f"{said} {ground.capitalize()}." if ground else said

    def keywords(self) -> str:
        """Young man, short brown hair, red hat, smiling, blue background."""
        parts = [self.subject(), *self.traits(), *self.worn(), self.mood(), self.ground()]
        return ", ".join(part.removeprefix("a ").removeprefix("an ") for part in parts if part)

    def wearing_first(self) -> str:
        """Wearing a red hat, a smiling young man with short brown hair against a blue background."""
        wears = self.wearing_parts()
        opening = f"{wears}, " if wears else ""
        return f"{opening}{_article(self.subject())} {self.with_parts()} {self.mood()} {self.ground()}".strip()

    def brief(self) -> str:
        """A photo of a smiling woman with glasses: what prompts look like."""
        draws, look = self.draws, self.look
        years = self.person.age + look.years_later
        age = "young" if years < 40 else "middle-aged" if years < 60 else draws.choice(("old", "elderly"))
        mood = _MOOD_WORDS[EXPRESSIONS[look.expression]]
        adult = "man" if self.person.male else "woman"
        child = "boy" if self.person.male else "girl"
        noun = draws.choice(("person", adult if years >= 13 else child, adult if years >= 13 else child))
        words = [mood] * draws.chance(0.5) + [age] * draws.chance(0.4) + [noun]
        facts = self.brief_facts()
        first = draws.choice(range(len(facts)))
        chosen = [facts[first], facts[(first + 1) % len(facts)]][: 1 + draws.chance(0.5)]
        return f"{draws.choice(_SHOTS)} {_article(' '.join(words))} {' and '.join(chosen)}"

    def brief_facts(self) -> list[str]:
        """List what is there or plainly is not, a few words each."""
        draws, look, person = self.draws, self.look, self.person
        worn = ("wearing glasses", "with glasses", "in spectacles", "with eyeglasses")
        facts = [
            draws.choice(worn) if look.glasses is not None else draws.choice(("without glasses", "without eyeglasses")),
            draws.choice(("wearing a hat", "with a hat")) if look.hat is not None else "without a hat",
        ]
        if person.hair_length != "bald":
            facts.append(f"with {draws.choice(_HAIR[person.hair])} hair")
        if person.male and person.age > 20 and look.beard in ("", "full"):
            facts.append("with a beard" if look.beard else "with no beard")
        if EXPRESSIONS[look.expression] != "happy":
            facts.append("not smiling")
        return facts

    def with_parts(self) -> str:
        """Join what belongs to the face: with short hair and a beard."""
        traits = _list(self.traits())
        return f"with {traits}" if traits else ""

    def wearing_parts(self) -> str:
        """Join what is worn: wearing a red hat and round glasses."""
        worn = _list(self.worn())
        return f"{self.draws.choice(('wearing', 'in', 'wearing'))} {worn}" if worn else ""

    def subject(self) -> str:
        """Name the person by age and gender."""
        years, male, draws = self.person.age + self.look.years_later, self.person.male, self.draws
        adult = draws.choice(("man", "gentleman", "man", "man") if male else ("woman", "lady", "woman", "woman"))
        if years < 13:
            return f"{draws.choice(('young', 'little', 'small'))} {'boy' if male else 'girl'}"
        if years < 20:
            return f"teenage {'boy' if male else 'girl'}"
        if years < 40:
            return f"young {adult}"
        if years < 60:
            return f"middle-aged {adult}"
        return f"{draws.choice(('old', 'elderly', 'older'))} {adult}"

    def traits(self) -> list[str]:
        """List what belongs to the face, in a drawn order."""
        draws, look = self.draws, self.look
        parts = []
        if draws.chance(0.92):
            parts.append(self.hair())
        if look.beard and draws.chance(0.92):
            parts.append(draws.choice(_BEARDS[look.beard]))
        elif self.person.male and self.person.age > 20 and not look.beard and draws.chance(0.25):
            parts.append(draws.choice(("no beard", "a clean-shaven face")))
        if draws.chance(0.55):
            parts.append(f"{draws.choice(_SKIN[self.person.skin])} skin")
        if look.lipstick is not None and draws.chance(0.35):
            parts.append("lipstick")
        if draws.chance(0.2) and not (look.glasses is not None and look.glasses.kind == "sun"):
            parts.append(f"{self.person.eye} eyes")
        if look.blush and draws.chance(0.4):
            parts.append("rosy cheeks")
        return parts if draws.chance(0.6) else parts[::-1]

    def hair(self) -> str:
        """Describe the hair as far as it can be seen."""
        person, look, draws = self.person, self.look, self.draws
        if person.hair_length == "bald":
            return "a bald head" if look.hat is None else "a shaved head"
        colour = draws.choice(_HAIR[person.hair])
        texture = person.texture if draws.chance(0.5) and look.hat is None else ""
        length = {"medium": "chin-length"}.get(person.hair_length, person.hair_length)
        if look.up:
            tied = {"bun": "in a bun", "pigtails": "in pigtails"}[look.up]
            return f"{texture} {colour} hair {tied}"
        hair = f"{length if draws.chance(0.85) else ''} {texture} {colour} hair"
        if look.bangs and look.hat is None and draws.chance(0.4):
            return f"{hair} with bangs"
        if person.balding > 0.5 and look.hat is None and draws.chance(0.4):
            return f"a receding hairline and {hair}"
        return hair

    def worn(self) -> list[str]:
        """List what is worn, in a drawn order."""
        look, draws = self.look, self.draws
        parts = []
        if look.glasses is not None and draws.chance(0.93):
            parts.append(draws.choice(_GLASSES[look.glasses.kind]).format(look.glasses.colour))
        if look.hat is not None and draws.chance(0.93):
            parts.append(self.hat(look.hat))
        if draws.chance(0.95):
            parts.append(_article(f"{look.clothes.colour} {look.clothes.kind}"))
        if look.tie is not None and draws.chance(0.6):
            parts.append(_article(f"{look.tie.colour} tie"))
        if look.earrings is not None and draws.chance(0.65):
            kind = draws.choice(("", look.earrings.kind)) if look.earrings.kind != "drop" else ""
            parts.append(f"{look.earrings.colour} {kind} earrings")
        if look.necklace is not None and draws.chance(0.4):
            parts.append(_article(f"{look.necklace.colour} necklace"))
        return parts if draws.chance(0.5) else parts[::-1]

    def hat(self, hat: Garment) -> str:
        """Name the hat."""
        words = {"beanie": ("beanie", "knit hat", "hat"), "cap": ("cap", "cap", "hat")}
        kind = self.draws.choice(words.get(hat.kind, (hat.kind, "brimmed hat", "hat")))
        return _article(f"{hat.colour} {kind}")

    def mood(self) -> str:
        """Name the expression, and at times how the head is held or what is missing."""
        draws, look = self.draws, self.look
        parts = []
        if draws.chance(0.88):
            parts.append(draws.choice(_MOODS[EXPRESSIONS[look.expression]]))
        if abs(look.pose.yaw) > 16 and draws.chance(0.3):
            parts.append(draws.choice(("looking to the side", "turned to the side")))
        if abs(look.pose.roll) > 9 and draws.chance(0.25):
            parts.append("with a tilted head")
        if look.glasses is None and draws.chance(0.12):
            parts.append("without glasses")
        if look.hat is None and draws.chance(0.10):
            parts.append(draws.choice(("without a hat", "bareheaded")))
        return ", ".join(parts)

    def ground(self) -> str:
        """Describe the background."""
        back = self.look.backdrop
        if not self.draws.chance(0.95):
            return ""
        words = self.draws.choice(_GROUNDS[back.kind]).format(back.colour, back.other)
        return f"{self.draws.choice(('in front of', 'against'))} {_article(words)}"


def _article(words: str) -> str:
    """Put a or an before words."""
    return f"{'an' if words.lstrip()[0] in 'aeiou' else 'a'} {words}"


def _list(parts: list[str]) -> str:
    """Join words: a, b and c."""
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else "".join(parts)
