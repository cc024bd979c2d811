"""The sides of the step benchmark: ours, the plain way and open_clip, on one workload and with the same weights."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import Verdict
from benchmarks.plain_farl import PlainFaRL, Sizes
from farl_lightning.functional.masking import blockwise_mask
from farl_lightning.functional.random import keyed_generator
from farl_lightning.models.checkpoint import load_masked_image_head
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.models.image_tokenizer import ImageTarget
from farl_lightning.objectives.base import Objective
from farl_lightning.objectives.contrastive import Contrastive
from farl_lightning.objectives.masked_image import MaskedImage
from farl_lightning.objectives.model import PretrainModel
from farl_lightning.tasks.optim import OptimConfig, build_optimizer
from farl_lightning.text import Tokenizer
from farl_lightning.types import PretrainBatch

OPTIM = OptimConfig(lr=1e-4, betas=(0.9, 0.98), schedule="constant")
CAPTIONS = [
    "a portrait of a young woman with long brown hair, smiling at the camera",
    "Senator speaks during a news conference on Tuesday",
    "Man with grey beard and glasses, black and white photograph",
    "close-up of a laughing child in a red hat",
    "Actress attends the premiere of her new film in Los Angeles, wearing silver earrings",
    "headshot of a businessman in a dark suit",
    "old fisherman with a pipe looking out over the harbour at sunrise, oil painting style",
    "Happy bride",
]


class FixedTokens(ImageTarget):
    """Random but fixed ids, one per patch and image: a target that costs nothing."""

    def __init__(self, ids: Tensor, vocabulary: int) -> None:
        super().__init__()
        self.ids, self.out_features = ids, vocabulary

    def forward(self, images: Tensor) -> Tensor:
        """Return the (B, N) ids that were given."""
        return self.ids[: len(images)]


@dataclass
class Workload:
    """What every side is given.

    Attributes:
        sizes: Sizes of the networks.
        batch: Images, captions and masks.
        targets: (B, N) ids of the patches.
        weights: A file in FaRL's layout.
    """

    sizes: Sizes
    batch: PretrainBatch
    targets: Tensor
    weights: Path


def make_workload(sizes: Sizes, batch: int, folder: Path) -> Workload:
    """Draw weights and one batch from fixed seeds.

    Args:
        sizes: Sizes of the networks.
        batch: Pairs in the batch.
        folder: Where the file of weights is written.
    """
    torch.manual_seed(0)
    weights = folder / "weights.pth"
    torch.save({"state_dict": PlainFaRL(sizes).state_dict()}, weights)
    return Workload(
        sizes, make_batch(sizes, batch), torch.randint(sizes.vocabulary, (batch, sizes.num_patches)), weights
    )


def make_batch(sizes: Sizes, batch: int) -> PretrainBatch:
    """Draw noise for images, block-wise masks as BEiT's, and ordinary captions."""
    side = sizes.image_size // sizes.patch_size
    masked = round(sizes.num_patches * 75 / 196)
    masks = [
        blockwise_mask((side, side), masked, min_block=min(16, masked), generator=keyed_generator("mask", index))
        for index in range(batch)
    ]
    return {
        "image": torch.randn(batch, 3, sizes.image_size, sizes.image_size),
        "text": Tokenizer(sizes.context_length)([CAPTIONS[index % len(CAPTIONS)] for index in range(batch)]),
        "patch_mask": torch.stack(masks),
        "key": [str(index) for index in range(batch)],
    }


def fill_captions(work: Workload) -> Workload:
    """Return the workload with captions that use every text position: the end mark is the last token."""
    text = work.batch["text"]
    words = torch.randint(1000, 40000, text.shape, generator=torch.Generator().manual_seed(0))
    words[:, 0], words[:, -1] = text[:, 0], text.max()
    return Workload(work.sizes, {**work.batch, "text": words}, work.targets, work.weights)


