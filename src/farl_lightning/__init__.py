"""FaRL on PyTorch Lightning: pretraining of face encoders and everything downstream.

Public names are imported on first use, so that ``import farl_lightning`` stays fast.
"""

from __future__ import annotations

import importlib
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
    "OptimConfig": "farl_lightning.tasks",
    "SyntheticFaces": "farl_lightning.datasets",
    "LaionFace": "farl_lightning.datasets",
    "SyntheticFacesDataModule": "farl_lightning.datamodules",
    "LaionFaceDataModule": "farl_lightning.datamodules",
    "Tokenizer": "farl_lightning.text",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(_PUBLIC)}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, also those not yet imported."""
    return sorted(__all__)
