"""What masked image modelling has to guess: visual tokens or pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farl_lightning.errors import CheckpointError, ConfigError
from farl_lightning.functional.patches import patchify
from farl_lightning.functional.random import keyed_generator
from farl_lightning.types import Configurable


class ImageTarget(nn.Module, Configurable):
    """Base of all targets. A subclass implements ``forward`` and, where it learns something first, ``fit``.

    The order of calls is: constructor, :meth:`build`, :meth:`fit` if :attr:`needs_fit`, ``forward``.

    Attributes:
        is_discrete: Whether the target is a token id per patch; else it is a vector.
        out_features: Size of the vocabulary, or values per patch; known after :meth:`build`.
        patch_size: Side of a patch in pixels; known after :meth:`build`.
        grid: Patches (rows, columns); known after :meth:`build`.
    """

    is_discrete: bool = True
    out_features: int
    patch_size: int
    grid: tuple[int, int]
    mean: Tensor
    std: Tensor

    @property
    def needs_fit(self) -> bool:
        """Whether :meth:`fit` must be called before ``forward``."""
        return False

    def build(self, patch_size: int, grid: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> None:
        """Learn the geometry and the normalisation of the pictures.

        Args:
            patch_size: Side of a patch in pixels.
            grid: Patches (rows, columns).
            mean: Per-channel mean of RGB in [0, 1] that the pictures are normalised with.
            std: Per-channel standard deviation.
        """
        self.patch_size, self.grid = patch_size, (grid[0], grid[1])
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(tuple(std)).view(1, 3, 1, 1), persistent=False)

    def fit(self, images: Tensor) -> None:
        """Learn from pictures before training; nothing by default.

        Args:
            images: (M, 3, H, W) float, normalised.
        """

    def forward(self, images: Tensor) -> Tensor:
        """Return the target of every patch.

        Args:
            images: (B, 3, H, W), normalised.

        Returns:
            (B, N) int64 ids when :attr:`is_discrete`, else (B, N, ``out_features``) float.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement forward(images)")

    def to_patches(self, target: Tensor, images: Tensor) -> Tensor | None:
        """Show what a target, or a prediction of it, looks like.

        Args:
            target: (B, N) ids or (B, N, ``out_features``) values.
            images: (B, 3, H, W) normalised pictures that the target belongs to.

        Returns:
            (B, N, P) normalised pixels in the order of :func:`~farl_lightning.functional.patches.patchify`, or None
            when this target cannot be turned back into pixels.
        """
        del target, images
        return None


class _Frozen:
    """Keeps a network out of parameters, state dicts, sharding and weight averaging; a deep copy shares it."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Frozen:
        return self


class DVAETokens(ImageTarget):
    """Tokens of DALL-E's discrete VAE (Ramesh et al., arXiv:2102.12092), the target of BEiT.

    The network is ``FlavaImageCodebook`` of transformers, which holds the same encoder. It sees the picture at 8
    pixels per patch, 112 x 112 for a 14 x 14 grid, in DALL-E's pixel range. It is frozen, and it is not part of the
    state dict.

    Args:
        path_or_hub: A local folder, or an id on the Hugging Face hub, such as ``"facebook/flava-image-codebook"``.

    Raises:
        CheckpointError: On :meth:`build`, if there is no such codebook.
    """

    def __init__(self, path_or_hub: str = "facebook/flava-image-codebook") -> None:
        super().__init__()
        self.path_or_hub = path_or_hub
        self._frozen: _Frozen | None = None

    def build(self, patch_size: int, grid: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> None:
        """Load the network; see the base class."""
        super().build(patch_size, grid, mean, std)
        if self._frozen is None:
            self._frozen = _Frozen(_load_codebook(self.path_or_hub))
        network: Any = self._frozen.network
        self.out_features = int(network.vocab_size)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return (B, N) int64 tokens of (B, 3, H, W) normalised pictures."""
        if self._frozen is None:
            raise ConfigError("DVAETokens was not built; call build(patch_size, grid, mean, std) first")
        network: Any = self._frozen.network
        if network.device != images.device:
            network.to(images.device)
        with torch.autocast(images.device.type, enabled=False):  # near ties between tokens need full precision
            tokens: Tensor = network.get_codebook_indices(self.pixels(images.float()))
        return tokens.flatten(1)

    def pixels(self, images: Tensor) -> Tensor:
        """Turn normalised pictures into what the network reads.

        Args:
            images: (B, 3, H, W), normalised.

        Returns:
            (B, 3, 8 * rows, 8 * columns) on [0.1, 0.9]: DALL-E maps x on [0, 1] to 0.8 x + 0.1.
        """
        size = (8 * self.grid[0], 8 * self.grid[1])
        x = images * self.std + self.mean
        if x.shape[-2:] != size:
            x = F.interpolate(x, size, mode="bicubic", align_corners=False, antialias=True)
        return 0.8 * x.clamp(0, 1) + 0.1


