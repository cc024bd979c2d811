"""Counts of one pretraining step: parameters, operations, activations, bytes on the wire.

Symbols: b pairs per process, W processes, B = b W; a tower has width D and L tokens; E shared channels; Q masked
patches; V outputs of the masked head; P parameters. A product of (m, k) by (k, n) is 2 m k n operations.
"""

from __future__ import annotations

from typing import NamedTuple

from farl_lightning.planning.workload import Tower, Workload

CODEBOOK_PARAMETERS = 53_786_240
"""Parameters of DALL-E's encoder (transformers' FlavaImageCodebook)."""

CODEBOOK_FLOPS = 265_912_320
"""Operations of DALL-E's encoder per patch of 8 x 8 pixels: its convolutions, counted once with torch."""

CODEBOOK_CHANNELS = 256
"""Channels of its first stage at full resolution, the largest of its activations."""

_LINEAR_BACKWARD = 2.0  # the gradients of input and weight: a product each
_ATTENTION_BACKWARD = 2.5  # of flash attention: scores are computed again, then four products, against two forward


class Unit(NamedTuple):
    """Parameters that FSDP2 gathers together; ``copies`` of them are alike."""

    name: str
    size: int
    trainable: bool = True
    is_block: bool = False
    copies: int = 1

    @property
    def total(self) -> int:
        """Parameters of all copies."""
        return self.size * self.copies


class Flops(NamedTuple):
    """Operations, parted by what their backward pass costs."""

    linear: float = 0.0
    attention: float = 0.0
    first: float = 0.0
    """Of the patch embedding, whose input needs no gradient."""
    frozen: float = 0.0
    """Of networks that only run forward, in float32."""

    def plus(self, other: Flops) -> Flops:
        """Add up."""
        return Flops(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, factor: float) -> Flops:
        """Multiply."""
        return Flops(*(factor * part for part in self))

    @property
    def forward(self) -> float:
        """Operations of the trained network, forward."""
        return self.linear + self.attention + self.first

    @property
    def backward(self) -> float:
        """Operations of its backward pass."""
        return _LINEAR_BACKWARD * self.linear + _ATTENTION_BACKWARD * self.attention + self.first


class Collective(NamedTuple):
    """What a process hands to one kind of collective operation in an optimiser step.

    Attributes:
        name: What it is for.
        kind: ``"all-reduce"``, ``"all-gather"`` or ``"reduce-scatter"``.
        payload: Bytes of the full (reduced or gathered) tensor.
        overlaps: Whether it runs beside the computation.
    """

    name: str
    kind: str
    payload: float
    overlaps: bool

    def wire(self, world_size: int) -> float:
        """Return the bytes that a process sends, in a ring: twice (W - 1) / W of the payload for an all-reduce."""
        return (2 if self.kind == "all-reduce" else 1) * self.payload * (world_size - 1) / world_size


def block_parameters(width: int) -> int:
    """Return the parameters of a block: qkv 3 D^2, projection D^2, MLP 8 D^2; biases 9 D, two norms 4 D."""
    return 12 * width * width + 13 * width


def parameter_units(work: Workload) -> list[Unit]:
    """Return all parameters, in the units of ``tasks/sharding.py``.

    Args:
        work: The sizes.
    """
    width, size = work.image.width, work.embed_dim
    patch = 3 * work.patch_size**2 * width + (0 if work.clip_style else width)
    stem = patch + width + work.image.tokens * width + (2 * width if work.clip_style else 0)
    top = 2 * width + width * size
    units = [
        Unit("image blocks", block_parameters(width), True, True, work.image.depth),
        Unit("image embeddings", stem + (width if work.masked else 0) + (top if work.contrast else 0)),
    ]
    if not work.contrast:
        units.append(Unit("image projection", top, trainable=False))
    if work.text is not None:
        units += _text_units(work, work.text)
    if work.masked:
        units.append(Unit("masked head blocks", block_parameters(width), True, True, work.head_depth))
        units.append(Unit("masked head", 2 * width + width * work.head_outputs + work.head_outputs))
    return [unit for unit in units if unit.copies]


def _text_units(work: Workload, text: Tower) -> list[Unit]:
    """Return the parameters of the text tower and the temperature."""
    on, width = work.contrast, text.width
    return [
        Unit("text blocks", block_parameters(width), on, True, text.depth),
        Unit("token embedding", work.vocabulary * width, on),
        Unit("text positions", text.tokens * width, on),
        Unit("text projection", 2 * width + width * work.embed_dim, on),
        Unit("temperature", 1 + int(work.siglip), on),
    ]


