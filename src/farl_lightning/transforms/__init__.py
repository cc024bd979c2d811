"""From pictures to network inputs; public names are imported on first use."""

from __future__ import annotations

from farl_lightning import lazy_names

_PUBLIC: dict[str, str] = {
    "DenseTransform": "farl_lightning.transforms.dense",
    "DenseTransformConfig": "farl_lightning.transforms.dense_config",
    "Detections": "farl_lightning.transforms.detectors",
    "Detector": "farl_lightning.transforms.detectors",
    "FaceCrop": "farl_lightning.transforms.crop",
    "FacePlace": "farl_lightning.transforms.places",
    "MTCNN": "farl_lightning.transforms.detectors",
    "NoiseFusion": "farl_lightning.transforms.augment",
    "Photometric": "farl_lightning.transforms.presets",
    "PretrainTransform": "farl_lightning.transforms.pretrain",
    "PretrainTransformConfig": "farl_lightning.transforms.pretrain",
    "RandomBoxBlur": "farl_lightning.transforms.augment",
    "RandomFaceAffine": "farl_lightning.transforms.augment",
    "RandomFaceFlip": "farl_lightning.transforms.augment",
    "RandomGamma": "farl_lightning.transforms.augment",
    "RandomGray": "farl_lightning.transforms.augment",
    "RandomOcclusion": "farl_lightning.transforms.augment",
    "YuNet": "farl_lightning.transforms.detectors",
    "alignment_recipe": "farl_lightning.transforms.dense_config",
    "collate_faces": "farl_lightning.transforms.collate_faces",
    "collate_pretrain": "farl_lightning.transforms.collate",
    "face_matrix": "farl_lightning.transforms.face_matrix",
    "parsing_recipe": "farl_lightning.transforms.dense_config",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605  -- a list of names, made from the table above

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
