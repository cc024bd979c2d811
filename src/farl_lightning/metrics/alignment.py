"""Landmark errors of face alignment: mean, cumulative distribution, and both per subset of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError
from farl_lightning.functional import ced
from farl_lightning.functional.landmark_errors import landmark_errors, norm_distance
from farl_lightning.functional.precision import as_float64
from farl_lightning.metrics.float64_states import Float64States
from farl_lightning.metrics.names import joined, name_bytes, name_code, read_names

Curve = tuple[Tensor, Tensor]
"""Thresholds and the share of errors up to each, (K,) float64."""


class LandmarkErrors(Float64States):
    """Base: keeps the error of every face and the subsets it belongs to, under any number of processes.

    Results are read off the *sorted* errors of all processes, so they are the same to the last bit however the faces
    are spread. Names of subsets come from the data; nothing has to be declared.

    Args:
        normalizer: What errors are divided by, see :func:`~farl_lightning.functional.landmark_errors.norm_distance`.
        indices: Two lists of landmark indices for the distance between the eyes of an order that is not built in.
        **kwargs: For ``torchmetrics.Metric``.

    Raises:
        ConfigError: If ``normalizer`` is unknown.
    """

    is_differentiable = False
    full_state_update = False

    errors: list[Tensor]
    member_errors: list[Tensor]
    member_codes: list[Tensor]
    name_bytes: list[Tensor]
    undefined: Tensor

    def __init__(
        self, normalizer: str = "inter_ocular", *, indices: Sequence[Sequence[int]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        norm_distance(torch.zeros(0, 1, 2), normalizer, box=torch.zeros(0, 4), indices=((0,), (0,)))
        self.normalizer, self.indices = normalizer, indices
        for name in ("errors", "member_errors", "member_codes", "name_bytes"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("undefined", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self._names: set[str] = set()

    def update(
        self,
        pred: Tensor,
        target: Tensor,
        *,
        box: Tensor | None = None,
        visible: Tensor | None = None,
        subsets: Sequence[Iterable[str]] | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            pred: (B, N, 2) predicted landmarks in source pixels.
            target: (B, N, 2) true landmarks in source pixels.
            box: (B, 4) left, top, right, bottom in source pixels, for the normalisers that read it.
            visible: (B, N) bool, points that count; all by default, as the benchmarks do.
            subsets: For each face the names of the subsets that it belongs to.
            valid: (B,) bool; False marks repeats and skipped samples that must not count. All count by default.

        Raises:
            ConfigError: If shapes or numbers do not fit.
        """
        errors = self.face_errors(pred, target, box=box, visible=visible)
        kept = torch.ones_like(errors, dtype=torch.bool) if valid is None else valid.to(errors.device)
        self.undefined += (errors.isnan() & kept).sum().to(self.undefined.device)
        kept = kept & ~errors.isnan()
        self.errors.append(errors[kept])
        if subsets is not None:
            self._add_members(errors, kept.tolist(), [tuple(names) for names in subsets])

    def face_errors(
        self, pred: Tensor, target: Tensor, *, box: Tensor | None = None, visible: Tensor | None = None
    ) -> Tensor:
        """Return the normalised error of each face, without adding it.

        Args:
            pred: See :meth:`update`, as all that follow.
            target: True landmarks.
            box: Boxes.
            visible: Points that count.

        Returns:
            (B,) float64, nan where the annotation gives no distance.
        """
        pred, target = as_float64(pred), as_float64(target)
        box, visible = (None if x is None else x.to(pred.device) for x in (box, visible))
        distance = norm_distance(target, self.normalizer, box=box, indices=self.indices)
        return landmark_errors(pred, target, distance, visible=visible)

    def _add_members(self, errors: Tensor, kept: list[bool], subsets: list[tuple[str, ...]]) -> None:
        """Keep one entry per face and subset, and the bytes of every name, which meets those of other processes."""
        if len(subsets) != len(kept):
            raise ConfigError(f"{len(subsets)} lists of subsets for {len(kept)} faces")
        pairs = [(i, name) for i, names in enumerate(subsets) for name in sorted(set(names)) if kept[i]]
        if not pairs:
            return
        self.member_errors.append(errors[[i for i, _ in pairs]])
        self.member_codes.append(errors.new_tensor([name_code(name) for _, name in pairs]))
        for name in sorted({name for _, name in pairs} - self._names):
            self._names.add(name)
            self.name_bytes.append(errors.new_tensor(name_bytes(name)))

    def reset(self) -> None:
        """Forget all faces."""
        super().reset()
        self._names = set()

    def by_subset(self) -> dict[str, Tensor]:
        """Return the sorted errors of all faces, under ``""``, and of every subset, under its name.

        Inside :meth:`compute` these are the errors of all processes; outside, those of this one.
        """
        groups = {"": joined(self.errors, self.device)}
        codes, errors = joined(self.member_codes, self.device), joined(self.member_errors, self.device)
        names = read_names(joined(self.name_bytes, self.device))
        groups |= {name: errors[codes == name_code(name)] for name in names}
        return {name: values.sort().values for name, values in groups.items()}

    def _results(self, scores: dict[str, Callable[[Tensor], Tensor]]) -> dict[str, Tensor]:
        """Take each score of each group, and say how many faces have no error."""
        groups = self.by_subset()
        results = {
            f"{kind}_{subset}" if subset else kind: score(errors)
            for subset, errors in groups.items()
            for kind, score in scores.items()
        }
        if self.undefined:
            results["undefined_faces"] = as_float64(self.undefined)
        return results


