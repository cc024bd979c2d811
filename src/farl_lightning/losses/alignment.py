"""Losses of face alignment, each per face: of coordinates, and of heatmaps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farl_lightning.errors import ConfigError
from farl_lightning.functional.heatmaps import normalize_points, points_to_heatmap
from farl_lightning.functional.precision import at_least_float32
from farl_lightning.functional.resize import resize
from farl_lightning.losses.reduce import mean_over_faces, mean_over_points
from farl_lightning.types import Configurable


def point_loss(pred: Tensor, target: Tensor, *, counted: Tensor | None = None) -> Tensor:
    """Mean Euclidean distance of landmarks, which FaRL's code calls ``coord_l1_loss``.

    Args:
        pred: (B, N, 2) normalised landmarks.
        target: (B, N, 2) true ones.
        counted: (B, N) bool, landmarks that count; all by default.

    Returns:
        (B,), float32 at least. The gradient of a landmark that lies exactly on the truth is 0.
    """
    return mean_over_points((_safe(pred, target, counted)).norm(dim=-1), counted)


def wing_loss(
    pred: Tensor, target: Tensor, *, width: float = 10.0, curvature: float = 2.0, counted: Tensor | None = None
) -> Tensor:
    """Wing loss (Feng et al., CVPR 2018): logarithmic for small errors, linear for large ones.

    Args:
        pred: (B, N, 2) landmarks in pixels.
        target: (B, N, 2) true ones.
        width: Error in pixels at which the loss becomes linear, w of the paper.
        curvature: Pixels, epsilon of the paper; smaller is steeper at 0.
        counted: (B, N) bool, landmarks that count; all by default.

    Returns:
        (B,) mean over landmarks and both coordinates, float32 at least.
    """
    error = _safe(pred, target, counted).abs()
    offset = width - width * math.log1p(width / curvature)
    losses = torch.where(error < width, width * torch.log1p(error / curvature), error - offset)
    return mean_over_points(losses.mean(-1), counted)


def heatmap_bce(logits: Tensor, target: Tensor, *, counted: Tensor | None = None) -> Tensor:
    """Binary cross entropy of heatmaps.

    Args:
        logits: (B, N, h, w); resized bilinearly to the size of the target, as FaRL does (112 to 128).
        target: (B, N, H, W) true heatmaps, 0 to 1.
        counted: (B, N) bool, landmarks that count; all by default.

    Returns:
        (B,) mean over landmarks and pixels, float32 at least.
    """
    losses = F.binary_cross_entropy_with_logits(_resized(logits, target), target, reduction="none")
    return mean_over_points(losses.mean((2, 3)), counted)


def heatmap_l1(logits: Tensor, target: Tensor, *, counted: Tensor | None = None) -> Tensor:
    """Mean absolute error of heatmaps after a sigmoid.

    Args:
        logits: (B, N, h, w); the map after the sigmoid is resized bilinearly to the size of the target, as in FaRL.
        target: (B, N, H, W) true heatmaps, 0 to 1.
        counted: (B, N) bool, landmarks that count; all by default.

    Returns:
        (B,), float32 at least.
    """
    return mean_over_points((_resized(at_least_float32(logits).sigmoid(), target) - target).abs().mean((2, 3)), counted)


def heatmap_l2(logits: Tensor, target: Tensor, *, counted: Tensor | None = None) -> Tensor:
    """Mean squared error of heatmaps, taken of the raw logits as in FaRL.

    Args:
        logits: (B, N, h, w); resized bilinearly to the size of the target.
        target: (B, N, H, W) true heatmaps, 0 to 1.
        counted: (B, N) bool, landmarks that count; all by default.

    Returns:
        (B,), float32 at least.
    """
    return mean_over_points((_resized(logits, target) - target).square().mean((2, 3)), counted)


def adaptive_wing_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 2.1,
    omega: float = 14.0,
    epsilon: float = 1.0,
    theta: float = 0.5,
    foreground: float = 10.0,
    counted: Tensor | None = None,
) -> Tensor:
    """Adaptive Wing loss of heatmaps (Wang et al., ICCV 2019), with the weighted map of the paper.

    Args:
        logits: (B, N, h, w); the map after the sigmoid is resized bilinearly to the size of the target, as in FaRL.
        target: (B, N, H, W) true heatmaps, 0 to 1.
        alpha: Exponent at background pixels; it falls by the value of the true map.
        omega: Scale of the curved part.
        epsilon: Makes the curved part finite at 0.
        theta: Error at which the loss becomes linear.
        foreground: Extra weight of pixels that lie within one pixel of a true value of 0.2 or more.
        counted: (B, N) bool, landmarks that count; all by default.

    Returns:
        (B,), float32 at least.
    """
    error = (_resized(at_least_float32(logits).sigmoid(), target) - target).abs()
    power = alpha - target
    bend = (theta / epsilon) ** power
    slope = omega * power * bend / theta / (1 + bend)  # of the curved part at theta, where the line goes on
    curved = omega * torch.log1p((error.clamp(max=theta) / epsilon) ** power)
    losses = torch.where(error < theta, curved, slope * (error - theta) + omega * torch.log1p(bend))
    near = F.max_pool2d(target, 3, stride=1, padding=1) >= 0.2
    return mean_over_points((losses * (1 + foreground * near)).mean((2, 3)), counted)


def star_loss(
    points: Tensor,
    logits: Tensor,
    target: Tensor,
    *,
    restriction: float = 1.0,
    epsilon: float = 1e-5,
    counted: Tensor | None = None,
) -> Tensor:
    """Anisotropic point loss in the manner of STAR (Zhou et al., CVPR 2023).

    Along a contour a landmark is ambiguous, and its heatmap is long in that direction. The error is taken along the
    two principal axes of the heatmap and divided by the spread along each; the spreads themselves are kept small by a
    second term. The axes carry no gradient (theirs is not defined for a round heatmap), the spreads do.

    Args:
        points: (B, N, 2) predicted landmarks, normalised to [0, 1].
        logits: (B, N, h, w) of the heatmaps that they were read off.
        target: (B, N, 2) true landmarks, normalised.
        restriction: Weight of the mean spread.
        epsilon: Added to the squared spread, so that a heatmap of one pixel (or none) stays finite.
        counted: (B, N) bool, landmarks that count; all by default.

    Returns:
        (B,), float32 at least. Lengths are those of a map that reaches from -1 to 1, as in the paper.
    """
    xx, yy, xy = _covariance(at_least_float32(logits).sigmoid(), epsilon)
    angle = 0.5 * torch.atan2(2 * xy.detach(), (xx - yy).detach())
    cos, sin = angle.cos(), angle.sin()
    error = 2 * _safe(points, target, counted)
    losses = restriction / 2 * (xx + yy)
    for x, y in ((cos, sin), (-sin, cos)):
        spread = x * x * xx + 2 * x * y * xy + y * y * yy  # its derivative is exact although the axis is held
        losses = losses + (x * error[..., 0] + y * error[..., 1]).abs() / spread.clamp(min=epsilon).sqrt()
    return mean_over_points(losses, counted)


class AlignmentLoss(nn.Module, Configurable):
    """Weighted sum of the losses of face alignment; the default is FaRL's. A weight of 0 leaves a loss out.

    Args:
        point: Weight of :func:`point_loss`, in units of the crop's side.
        heatmap_bce: Weight of :func:`heatmap_bce`.
        heatmap_l1: Weight of :func:`heatmap_l1`.
        heatmap_l2: Weight of :func:`heatmap_l2`.
        wing: Weight of :func:`wing_loss`, in pixels of the crop.
        adaptive_wing: Weight of :func:`adaptive_wing_loss`.
        star: Weight of :func:`star_loss`.
        heatmap_size: Side of the true heatmaps.
        radius: Radius of a landmark on them, see :func:`~farl_lightning.functional.heatmaps.points_to_heatmap`.

    Raises:
        ConfigError: If a weight is negative, or all are 0.
    """

    def __init__(
        self,
        point: float = 1.0,
        heatmap_bce: float = 1.0,
        heatmap_l1: float = 0.0,
        heatmap_l2: float = 0.0,
        wing: float = 0.0,
        adaptive_wing: float = 0.0,
        star: float = 0.0,
        heatmap_size: int = 128,
        radius: float = 5.0,
    ) -> None:
        super().__init__()
        weights = {
            "point": point,
            "heatmap_bce": heatmap_bce,
            "heatmap_l1": heatmap_l1,
            "heatmap_l2": heatmap_l2,
            "wing": wing,
            "adaptive_wing": adaptive_wing,
            "star": star,
        }
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ConfigError(f"AlignmentLoss needs weights of 0 or more, one of them above 0; given: {weights}")
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.heatmap_size, self.radius = heatmap_size, radius

    def forward(
        self,
        points: Tensor,
        logits: Tensor,
        landmarks: Tensor,
        size: int,
        visible: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and its parts.

        Args:
            points: (B, N, 2) predicted landmarks, normalised to [0, 1] of the crop.
            logits: (B, N, h, w) of the heatmaps that they were read off.
            landmarks: (B, N, 2) true landmarks in crop pixels; one that is not finite does not count.
            size: Side of the crop in pixels.
            visible: (B, N) bool, landmarks that count; all by default, as in FaRL.
            valid: (B,) bool, faces that count; all by default.

        Returns:
            The scalar loss, and each part detached as ``loss_<name>``.
        """
        target = normalize_points(at_least_float32(landmarks), (size, size))
        counted = target.isfinite().all(-1) if visible is None else target.isfinite().all(-1) & visible
        per_face = self._point_parts(points, logits, target, size, counted)
        per_face |= self._heatmap_parts(logits, target, counted)
        parts = {name: mean_over_faces(per_face[name], valid) for name in self.weights}
        total = torch.stack([weight * parts[name] for name, weight in self.weights.items()]).sum()
        return total, {f"loss_{name}": value.detach() for name, value in parts.items()}

    def _point_parts(
        self, points: Tensor, logits: Tensor, target: Tensor, size: int, counted: Tensor
    ) -> dict[str, Tensor]:
        """Return the wanted losses of coordinates, (B,) each."""
        parts = {}
        if "point" in self.weights:
            parts["point"] = point_loss(points, target, counted=counted)
        if "wing" in self.weights:
            parts["wing"] = wing_loss(at_least_float32(points) * size, target * size, counted=counted)
        if "star" in self.weights:
            parts["star"] = star_loss(points, logits, target, counted=counted)
        return parts

    def _heatmap_parts(self, logits: Tensor, target: Tensor, counted: Tensor) -> dict[str, Tensor]:
        """Return the wanted losses of heatmaps, (B,) each; the true ones are drawn once."""
        wanted = [name for name in _HEATMAP_LOSSES if name in self.weights]
        if not wanted:
            return {}
        with torch.no_grad():
            truth = points_to_heatmap(target, self.heatmap_size, self.radius)
        return {name: _HEATMAP_LOSSES[name](logits, truth, counted=counted) for name in wanted}


