"""Pictures as rows of patches, and back."""

from __future__ import annotations

from torch import Tensor


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut pictures into patches.

    Args:
        images: (B, C, H, W); H and W are multiples of ``patch_size``.
        patch_size: Side of a patch in pixels.

    Returns:
        (B, N, P) with P = ``patch_size``² * C: patches row by row, inside a patch by row, column, channel (the order
        of MAE's released code).
    """
    batch, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    cells = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch_size**2 * channels)


def unpatchify(patches: Tensor, grid: tuple[int, int], channels: int = 3) -> Tensor:
    """Undo :func:`patchify`.

    Args:
        patches: (B, N, P).
        grid: Patches (rows, columns), N in all.
        channels: Channels C of the picture.

    Returns:
        (B, C, H, W).
    """
    batch, _, values = patches.shape
    side = round((values / channels) ** 0.5)
    cells = patches.reshape(batch, *grid, side, side, channels)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, grid[0] * side, grid[1] * side)
