"""The one trainable root of pretraining: network and objectives, every pass run once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

from torch import Tensor, nn

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.models.face_clip import FaceCLIP, FaceCLIPOutput
from farl_lightning.objectives.base import NEEDS, Objective, ObjectiveResult
from farl_lightning.types import FaceSpec, PretrainBatch

T = TypeVar("T")


class PretrainResult(NamedTuple):
    """What one step of pretraining yields.

    Attributes:
        loss: Scalar, the weighted sum.
        results: Each objective's own, by name.
        outputs: The network's.
    """

    loss: Tensor
    results: dict[str, ObjectiveResult]
    outputs: FaceCLIPOutput


class PretrainModel(nn.Module):
    """A network with the objectives it is trained for.

    What no objective reads is frozen, so that processes do not wait for gradients that never come: without a
    contrastive objective the text tower and the projection, without a masked one the mask token.

    Args:
        clip: The network.
        objectives: The objectives, by the name of their metrics.
        spec: Size, mean and standard deviation of the images; :meth:`set_spec` brings it later.

    Attributes:
        clip: The network.
        objectives: The objectives, by name.
        needs: What the objectives read, all together.

    Raises:
        ConfigError: If there is no objective, a name cannot be used, or an objective needs what ``clip`` lacks.
    """

    forward_methods: ClassVar[tuple[str, ...]] = ("encode", "inside")
    """Methods besides ``forward`` that run parts of the network; sharding gathers parameters for them, too."""

    def __init__(self, clip: FaceCLIP, objectives: Mapping[str, Objective], spec: FaceSpec | None = None) -> None:
        super().__init__()
        if not objectives:
            raise ConfigError("pretraining needs at least one objective")
        for name, objective in objectives.items():
            _check_needs(name, objective, clip)
        self.clip = clip
        try:
            self.objectives = nn.ModuleDict(objectives)
        except KeyError as error:
            raise ConfigError(f"an objective cannot have this name: {error.args[0]}") from error
        self.needs = frozenset[str]().union(*(objective.needs for objective in objectives.values()))
        self.set_spec(spec or clip.face_spec or FaceSpec(image_size=clip.image_encoder.image_size))
        _freeze_unread(clip, self.needs)

    def set_spec(self, spec: FaceSpec) -> None:
        """Tell the objectives what the images are like.

        Args:
            spec: The datamodule's, or a checkpoint's.
        """
        for objective in self._items().values():
            objective.build(self.clip, spec)

    @property
    def needs_fit(self) -> bool:
        """Whether :meth:`fit` must be called before training."""
        return any(objective.needs_fit for objective in self._items().values())

    def fit(self, images: Tensor) -> None:
        """Let the objectives that need it learn from images before training.

        Args:
            images: (M, 3, H, W) float, normalised.
        """
        for objective in self._items().values():
            if objective.needs_fit:
                objective.fit(images)

    def encode(self, images: Tensor | None = None, text: Tensor | None = None, **options: Any) -> FaceCLIPOutput:
        """Run the network alone, without objectives; sharded, this is the way to it.

        Args:
            images: (B, 3, H, W), normalised, or None.
            text: (T, L) int64 token ids, or None.
            **options: See :meth:`FaceCLIP.forward <farl_lightning.models.face_clip.FaceCLIP.forward>`.
        """
        outputs: FaceCLIPOutput = self.clip(images, text, **options)
        return outputs

    def forward(self, batch: PretrainBatch, also: Collection[str] = ()) -> PretrainResult:
        """Run what the objectives need once, and sum their weighted losses.

        Args:
            batch: ``image``, and ``text`` and ``patch_mask`` where needed.
            also: Further outputs that the caller wants, any of ``objectives.base.NEEDS``.

        Raises:
            ConfigError: If the batch lacks something; the message says which setting of the data brings it.
        """
        outputs = self.run_passes(batch, self.needs.union(also))
        results = {name: objective(outputs, batch) for name, objective in self._items().items()}
        return PretrainResult(self.weighted_loss(results), results, outputs)

    def inside(self, step: Callable[[PretrainModel, PretrainBatch], T], batch: PretrainBatch) -> T:
        """Call a function of this model and a batch as if it were ``forward``, where sharding has gathered parameters.

        Args:
            step: Is called with the model and the batch; may call :meth:`run_passes` and the objectives.
            batch: A batch, or a part of one.
        """
        return step(self, batch)

    def objective(self, name: str) -> Objective:
        """Return the objective of this name."""
        return cast(Objective, self.objectives[name])

    def weighted_loss(self, results: Mapping[str, ObjectiveResult]) -> Tensor:
        """Add up the losses of all objectives, each times its weight.

        Args:
            results: One per objective.
        """
        weighted = [objective.weight * results[name].loss for name, objective in self._items().items()]
        return sum(weighted[1:], weighted[0])

    def run_passes(self, batch: PretrainBatch, needs: frozenset[str]) -> FaceCLIPOutput:
        """Call the network for exactly what is needed; only within :meth:`forward` or :meth:`inside`.

        Args:
            batch: ``image``, and ``text`` and ``patch_mask`` where needed.
            needs: Any of ``objectives.base.NEEDS``.

        Raises:
            ConfigError: If the batch lacks something.
        """
        self._check_batch(batch, needs)
        reads_images = needs & {"image", "masked", "tokens"}
        outputs: FaceCLIPOutput = self.clip(
            batch["image"] if reads_images else None,
            batch["text"] if "text" in needs else None,
            patch_mask=batch["patch_mask"] if "masked" in needs else None,
            need_tokens="tokens" in needs,
            need_feature="image" in needs,
        )
        return outputs

    def _check_batch(self, batch: PretrainBatch, needs: frozenset[str]) -> None:
        """Say which setting of the data brings what is missing."""
        if "text" in needs and "text" not in batch:
            raise ConfigError(
                f"{self._who('text')} needs captions, but the batch has no 'text'; use data with captions"
            )
        if "masked" not in needs:
            return
        if "patch_mask" not in batch:
            raise ConfigError(
                f"{self._who('masked')} needs masked patches, but the batch has no 'patch_mask'; set the data's "
                "transform.mask to 'block' or 'random'"
            )
        encoder = self.clip.image_encoder
        if batch["patch_mask"].shape[1:] != (encoder.num_patches,):
            raise ConfigError(
                f"'patch_mask' {tuple(batch['patch_mask'].shape)} does not have the image encoder's "
                f"{encoder.num_patches} patches; set the data's transform.image_size to {encoder.image_size} and "
                f"transform.patch_size to {encoder.patch_size}"
            )

    def _who(self, need: str) -> str:
        """Name the objectives behind a need."""
        names = [f"'{name}'" for name, objective in self._items().items() if need in objective.needs]
        return f"objective {', '.join(names)}" if names else "this call"

    def _items(self) -> dict[str, Objective]:
        """The objectives with their type."""
        return dict(self.objectives.items())  # type: ignore[arg-type]


def _check_needs(name: str, objective: Objective, clip: FaceCLIP) -> None:
    """Refuse an objective that this network cannot serve."""
    for need in sorted(objective.needs - NEEDS):
        raise ConfigError(f"objective '{name}' needs '{need}', which does not exist. {did_you_mean(need, NEEDS)}")
    if "text" in objective.needs and clip.text_encoder is None:
        raise ConfigError(f"objective '{name}' needs captions, but the network has no text tower (clip.text is null)")
    if "masked" in objective.needs and clip.image_encoder.mask_token is None:
        raise ConfigError(f"objective '{name}' needs masked images; build FaceCLIP with mask_token=True")


def _freeze_unread(clip: FaceCLIP, needs: frozenset[str]) -> None:
    """Freeze the parameters that cannot get a gradient."""
    encoder = clip.image_encoder
    readers: dict[str, list[nn.Module | nn.Parameter | None]] = {
        "image": [encoder.vit.norm, encoder.proj, encoder.conv_pool],
        "text": [clip.text_encoder, clip.logit_scale],
        "masked": [encoder.mask_token],
    }
    for need, parts in readers.items():
        for part in parts if need not in needs else []:
            if part is not None:
                part.requires_grad_(False)
