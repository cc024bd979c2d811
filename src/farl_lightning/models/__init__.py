"""Networks and the files they are read from; public names are imported on first use."""

from __future__ import annotations

from farl_lightning import lazy_names

_PUBLIC: dict[str, str] = {
    "AlignmentOutput": "farl_lightning.models.dense",
    "AttributeHead": "farl_lightning.models.heads.attributes",
    "BackboneFeatures": "farl_lightning.models.backbone_features",
    "DVAETokens": "farl_lightning.models.image_tokenizer",
    "DenseConfig": "farl_lightning.models.config",
    "EncoderFeatures": "farl_lightning.models.features",
    "FaceAge": "farl_lightning.models.attributes",
    "FaceAligner": "farl_lightning.models.dense",
    "FaceAttributes": "farl_lightning.models.attributes",
    "FaceCLIP": "farl_lightning.models.face_clip",
    "FaceCLIPConfig": "farl_lightning.models.config",
    "FaceCLIPOutput": "farl_lightning.models.face_clip",
    "FaceClassifier": "farl_lightning.models.attributes",
    "FaceEmbedder": "farl_lightning.models.attributes",
    "FaceParser": "farl_lightning.models.dense",
    "FeatureExtractor": "farl_lightning.models.features",
    "FeaturePyramid": "farl_lightning.models.pyramid",
    "GlobalConfig": "farl_lightning.models.config",
    "ImageEncoder": "farl_lightning.models.image_encoder",
    "ImageEncoderConfig": "farl_lightning.models.config",
    "ImageEncoderOutput": "farl_lightning.models.image_encoder",
    "ImageTarget": "farl_lightning.models.image_tokenizer",
    "KMeansTokens": "farl_lightning.models.image_tokenizer",
    "LoadReport": "farl_lightning.models.checkpoint",
    "MarginHead": "farl_lightning.models.heads.margin",
    "MaskedImageHead": "farl_lightning.models.masked_image",
    "PixelTarget": "farl_lightning.models.image_tokenizer",
    "TextEncoder": "farl_lightning.models.text_encoder",
    "TextEncoderConfig": "farl_lightning.models.config",
    "UPerHead": "farl_lightning.models.upernet",
    "ZeroShotClassifier": "farl_lightning.models.zero_shot",
    "load_encoder": "farl_lightning.models.dense_checkpoint",
    "open_dense": "farl_lightning.models.opened",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605  -- a list of names, made from the table above

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
