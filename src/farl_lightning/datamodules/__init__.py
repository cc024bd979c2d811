"""LightningDataModules, one per family of datasets; public names are imported on first use."""

from __future__ import annotations

from farl_lightning import lazy_names

_PUBLIC: dict[str, str] = {
    "AFLW19DataModule": "farl_lightning.datamodules.alignment",
    "AffectNetDataModule": "farl_lightning.datamodules.global_sets",
    "BaseDataModule": "farl_lightning.datamodules.base",
    "COFWDataModule": "farl_lightning.datamodules.alignment",
    "CelebADataModule": "farl_lightning.datamodules.global_sets",
    "CelebAMaskHQDataModule": "farl_lightning.datamodules.parsing",
    "DenseDataModule": "farl_lightning.datamodules.faces",
    "FaceDataModule": "farl_lightning.datamodules.faces",
    "FaceSyntheticsDataModule": "farl_lightning.datamodules.parsing",
    "FairFaceDataModule": "farl_lightning.datamodules.global_sets",
    "GlobalFaceDataModule": "farl_lightning.datamodules.global_faces",
    "IBug300WDataModule": "farl_lightning.datamodules.alignment",
    "IBugMaskDataModule": "farl_lightning.datamodules.parsing",
    "LFWADataModule": "farl_lightning.datamodules.global_sets",
    "LabelledSource": "farl_lightning.datamodules.embedding",
    "LaPaDataModule": "farl_lightning.datamodules.parsing",
    "LaionFaceDataModule": "farl_lightning.datamodules.laion_face",
    "MORPH2DataModule": "farl_lightning.datamodules.global_sets",
    "PeopleDataModule": "farl_lightning.datamodules.people",
    "PhotoFolderDataModule": "farl_lightning.datamodules.photos",
    "PhotoSource": "farl_lightning.datamodules.embedding",
    "RAFDBDataModule": "farl_lightning.datamodules.global_sets",
    "ResumableLoader": "farl_lightning.datamodules.loader",
    "SyntheticAlignmentDataModule": "farl_lightning.datamodules.synthetic_dense",
    "SyntheticFacesDataModule": "farl_lightning.datamodules.synthetic",
    "SyntheticGlobalDataModule": "farl_lightning.datamodules.synthetic_global",
    "SyntheticIdentitiesDataModule": "farl_lightning.datamodules.synthetic_identities",
    "SyntheticParsingDataModule": "farl_lightning.datamodules.synthetic_dense",
    "TableDataModule": "farl_lightning.datamodules.table",
    "UTKFaceDataModule": "farl_lightning.datamodules.global_sets",
    "VerificationDataModule": "farl_lightning.datamodules.pairs",
    "WFLWDataModule": "farl_lightning.datamodules.alignment",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605  -- a list of names, made from the table above

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
