"""Features of image networks that are not ours: any classifier of timm or torchvision, with weights from a file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from farl_lightning.errors import CheckpointError, ConfigError, did_you_mean
from farl_lightning.functional.resize import resize
from farl_lightning.models import layout
from farl_lightning.models.archive import read_file
from farl_lightning.models.features import FEATURE
from farl_lightning.types import FaceSpec

_log = logging.getLogger(__name__)

POOLS = ("mean", "max")
"""How the positions of a map, or the tokens of a block, become one vector."""

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_WRAPPERS = ("state_dict_ema", "state_dict", "model_ema", "model")
_PREFIXES = ("module.", "_orig_mod.")


class BackboneFeatures(nn.Module):
    """Features of a classifier of timm or torchvision, without gradient; a :class:`FeatureExtractor`.

    ``"feature"`` is what the network hands to its classifier. Beside it, any layer can be read by its name in the
    network: ``"features.7.mean"`` and ``"features.7.max"`` are its output pooled over positions (or tokens).

    Args:
        name: ``"torchvision/mobilenet_v2"``, ``"timm/resnet18"``; without library, timm's.
        weights: File of the weights, in the names of the library (``.pth``, ``.safetensors``, plain or under
            ``state_dict``); its classifier may have any number of classes. None leaves the network at random.
        layers: Names of layers that are read besides; ``dict(network.named_modules())`` has them all.
        pools: What is read of each layer: ``"mean"``, ``"max"``.
        seed: Of the random weights.
        spec: What the network expects of faces; None takes whole pictures of the size and with the normalisation that
            the library states for its weights.

    Attributes:
        name: Library and name.
        names: The names of the features, in order.
        network: The network, without its classifier.

    Raises:
        ConfigError: If the library has no such network, or that no such layer.
        CheckpointError: If the file cannot be read, or does not hold every weight.

    Example:
        >>> features = BackboneFeatures("torchvision/mobilenet_v2", "mobilenet_v2-b0353104.pth")  # doctest: +SKIP
        >>> features(images)["feature"].shape  # doctest: +SKIP
        torch.Size([8, 1280])
    """

    def __init__(
        self,
        name: str,
        weights: str | Path | None = None,
        layers: Sequence[str] = (),
        pools: Sequence[str] = ("mean",),
        seed: int = 0,
        spec: FaceSpec | None = None,
    ) -> None:
        super().__init__()
        library, _, short = name.rpartition("/")
        self.name = f"{library or 'timm'}/{short}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network, stated, classifier = _build(library or "timm", short)
        if weights is not None:
            load_backbone(self.network, weights, classifier)
        self.spec = spec or stated
        self.layers, self.pools = _checked(self.network, layers), tuple(dict.fromkeys(pools))
        for pool in self.pools:
            if pool not in POOLS:
                raise ConfigError(f"pooling '{pool}' is not known. {did_you_mean(pool, POOLS)}")
        self.names = (*(f"{layer}.{pool}" for layer in self.layers for pool in self.pools), FEATURE)
        self._seen: dict[str, Tensor] = {}
        for layer in self.layers:
            self.network.get_submodule(layer).register_forward_hook(partial(self._keep, layer))
        self.requires_grad_(False).train(False)

    def _keep(self, layer: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Note what a layer made."""
        del module, inputs
        self._seen[layer] = output

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: features must not depend on dropout, nor change statistics of batches.

        Args:
            mode: Not used.
        """
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the features of face crops.

        Args:
            images: (B, 3, H, W), normalised as ``spec`` says; resized to its size where they have another one.

        Returns:
            (B, D) float32 by name, in the order of ``names``.
        """
        size = (self.spec.image_size, self.spec.image_size)
        feature = self.network(resize(images, size)).flatten(1).float()
        seen, self._seen = self._seen, {}
        pooled = {f"{layer}.{pool}": pool_map(seen[layer], pool) for layer in self.layers for pool in self.pools}
        return {**pooled, FEATURE: feature}


