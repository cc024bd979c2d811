"""Small networks and weights files for tests and first steps."""

from __future__ import annotations

from pathlib import Path

import torch

from farl_lightning.models.config import FaceCLIPConfig, ImageEncoderConfig, TextEncoderConfig


def tiny_config(image_size: int = 32, patch_size: int = 8, width: int = 48, depth: int = 2, heads: int = 3) -> FaceCLIPConfig:
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

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = FlavaImageCodebookConfig(hidden_size=8, num_blocks_per_group=1, vocab_size=vocab_size)
        codebook = FlavaImageCodebook(config)
        for parameter in codebook.parameters():  # louder than the default, so that tokens differ between patches
            torch.nn.init.normal_(parameter, std=0.3)
    codebook.save_pretrained(folder)
    return Path(folder)