def block_flops(tower: Tower, queries: int | None = None, again: bool = False) -> Flops:
    """Return the forward operations of a block on one sequence: 24 D^2 L in linear layers, 4 L^2 D in attention.

    Args:
        tower: Its sizes.
        queries: Tokens that it answers for: 6 D^2 L for qkv, then 18 D^2 and 4 L D for each. None for all tokens.
        again: Count what is recomputed in the backward pass: all but the last layer, whose output nobody needs (8 D^2).
    """
    asked = tower.tokens if queries is None else queries
    linear = 6.0 * tower.width**2 * tower.tokens + (10.0 if again else 18.0) * tower.width**2 * asked
    return Flops(linear, 4.0 * tower.tokens * tower.width * asked)


def all_blocks_flops(work: Workload, again: bool = False) -> Flops:
    """Return the forward operations of all blocks for one pair; the last ones answer only for what is read.

    Args:
        work: The sizes.
        again: As for :func:`block_flops`.
    """
    image = work.image
    total = block_flops(image, again=again).times((image.depth - 1) * work.sequences + int(work.masked))
    if work.contrast:
        total = total.plus(block_flops(image, 1, again))
        if work.text is not None:
            total = total.plus(block_flops(work.text, again=again).times(work.text.depth))
    if work.masked and work.head_depth:
        total = total.plus(block_flops(image, again=again).times(work.head_depth - 1))
        total = total.plus(block_flops(image, work.num_masked, again))
    return total


def forward_flops(work: Workload, world_size: int = 1) -> Flops:
    """Return the forward operations of one pair.

    Args:
        work: The sizes.
        world_size: Processes; the similarities (4 B E for two directions) grow with them.
    """
    width, size = work.image.width, work.embed_dim
    linear = 0.0
    if work.contrast:
        linear += 2.0 * width * size + 4.0 * work.batch_size * world_size * size
        linear += 2.0 * work.text.width * size if work.text else 0.0
    if work.masked:
        linear += 2.0 * work.num_masked * width * work.head_outputs
    first = 2.0 * work.patches * 3 * work.patch_size**2 * width
    frozen = float(CODEBOOK_FLOPS * work.patches) if work.codebook else 0.0
    return all_blocks_flops(work).plus(Flops(linear, 0.0, first, frozen))


def step_flops(work: Workload, world_size: int = 1) -> tuple[float, float]:
    """Return what a process computes for one pair: operations in the training precision, and in float32.

    Recomputing blocks, and embedding micro-batches twice, add to forward and backward pass.

    Args:
        work: The sizes.
        world_size: Processes.
    """
    flops = forward_flops(work, world_size)
    total = flops.forward + flops.backward
    total += all_blocks_flops(work, again=True).forward if work.checkpointing else 0.0
    total += flops.forward if work.micro_batches > 1 else 0.0
    return total, flops.frozen


def activation_bytes(work: Workload, world_size: int = 1) -> tuple[float, float]:
    """Return what the backward pass needs of the forward pass, and the largest temporary memory beside it, in bytes.

    Per token a block keeps 16 D numbers: the inputs of both norms (2 D), of qkv and of the MLP (2 D), queries, keys and
    values (3 D), the attended values (D) and the hidden layer before and after its activation (8 D); under autocast
    the norms' inputs have 4 bytes and the rest 2. Beside them: means and deviations of the norms and the sums of
    attention. With ``checkpointing`` a block keeps its input, and one block at a time all of it.

    Args:
        work: The sizes.
        world_size: Processes.
    """
    count = work.batch_size / work.micro_batches
    kept = count * (_image_kept(work) + (_text_kept(work, work.text) if work.contrast and work.text else 0.0))
    kept += count * _head_kept(work) if work.masked else 0.0
    similarities, while_computed = _contrast_bytes(work, world_size) if work.contrast else (0.0, 0.0)
    return kept + similarities, max(count * _backward_scratch(work), while_computed)


def token_bytes(tower: Tower, half: bool) -> float:
    """Return the bytes that a block keeps per token: 64 D in float32, 36 D under autocast, and 4 (heads + 4)."""
    return (36 if half else 64) * tower.width + 4 * (tower.heads + 4)


def _partial_bytes(tower: Tower, queries: int, half: bool) -> float:
    """Return what a block keeps of one sequence when it answers for some tokens: qkv of all, the rest of those."""
    size = 2 if half else 4
    everyone = (4 + 4 * size) * tower.width + 8
    own = (4 + (2 + 8 + 1) * size) * tower.width + 4 * (tower.heads + 2)  # norm, attended and MLP input, hidden, query
    return tower.tokens * everyone + queries * own