def pool_map(output: Tensor, pool: str) -> Tensor:
    """Turn what a layer makes into one vector per picture.

    Args:
        output: (B, D); (B, N, D) tokens; (B, D, H, W), or (B, H, W, D) of a square picture.
        pool: ``"mean"`` or ``"max"``.

    Returns:
        (B, D) float32.

    Raises:
        ConfigError: If it has another shape.
    """
    if not isinstance(output, Tensor) or not 2 <= output.ndim <= 4:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(f"a layer that makes {shape} cannot be pooled; read one that makes a map, tokens or vectors")
    if output.ndim == 4:  # square maps have their sides beside each other
        output = output.flatten(2).mT if output.shape[2] == output.shape[3] else output.flatten(1, 2)
    if output.ndim == 3:
        output = output.mean(1) if pool == "mean" else output.amax(1)
    return output.float()


def load_backbone(network: nn.Module, path: str | Path, classifier: Sequence[str] = ()) -> None:
    """Load the weights of a network without classifier from a file.

    Args:
        network: The network.
        path: The file.
        classifier: Names that the file may have besides.

    Raises:
        CheckpointError: If it cannot be read, lacks a weight, or one has another shape.
    """
    held = _state(read_file(path), path)
    own = network.state_dict()
    missing = [name for name in own if name not in held and not name.endswith("num_batches_tracked")]
    if missing:
        raise CheckpointError(
            f"'{path}' lacks {len(missing)} of {len(own)} weights of {type(network).__name__}: "
            f"{layout.describe(missing)}; it holds {layout.describe(held)}"
        )
    for name, value in own.items():
        if name in held and held[name].shape != value.shape:
            raise CheckpointError(f"'{path}': {name} is {tuple(held[name].shape)}, expected {tuple(value.shape)}")
    if unused := [name for name in held if name not in own and name not in classifier]:
        _log.warning("'%s': names that were not used: %s", path, layout.describe(unused))
    network.load_state_dict({name: held[name] for name in own if name in held}, strict=False)


def _state(content: Any, path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a file by their names in the network."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    items = content.items() if isinstance(content, Mapping) else ()
    state = {str(name): value for name, value in items if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f"'{path}' holds no dict of tensors, but a {type(content).__name__}")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


Built = tuple[nn.Module, FaceSpec, tuple[str, ...]]
"""A network at random without its classifier, what it expects, and the names of the classifier's weights."""


def _build(library: str, name: str) -> Built:
    """Build a network of a library."""
    if library not in _LIBRARIES:
        raise ConfigError(f"there is no library '{library}' of networks. {did_you_mean(library, _LIBRARIES)}")
    return _LIBRARIES[library](name)


def _from_torchvision(name: str) -> Built:
    """Build a network of torchvision; its classifier is its last linear layer."""
    from torchvision import models  # heavy, and not always asked for

    known = models.list_models(module=models)
    if name not in known:
        raise ConfigError(f"torchvision has no classifier '{name}'. {did_you_mean(name, known)}")
    stated = models.get_model_weights(name).DEFAULT.transforms()
    spec = FaceSpec(stated.crop_size[0], mean=tuple(stated.mean), std=tuple(stated.std))
    network: nn.Module = models.get_model(name, weights=None)
    *_, head = (layer for layer, module in network.named_modules() if isinstance(module, nn.Linear))
    parent, _, own = head.rpartition(".")
    setattr(network.get_submodule(parent), own, nn.Identity())
    return network, spec, (f"{head}.weight", f"{head}.bias")


def _from_timm(name: str) -> Built:
    """Build a network of timm."""
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"timm has no network '{name}'. {did_you_mean(name, timm.list_models())}")
    network: Any = timm.create_model(name, pretrained=False)
    names = list(network.state_dict())
    network.reset_classifier(0)
    stated = {**_IMAGENET, **network.pretrained_cfg}
    size = stated.get("input_size", (3, 224, 224))[-1]
    classifier = tuple(set(names) - set(network.state_dict()))
    return network, FaceSpec(size, mean=tuple(stated["mean"]), std=tuple(stated["std"])), classifier


_LIBRARIES = {"timm": _from_timm, "torchvision": _from_torchvision}


def _checked(network: nn.Module, layers: Sequence[str]) -> tuple[str, ...]:
    """Refuse layers that do not exist."""
    known = [name for name, _ in network.named_modules() if name]
    for layer in layers:
        if layer not in known:
            raise ConfigError(f"{type(network).__name__} has no layer '{layer}'. {did_you_mean(layer, known)}")
    return tuple(dict.fromkeys(layers))
