"""From counts to memory, time and cost on a number of GPUs."""

from __future__ import annotations

from dataclasses import dataclass, field

from farl_lightning.errors import ConfigError
from farl_lightning.functional.accelerators import Accelerator
from farl_lightning.planning.arithmetic import (
    CODEBOOK_PARAMETERS,
    Collective,
    activation_bytes,
    collectives,
    parameter_units,
    step_flops,
)
from farl_lightning.planning.workload import Workload

Range = tuple[float, float]
"""The favourable and the unfavourable end."""

_BACKWARD_SHARE = 2 / 3  # of the computation, beside which gradients travel


@dataclass(frozen=True)
class Cluster:
    """Machines with GPUs of one kind."""

    nodes: int
    gpus: int
    gpu: Accelerator

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.gpus < 1:
            raise ConfigError(f"--nodes {self.nodes} --gpus {self.gpus}: both must be 1 or more")

    @property
    def world_size(self) -> int:
        """GPUs, and processes."""
        return self.nodes * self.gpus


@dataclass(frozen=True)
class Assumptions:
    """What no config says.

    Attributes:
        efficiency: Shares of the GPU's peak that the computation reaches, low and high.
        link: Shares of the stated bandwidths that collectives reach, low and high.
        sample_bytes: Mean size of a sample in a shard.
        worker_rate: Samples that a loader worker decodes and augments per second.
        price: US dollars per GPU and hour, low and high; None for the table's.
        reserve: Bytes that the driver, cuDNN and NCCL take beside tensors.
        fragmentation: Share by which the allocator holds more than tensors need.
    """

    efficiency: Range = (0.3, 0.5)
    link: Range = (0.5, 0.8)
    sample_bytes: float = 40e3
    worker_rate: float = 100.0
    price: Range | None = None
    reserve: float = 2e9
    fragmentation: float = 0.1

    def __post_init__(self) -> None:
        for name in ("efficiency", "link"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ConfigError(f"{name} {low} {high}: give two shares in (0, 1], the low one first")
        if self.sample_bytes <= 0 or self.worker_rate <= 0:
            raise ConfigError("the size of a sample and the rate of a worker must be above 0")
        if self.price is not None and not 0 <= self.price[0] <= self.price[1]:
            raise ConfigError(f"price {self.price[0]} {self.price[1]}: give dollars per hour, the low price first")


@dataclass(frozen=True)
class Plan:
    """What a run needs.

    Attributes:
        sharded: FSDP2 instead of DDP.
        memory: Bytes on each GPU, by what they hold.
        capacity: Bytes of the GPU.
        traffic: What travels in an optimiser step.
        wire: Bytes that a GPU sends in an optimiser step.
        computing: Seconds of computation in an optimiser step.
        sending: Seconds that its communication takes by itself.
        reading: Seconds that its loader workers take; 0 without workers (the reader is then not judged).
        step: Seconds of an optimiser step.
        samples_per_step: Over all GPUs.
        steps: Optimiser steps of the run; None when the config does not say.
        prices: Dollars per hour of all GPUs.
        limit: What bounds the speed, in words.
    """

    sharded: bool
    memory: dict[str, float]
    capacity: float
    traffic: list[Collective]
    wire: float
    computing: Range
    sending: Range
    reading: float
    step: Range
    samples_per_step: int
    steps: int | None
    prices: Range
    limit: str = field(default="")

    @property
    def total_memory(self) -> float:
        """Bytes on each GPU."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether memory suffices."""
        return self.total_memory <= self.capacity

    @property
    def hours(self) -> Range | None:
        """Hours of the run."""
        if self.steps is None:
            return None
        return self.steps * self.step[0] / 3600, self.steps * self.step[1] / 3600

    @property
    def cost(self) -> Range | None:
        """US dollars: the cheap price for the fast run, the dear one for the slow run."""
        return None if self.hours is None else (self.hours[0] * self.prices[0], self.hours[1] * self.prices[1])


def make_plan(work: Workload, cluster: Cluster, sharded: bool, assumed: Assumptions | None = None) -> Plan:
    """Compute what a run needs.

    Args:
        work: Its sizes.
        cluster: Where it runs.
        sharded: FSDP2 instead of DDP.
        assumed: What the config does not say; None for the defaults.
    """
    assumed = assumed or Assumptions()
    traffic = collectives(work, cluster.world_size, sharded)
    computing = _computing(work, cluster, assumed)
    beside, alone = _sending(traffic, cluster, assumed, True), _sending(traffic, cluster, assumed, False)
    per_process = work.batch_size * work.accumulate
    reading = per_process / (work.workers * assumed.worker_rate) if work.workers else 0.0
    # at best gradients travel beside the backward pass, at worst nothing does
    fast = computing[0] + alone[0] + max(0.0, beside[0] - _BACKWARD_SHARE * computing[0])
    slow = computing[1] + alone[1] + beside[1]
    samples = per_process * cluster.world_size
    price = assumed.price or cluster.gpu.price
    steps = work.steps if work.steps is not None else None if work.samples is None else work.samples // samples
    return Plan(
        sharded=sharded,
        memory=memory_bytes(work, cluster.world_size, sharded) | _overhead(work, cluster, sharded, assumed),
        capacity=cluster.gpu.memory,
        traffic=traffic,
        wire=sum(part.wire(cluster.world_size) for part in traffic),
        computing=computing,
        sending=(alone[0] + beside[0], alone[1] + beside[1]),
        reading=reading,
        step=(max(fast, reading), max(slow, reading)),
        samples_per_step=samples,
        steps=steps,
        prices=(price[0] * cluster.world_size, price[1] * cluster.world_size),
        limit=_limit(computing, fast, reading),
    )


def memory_bytes(work: Workload, world_size: int, sharded: bool) -> dict[str, float]:
    """Return the bytes of tensors on each GPU, by what they hold, when memory is fullest: as backward begins.

    Weights, gradients and AdamW's two averages are float32; FSDP2 keeps one part in W of them, and gathers units.

    Args:
        work: The sizes.
        world_size: Processes W.
        sharded: FSDP2 instead of DDP.
    """
    units = parameter_units(work)
    total, trainable = sum(u.total for u in units), sum(u.total for u in units if u.trainable)
    share = world_size if sharded else 1
    kept, scratch = activation_bytes(work, world_size)
    rows = {
        "weights": 4.0 * total / share + (4.0 * CODEBOOK_PARAMETERS if work.codebook else 0.0),
        "gradients": 4.0 * trainable / share,
        "optimiser": 8.0 * trainable / share,
        "average of weights": 4.0 * trainable / share if work.ema else 0.0,
        "gathered units": _gathered(work) if sharded else 0.0,
        "16-bit copies": _copies(work) if work.half and not sharded else 0.0,
        "activations": kept,
        "temporary": scratch,
    }
    return {name: size for name, size in rows.items() if size}


def _gathered(work: Workload) -> float:
    """Return what FSDP2 holds of others: two blocks (one ahead), the tower's own unit, a block's float32 gradients."""
    units = parameter_units(work)
    block = max((unit.size for unit in units if unit.is_block), default=0)
    other = max((unit.size for unit in units if not unit.is_block), default=0)
    return 2 * (2.0 if work.half else 4.0) * block + 4.0 * other + 2 * 4.0 * block


def _copies(work: Workload) -> float:
    """Return what autocast keeps of the weights in 16 bit, from forward to backward."""
    wanted = [unit for unit in parameter_units(work) if unit.is_block or unit.name == "masked head"]
    return sum(2.0 * unit.total for unit in wanted if unit.trainable)


def _overhead(work: Workload, cluster: Cluster, sharded: bool, assumed: Assumptions) -> dict[str, float]:
    """Return what is taken beside tensors."""
    tensors = sum(memory_bytes(work, cluster.world_size, sharded).values())
    return {"driver and allocator": assumed.reserve + assumed.fragmentation * tensors}


def _computing(work: Workload, cluster: Cluster, assumed: Assumptions) -> Range:
    """Return the seconds of computation in an optimiser step."""
    trained, frozen = step_flops(work, cluster.world_size)
    peak = cluster.gpu.half if work.half else cluster.gpu.single
    seconds = work.batch_size * work.accumulate * (trained / peak + frozen / cluster.gpu.single)
    return seconds / assumed.efficiency[1], seconds / assumed.efficiency[0]


def _sending(traffic: list[Collective], cluster: Cluster, assumed: Assumptions, overlaps: bool) -> Range:
    """Return the seconds of communication: inside machines, and between them with all their network cards at once."""
    seconds = 0.0
    for part in (part for part in traffic if part.overlaps == overlaps):
        rounds = (2 if part.kind == "all-reduce" else 1) * part.payload
        inside = rounds * (cluster.gpus - 1) / cluster.gpus / cluster.gpu.link
        between = rounds * (cluster.nodes - 1) / cluster.nodes / (cluster.gpus * cluster.gpu.network)
        seconds += max(inside, between)
    return seconds / assumed.link[1], seconds / assumed.link[0]


def _limit(computing: Range, step: float, reading: float) -> str:
    """Say what bounds the speed at the favourable end."""
    if reading > step:
        return "the reader: more or faster loader workers would help"
    return "computation" if computing[0] > step / 2 else "communication"
