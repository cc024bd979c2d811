"""Small networks and weights files for tests and first steps."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from farl_lightning.models.config import FaceCLIPConfig, ImageEncoderConfig, TextEncoderConfig
from farl_lightning.types import CLIP_MEAN, CLIP_STD


def tiny_config(
    image_size: int = 32, patch_size: int = 8, width: int = 48, depth: int = 2, heads: int = 3
) -> FaceCLIPConfig:
    """Return the configuration of a network that runs in milliseconds on a CPU.

    Args:
        image_size: Side of the input in pixels.
        patch_size: Side of a patch in pixels.
        width: Channels of a token, in both towers.
        depth: Number of blocks, in both towers.
        heads: Number of attention heads, in both towers.
    """
    return FaceCLIPConfig(
        embed_dim=32,
        image=ImageEncoderConfig(image_size=image_size, patch_size=patch_size, width=width, depth=depth, heads=heads),
        text=TextEncoderConfig(width=width, depth=depth, heads=heads),
    )


def write_random_codebook(folder: str | Path, vocab_size: int = 64, seed: int = 0) -> Path:
    """Write a ``FlavaImageCodebook`` with random weights, so that a dVAE target runs without a download.

    Args:
        folder: Where config and weights go; made if it is not there.
        vocab_size: Number of tokens; the real one has 8192.
        seed: Seed of the weights.

    Returns:
        The folder.
    """
    from transformers import FlavaImageCodebook, FlavaImageCodebookConfig
    from transformers.utils import logging

    config = FlavaImageCodebookConfig(hidden_size=8, num_blocks_per_group=1, vocab_size=vocab_size)
    codebook: Any = FlavaImageCodebook(config)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in codebook.parameters():
            if parameter.ndim == 1:
                torch.nn.init.zeros_(parameter)
            else:
                torch.nn.init.kaiming_normal_(parameter)
        # scores of equal mean and spread: else one token would win everywhere
        colours = torch.rand(8, 3, 14, 14).repeat_interleave(8, 2).repeat_interleave(8, 3)
        scores, output = codebook(colours), codebook.blocks.output.conv
        spread = scores.std((0, 2, 3))
        output.weight /= spread.view(-1, 1, 1, 1)
        output.bias -= scores.mean((0, 2, 3)) / spread
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    codebook.save_pretrained(folder)
    if bars:
        logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    return Path(folder)


def random_clip_state(
    *,
    width: int = 64,
    depth: int = 2,
    patch_size: int = 8,
    grid: int = 4,
    embed_dim: int = 32,
    context_length: int = 12,
    vocab_size: int = 90,
    text: bool = True,
    masked_image: tuple[int, int] | None = (1, 40),
    seed: int = 0,
) -> dict[str, Tensor]:
    """Draw a state dict with the names and shapes of OpenAI's CLIP, and of FaRL where it goes beyond.

    The names are written down here, and not taken from the modules, so that a test of the layouts is one.

    Args:
        width: Channels of a token in both towers; a head has 64.
        depth: Number of blocks in both towers.
        patch_size: Side of a patch in pixels.
        grid: Patches along a side.
        embed_dim: Channels of the shared space.
        context_length: Tokens of a caption.
        vocab_size: Number of token ids.
        text: Whether there is a text tower.
        masked_image: Blocks and outputs of the masked image head; None for a file without one.
        seed: Seed of the numbers.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (grid**2 + 1, width),
        "visual.proj": (width, embed_dim),
        "visual.conv1.weight": (width, 3, patch_size, patch_size),
        **_norm("visual.ln_pre", width),
        **_norm("visual.ln_post", width),
        **_blocks("visual.transformer", width, depth),
    }
    if masked_image is not None:
        blocks, outputs = masked_image
        shapes |= {
            "visual.mask_token": (width,),
            "visual.lm_head.weight": (outputs, width),
            "visual.lm_head.bias": (outputs,),
        }
        shapes |= _norm("visual.ln_lm", width) | _blocks("visual.lm_transformer", width, blocks)
    if text:
        shapes |= {
            "positional_embedding": (context_length, width),
            "text_projection": (width, embed_dim),
            "logit_scale": (),
            "token_embedding.weight": (vocab_size, width),
            **_norm("ln_final", width),
            **_blocks("transformer", width, depth),
        }
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _blocks(name: str, width: int, depth: int) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a stack of CLIP's residual attention blocks."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(depth):
        block = f"{name}.resblocks.{index}"
        shapes |= {
            f"{block}.attn.in_proj_weight": (3 * width, width),
            f"{block}.attn.in_proj_bias": (3 * width,),
            f"{block}.attn.out_proj.weight": (width, width),
            f"{block}.attn.out_proj.bias": (width,),
            f"{block}.mlp.c_fc.weight": (4 * width, width),
            f"{block}.mlp.c_fc.bias": (4 * width,),
            f"{block}.mlp.c_proj.weight": (width, 4 * width),
            f"{block}.mlp.c_proj.bias": (width,),
            **_norm(f"{block}.ln_1", width),
            **_norm(f"{block}.ln_2", width),
        }
    return shapes


