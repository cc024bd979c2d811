"""Fake benchmark folders in each dataset's native layout, drawn so that the truth is known."""

from __future__ import annotations

from farl_lightning import lazy_names

_PUBLIC: dict[str, str] = {
    "draw_faces": "farl_lightning.testing.benchmarks.common",
    "save_jpeg": "farl_lightning.testing.benchmarks.common",
    "save_mask": "farl_lightning.testing.benchmarks.common",
    "write_affectnet": "farl_lightning.testing.benchmarks.people",
    "write_aflw19": "farl_lightning.testing.benchmarks.aflw19",
    "write_calfw": "farl_lightning.testing.benchmarks.pairs",
    "write_celeba": "farl_lightning.testing.benchmarks.celeba",
    "write_celebamask_hq": "farl_lightning.testing.benchmarks.celebamask_hq",
    "write_cfp": "farl_lightning.testing.benchmarks.pairs",
    "write_cofw": "farl_lightning.testing.benchmarks.cofw",
    "write_face_synthetics": "farl_lightning.testing.benchmarks.face_synthetics",
    "write_fairface": "farl_lightning.testing.benchmarks.people",
    "write_ibug300w": "farl_lightning.testing.benchmarks.ibug300w",
    "write_ibugmask": "farl_lightning.testing.benchmarks.ibugmask",
    "write_identities": "farl_lightning.testing.benchmarks.pairs",
    "write_lapa": "farl_lightning.testing.benchmarks.lapa",
    "write_lfw": "farl_lightning.testing.benchmarks.pairs",
    "write_lfwa": "farl_lightning.testing.benchmarks.celeba",
    "write_morph2": "farl_lightning.testing.benchmarks.people",
    "write_pairs_bin": "farl_lightning.testing.benchmarks.pairs",
    "write_points": "farl_lightning.testing.benchmarks.common",
    "write_rafdb": "farl_lightning.testing.benchmarks.people",
    "write_utkface": "farl_lightning.testing.benchmarks.people",
    "write_wflw": "farl_lightning.testing.benchmarks.wflw",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605  -- a list of names, made from the table above

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
