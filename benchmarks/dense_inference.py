"""Dense inference: encoder with pyramid, and the whole parser, against installed peers.

``python -m benchmarks.dense_inference`` answers two questions in one run:

a. encoder and feature pyramid at ViT-B/16 and 448 px against ``FaRLVisualFeatures`` of the package ``pyfacer``;
b. the whole parser against ``segmentation_models_pytorch``: its encoder around the same timm ViT, its UPerNet decoder
   and its head. Its own ``UPerNet`` class refuses a ViT, whose maps have one resolution, so the pyramid between them is
   written as facer writes it; the norms that its decoder puts before the pyramid's maps, which FaRL has not, are left
   out, so that both sides compute the same.

Every side has the same weights, pictures and threads, and before anything is timed the results are compared. Without a
peer its section says what to install.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks import common, gemm
from benchmarks.common import Timing, Verdict
from farl_lightning.functional.resize import resize
from farl_lightning.models import dense_layout
from farl_lightning.models.config import DenseConfig, ImageEncoderConfig
from farl_lightning.models.dense import FaceParser

GOALS = {"fp32": 1.1, "bf16": 3.0, "parser": 1.2}
INSTALL = {
    "facer": "pip install --no-deps pyfacer validators scikit-image lazy_loader",
    "segmentation_models_pytorch": "pip install --no-deps segmentation_models_pytorch",
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the networks: FaRL's ViT-B/16 with a head of 768 channels.

    Attributes:
        image_size: Side of the crops in pixels.
        width: Channels of a token.
        depth: Number of blocks.
        heads: Attention heads.
        channels: Channels inside the head.
        classes: Classes of the parser.
    """

    image_size: int = 448
    width: int = 768
    depth: int = 12
    heads: int = 12
    channels: int = 768
    classes: int = 19


SHORT = Sizes(image_size=64, width=64, depth=4, heads=1, channels=16, classes=5)


def our_parser(sizes: Sizes) -> FaceParser:
    """Build ours with random weights, norms and biases away from 1 and 0, in evaluation mode."""
    torch.manual_seed(0)
    image = ImageEncoderConfig(
        image_size=sizes.image_size, width=sizes.width, depth=sizes.depth, heads=sizes.heads, patch_size=16
    )
    parser = FaceParser(DenseConfig(image, channels=sizes.channels), sizes.classes)
    with torch.no_grad():
        for parameter in parser.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return parser.eval()


def our_features(parser: FaceParser, images: Tensor) -> list[Tensor]:
    """Run encoder and pyramid of ours on pictures in [0, 1], normalising them as facer does inside."""
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in _statistics())
    levels: list[Tensor] = parser.neck(parser.tap_maps((images - mean) / std))
    return levels


def _statistics() -> tuple[tuple[float, ...], tuple[float, ...]]:
    from farl_lightning.types import CLIP_MEAN, CLIP_STD

    return CLIP_MEAN, CLIP_STD


