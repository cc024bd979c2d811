"""FairFace: race, gender and age group, balanced over seven races (Karkkainen & Joo, WACV 2021)."""

from __future__ import annotations

from pathlib import Path

from farl_lightning.datasets.faces import DatasetSource, check_split, find_root
from farl_lightning.datasets.labelled import LabelledFaces, label_spec
from farl_lightning.datasets.table_faces import TableColumns, table_faces
from farl_lightning.datasets.table_file import read_table
from farl_lightning.types import FaceSpec

FAIRFACE_SPLITS = {"train": 86744, "test": 10954}
"""The official splits and their sizes; the authors call the second one validation, and report on it."""

AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
"""Age groups in years."""

GENDERS = ("Male", "Female")
"""Genders as FairFace writes them."""

RACES = ("White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian", "Middle Eastern")
"""Races in the order of FairFace's released model."""


class FairFace(LabelledFaces):
    """97,698 faces of Flickr photographs, about as many of each of seven races.

    ``fairface_label_{train,val}.csv`` (``file``, ``age``, ``gender``, ``race``) and the pictures that they name,
    ``train/*.jpg`` and ``val/*.jpg``. Results are split by all three labels.

    Args:
        root: Folder that holds lists and pictures.
        split: ``"train"``, or ``"test"`` for the authors' validation set.

    Raises:
        ConfigError: If the split is unknown.
        DatasetNotFoundError: If the folder is not what it should be.
        DataError: If a list cannot be read.
    """

    source = DatasetSource(
        name="FairFace",
        page="https://github.com/joojs/fairface",
        archives=("fairface-img-margin025-trainval.zip", "fairface_label_train.csv", "fairface_label_val.csv"),
        terms="CC BY 4.0",
        layout=("fairface_label_{train,val}.csv", "{train,val}/*.jpg"),
    )
    spec: FaceSpec = label_spec({"age": AGES, "gender": GENDERS, "race": RACES})

    def __init__(self, root: str | Path, split: str = "train") -> None:
        check_split(split, tuple(FAIRFACE_SPLITS), "FairFace")
        part = {"train": "train", "test": "val"}[split]
        root = find_root(root, (f"fairface_label_{part}.csv", part), self.source)
        columns = TableColumns(
            labels={name: list(classes) for name, classes in self.spec.label_names.items()},
            groups=list(self.spec.label_names),
        )
        table = table_faces(read_table(root / f"fairface_label_{part}.csv"), columns, self.spec)
        super().__init__(root, table, self.spec, self.source, FAIRFACE_SPLITS[split])
