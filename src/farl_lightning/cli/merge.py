"""``farl-lightning merge``: a checkpoint with low-rank adapters as one of an ordinary network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farl_lightning.callbacks.checkpoint_io import AtomicCheckpointIO
from farl_lightning.callbacks.ema import CURRENT
from farl_lightning.cli.data import Parser
from farl_lightning.errors import CheckpointError, ConfigError
from farl_lightning.models.archive import read_file
from farl_lightning.models.tuning import has_lora, merge_lora_state

_OF_TRAINING = ("optimizer_states", "lr_schedulers", "loops", "callbacks", CURRENT, "averaging_state")


def run(words: list[str]) -> int:
    """Run ``farl-lightning merge``.

    Args:
        words: What follows ``merge``.

    Returns:
        The exit status.
    """
    parser = Parser(
        prog="farl-lightning merge",
        description="Add the LoRA adapters of a run (tuning: lora) to the weights beside them. The new file is a "
        "checkpoint of the same task: test, predict and export take it, FacePredictor loads it, other runs start from "
        "it with --model.weights; none of them needs peft. What training needs to go on is left out.",
        allow_abbrev=False,
    )
    parser.add_argument("--ckpt_path", required=True, metavar="FILE", help="checkpoint of a run with adapters")
    parser.add_argument("--output", required=True, metavar="FILE", help="the file to write, such as merged.ckpt")
    parser.add_argument("--no_ema", action="store_true", help="take the last weights, not their average")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there already")
    given = parser.parse_args(words)
    path = merge(given.ckpt_path, given.output, ema=not given.no_ema, overwrite=given.overwrite)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def merge(path: str | Path, output: str | Path, *, ema: bool = True, overwrite: bool = False) -> Path:
    """Write a checkpoint whose adapters are merged.

    Args:
        path: Checkpoint of a run with ``tuning: lora``, of any task.
        output: The file; it appears whole or not at all.
        ema: Whether the averaged weights are taken where the checkpoint holds both.
        overwrite: Whether a file that is there already is replaced.

    Returns:
        The file.

    Raises:
        CheckpointError: If the checkpoint cannot be read, is no checkpoint of a run, or holds no adapters.
        ConfigError: If there is something at the place of the file.
    """
    path, output = Path(path).expanduser(), Path(output).expanduser()
    if output.is_dir():
        raise ConfigError(f"--output {output} is a folder; give the name of a file, such as {output / 'merged.ckpt'}")
    if output.exists() and not overwrite:
        raise ConfigError(f"{output} exists already; give another name, or --overwrite")
    AtomicCheckpointIO().save_checkpoint(merged(read_file(path), path, ema=ema), output)
    return output


def merged(saved: Any, path: str | Path, *, ema: bool = True) -> dict[str, Any]:
    """Return what a run without adapters would have written.

    Args:
        saved: What the checkpoint holds.
        path: Where it lies, for messages.
        ema: Whether the averaged weights are taken where it holds both.

    Raises:
        CheckpointError: If it is no checkpoint of a run, or holds no adapters.
    """
    if not isinstance(saved, Mapping) or "pytorch-lightning_version" not in saved:
        raise CheckpointError(f"'{path}' is no checkpoint of a run")
    state = saved["state_dict"] if ema or CURRENT not in saved else saved[CURRENT]
    hparams = dict(saved.get("hyper_parameters") or {})
    if not has_lora(state):
        raise CheckpointError(
            f"'{path}' holds no adapters (its tuning is '{hparams.get('tuning', 'unknown')}'), nothing to merge"
        )
    checkpoint = {name: value for name, value in saved.items() if name not in _OF_TRAINING}
    return {
        **checkpoint,
        "state_dict": merge_lora_state(state),
        "hyper_parameters": {**hparams, "tuning": "finetune"},
    }
