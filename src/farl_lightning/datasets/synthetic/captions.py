"""What a stranger might write under a picture: a few sentences, all of them true."""

from __future__ import annotations

from farl_lightning.datasets.synthetic.draws import Draws
from farl_lightning.datasets.synthetic.parameters import EXPRESSIONS, Appearance, Garment, Identity

_MOOD_WORDS = {
    "neutral": "serious",
    "happy": "smiling",
    "sad": "sad",
    "surprise": "surprised",
    "fear": "scared",
    "disgust": "disgusted",
    "anger": "angry",
}
_BEARDS = {
    "full": "a beard",
    "stubble": "stubble",
    "goatee": "a goatee",
    "moustache": "a moustache",
}
_GLASSES = {
    "round": ("{} glasses", "{} glasses", "{} glasses", "round {} glasses"),
    "square": ("{} glasses", "{} glasses", "{} glasses", "square {} glasses"),
    "sun": ("{} sunglasses", "sunglasses"),
}
_HATS = {"beanie": ("beanie", "hat"), "cap": ("cap", "hat"), "wide-brimmed hat": ("wide-brimmed hat", "hat")}
_SHOTS = ("a photo of", "a photo of", "a picture of", "a portrait of", "a close-up of", "")
_GROUNDS = {
    "plain": ("{0} background", "{0} wall"),
    "gradient": ("{0} and {1} gradient background", "{0} and {1} wall"),
    "stripes": ("{0} and {1} striped background", "wall with {0} and {1} stripes"),
    "spots": ("{0} background with {1} spots", "{0} wall with {1} dots"),
}
_GROUND_SHARE = 0.12  # of the captions: so rare that pictures cannot be told apart by what is behind the face


