"""Five ways to learn an age: what the outputs mean, the loss, and how years are read off."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from farl_lightning.errors import ConfigError
from farl_lightning.functional.ages import counted_age, expected_age, scaled_age
from farl_lightning.functional.precision import at_least_float32
from farl_lightning.losses.reduce import LabelLoss
from farl_lightning.types import Configurable


class AgeMethod(Configurable):
    """Base of the ways to learn an age in years.

    Ages outside of [``min_age``, ``max_age``] are learned as the nearest of both; metrics take them as they are.

    Args:
        min_age: Youngest age that is told apart, in whole years.
        max_age: Oldest.

    Attributes:
        shared: Whether all outputs share one weight vector.

    Raises:
        ConfigError: If there is no year between both.
    """

    shared: bool = False

    def __init__(self, min_age: int = 0, max_age: int = 100) -> None:
        if not min_age < max_age:
            raise ConfigError(f"min_age {min_age} must be below max_age {max_age}")
        self.min_age, self.max_age = min_age, max_age

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Number of outputs that the network must have."""

    @abstractmethod
    def decode(self, outputs: Tensor) -> Tensor:
        """Return (B,) ages in years, float32 at least, of (B, num_outputs) outputs.

        Args:
            outputs: Of the network.
        """

    @abstractmethod
    def losses(self, outputs: Tensor, ages: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Return weight and (B,) values of each part of the loss.

        Args:
            outputs: (B, num_outputs), float32 at least.
            ages: (B,) in range, of the same dtype.
        """

    def start_bias(self) -> Tensor | None:
        """Return (num_outputs,) biases that the last layer starts with; None leaves them to their own start."""
        return None

    def loss(self, outputs: Tensor, ages: Tensor) -> LabelLoss:
        """Return the loss of each face.

        Args:
            outputs: (B, num_outputs).
            ages: (B,) years, nan unknown.

        Raises:
            ConfigError: If the sizes do not fit.
        """
        if outputs.shape != (len(ages), self.num_outputs):
            raise ConfigError(
                f"outputs {tuple(outputs.shape)} must be ({len(ages)}, {self.num_outputs}) for {type(self).__name__}"
            )
        wide, known = at_least_float32(outputs), ages.isfinite()
        target = ages.to(wide).nan_to_num(self.min_age, self.min_age, self.min_age).clamp(self.min_age, self.max_age)
        parts = self.losses(wide, target)
        values = torch.stack([weight * value for weight, value in parts.values()]).sum(0)
        logs = {name: value.detach() for name, (_, value) in parts.items()} if len(parts) > 1 else {}
        return LabelLoss(values, known, logs)


class _YearlyMethod(AgeMethod):
    """An output per year of age; the answer is the mean of the distribution that a softmax makes of them."""

    @property
    def num_outputs(self) -> int:
        """One per year, both ends included."""
        return self.max_age - self.min_age + 1

    def years(self, like: Tensor) -> Tensor:
        """Return (num_outputs,) the age of each output.

        Args:
            like: Gives dtype and device.
        """
        return torch.arange(self.min_age, self.max_age + 1, dtype=like.dtype, device=like.device)

    def decode(self, outputs: Tensor) -> Tensor:
        """Return the mean age.

        Args:
            outputs: (B, num_outputs).
        """
        return expected_age(outputs, self.min_age)

    def nearest(self, ages: Tensor) -> Tensor:
        """Return (B,) int64, the output of the nearest whole year; halves are rounded up.

        Args:
            ages: In range.
        """
        return (ages + 0.5).floor().long().clamp(max=self.max_age) - self.min_age


class AgeExpectation(_YearlyMethod):
    """Classification into years, read off as an expectation (DEX, Rothe et al., IJCV 2018).

    Args:
        min_age: Youngest age that is told apart, in whole years.
        max_age: Oldest.
    """

    def losses(self, outputs: Tensor, ages: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Return the cross entropy of the nearest year.

        Args:
            outputs: (B, num_outputs).
            ages: (B,) in range.
        """
        return {"loss_ce": (1.0, F.cross_entropy(outputs, self.nearest(ages), reduction="none"))}


class AgeMeanVariance(_YearlyMethod):
    """Cross entropy, squared error of the mean and variance (Pan et al., CVPR 2018).

    The loss of a face is ``CE + mean_weight (m - y)^2 / 2 + variance_weight v`` with mean m and variance v of the
    predicted distribution.

    Args:
        min_age: Youngest age that is told apart, in whole years.
        max_age: Oldest.
        mean_weight: The paper's 0.2.
        variance_weight: The paper's 0.05.

    Raises:
        ConfigError: If a weight is negative.
    """

    def __init__(
        self, min_age: int = 0, max_age: int = 100, mean_weight: float = 0.2, variance_weight: float = 0.05
    ) -> None:
        super().__init__(min_age, max_age)
        if min(mean_weight, variance_weight) < 0:
            raise ConfigError(f"AgeMeanVariance({mean_weight=}, {variance_weight=}): weights must be 0 or more")
        self.mean_weight, self.variance_weight = mean_weight, variance_weight

    def losses(self, outputs: Tensor, ages: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Return all three parts.

        Args:
            outputs: (B, num_outputs).
            ages: (B,) in range.
        """
        shares, years = outputs.softmax(1), self.years(outputs)
        mean = shares @ years
        variance = (shares * (years - mean[:, None]).square()).sum(1)
        return {
            "loss_ce": (1.0, F.cross_entropy(outputs, self.nearest(ages), reduction="none")),
            "loss_mean": (self.mean_weight, (mean - ages).square() / 2),
            "loss_variance": (self.variance_weight, variance),
        }


class AgeDistribution(_YearlyMethod):
    """A normal distribution around the true age, and its mean (DLDL-v2, Gao et al., IJCAI 2018).

    The loss of a face is the Kullback-Leibler divergence from the true to the predicted distribution, and
    ``mean_weight`` times the absolute error of the mean.

    Args:
        min_age: Youngest age that is told apart, in whole years.
        max_age: Oldest.
        sigma: Standard deviation of the true distribution in years; the paper's 2.
        mean_weight: The paper's 1.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(self, min_age: int = 0, max_age: int = 100, sigma: float = 2.0, mean_weight: float = 1.0) -> None:
        super().__init__(min_age, max_age)
        if not sigma > 0 or mean_weight < 0:
            raise ConfigError(f"AgeDistribution({sigma=}, {mean_weight=}): sigma must be above 0, the weight 0 or more")
        self.sigma, self.mean_weight = sigma, mean_weight

    def losses(self, outputs: Tensor, ages: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Return both parts.

        Args:
            outputs: (B, num_outputs).
            ages: (B,) in range.
        """
        truth = (-((self.years(outputs) - ages[:, None]) / self.sigma).square() / 2).log_softmax(1)
        divergence = F.kl_div(outputs.log_softmax(1), truth, reduction="none", log_target=True).sum(1)
        return {"loss_kl": (1.0, divergence), "loss_mean": (self.mean_weight, (self.decode(outputs) - ages).abs())}


class AgeOrdinal(AgeMethod):
    """One yes-or-no question per year, "older than k?" (CORAL, https://arxiv.org/abs/1901.07884).

    The loss of a face is the sum of the questions' cross entropies. The age is ``min_age`` and the number of questions
    answered yes.

    Args:
        min_age: Youngest age that is told apart, in whole years.
        max_age: Oldest.
        shared: Whether all questions share one weight vector, so that a yes never follows a no (CORAL); without, each
            is on its own (OR-CNN, Niu et al., CVPR 2016).
        soft: Read off the sum of the probabilities instead of the number of those above a half.
    """

    def __init__(self, min_age: int = 0, max_age: int = 100, shared: bool = True, soft: bool = False) -> None:
        super().__init__(min_age, max_age)
        self.shared, self.soft = shared, soft

    @property
    def num_outputs(self) -> int:
        """One per year, the oldest excluded."""
        return self.max_age - self.min_age

    def decode(self, outputs: Tensor) -> Tensor:
        """Return the age.

        Args:
            outputs: (B, num_outputs).
        """
        return counted_age(outputs, self.min_age, self.soft)

    def start_bias(self) -> Tensor:
        """Return the biases that hold when every age is as likely, so that the answers begin in order."""
        older = 1 - torch.arange(1, self.num_outputs + 1) / (self.num_outputs + 1)
        return older.logit()

    def losses(self, outputs: Tensor, ages: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Return the sum of all cross entropies; an age between two years is older than the lower one.

        Args:
            outputs: (B, num_outputs).
            ages: (B,) in range.
        """
        years = torch.arange(self.min_age, self.max_age, dtype=outputs.dtype, device=outputs.device)
        older = ((ages[:, None] + 0.5).floor() > years).to(outputs)
        return {"loss_bce": (1.0, F.binary_cross_entropy_with_logits(outputs, older, reduction="none").sum(1))}


class AgeRegression(AgeMethod):
    """The age itself, by absolute error in years. Answers are not limited to the range.

    Args:
        min_age: Youngest age that is learned.
        max_age: Oldest.
        scale: Years per unit of the output; None means a quarter of the range. The output 0 is the middle.

    Raises:
        ConfigError: If the scale is not above 0.
    """

    def __init__(self, min_age: int = 0, max_age: int = 100, scale: float | None = None) -> None:
        super().__init__(min_age, max_age)
        self.scale = (max_age - min_age) / 4 if scale is None else scale
        if not self.scale > 0 or not math.isfinite(self.scale):
            raise ConfigError(f"AgeRegression({scale=}): scale must be above 0")

    @property
    def num_outputs(self) -> int:
        """One."""
        return 1

    def decode(self, outputs: Tensor) -> Tensor:
        """Return the age.

        Args:
            outputs: (B, 1).
        """
        return scaled_age(outputs, self.min_age, self.max_age, self.scale)

    def losses(self, outputs: Tensor, ages: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Return the absolute error.

        Args:
            outputs: (B, 1).
            ages: (B,) in range.
        """
        return {"loss_l1": (1.0, (self.decode(outputs) - ages).abs())}