def _image_kept(work: Workload) -> float:
    """Return what the image tower keeps of one picture."""
    image, pixels = work.image, 3.0 * work.image_size**2
    sequence = image.tokens * (4.0 * image.width if work.checkpointing else token_bytes(image, work.half))
    kept = (image.depth - 1) * work.sequences * sequence + (sequence if work.masked else 0.0)
    if work.checkpointing:
        kept += image.tokens * 4 * image.width * int(work.contrast) + work.sequences * image.tokens * token_bytes(
            image, work.half
        )
    elif work.contrast:
        kept += _partial_bytes(image, 1, work.half)
    stem = work.sequences * image.tokens * 4 * image.width if work.clip_style else 0
    return kept + stem + pixels * (6 if work.half else 4)


def _text_kept(work: Workload, text: Tower) -> float:
    """Return what the text tower keeps of one caption, at full length."""
    if work.checkpointing:
        return text.tokens * text.depth * 4.0 * text.width
    return text.tokens * (text.depth * token_bytes(text, work.half) + 4 * text.width)


def _head_kept(work: Workload) -> float:
    """Return what the masked head keeps of one picture; logits are kept once, in float32."""
    image, size, queries = work.image, 2 if work.half else 4, work.num_masked
    kept = queries * ((4 + size) * image.width + 4.0 * work.head_outputs)
    if not work.head_depth:
        return kept
    if work.checkpointing:
        return kept + work.head_depth * image.tokens * 4 * image.width
    whole = (work.head_depth - 1) * image.tokens * token_bytes(image, work.half)
    return kept + whole + _partial_bytes(image, queries, work.half)


def _contrast_bytes(work: Workload, world_size: int) -> tuple[float, float]:
    """Return what contrast keeps, and needs while it is computed: b B similarities in two directions, float32.

    Their softmax is kept; while they are computed there are the similarities as well. With ``chunk_rows`` only so
    many rows exist, three times over, and the backward pass computes them again.
    """
    own, everyone = work.batch_size, work.batch_size * world_size
    features = 2 * 4.0 * work.embed_dim * (own + everyone)
    if work.chunk_rows is not None:
        return features, 3 * 4.0 * min(work.chunk_rows, own) * everyone
    return features + 2 * 4.0 * own * everyone, 2 * 4.0 * own * everyone


def _backward_scratch(work: Workload) -> float:
    """Return the largest temporary memory of one pair: gradients of logits, of a hidden layer, or the codebook."""
    size = 2 if work.half else 4
    hidden = 2.0 * size * 4 * work.image.width * work.image.tokens * work.sequences
    logits = 2 * 4.0 * work.num_masked * work.head_outputs if work.masked else 0.0
    codebook = 3 * 4.0 * CODEBOOK_CHANNELS * 64 * work.patches if work.codebook else 0.0
    return max(hidden, logits, codebook)


def collectives(work: Workload, world_size: int, sharded: bool) -> list[Collective]:
    """Return what travels in one optimiser step. Counters of a few bytes are left out.

    DDP sums the float32 gradients once. FSDP2 gathers every unit before its forward and again before its backward
    pass (the root only once), blocks in bfloat16 under autocast, and scatters the float32 sums. Contrast gathers the
    features of both towers, in float32, and adds up the gradients of the gathered ones.

    Args:
        work: The sizes.
        world_size: Processes; one sends nothing.
        sharded: FSDP2 instead of DDP.
    """
    if world_size == 1:
        return []
    found = _sharded_traffic(work) if sharded else _averaged_traffic(work)
    if work.contrast:
        features = 2 * 4.0 * work.batch_size * world_size * work.embed_dim * work.accumulate
        found.append(Collective("features", "all-gather", features, False))
        # an all-reduce on gloo, which has no reduce-scatter; half of that is sent with NCCL
        found.append(Collective("their gradients", "reduce-scatter", features, False))
    return found


def _averaged_traffic(work: Workload) -> list[Collective]:
    trainable = sum(unit.total for unit in parameter_units(work) if unit.trainable)
    return [Collective("gradients", "all-reduce", 4.0 * trainable, True)]


def _sharded_traffic(work: Workload) -> list[Collective]:
    """Return what FSDP2 gathers and scatters; every part of a contrastive batch is a pass of its own."""
    units, rounds = parameter_units(work), float(work.micro_batches * work.accumulate)
    gathered = sum(
        unit.total * (2 if work.half and unit.is_block else 4) * _passes(unit, work.micro_batches > 1) for unit in units
    )
    scattered = sum(4.0 * unit.total for unit in units if unit.trainable)
    return [
        Collective("parameters", "all-gather", gathered * rounds, True),
        Collective("gradients", "reduce-scatter", scattered * rounds, True),
    ]


def _passes(unit: Unit, twice: bool) -> int:
    """Return how often a unit is gathered: forward, and backward where it is trained; once for the root."""
    if unit.name == "temperature":
        return 1
    return 1 + int(unit.trainable) + int(twice)
