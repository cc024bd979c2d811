"""From pictures to network inputs; public names are imported on first use."""

from __future__ import annotations

from farl_lightning import lazy_names

_PUBLIC: dict[str, str] = {
    "Detections": "farl_lightning.transforms.detectors",
    "Detector": "farl_lightning.transforms.detectors",
    "FaceCrop": "farl_lightning.transforms.crop",
    "FacePlace": "farl_lightning.transforms.places",
    "MTCNN": "farl_lightning.transforms.detectors",
    "Photometric": "farl_lightning.transforms.presets",
    "PretrainTransform": "farl_lightning.transforms.pretrain",
    "PretrainTransformConfig": "farl_lightning.transforms.pretrain",
    "YuNet": "farl_lightning.transforms.detectors",
    "collate_pretrain": "farl_lightning.transforms.collate",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605  -- a list of names, made from the table above

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
