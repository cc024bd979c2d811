"""FaRL on PyTorch Lightning: pretraining of face encoders and everything downstream.

Public names are imported on first use, so that ``import farl_lightning`` stays fast.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__version__ = "0.1.0.dev0"

# public name -> module that defines it
_PUBLIC: dict[str, str] = {
    "FaceSpec": "farl_lightning.types",
    "FarlError": "farl_lightning.errors",
    "FaceCLIP": "farl_lightning.models",
    "ImageEncoder": "farl_lightning.models",
    "TextEncoder": "farl_lightning.models",
    "Objective": "farl_lightning.objectives",
    "Contrastive": "farl_lightning.objectives",
    "MaskedImage": "farl_lightning.objectives",
    "BaseTask": "farl_lightning.tasks",
    "PretrainTask": "farl_lightning.tasks",
    "ParsingTask": "farl_lightning.tasks",
    "AlignmentTask": "farl_lightning.tasks",
    "AttributeTask": "farl_lightning.tasks",
    "ClassificationTask": "farl_lightning.tasks",
    "AgeTask": "farl_lightning.tasks",
    "VerificationTask": "farl_lightning.tasks",
    "OptimConfig": "farl_lightning.tasks",
    "SyntheticFaces": "farl_lightning.datasets",
    "LaionFace": "farl_lightning.datasets",
    "CelebAMaskHQ": "farl_lightning.datasets",
    "FaceSynthetics": "farl_lightning.datasets",
    "IBugMask": "farl_lightning.datasets",
    "LaPa": "farl_lightning.datasets",
    "AFLW19": "farl_lightning.datasets",
    "COFW": "farl_lightning.datasets",
    "IBug300W": "farl_lightning.datasets",
    "WFLW": "farl_lightning.datasets",
    "CelebA": "farl_lightning.datasets",
    "LFWA": "farl_lightning.datasets",
    "UTKFace": "farl_lightning.datasets",
    "FairFace": "farl_lightning.datasets",
    "MORPH2": "farl_lightning.datasets",
    "RAFDB": "farl_lightning.datasets",
    "AffectNet": "farl_lightning.datasets",
    "FacePairs": "farl_lightning.datasets",
    "SyntheticFacesDataModule": "farl_lightning.datamodules",
    "LaionFaceDataModule": "farl_lightning.datamodules",
    "CelebAMaskHQDataModule": "farl_lightning.datamodules",
    "FaceSyntheticsDataModule": "farl_lightning.datamodules",
    "IBugMaskDataModule": "farl_lightning.datamodules",
    "LaPaDataModule": "farl_lightning.datamodules",
    "AFLW19DataModule": "farl_lightning.datamodules",
    "COFWDataModule": "farl_lightning.datamodules",
    "IBug300WDataModule": "farl_lightning.datamodules",
    "WFLWDataModule": "farl_lightning.datamodules",
    "CelebADataModule": "farl_lightning.datamodules",
    "LFWADataModule": "farl_lightning.datamodules",
    "UTKFaceDataModule": "farl_lightning.datamodules",
    "FairFaceDataModule": "farl_lightning.datamodules",
    "MORPH2DataModule": "farl_lightning.datamodules",
    "RAFDBDataModule": "farl_lightning.datamodules",
    "AffectNetDataModule": "farl_lightning.datamodules",
    "TableDataModule": "farl_lightning.datamodules",
    "VerificationDataModule": "farl_lightning.datamodules",
    "SyntheticAlignmentDataModule": "farl_lightning.datamodules",
    "SyntheticGlobalDataModule": "farl_lightning.datamodules",
    "SyntheticIdentitiesDataModule": "farl_lightning.datamodules",
    "SyntheticParsingDataModule": "farl_lightning.datamodules",
    "PhotoFolder": "farl_lightning.datasets",
    "PhotoFolderDataModule": "farl_lightning.datamodules",
    "FacePredictor": "farl_lightning.inference",
    "FaceResult": "farl_lightning.inference",
    "Tokenizer": "farl_lightning.text",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604  -- a list of names, made from the table above


def lazy_names(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a package whose public names are imported on first use (PEP 562).

    Args:
        package: Name of the package.
        modules: For each public name the full name of the module that defines it.
    """

    def _getattr(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; public names: {', '.join(modules)}")
        value = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return _getattr, lambda: sorted(modules)


__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
