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
    from transformers.utils import logging

    config = FlavaImageCodebookConfig(hidden_size=8, num_blocks_per_group=1, vocab_size=vocab_size)
    codebook = FlavaImageCodebook(config)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in codebook.parameters():
            if parameter.ndim == 1:
                torch.nn.init.zeros_(parameter)
            else:
                torch.nn.init.kaiming_normal_(parameter)
        # scores of equal mean and spread: else one token would win everywhere
        scores, output = codebook(torch.rand(8, 3, 112, 112)), codebook.blocks.output.conv
        spread = scores.std((0, 2, 3))
        output.weight /= spread.view(-1, 1, 1, 1)
        output.bias -= scores.mean((0, 2, 3)) / spread
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    codebook.save_pretrained(folder)
    if bars:
        logging.enable_progress_bar()
    return Path(folder)