def random_dense_state(
    kind: str = "parsing",
    *,
    outputs: int = 11,
    width: int = 64,
    depth: int = 4,
    patch_size: int = 8,
    grid: int = 8,
    channels: int = 8,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Draw a state dict with the names and shapes of FaRL's downstream networks.

    The names are written down here, and not taken from the modules, so that a test of the layouts is one.

    Args:
        kind: ``"parsing"``, ``"alignment"``, or ``"attributes"`` (facer's, one tap).
        outputs: Classes, landmarks or attributes.
        width: Channels of a token; a head has 64.
        depth: Number of blocks.
        patch_size: Side of a patch in pixels: 8 or 16.
        grid: Patches along a side.
        channels: Channels inside the head.
        seed: Seed of the numbers.
    """
    clip = random_clip_state(
        width=width, depth=depth, patch_size=patch_size, grid=grid, text=False, masked_image=None, seed=seed
    )
    generator = torch.Generator().manual_seed(seed + 1)
    if kind == "attributes":
        names = {"proj", "ln_post.weight", "ln_post.bias"}
        state = {f"backbone.{name}": clip[f"visual.{name}"] for name in _after(clip, "visual.") if name not in names}
        return state | _draw(_attribute_shapes(width, outputs), generator)
    state = {f"backbone.{name}": tensor for name, tensor in clip.items()}
    state["backbone.image_mean"] = torch.tensor(CLIP_MEAN).view(1, 3, 1, 1)
    state["backbone.image_std"] = torch.tensor(CLIP_STD).view(1, 3, 1, 1)
    state |= _draw(_pyramid_shapes(width, patch_size), generator)
    root = "head.head." if kind == "parsing" else "heatmap_head.head."
    return state | {root + name: t for name, t in _draw(_head_shapes(width, channels, outputs), generator).items()}


def _after(names: Iterable[str], prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _draw(shapes: dict[str, tuple[int, ...]], generator: torch.Generator) -> dict[str, Tensor]:
    """Draw tensors; variances are above 0, and counts are counts."""
    drawn: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        values = 0.1 * torch.randn(shape, generator=generator)
        drawn[name] = values.abs() + 0.5 if name.endswith("running_var") else values
        if name.endswith("num_batches_tracked"):
            drawn[name] = torch.tensor(3)
    return drawn


def _batch_norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")
    }
    return shapes | {f"{name}.num_batches_tracked": ()}


def _pyramid_shapes(width: int, patch_size: int) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of FaRL's pyramid."""
    convs = ["0.0"] if patch_size == 8 else ["0.0", "0.3", "1"]
    shapes: dict[str, tuple[int, ...]] = {}
    for conv in convs:
        shapes |= {f"backbone.fpns.{conv}.weight": (width, width, 2, 2), f"backbone.fpns.{conv}.bias": (width,)}
    return shapes if patch_size == 8 else shapes | _batch_norm("backbone.fpns.0.1", width)


def _head_shapes(width: int, channels: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of mmsegmentation's UPerHead."""
    convs: dict[str, tuple[int, ...]] = {
        **{f"psp_modules.{index}.1": (channels, width, 1, 1) for index in range(4)},
        "bottleneck": (channels, width + 4 * channels, 3, 3),
        **{f"lateral_convs.{index}": (channels, width, 1, 1) for index in range(3)},
        **{f"fpn_convs.{index}": (channels, channels, 3, 3) for index in range(3)},
        "fpn_bottleneck": (channels, 4 * channels, 3, 3),
    }
    shapes: dict[str, tuple[int, ...]] = {"conv_seg.weight": (outputs, channels, 1, 1), "conv_seg.bias": (outputs,)}
    for name, shape in convs.items():
        shapes |= {f"{name}.conv.weight": shape, **_batch_norm(f"{name}.bn", channels)}
    return shapes


def _attribute_shapes(width: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of facer's attribute head."""
    shapes: dict[str, tuple[int, ...]] = {
        "head.weights": (1, 3, 1),
        "head.final_fc.weight": (outputs, width),
        "head.final_fc.bias": (outputs,),
    }
    for index in range(3):
        shapes |= _norm(f"head.norm_{index}", width)
    return shapes


def write_torchscript(path: str | Path, state: dict[str, Tensor], extra: dict[str, Any] | None = None) -> None:
    """Write a state dict as a TorchScript archive, the form in which OpenAI publishes CLIP and facer its networks.

    Args:
        path: The file.
        state: Tensors by dotted names.
        extra: Further contents by name, each written by ``torch.save`` into a file of its own inside the archive.
    """
    root = nn.Module()
    for name, tensor in state.items():
        *parents, last = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, nn.Module())
            module = getattr(module, parent)
        if tensor.is_floating_point():
            module.register_parameter(last, nn.Parameter(tensor))
        else:
            module.register_buffer(last, tensor)
    files = {name: _saved(content) for name, content in (extra or {}).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is old, and so are the files it is imitated for
        torch.jit.script(root).save(str(path), _extra_files=files)  # type: ignore[no-untyped-call]


def _saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()