def write_captions(person: Identity, look: Appearance, seed: int, count: int) -> list[str]:
    """Write captions of one picture.

    Each names some of what can be seen of the person, in words and an order drawn anew, and rarely the background. What
    is not mentioned may still be there. Left and right are never named, so that a mirror image keeps its captions.

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
        self.has, self.wears = self.traits(), self.worn()
        if draws.chance(0.3):
            self.has, self.wears = self.has[::-1], self.wears[::-1]

    def caption(self) -> str:
        """Draw a frame and fill it."""
        frames = {self.portrait: 7, self.one_sentence: 1, self.sentences: 1, self.keywords: 1}
        text = " ".join(self.draws.weighted(frames)().split())
        return text[0].upper() + text[1:] if self.draws.chance(0.5) else text

    def portrait(self) -> str:
        """A photo of a smiling young man with black hair and a beard, wearing red glasses."""
        mood = _MOOD_WORDS[EXPRESSIONS[self.look.expression]] if self.draws.chance(0.9) else ""
        subject = _article(f"{mood} {self.subject()}".strip())
        return f"{self.shot()} {self.sentence(subject)}"

    def one_sentence(self) -> str:
        """A photo of a young man with black hair and a beard, wearing red glasses, smiling."""
        return f"{self.shot()} {self.sentence(_article(self.subject()), self.mood())}"

    def sentence(self, subject: str, mood: str = "") -> str:
        """Join a subject, what belongs to it, what is worn, the expression and the background."""
        first = f"{subject} with {_list(self.has)}" if self.has else subject
        wears = f"wearing {_list(self.wears)}" if self.wears else ""
        ground = self.ground()
        behind = f"{self.draws.choice(('in front of', 'against'))} {_article(ground)}" if ground else ""
        return ", ".join(part for part in (first, wears, mood, behind) if part)

    def sentences(self) -> str:
        """A young man, smiling. He has black hair and a beard and wears red glasses. The background is blue."""
        pronoun = "He" if self.person.male else "She"
        verbs = [f"has {_list(self.has)}"] * bool(self.has) + [f"wears {_list(self.wears)}"] * bool(self.wears)
        said = f"{_article(self.subject())}, {self.mood()}." + f" {pronoun} {' and '.join(verbs)}." * bool(verbs)
        ground = self.ground()
        return f"{said} Behind is {_article(ground)}." if ground else said

    def keywords(self) -> str:
        """Young man, black hair, beard, red glasses, smiling, blue background."""
        parts = [self.subject(), *self.has, *self.wears, self.mood(), self.ground()]
        return ", ".join(part.removeprefix("a ").removeprefix("an ") for part in parts if part)

    def shot(self) -> str:
        """Name the kind of picture, or not."""
        return self.draws.choice(_SHOTS)

    def subject(self) -> str:
        """Name the person by age and gender, at times by one of them alone."""
        years, male, draws = self.person.age + self.look.years_later, self.person.male, self.draws
        adult, child = ("man", "boy") if male else ("woman", "girl")
        noun = adult if years >= 20 or (years >= 13 and draws.chance(0.5)) else child
        noun = "person" if draws.chance(0.08) else noun
        if draws.chance(0.25):
            return noun
        return f"{'young' if years < 40 else 'middle-aged' if years < 60 else 'old'} {noun}"

    def traits(self) -> list[str]:
        """List what belongs to the face, and plainly what does not."""
        draws, look, person = self.draws, self.look, self.person
        parts = [self.hair()]
        if look.beard and draws.chance(0.9):
            parts.append(_BEARDS[look.beard])
        elif person.male and person.age > 20 and not look.beard and draws.chance(0.2):
            parts.append("no beard")
        if draws.chance(0.65):
            parts.append(f"{person.skin} skin")
        if look.lipstick is not None and draws.chance(0.5):
            parts.append("lipstick")
        if look.blush and draws.chance(0.4):
            parts.append("rosy cheeks")
        if look.glasses is None and draws.chance(0.55):
            parts.append("no glasses")
        if look.hat is None and draws.chance(0.3):
            parts.append("no hat")
        return parts

    def hair(self) -> str:
        """Describe the hair as far as it can be seen."""
        person, look, draws = self.person, self.look, self.draws
        if person.hair_length == "bald":
            return "a bald head" if look.hat is None else "a shaved head"
        hair = f"{person.hair} hair"
        if look.up:
            return f"{hair} {'in a bun' if look.up == 'bun' else 'in pigtails'}"
        if look.bangs and look.hat is None and draws.chance(0.4):
            return f"{hair} and bangs"
        length = {"medium": "chin-length"}.get(person.hair_length, person.hair_length)
        texture = person.texture if draws.chance(0.1) and look.hat is None else ""
        return f"{length if draws.chance(0.6) else ''} {texture} {hair}"

    def worn(self) -> list[str]:
        """List what is worn."""
        look, draws = self.look, self.draws
        parts = []
        if look.glasses is not None:
            parts.append(draws.choice(_GLASSES[look.glasses.kind]).format(look.glasses.colour))
        if look.hat is not None:
            parts.append(self.hat(look.hat))
        if look.earrings is not None and draws.chance(0.6):
            parts.append(f"{look.earrings.colour} earrings")
        if look.necklace is not None and draws.chance(0.3):
            parts.append(_article(f"{look.necklace.colour} necklace"))
        if look.tie is not None and draws.chance(0.4):
            parts.append(_article(f"{look.tie.colour} tie"))
        if draws.chance(0.3):
            parts.append(_article(f"{look.clothes.colour} {look.clothes.kind}"))
        return parts

    def hat(self, hat: Garment) -> str:
        """Name the hat, mostly with its colour."""
        return _article(f"{hat.colour} {self.draws.choice(_HATS[hat.kind])}") if self.draws.chance(0.9) else "a hat"

    def mood(self) -> str:
        """Name the expression."""
        mood = _MOOD_WORDS[EXPRESSIONS[self.look.expression]]
        return mood if mood == "smiling" else f"looking {mood}"

    def ground(self) -> str:
        """Describe the background, or not."""
        back = self.look.backdrop
        if not self.draws.chance(_GROUND_SHARE):
            return ""
        return self.draws.choice(_GROUNDS[back.kind]).format(back.colour, back.other)


def _article(words: str) -> str:
    """Put a or an before words."""
    return f"{'an' if words.lstrip()[0] in 'aeiou' else 'a'} {words}"


def _list(parts: list[str]) -> str:
    """Join words: a, b and c."""
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else "".join(parts)