def facer_features(sizes: Sizes, parser: FaceParser) -> nn.Module:
    """Build facer's ``FaRLVisualFeatures`` and give ours its weights.

    Args:
        sizes: Sizes; facer's own code knows ViT-B/16 only, so its transformer is made with them.
        parser: Ours.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports timm by an old name
        from facer.face_alignment.network import transformers

    def load(*_: Any) -> Any:
        transformer = transformers.farl.VisualTransformer(
            224, patch_size=16, width=sizes.width, layers=sizes.depth, heads=sizes.heads, output_dim=512
        )
        transformer.transformer.use_checkpoint = False
        return transformer

    with mock.patch.object(transformers.farl, "load_farl", load):
        peer = transformers.FaRLVisualFeatures(
            "base", None, output_indices=list(parser.taps), forced_input_resolution=sizes.image_size
        ).eval()
    renamed = dense_layout.to_ours(peer.state_dict()).state
    own = {name: renamed.get(name, value) for name, value in parser.state_dict().items()}
    parser.load_state_dict(own)
    module: nn.Module = peer
    return module


class PeerParser(nn.Module):
    """segmentation_models_pytorch's parts around the same timm ViT, with facer's pyramid between them.

    Args:
        sizes: Sizes of the network.
        parser: Ours; its weights are copied.
    """

    def __init__(self, sizes: Sizes, parser: FaceParser) -> None:
        super().__init__()
        from segmentation_models_pytorch.base import SegmentationHead
        from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
        from segmentation_models_pytorch.encoders.timm_vit import TimmViTEncoder

        width = sizes.width
        self.encoder = TimmViTEncoder(
            parser.encoder.config.name,
            pretrained=False,
            depth=len(parser.taps),
            output_indices=list(parser.taps),
            img_size=sizes.image_size,
            embed_dim=width,
            num_heads=sizes.heads,
            num_classes=0,
        )
        self.encoder.model.blocks = self.encoder.model.blocks[: sizes.depth]
        self.pyramid = _plain_pyramid(width)
        self.decoder = UPerNetDecoder([0, 0, *[width] * 4], decoder_channels=sizes.channels)
        self.decoder.feature_norms = nn.ModuleList(nn.Identity() for _ in range(4))
        self.segmentation_head = SegmentationHead(sizes.channels, sizes.classes, kernel_size=1, upsampling=4)
        self.load_state_dict(_peer_state(parser), strict=False)
        self.eval()

    def logits(self, images: Tensor) -> Tensor:
        """Return (B, classes, h, w) at a quarter of the resolution."""
        maps = [level(one) for level, one in zip(self.pyramid, self.encoder(images)[0], strict=True)]
        result: Tensor = self.segmentation_head[0](self.decoder([None, None, *maps]))
        return result

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, classes, H, W)."""
        result: Tensor = self.segmentation_head[1](self.logits(images))
        return result


def _plain_pyramid(width: int) -> nn.ModuleList:
    """Write FaRL's pyramid for patches of 16 pixels with torch's own modules."""

    def double() -> nn.Module:
        return nn.ConvTranspose2d(width, width, 2, 2)

    first = nn.Sequential(double(), nn.BatchNorm2d(width), nn.GELU(), double())
    return nn.ModuleList([first, double(), nn.Identity(), nn.MaxPool2d(2, 2)])


_PEER_NAMES = {
    "encoder.vit.": "encoder.model.",
    "neck.levels.0.convs.0.": "pyramid.0.0.",
    "neck.levels.0.norms.0.": "pyramid.0.1.",
    "neck.levels.0.convs.1.": "pyramid.0.3.",
    "neck.levels.1.convs.0.": "pyramid.1.",
    "head.pooling.fuse.": "decoder.psp.out_conv.",
    "head.fuse.": "decoder.fusion_block.",
    "head.classify.": "segmentation_head.0.",
    **{f"head.pooling.branches.{index}.": f"decoder.psp.blocks.{index}.1." for index in range(4)},
    **{f"head.laterals.{index}.": f"decoder.fpn_lateral_blocks.{2 - index}.conv_norm_relu." for index in range(3)},
    **{f"head.smooth.{index}.": f"decoder.fpn_conv_blocks.{2 - index}." for index in range(3)},
}


def _peer_state(parser: FaceParser) -> dict[str, Tensor]:
    """Name the weights of ours as the peer does."""
    state: dict[str, Tensor] = {}
    for name, value in parser.state_dict().items():
        start = next(start for start in _PEER_NAMES if name.startswith(start))
        rest = name.removeprefix(start)
        if start.startswith("head."):
            rest = rest.replace("conv.", "0.").replace("norm.", "1.")
        state[_PEER_NAMES[start] + rest] = value
    return state


def difference(ours: Sequence[Tensor], peer: Sequence[Tensor]) -> float:
    """Return the largest difference between two lists of results."""
    return max(float((a.float() - b.float()).abs().max()) for a, b in zip(ours, peer, strict=True))


@dataclass
class Report:
    """What a section found."""

    timings: dict[str, Timing]
    verdicts: list[Verdict]
    details: dict[str, dict[str, float]]


def run_features(sizes: Sizes, options: argparse.Namespace) -> Report:
    """Answer a: encoder and pyramid against facer."""
    parser, images = our_parser(sizes), _pictures(sizes, options)
    peer = facer_features(sizes, parser)
    runs = {"facer": lambda: peer(images)[0]}
    runs |= {f"ours {p}": _at(p, lambda: our_features(parser, images)) for p in options.precisions}
    return _section("a. features", runs, {p: GOALS[p] for p in ("fp32", "bf16")}, options)


