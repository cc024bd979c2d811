"""Probes: what simple learners get out of features that were computed once.

This room knows networks only by the features they give; callbacks, the benchmark and the command line use it.
"""

from __future__ import annotations

from farl_lightning import lazy_names

_PUBLIC: dict[str, str] = {
    "EmbedReport": "farl_lightning.probing.embedding",
    "FeatureTable": "farl_lightning.probing.table",
    "ProbeResult": "farl_lightning.probing.probe",
    "embed": "farl_lightning.probing.embedding",
    "read_features": "farl_lightning.probing.files",
    "run_probe": "farl_lightning.probing.probe",
    "write_features": "farl_lightning.probing.files",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605  -- a list of names, made from the table above

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
