"""Datamodules of the benchmarks of the whole face: attributes, age, expression, gender, race."""

from __future__ import annotations

from typing import Any, ClassVar

from farl_lightning.datamodules.global_faces import GlobalFaceDataModule
from farl_lightning.datasets.affectnet import AffectNet, affectnet_spec
from farl_lightning.datasets.celeba import LFWA, CelebA
from farl_lightning.datasets.faces import FaceDataset
from farl_lightning.datasets.fairface import FairFace
from farl_lightning.datasets.rafdb import RAFDB
from farl_lightning.datasets.utkface import MORPH2, UTKFace


class CelebADataModule(GlobalFaceDataModule):
    """CelebA's 40 attributes with its official splits."""

    labels = CelebA.spec
    crops: ClassVar[tuple[str, ...]] = ("none", "align", "quad")

    def open_split(self, split: str) -> FaceDataset:
        """Open one split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
        """
        return CelebA(self.root, split)


class LFWADataModule(GlobalFaceDataModule):
    """LFWA's 40 attributes with its official halves; a share of the people of training stands in for validation."""

    labels = LFWA.spec
    official: ClassVar[tuple[str, ...]] = ("train", "test")
    crops: ClassVar[tuple[str, ...]] = ("none",)

    def open_split(self, split: str) -> FaceDataset:
        """Open one split.

        Args:
            split: ``"train"`` or ``"test"``.
        """
        return LFWA(self.root, split)


class FairFaceDataModule(GlobalFaceDataModule):
    """FairFace's age group, gender and race; its validation set is the test, as in its paper."""

    labels = FairFace.spec
    official: ClassVar[tuple[str, ...]] = ("train", "test")
    crops: ClassVar[tuple[str, ...]] = ("none",)

    def open_split(self, split: str) -> FaceDataset:
        """Open one split.

        Args:
            split: ``"train"`` or ``"test"``.
        """
        return FairFace(self.root, split)


class UTKFaceDataModule(GlobalFaceDataModule):
    """UTKFace's age, gender and race, divided by seed: there is no official split.

    Args:
        root: Folder that holds the pictures.
        ages: Youngest and oldest that are taken.
        test_fraction: Share held out for the test, drawn first.
        **kwargs: Further settings of :class:`~farl_lightning.datamodules.global_faces.GlobalFaceDataModule`.
    """

    labels = UTKFace.spec
    official: ClassVar[tuple[str, ...]] = ("train",)
    crops: ClassVar[tuple[str, ...]] = ("none",)

    def __init__(self, root: str, ages: tuple[int, int] = (0, 116), test_fraction: float = 0.2, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.ages, self.test_fraction = ages, test_fraction

    def open_split(self, split: str) -> FaceDataset:
        """Open everything.

        Args:
            split: ``"train"``.
        """
        return UTKFace(self.root, split, self.ages)


class MORPH2DataModule(GlobalFaceDataModule):
    """MORPH II's age and gender, divided by seed: there is no official split.

    Args:
        root: Folder that holds the pictures.
        protocol: ``"subject"``: nobody of the test is in training; ``"random"``: most are, as in most papers.
        test_fraction: Share held out for the test, drawn first.
        **kwargs: Further settings of :class:`~farl_lightning.datamodules.global_faces.GlobalFaceDataModule`.
    """

    labels = MORPH2.spec
    official: ClassVar[tuple[str, ...]] = ("train",)
    crops: ClassVar[tuple[str, ...]] = ("none",)

    def __init__(self, root: str, protocol: str = "subject", test_fraction: float = 0.2, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.protocol, self.test_fraction = protocol, test_fraction

    def open_split(self, split: str) -> FaceDataset:
        """Open everything.

        Args:
            split: ``"train"``.
        """
        return MORPH2(self.root, split, self.protocol)


class RAFDBDataModule(GlobalFaceDataModule):
    """RAF-DB's seven expressions with its official splits; a share of training stands in for validation.

    Args:
        root: Folder that holds lists and pictures.
        aligned: Whether to read the pictures that the authors aligned; the others allow crops of one's own.
        **kwargs: Further settings of :class:`~farl_lightning.datamodules.global_faces.GlobalFaceDataModule`.
    """

    labels = RAFDB.spec
    official: ClassVar[tuple[str, ...]] = ("train", "test")
    crops: ClassVar[tuple[str, ...]] = ("none", "align", "quad")

    def __init__(self, root: str, aligned: bool = True, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.aligned = aligned

    def open_split(self, split: str) -> FaceDataset:
        """Open one split.

        Args:
            split: ``"train"`` or ``"test"``.
        """
        return RAFDB(self.root, split, self.aligned)


class AffectNetDataModule(GlobalFaceDataModule):
    """AffectNet's expressions, valence and arousal; its validation set is the test, as in papers.

    Args:
        root: Folder that holds lists and pictures.
        expressions: 7, or 8 with contempt.
        **kwargs: Further settings of :class:`~farl_lightning.datamodules.global_faces.GlobalFaceDataModule`.
    """

    official: ClassVar[tuple[str, ...]] = ("train", "test")

    def __init__(self, root: str, expressions: int = 8, **kwargs: Any) -> None:
        self.expressions = expressions
        self.labels = affectnet_spec(expressions)  # the base asks for it
        super().__init__(root, **kwargs)

    def open_split(self, split: str) -> FaceDataset:
        """Open one split.

        Args:
            split: ``"train"`` or ``"test"``.
        """
        return AffectNet(self.root, split, self.expressions)