_HEATMAP_LOSSES = {
    "heatmap_bce": heatmap_bce,
    "heatmap_l1": heatmap_l1,
    "heatmap_l2": heatmap_l2,
    "adaptive_wing": adaptive_wing_loss,
}


def _covariance(mass: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return (B, N) variances of x and y and their covariance, of maps (B, N, h, w) that reach from -1 to 1."""
    height, width = mass.shape[-2:]
    x = (torch.arange(width, dtype=mass.dtype, device=mass.device) + 0.5) * (2 / width) - 1
    y = (torch.arange(height, dtype=mass.dtype, device=mass.device) + 0.5) * (2 / height) - 1
    share = mass / mass.sum((2, 3), keepdim=True).clamp(min=1e-6)
    columns, rows = share.sum(2), share.sum(3)
    dx = x - (columns * x).sum(-1, keepdim=True)
    dy = y - (rows * y).sum(-1, keepdim=True)
    xx, yy = (columns * dx.square()).sum(-1), (rows * dy.square()).sum(-1)
    xy = ((share * dx[:, :, None, :]).sum(3) * dy).sum(-1)  # no matrix product: autocast would round it
    return xx + epsilon, yy + epsilon, xy


def _safe(pred: Tensor, target: Tensor, counted: Tensor | None) -> Tensor:
    """Return the difference of landmarks; 0 where it does not count, so that nothing undefined has a gradient."""
    if pred.shape != target.shape:
        raise ConfigError(f"landmarks {tuple(pred.shape)} and {tuple(target.shape)} must both be (B, N, 2)")
    difference = at_least_float32(pred) - target
    return difference if counted is None else difference.where(counted[..., None], difference.new_zeros(()))


def _resized(logits: Tensor, target: Tensor) -> Tensor:
    """Resize logits to a true heatmap's size, in float32 at least."""
    return resize(at_least_float32(logits), (target.shape[-2], target.shape[-1]))