class LandmarkNME(LandmarkErrors):
    """Normalised mean error of landmarks, in percent (in pixels with ``normalizer="none"``).

    300-W and WFLW report ``"inter_ocular"``, AFLW-19 ``"diag"``. A face whose annotation gives no distance (coincident
    eyes, an empty box) has no error: such faces are counted in ``undefined_faces`` of the result.

    Args:
        normalizer: What errors are divided by: ``"inter_ocular"``, ``"inter_pupil"``, ``"box"``, ``"diag"`` or
            ``"none"``.
        indices: Two lists of landmark indices for the distance between the eyes of an order that is not built in.
        **kwargs: For ``torchmetrics.Metric``.

    Raises:
        ConfigError: If ``normalizer`` is unknown.

    Example:
        >>> metric = LandmarkNME("diag")
        >>> target = torch.zeros(1, 19, 2)
        >>> metric.update(target + torch.tensor([0.0, 2.0]), target, box=torch.tensor([[0.0, 0.0, 30.0, 40.0]]))
        >>> metric.compute()["nme"].item()
        4.0
    """

    higher_is_better = False

    def compute(self) -> dict[str, Tensor]:
        """Return ``nme`` and for each subset ``nme_<name>``, float64; NaN without faces."""
        return self._results({"nme": lambda errors: self.scale * errors.mean()})

    @property
    def scale(self) -> float:
        """What errors are multiplied by: 100 for percent, 1 for pixels."""
        return 1.0 if self.normalizer == "none" else 100.0


class CED(LandmarkErrors):
    """Cumulative error distribution: area under it up to a threshold (AUC) and failure rate (FR), in percent.

    Args:
        threshold: Normalised error where the curve is cut: 0.1 for WFLW, 0.07 for AFLW-19 (with ``"box"``).
        normalizer: What errors are divided by.
        grid: ``"exact"`` integrates the step function itself. ``"reference"`` uses the grid of FaRL's scorer with all
            its rounding, to compare with published numbers.
        simpson: Rule of the reference's grid for an even number of thresholds: ``"cartwright"`` (scipy 1.11 and later)
            or ``"average"`` (before).
        indices: Two lists of landmark indices for the distance between the eyes of an order that is not built in.
        **kwargs: For ``torchmetrics.Metric``.

    Attributes:
        curves: For all faces (``""``) and each subset the curve over all processes, as of the last :meth:`compute`.

    Raises:
        ConfigError: If an option is unknown or the threshold is not above 0.
    """

    def __init__(
        self,
        threshold: float = 0.1,
        normalizer: str = "inter_ocular",
        *,
        grid: str = "exact",
        simpson: str = "cartwright",
        indices: Sequence[Sequence[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(normalizer, indices=indices, **kwargs)
        if grid not in ("exact", "reference") or simpson not in ("cartwright", "average"):
            raise ConfigError(
                f"CED(grid='{grid}', simpson='{simpson}'): grid is 'exact' or 'reference', simpson 'cartwright' or "
                "'average'"
            )
        self.grid = ced.reference_grid(threshold)
        self.threshold, self.kind, self.simpson = threshold, grid, simpson
        self.curves: dict[str, Curve] = {}

    def compute(self) -> dict[str, Tensor]:
        """Return ``auc``, ``fr`` and for each subset ``auc_<name>``, ``fr_<name>``, float64; NaN without faces."""
        self.curves = {name: self._curve(errors) for name, errors in self.by_subset().items()}
        return self._results({"auc": self._auc, "fr": self._failure_rate})

    def _curve(self, errors: Tensor) -> Curve:
        """Return the curve on a grid up to the threshold, on the CPU."""
        return self.grid, ced.ced(errors.cpu(), self.grid)

    def _auc(self, errors: Tensor) -> Tensor:
        if self.kind == "exact":
            return 100 * ced.auc_exact(errors, self.threshold)
        return 100 * ced.auc_reference(errors, self.threshold, rule=self.simpson)

    def _failure_rate(self, errors: Tensor) -> Tensor:
        if self.kind == "exact":
            return 100 * ced.failure_rate_exact(errors, self.threshold)
        return 100 * ced.failure_rate_reference(errors, self.threshold)
