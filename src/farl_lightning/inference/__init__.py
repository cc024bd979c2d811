"""From photographs to faces understood, without a Trainer; public names are imported on first use."""

from __future__ import annotations

from farl_lightning import lazy_names

_PUBLIC: dict[str, str] = {
    "Detections": "farl_lightning.transforms.detectors",
    "Detector": "farl_lightning.transforms.detectors",
    "FacePredictor": "farl_lightning.inference.predictor",
    "FaceResult": "farl_lightning.inference.results",
    "MTCNN": "farl_lightning.transforms.detectors",
    "Picture": "farl_lightning.inference.pictures",
    "YuNet": "farl_lightning.transforms.detectors",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605  -- a list of names, made from the table above

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