def _load_codebook(path: str) -> nn.Module:
    """Load a ``FlavaImageCodebook`` from a folder or the hub."""
    from transformers import FlavaImageCodebook
    from transformers.utils import logging

    folder = Path(path).expanduser()
    if not folder.is_dir() and (reason := _no_hub_id(path)):
        raise CheckpointError(f"no folder '{path}' ({reason}). {_CODEBOOK_HINT}")
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        network: nn.Module = FlavaImageCodebook.from_pretrained(str(folder) if folder.is_dir() else path)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"'{path}' holds no FlavaImageCodebook: {str(error).strip().rstrip('.')}. {_CODEBOOK_HINT}"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    return network


_CODEBOOK_HINT = (
    "Give a folder with config.json and model.safetensors, or a hub id such as facebook/flava-image-codebook; without "
    "a download, KMeansTokens is the target to use"
)


def _no_hub_id(path: str) -> str:
    """Return why a path cannot mean a repository of the hub, before half a minute is spent on asking; else nothing."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented there

    parent = Path(path).expanduser().parent
    if Path(path).is_absolute() or path.startswith((".", "~")):
        return "a path"
    if parent != Path() and parent.is_dir():
        return f"a path, since there is a folder '{parent}'"
    try:
        validate_repo_id(path)
    except HFValidationError:
        return "and no id of the hub, which is NAME or OWNER/NAME"
    return ""


class KMeansTokens(ImageTarget):
    """Tokens from k-means on the pixels of patches of the training pictures: discrete, and without any download.

    The codebook is found once before training (k-means++ seeding, then Lloyd's iterations) and saved with the weights.

    Args:
        vocab_size: Number of clusters.
        num_patches: Patches that take part, drawn at random; fewer if the pictures hold fewer.
        iterations: Lloyd's iterations.
        seed: Seed of the draw and of the seeding.

    Raises:
        ConfigError: If a number is not positive.
    """

    codebook: Tensor
    fitted: Tensor

    def __init__(self, vocab_size: int = 512, num_patches: int = 20000, iterations: int = 20, seed: int = 0) -> None:
        super().__init__()
        if min(vocab_size, num_patches, iterations) < 1:
            raise ConfigError(f"KMeansTokens needs positive numbers; got {vocab_size=}, {num_patches=}, {iterations=}")
        self.out_features = vocab_size
        self.num_patches, self.iterations, self.seed = num_patches, iterations, seed

    @property
    def needs_fit(self) -> bool:
        """Whether there is no codebook yet, neither fitted nor loaded."""
        return not bool(self.fitted)

    def build(self, patch_size: int, grid: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> None:
        """Make room for the codebook, where there is none yet; see the base class."""
        super().build(patch_size, grid, mean, std)
        if "codebook" in self._buffers:
            return
        self.register_buffer("codebook", torch.zeros(self.out_features, 3 * patch_size**2))
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Find the codebook.

        Args:
            images: (M, 3, H, W) float, normalised.

        Raises:
            ConfigError: If the pictures hold fewer patches than there are clusters.
        """
        patches = patchify(images.float(), self.patch_size).flatten(0, 1)
        if len(patches) < self.out_features:
            raise ConfigError(
                f"{len(patches)} patches cannot make {self.out_features} clusters; fit on more pictures or lower "
                "vocab_size"
            )
        generator = keyed_generator("k-means", self.seed)
        chosen = torch.randperm(len(patches), generator=generator)[: max(self.num_patches, self.out_features)]
        points = patches[chosen.to(patches.device)]
        self.codebook.copy_(_kmeans(points, self.out_features, self.iterations, generator))
        self.fitted.fill_(True)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return (B, N) int64 ids of the nearest cluster of (B, 3, H, W) normalised pictures."""
        patches = patchify(images.float(), self.patch_size)
        with torch.autocast(images.device.type, enabled=False):
            return _nearest(patches.flatten(0, 1), self.codebook.float())[0].view(patches.shape[:2])

    def to_patches(self, target: Tensor, images: Tensor) -> Tensor:
        """Return the (B, N, P) cluster centres of (B, N) ids."""
        del images
        return self.codebook[target]


def _nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index of the nearest centre and the squared distance to it, 4096 points at a time."""
    half = 0.5 * centres.square().sum(1)
    found = [torch.max(part @ centres.T - half, dim=1) for part in torch.split(points, 4096)]
    index = torch.cat([part.indices for part in found])
    best = torch.cat([part.values for part in found])
    return index, (points.square().sum(1) - 2 * best).clamp_min(0)


def _kmeans(points: Tensor, count: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Cluster (M, P) points; return (count, P) centres. A cluster that runs empty moves to the farthest point."""
    centres = _kmeans_plus_plus(points, count, generator)
    for _ in range(iterations):
        index, distance = _nearest(points, centres)
        sums = torch.zeros_like(centres).index_add_(0, index, points)
        sizes = torch.bincount(index, minlength=count)
        empty = sizes == 0
        centres = sums / sizes.clamp_min(1).unsqueeze(1)
        if bool(empty.any()):
            centres[empty] = points[distance.topk(int(empty.sum())).indices]
    return centres


def _kmeans_plus_plus(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Pick starting centres far apart (Arthur and Vassilvitskii, 2007): each with probability of squared distance."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    distance = (points - points[chosen[0]]).square().sum(1)
    for draw in torch.rand(count - 1, generator=generator, dtype=torch.float64).tolist():
        total = distance.double().cumsum(0)
        position = torch.searchsorted(total, total[-1] * draw, right=True)
        chosen.append(min(int(position), len(points) - 1))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(1))
    return points[chosen].clone()


class PixelTarget(ImageTarget):
    """The pixels themselves (MAE, He et al., arXiv:2111.06377).

    Args:
        normalize: Whether each patch is brought to mean 0 and variance 1, which MAE found to be better.
    """

    is_discrete = False

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    def build(self, patch_size: int, grid: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> None:
        """Note the size of a patch; see the base class."""
        super().build(patch_size, grid, mean, std)
        self.out_features = 3 * patch_size**2

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return (B, N, P) float32 pixels of (B, 3, H, W) normalised pictures."""
        patches = patchify(images.float(), self.patch_size)
        if not self.normalize:
            return patches
        mean, scale = _patch_statistics(patches)
        return (patches - mean) / scale

    def to_patches(self, target: Tensor, images: Tensor) -> Tensor:
        """Undo the normalisation of each patch with the picture's own statistics."""
        if not self.normalize:
            return target
        mean, scale = _patch_statistics(patchify(images.float(), self.patch_size))
        return target * scale + mean


def _patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (unbiased, with 1e-6 added to the variance) of each patch."""
    return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + 1e-6).sqrt()
