"""What a process says when another one is gone: it is rarely the one that failed."""

from __future__ import annotations

import socket

from farl_lightning.errors import FarlError

_SIGNS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Timed out waiting",
    "Application timeout caused pair closure",  # gloo, where the other side is silent
    "Broken pipe",
    "remote process exited",
    "connectFullMesh failed",
    "timed out connecting",
)
_CAUSE_LENGTH = 200
_ADVICE = """\
The log of the process that ended first, or of the machine that fell silent, tells why (--debug: where this one was).
To go on from the last checkpoint, start the same command with --ckpt_path last, as torchrun --max-restarts does."""


class LostContactError(FarlError, RuntimeError):
    """Another process of the run ended, or does not answer."""


def lost_contact(error: BaseException) -> LostContactError | None:
    """Explain an error of a collective that failed because another process is gone.

    Args:
        error: Whatever ended the run.

    Returns:
        The same in words: this process, what it noticed, what to look at, how to go on. None for any other error, and
        where there is only one process.
    """
    if not isinstance(error, RuntimeError) or not any(sign in str(error) for sign in _SIGNS):
        return None
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return None
    cause = next(line for line in str(error).splitlines() if any(sign in line for sign in _SIGNS))
    own = f"rank {dist.get_rank()} of {dist.get_world_size()} on {socket.gethostname()}"
    return LostContactError(f"{own} lost contact with another process\n{cause[:_CAUSE_LENGTH]}\n{_ADVICE}")
