"""Torch datasets, one file or folder per kind of data; public names are imported on first use."""

from __future__ import annotations

from farl_lightning import lazy_names

_PUBLIC: dict[str, str] = {
    "AFLW19": "farl_lightning.datasets.aflw19",
    "AffectNet": "farl_lightning.datasets.affectnet",
    "COFW": "farl_lightning.datasets.cofw",
    "CelebA": "farl_lightning.datasets.celeba",
    "CelebAMaskHQ": "farl_lightning.datasets.celebamask_hq",
    "DetectionTable": "farl_lightning.datasets.detections",
    "FaceDataset": "farl_lightning.datasets.faces",
    "FacePairs": "farl_lightning.datasets.pairs",
    "FaceSubset": "farl_lightning.datasets.faces",
    "FaceSynthetics": "farl_lightning.datasets.face_synthetics",
    "FaceTable": "farl_lightning.datasets.labelled",
    "FairFace": "farl_lightning.datasets.fairface",
    "IBug300W": "farl_lightning.datasets.ibug300w",
    "IBugMask": "farl_lightning.datasets.ibugmask",
    "LFWA": "farl_lightning.datasets.celeba",
    "LaPa": "farl_lightning.datasets.lapa",
    "LabelledFaces": "farl_lightning.datasets.labelled",
    "LaionFace": "farl_lightning.datasets.laion_face",
    "LandmarkSet": "farl_lightning.datasets.landmark_sets",
    "MORPH2": "farl_lightning.datasets.utkface",
    "PairList": "farl_lightning.datasets.pairs",
    "PhotoFolder": "farl_lightning.datasets.photos",
    "RAFDB": "farl_lightning.datasets.rafdb",
    "ShardStream": "farl_lightning.datasets.stream",
    "SyntheticFace": "farl_lightning.datasets.synthetic",
    "SyntheticFaces": "farl_lightning.datasets.synthetic",
    "UTKFace": "farl_lightning.datasets.utkface",
    "WFLW": "farl_lightning.datasets.wflw",
    "identity_faces": "farl_lightning.datasets.pairs",
    "landmark_set": "farl_lightning.datasets.landmark_sets",
    "open_pairs": "farl_lightning.datasets.pairs",
    "read_pairs_bin": "farl_lightning.datasets.pickled_pairs",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605  -- a list of names, made from the table above

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
