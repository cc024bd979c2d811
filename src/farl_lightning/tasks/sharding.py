"""Sharding of a task's network over processes: which modules are gathered as one, and in which precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from farl_lightning.errors import ConfigError
from farl_lightning.models.image_encoder import ImageEncoder
from farl_lightning.models.masked_image import MaskedImageHead
from farl_lightning.models.pyramid import FeaturePyramid
from farl_lightning.models.text_encoder import TextEncoder
from farl_lightning.models.upernet import UPerHead

BLOCKS = (Block, EvaBlock, CLIPEncoderLayer)
"""Transformer blocks: most of the parameters, and all of the large activations."""

UNITS = (*BLOCKS, nn.Embedding, ImageEncoder, TextEncoder, MaskedImageHead, FeaturePyramid, UPerHead)
"""Modules whose own parameters (those that no unit inside them has) are gathered together for each pass."""


def shard(model: nn.Module, mesh: DeviceMesh, precision: str = "32-true") -> None:
    """Shard a network over processes with FSDP2 (``torch.distributed.fsdp.fully_shard``), in place.

    Every process ends with its rows of every parameter, of the first process's values; frozen parameters and low-rank
    adapters are sharded with the rest. Gathered are the :data:`UNITS`, innermost first, and what is left with the
    root, when their ``forward`` runs. Other methods of the root that run parts of it are named in its class attribute
    ``forward_methods``. The running statistics of batch norm follow the first process's, as under DDP.

    Args:
        model: The root; a network that is sharded already is left alone.
        mesh: The processes, with the dimensions ``data_parallel`` and ``tensor_parallel`` of Lightning's
            ``ModelParallelStrategy``.
        precision: The trainer's, such as ``"bf16-mixed"``.

    Raises:
        ConfigError: If the mesh asks for tensor parallelism, or a parameter has no dimension to shard.
    """
    if isinstance(model, FSDPModule):
        return
    _check_mesh(mesh)
    _check_parameters(model)
    for parameter in model.parameters():  # weights that lie as their product reads them; rows need the usual order
        parameter.data = parameter.data.contiguous()
    processes = mesh["data_parallel"]
    _copy_from_first(model, mesh.device_type)
    for module in reversed(list(model.modules())):  # parents come first in modules(): reversed, children do
        if is_unit(module) and module is not model and any(True for _ in module.parameters()):
            fully_shard(module, mesh=processes, mp_policy=policy(precision, isinstance(module, BLOCKS)))
    fully_shard(model, mesh=processes, mp_policy=policy(precision, False))
    for name in getattr(model, "forward_methods", ()):
        register_fsdp_forward_method(model, name)
    if norms := [module for module in model.modules() if isinstance(module, _BatchNorm)]:
        model.register_forward_pre_hook(lambda *_: _follow_first(norms))


def is_unit(module: nn.Module) -> bool:
    """Whether a module is gathered as one.

    Args:
        module: Any part of a network.
    """
    return isinstance(module, UNITS)


def wrap_policy(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """Wrap the same units under the classic ``FSDPStrategy``, as its ``auto_wrap_policy``.

    Args:
        module: Any part of a network.
        recurse: Whether the question is if parts of the module may be wrapped; they may.
        nonwrapped_numel: Number of parameters that no unit has yet; it does not matter here.
    """
    del nonwrapped_numel
    return recurse or is_unit(module)


def policy(precision: str, is_block: bool) -> MixedPrecisionPolicy:
    """Return in which precision a unit is gathered and its gradients are summed.

    Under ``"bf16-mixed"`` the matrices of blocks travel as bfloat16, half the bytes; autocast rules inside as it does
    under DDP, and the residual stream stays float32. What is small and delicate (temperature, positions; since torch
    2.15 norms and biases, too) is never rounded. Gradients are always summed in float32 at least.

    Args:
        precision: The trainer's.
        is_block: Whether the unit is a transformer block.
    """
    reduce = None if precision in ("32-true", "64-true") else torch.float32
    if precision != "bf16-mixed" or not is_block:
        return MixedPrecisionPolicy(reduce_dtype=reduce, cast_forward_inputs=False)
    options: dict[str, Any] = {"param_dtype_override_fn": _keep_vectors} if _CAN_KEEP_VECTORS else {}
    return MixedPrecisionPolicy(torch.bfloat16, reduce, cast_forward_inputs=False, **options)


_CAN_KEEP_VECTORS = "param_dtype_override_fn" in MixedPrecisionPolicy.__dataclass_fields__


def _keep_vectors(parameter: nn.Parameter) -> torch.dtype | None:
    """Return in which precision a parameter of a block travels; None is the unit's."""
    return parameter.dtype if parameter.ndim <= 1 else None


def take_first(state: dict[str, Tensor], broadcast: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Replace what every process holds in whole by the first one's, in place, before processes save their shards.

    Whole tensors (statistics of batch norm, a codebook) are written by any one process, not by the first.

    Args:
        state: Weights by name; all processes call this with the same names, or none has shards.
        broadcast: Hands an object of the first process to all.
    """
    whole = {name: value for name, value in state.items() if not isinstance(value, DTensor)}
    if whole and len(whole) < len(state):
        state.update(broadcast(whole))


def _check_mesh(mesh: DeviceMesh) -> None:
    """Refuse a mesh with a second dimension, which nothing here uses."""
    data, tensor = mesh["data_parallel"].size(), mesh["tensor_parallel"].size()
    if tensor > 1:
        raise ConfigError(
            f"ModelParallelStrategy has data_parallel_size {data} and tensor_parallel_size {tensor}, but networks here "
            f"are sharded, not cut inside their layers: set trainer.strategy.data_parallel_size to {data * tensor} "
            "(all processes) and trainer.strategy.tensor_parallel_size to 1"
        )


def _check_parameters(model: nn.Module) -> None:
    """Refuse single numbers, which have no rows to hand out."""
    numbers = [name for name, parameter in model.named_parameters() if not parameter.ndim]
    if numbers:
        raise ConfigError(
            f"FSDP2 cannot shard parameters without a dimension: {', '.join(numbers)}; make them of shape (1,), such "
            "as nn.Parameter(torch.tensor([0.5]))"
        )


@torch.no_grad()
def _copy_from_first(model: nn.Module, device_type: str) -> None:
    """Give every process the first one's values, as DDP does: else rows of different networks would be joined."""
    for tensor in (*model.parameters(), *model.buffers()):
        sent = tensor.detach().to(device_type)
        dist.broadcast(sent, 0)
        tensor.copy_(sent)


@torch.no_grad()
def _follow_first(norms: list[_BatchNorm]) -> None:
    """Copy the first process's running statistics to all, in one message."""
    tensors: list[Tensor] = [
        tensor for norm in norms for tensor in (norm.running_mean, norm.running_var) if tensor is not None
    ]
    if not tensors:
        return
    joined = torch.cat([tensor.flatten() for tensor in tensors])
    dist.broadcast(joined, 0)
    for tensor, part in zip(tensors, torch.split(joined, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
