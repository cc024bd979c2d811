"""Networks as files that run without this package; public names are imported on first use."""

from __future__ import annotations

from farl_lightning import lazy_names

_PUBLIC: dict[str, str] = {
    "ExportReport": "farl_lightning.export.network",
    "PhotoNetwork": "farl_lightning.export.pipeline",
    "export_checkpoint": "farl_lightning.export.network",
    "photo_network": "farl_lightning.export.pipeline",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605  -- a list of names, made from the table above

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