@dataclass
class Side:
    """One way to do the step.

    Attributes:
        name: Its name in the tables.
        model: The network.
        loss: Runs the forward pass.
        optimizer: AdamW over the network's parameters.
    """

    name: str
    model: Any
    loss: Callable[[], Tensor]
    optimizer: torch.optim.Optimizer

    def backward(self) -> None:
        """Forward and backward pass from cleared gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()

    def step(self) -> None:
        """One training step."""
        self.backward()
        self.optimizer.step()

    def page_faults(self) -> dict[str, float]:
        """Count what memory management costs in one step: minor page faults, and system time in seconds."""
        before = resource.getrusage(resource.RUSAGE_SELF)
        self.step()
        after = resource.getrusage(resource.RUSAGE_SELF)
        return {"page_faults": after.ru_minflt - before.ru_minflt, "system_seconds": after.ru_stime - before.ru_stime}


def plain_side(work: Workload) -> Side:
    """Build the plain way: fp32, AdamW as torch runs it by default."""
    model, batch = PlainFaRL(work.sizes), work.batch
    model.load_state_dict(_weights(work))
    optimizer = torch.optim.AdamW(model.parameters(), lr=OPTIM.lr, betas=OPTIM.betas, weight_decay=OPTIM.weight_decay)

    def loss() -> Tensor:
        return model(batch["image"], batch["text"], batch["patch_mask"], work.targets)[0]

    return Side("plain", model, loss, optimizer)


def our_side(
    work: Workload, name: str, precision: str = "fp32", *, masked_image: bool = True, compiled: bool = False
) -> Side:
    """Build ours from its public parts, and load the same weights.

    Args:
        work: The workload.
        name: Name of the side.
        precision: ``"fp32"``, or ``"bf16"`` for autocast.
        masked_image: FaRL; otherwise contrast alone.
        compiled: Through ``torch.compile``.
    """
    clip = FaceCLIP.from_checkpoint(
        work.weights,
        mask_token=masked_image,
        image={"heads": work.sizes.heads},
        text={"heads": work.sizes.text_heads},
    )
    objectives: dict[str, Objective] = {"contrastive": Contrastive()}
    if masked_image:
        target = FixedTokens(work.targets, work.sizes.vocabulary)
        objectives["masked_image"] = MaskedImage(target=target, depth=work.sizes.masked_image_depth)
    model = PretrainModel(clip, objectives)
    if masked_image:
        objectives["masked_image"].head.load_state_dict(load_masked_image_head(work.weights).state_dict())
    run = torch.compile(model) if compiled else model
    loss = _with_precision(lambda: run(work.batch).loss, precision)
    return Side(name, model.train(), loss, build_optimizer(model, OPTIM))


def open_clip_side(work: Workload, precision: str = "fp32") -> Side:
    """Build open_clip's ``ViT-B-16-quickgelu`` and loss, with the same weights and the same fused AdamW as ours."""
    import open_clip

    config = open_clip.get_model_config("ViT-B-16-quickgelu")
    model = open_clip.CLIP(**(config | _open_clip_sizes(work.sizes))).train()
    state = _weights(work)
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    clip_loss, batch = open_clip.ClipLoss(), work.batch
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=OPTIM.lr, betas=OPTIM.betas, weight_decay=OPTIM.weight_decay, fused=True
    )
    loss = _with_precision(lambda: clip_loss(*model(batch["image"], batch["text"])), precision)
    return Side(f"open_clip {precision}", model, loss, optimizer)


def _weights(work: Workload) -> dict[str, Tensor]:
    """Read the common weights."""
    state: dict[str, Tensor] = torch.load(work.weights, weights_only=True)["state_dict"]
    return state


def _open_clip_sizes(sizes: Sizes) -> dict[str, Any]:
    """Translate the sizes into open_clip's configuration; for ViT-B/16 it is what its own file says."""
    vision = {
        "image_size": sizes.image_size,
        "patch_size": sizes.patch_size,
        "width": sizes.width,
        "layers": sizes.depth,
        "head_width": sizes.width // sizes.heads,
    }
    text = {
        "context_length": sizes.context_length,
        "vocab_size": sizes.text_vocabulary,
        "width": sizes.text_width,
        "layers": sizes.text_depth,
        "heads": sizes.text_heads,
    }
    return {"embed_dim": sizes.embed_dim, "vision_cfg": vision, "text_cfg": text}


def _with_precision(loss: Callable[[], Tensor], precision: str) -> Callable[[], Tensor]:
    """Run a forward pass under bf16 autocast, or as it is."""

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return loss()

    return run


def compare(ours: Side, peer: Side) -> dict[str, float]:
    """Return relative differences of the loss and of two gradients between two sides with the same weights.

    The gradients are those of the patch projection, which lies behind everything in the image tower, and of the token
    embedding, which lies behind everything in the text tower.

    Args:
        ours: From :func:`our_side`.
        peer: The plain way or open_clip.
    """
    losses = []
    for side in (ours, peer):
        side.optimizer.zero_grad(set_to_none=True)
        losses.append(side.loss())
        losses[-1].backward()
    towers = ours.model.clip
    patches = towers.image_encoder.vit.patch_embed.proj.weight
    words = towers.text_encoder.model.text_model.embeddings.token_embedding.weight
    pairs = {
        "loss": (losses[0].detach(), losses[1].detach()),
        "patch gradient": (patches.grad, peer.model.visual.conv1.weight.grad),
        "word gradient": (words.grad, peer.model.token_embedding.weight.grad),
    }
    return {name: float((a - b).norm() / b.norm()) for name, (a, b) in pairs.items()}


def same_numbers(ours: Side, peer: Side, tolerance: float = 1e-3) -> Verdict:
    """Judge :func:`compare` and put it into words."""
    differences = compare(ours, peer)
    words = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    name = f"same numbers: {ours.name} and {peer.name}"
    return Verdict(name, f"within {tolerance:g}", words, max(differences.values()) <= tolerance)
