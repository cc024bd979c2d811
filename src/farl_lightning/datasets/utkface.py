"""UTKFace and MORPH II: age and gender, written in the names of the pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from farl_lightning.datasets.faces import DatasetSource, check_split, find_root, list_names, not_found
from farl_lightning.datasets.labelled import UNKNOWN, FaceTable, LabelledFaces, label_spec
from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.types import FaceSpec

GENDERS = ("male", "female")
"""UTKFace's genders, by the number in the file name."""

UTKFACE_RACES = ("white", "black", "asian", "indian", "other")
"""UTKFace's races, by the number in the file name."""

MORPH_PROTOCOLS = ("subject", "random")
"""How MORPH II is divided, see :class:`MORPH2`."""

_UTKFACE = re.compile(r"(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_[^_]+")
_MORPH = re.compile(r"(?P<person>\d+)_(?P<number>\d+)(?P<gender>[MF])(?P<age>\d{1,3})\.[A-Za-z]+")
_PICTURES = (".jpg", ".jpeg", ".png")


class UTKFace(LabelledFaces):
    """23,708 faces in the wild of people from 0 to 116 years old, with gender and race (Zhang et al., CVPR 2017).

    ``{age}_{gender}_{race}_{date}.jpg`` (``.jpg.chip.jpg`` in the aligned version), in ``root``, ``UTKFace/`` or
    ``part1/`` to ``part3/``. The labels are in the names; a few names of the download lack one, and are told. Nobody
    made an official split: papers hold out shares of their own, so compare numbers with care.

    Args:
        root: Folder that holds the pictures.
        split: ``"train"``: everything.
        ages: Youngest and oldest that are taken; many papers take 21 to 60.

    Raises:
        ConfigError: If the split is unknown, or nobody can be of such an age.
        DatasetNotFoundError: If there is no picture.
    """

    source = DatasetSource(
        name="UTKFace",
        page="https://susanqq.github.io/UTKFace/",
        archives=("UTKFace.tar.gz (aligned and cropped)",),
        terms="non-commercial research only; copyrights stay with their owners",
        layout=("{age}_{gender}_{race}_{date}.jpg.chip.jpg",),
    )
    spec: FaceSpec = label_spec({"age": (), "gender": GENDERS, "race": UTKFACE_RACES})

    def __init__(self, root: str | Path, split: str = "train", ages: tuple[int, int] = (0, 116)) -> None:
        check_split(split, ("train",), "UTKFace")
        if not 0 <= ages[0] <= ages[1]:
            raise ConfigError(f"ages are the youngest and the oldest, got {tuple(ages)}")
        root = find_root(root, (), self.source)
        files = _listed(root, ("UTKFace", "part1", "part2", "part3", ""), self.source)
        found = {file: _UTKFACE.match(file.rpartition("/")[2].partition(".")[0]) for file in files}
        files = [file for file in files if _within(found[file], ages)]
        if not files:
            raise not_found(root, f"has no picture of ages {ages[0]} to {ages[1]}", self.source)
        matches = [found[file] for file in files]
        table = FaceTable(
            files=files,
            labels={
                "age": np.array([_number(match, "age", np.nan) for match in matches], np.float32),
                "gender": np.array([_number(match, "gender", UNKNOWN) for match in matches], np.int64),
                "race": np.array([_number(match, "race", UNKNOWN) for match in matches], np.int64),
            },
            groups={
                "gender": [_name(match, "gender", dict(enumerate(GENDERS))) for match in matches],
                "race": [_name(match, "race", dict(enumerate(UTKFACE_RACES))) for match in matches],
            },
            problems={
                row: f"'{files[row]}' is not named {{age}}_{{gender 0-1}}_{{race 0-4}}_{{date}}"
                for row, match in enumerate(matches)
                if match is None
            },
        )
        super().__init__(root, table, self.spec, self.source)


class MORPH2(LabelledFaces):
    """MORPH II, non-commercial release: 55,134 mugshots of 13,618 people, 16 to 77 years old (Ricanek & Tesafaye 2006).

    ``{person}_{number}{M or F}{age}.JPG`` in ``root`` or ``Album2/``. No split is official. Papers that report about
    2 years of error hold out random pictures, so that most people of the test are known from training (protocol
    ``"random"``); where people are held out (``"subject"``), the same methods err by almost 3 years.

    Args:
        root: Folder that holds the pictures.
        split: ``"train"``: everything.
        protocol: ``"subject"``: parts that are held out share nobody with training; ``"random"``: they may.

    Raises:
        ConfigError: If split or protocol are unknown.
        DatasetNotFoundError: If there is no picture.
    """

    source = DatasetSource(
        name="MORPH II",
        page="https://uncw.edu/myuncw/research/innovation-commercialization/technology-portfolio/morph",
        archives=("MORPH_Album2.zip",),
        terms="by licence from UNCW; non-commercial research; may not be passed on",
        layout=("Album2/{person}_{number}{M,F}{age}.JPG",),
    )
    spec: FaceSpec = label_spec({"age": (), "gender": GENDERS})

    def __init__(self, root: str | Path, split: str = "train", protocol: str = "subject") -> None:
        check_split(split, ("train",), "MORPH II")
        if protocol not in MORPH_PROTOCOLS:
            raise ConfigError(f"protocol '{protocol}' is unknown. {did_you_mean(protocol, MORPH_PROTOCOLS)}")
        root = find_root(root, (), self.source)
        files = _listed(root, ("Album2", ""), self.source)
        matches = [_MORPH.fullmatch(file.rpartition("/")[2]) for file in files]
        genders = [_name(match, "gender", {"M": "male", "F": "female"}) for match in matches]
        table = FaceTable(
            files=files,
            labels={
                "age": np.array([_number(match, "age", np.nan) for match in matches], np.float32),
                "gender": np.array([GENDERS.index(name) if name else UNKNOWN for name in genders], np.int64),
            },
            groups={"gender": genders},
            identities=[] if protocol == "random" else [match["person"] if match else "" for match in matches],
            problems={
                row: f"'{files[row]}' is not named {{person}}_{{number}}{{M or F}}{{age}}"
                for row, match in enumerate(matches)
                if match is None
            },
        )
        super().__init__(root, table, self.spec, self.source)


def _listed(root: Path, folders: Sequence[str], source: DatasetSource) -> list[str]:
    """Return the pictures in the first of these folders that has any, and in the others that follow it."""
    found = [f"{folder}/{name}".lstrip("/") for folder in folders for name in list_names(root / folder, _PICTURES)]
    if not found:
        raise not_found(root, f"has no pictures, nor do {', '.join(filter(None, folders))} in it", source)
    return found


def _within(match: re.Match[str] | None, ages: tuple[int, int]) -> bool:
    """Tell whether a picture is taken; one whose name says no age is, so that it is told."""
    return match is None or ages[0] <= int(match["age"]) <= ages[1]


def _number(match: re.Match[str] | None, name: str, unknown: float) -> float:
    """Return a number of a file name."""
    return unknown if match is None else float(match[name])


def _name(match: re.Match[str] | None, part: str, names: Mapping[int, str] | Mapping[str, str]) -> str:
    """Return what a part of a file name means."""
    if match is None:
        return ""
    plain = {str(key): name for key, name in names.items()}
    return plain[match[part]]
