"""Figures of GPUs that plans and the log are computed from. Nothing here needs torch."""

from __future__ import annotations

from typing import NamedTuple

from farl_lightning.errors import ConfigError, did_you_mean


class Accelerator(NamedTuple):
    """What the maker states of one GPU, and what an hour of it costs.

    Attributes:
        title: Name and form.
        memory: Bytes.
        half: Dense (no sparsity) matrix products in bfloat16 or, before Ampere, float16, FLOP/s.
        single: Matrix products of float32 tensors: TensorFloat-32 where there is one, FLOP/s.
        has_bf16: Whether bfloat16 runs on the tensor cores.
        link: Bytes/s to the other GPUs of a machine, one direction: NVLink, else PCI Express.
        network: Bytes/s to other machines, one direction, per GPU, of the usual machine with 8 of them.
        price: US dollars per hour, low and high: list prices of clouds as recalled, 2025; give your own.
    """

    title: str
    memory: float
    half: float
    single: float
    has_bf16: bool
    link: float
    network: float
    price: tuple[float, float]


_GB, _T = 1e9, 1e12
_GIB = float(1 << 30)

ACCELERATORS: dict[str, Accelerator] = {
    # NVIDIA V100 datasheet (SXM2 32 GB): 125 TFLOPS mixed, 15.7 single, NVLink 300 GB/s both ways; DGX-1: 4 x 100 Gb/s
    "v100": Accelerator("V100 SXM2 32 GB", 32 * _GIB, 125 * _T, 15.7 * _T, False, 150 * _GB, 6.25 * _GB, (0.5, 3.1)),
    # NVIDIA A100 datasheet: 312 TFLOPS bf16, 156 TF32, NVLink 600 GB/s both ways; DGX A100: 8 x 200 Gb/s
    "a100-40": Accelerator("A100 SXM 40 GB", 40 * _GIB, 312 * _T, 156 * _T, True, 300 * _GB, 25 * _GB, (1.1, 4.1)),
    "a100": Accelerator("A100 SXM 80 GB", 80 * _GIB, 312 * _T, 156 * _T, True, 300 * _GB, 25 * _GB, (1.3, 5.1)),
    # NVIDIA H100 datasheet (SXM5; 1,979 with sparsity): 989.4 bf16, 494.7 TF32, NVLink 900 both ways; DGX: 8 x 400 Gb/s
    "h100": Accelerator("H100 SXM 80 GB", 80 * _GIB, 989.4 * _T, 494.7 * _T, True, 450 * _GB, 50 * _GB, (2.0, 6.9)),
    # NVIDIA H200 datasheet: the compute of an H100 with 141 GB (decimal) of HBM3e
    "h200": Accelerator("H200 SXM 141 GB", 141 * _GB, 989.4 * _T, 494.7 * _T, True, 450 * _GB, 50 * _GB, (2.5, 10.6)),
    # NVIDIA DGX B200 datasheet, divided by 8: 1,440 GB, 36 PFLOPS dense FP8 (bf16: half), NVLink 14.4 TB/s both ways
    "b200": Accelerator("B200 SXM 180 GB", 180 * _GB, 2250 * _T, 1125 * _T, True, 900 * _GB, 50 * _GB, (3.5, 14.2)),
    # NVIDIA L40S datasheet (733 with sparsity): 362 bf16, 183 TF32, PCIe 4 x16: 64 GB/s both ways; 2 x 200 Gb/s for 8
    "l40s": Accelerator("L40S PCIe 48 GB", 48 * _GIB, 362 * _T, 183 * _T, True, 32 * _GB, 6.25 * _GB, (0.8, 2.0)),
    # NVIDIA L4 datasheet (242 with sparsity): 121 bf16, 60 TF32, PCIe 4 x16; 100 Gb/s for 8
    "l4": Accelerator("L4 PCIe 24 GB", 24 * _GIB, 121 * _T, 60 * _T, True, 32 * _GB, 1.56 * _GB, (0.4, 1.0)),
    # NVIDIA Ada whitepaper: 165.2 bf16 with float32 sums, 82.6 TF32, PCIe 4 x16; 25 Gb/s for 8 (no usual machine)
    "rtx4090": Accelerator("RTX 4090 24 GB", 24 * _GIB, 165.2 * _T, 82.6 * _T, True, 32 * _GB, 0.4 * _GB, (0.3, 0.8)),
}
"""GPUs by the name that ``farl-lightning plan --gpu`` takes."""

_DEVICE_WORDS = {  # words of the name that the driver reports -> key; the first that fits wins
    "v100": "v100",
    "a100": "a100",
    "h200": "h200",
    "h100 80gb hbm3": "h100",
    "b200": "b200",
    "l40s": "l40s",
    "nvidia l4": "l4",
    "rtx 4090": "rtx4090",
}


def find_accelerator(name: str) -> Accelerator:
    """Return the figures of a GPU.

    Args:
        name: Such as ``"h100"``.

    Raises:
        ConfigError: If it is not in the table; the message names those that are.
    """
    if name.lower() not in ACCELERATORS:
        raise ConfigError(f"--gpu '{name}' is not in the table. {did_you_mean(name.lower(), ACCELERATORS)}")
    return ACCELERATORS[name.lower()]


def identify(device_name: str) -> Accelerator | None:
    """Return the figures of the GPU that a driver names, None if there are none (PCIe forms of the H100 among them).

    Args:
        device_name: As ``torch.cuda.get_device_name()`` returns it.
    """
    lower = device_name.lower()
    return next(
        (
            ACCELERATORS[key]
            for words, key in _DEVICE_WORDS.items()
            if lower.endswith(words) or f"{words}-" in lower or f"{words} " in lower
        ),
        None,
    )