def run_parser(sizes: Sizes, options: argparse.Namespace) -> Report:
    """Answer b: the whole parser against segmentation_models_pytorch."""
    parser, images = our_parser(sizes), _pictures(sizes, options)
    peer = PeerParser(sizes, parser)
    with torch.no_grad():
        apart = difference([parser.logits(images)], [peer.logits(images)])
    size = (sizes.image_size, sizes.image_size)
    runs: dict[str, Callable[[], Any]] = {"smp": lambda: [peer(images)]}
    runs["ours fp32"] = lambda: [resize(parser.logits(images), size)]
    report = _section("b. parser", runs, {"fp32": GOALS["parser"]}, options)
    # its head enlarges with align_corners, so the logits before that are compared
    report.verdicts[0] = _same("b. parser", apart)
    return report


def _pictures(sizes: Sizes, options: argparse.Namespace) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(options.batch, 3, sizes.image_size, sizes.image_size, generator=generator)


def _at(precision: str, run: Callable[[], Any]) -> Callable[[], Any]:
    """Run under bf16 autocast, or as it is."""

    def _run() -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return run()

    return _run


def _section(
    name: str, runs: dict[str, Callable[[], Any]], goals: dict[str, float], options: argparse.Namespace
) -> Report:
    """Compare the results, time the sides in turn, and judge; the first side is the peer."""
    peer = next(iter(runs))
    with torch.inference_mode():
        verdicts = [_same(name, difference(runs["ours fp32"](), runs[peer]()))]
        flops = {side: {"flops": float(gemm.count_flops(run))} for side, run in runs.items() if "bf16" not in side}
        timings = common.interleave(runs, options.repeats)
    common.print_timings(timings, items=options.batch)
    for precision, goal in goals.items():
        verdicts.append(_judge(f"{name}, {precision}", timings[peer], timings.get(f"ours {precision}"), goal, options))
    keyed = {f"{name}: {side}": timing for side, timing in timings.items()}
    return Report(keyed, verdicts, {f"{name}: {side}": numbers for side, numbers in flops.items()})


def _same(name: str, apart: float) -> Verdict:
    return Verdict(f"same numbers: {name}", "within 0.001", f"{apart:.1e}", apart <= 1e-3)


def _judge(name: str, peer: Timing, ours: Timing | None, goal: float, options: argparse.Namespace) -> Verdict:
    """Say how many times faster ours is; tiny networks are not judged."""
    if ours is None:
        return Verdict(name, f">= {goal:g} x {peer.name} in fp32", "no bf16 instructions on this CPU", None)
    ratio = common.speedup(peer, ours)
    cpu = sum(peer.cpu_seconds) / sum(ours.cpu_seconds)
    measured = f"{ratio:.2f} x (by processor time {cpu:.2f} x)"
    return Verdict(name, f">= {goal:g} x {peer.name} in fp32", measured, None if options.short else ratio >= goal)


SECTIONS = {"a": ("facer", run_features), "b": ("segmentation_models_pytorch", run_parser)}


def run(sizes: Sizes, options: argparse.Namespace) -> Report:
    """Run the sections asked for whose peers are installed; of the others, say what to install."""
    total = Report({}, [], {})
    for letter, (package, section) in SECTIONS.items():
        if options.only not in (None, letter):
            continue
        if importlib.util.find_spec(package) is None:
            missing = f"no {package} here ({INSTALL[package]})"
            total.verdicts.append(Verdict(f"{letter}.", f"a comparison with {package}", missing, None))
            continue
        part = section(sizes, options)
        total.timings |= part.timings
        total.verdicts += part.verdicts
        total.details |= part.details
    return total


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ``--short`` replaces the sizes by tiny ones."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dense_inference", description=__doc__.splitlines()[0])
    common.add_arguments(parser, repeats=7)
    parser.add_argument("--batch", type=int, default=1, help="faces per call (default: %(default)s)")
    parser.add_argument("--only", choices=sorted(SECTIONS), default=None, help="a: features, b: the whole parser")
    options = parser.parse_args(arguments)
    options.precisions = ["fp32", "bf16"] if common.has_native_bf16() else ["fp32"]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections, print their tables and return the exit code."""
    options = parse_arguments(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    total = run(SHORT if options.short else Sizes(), options)
    return common.finish(options, total.timings, total.verdicts, details=total.details)


if __name__ == "__main__":
    raise SystemExit(main())
