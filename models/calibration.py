"""Honest error bars: the spread of the members, scaled to the errors on crystals nobody trained on.

The spread of an ensemble says where it is unsure but not by how much. On held-out crystals the
spread of each part, in log space, is related to the error actually made; the members are moved
apart accordingly, crystal by crystal, so that everything computed from them (figures of merit,
acquisition) has the right spread. Where few crystals are held out, those count as well that a
single member left out of its training, with that member's error (R. F. Barber et al., Ann. Stat.
49, 486 (2021), CV+). Intervals then use the empirical distribution of the scaled errors (split
conformal prediction), since it has heavier tails than a Gaussian.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVELS = (0.5, 0.68, 0.9, 0.95)
"""Coverages of the intervals that are kept."""
PARTS = ("electronic", "ionic", "static")
SMALLEST_SPREAD = 1e-3
"""Of ln ε̄; a smaller spread is chance."""
ENOUGH = 50
"""Errors below which how they go with the spread is not fitted."""
LEAST = 8
"""Errors below which they teach nothing."""
SLOPE_OF_FEW = 0.25
"""Of ln σ with ln(spread) where it is not fitted: in so small a training set the spread says
little, and σ must not be small because members agree."""
NORMAL = (0.674, 0.994, 1.645, 1.960)
"""Half widths of the intervals of a Gaussian."""
LARGEST_SCALE = 20.0
LARGEST_DISTANCE = 3.0
"""From the training crystals, beyond which error bars grow no further."""
LARGEST_ERROR = 0.99
"""Quantile of the held-out errors that bounds σ."""


@dataclass(frozen=True)
class Scale:
    """ln σ = constant + slope · ln(spread) + physics · (there is a physical estimate), σ ≤ largest.

    Without the bound the relation would promise errors far beyond any that was made: the spread of
    L is wide for nearly vanishing ionic parts, as of molecular crystals, where it means little.
    """

    constant: float = 0.0
    slope: float = 1.0
    physics: float = 0.0
    largest: float = 10.0

    def sigma(self, spread: Array, physics: Array) -> Array:
        """Expected error for the spread s of the members, both of the mean eigenvalue of L."""
        logs = np.log(np.maximum(spread, SMALLEST_SPREAD))
        expected = np.exp(self.constant + self.slope * logs + self.physics * physics)
        return np.asarray(np.minimum(expected, self.largest))

    @classmethod
    def fitted(cls, errors: Array, spread: Array, physics: Array) -> Scale:
        """Most likely scale for Laplace-distributed errors, bounded by the largest of them."""
        from scipy.optimize import minimize

        def cost(parameters: Array) -> float:
            sigma = cls(*parameters).sigma(spread, physics)
            prior = ((parameters - [0.5, 0.7, 0.0]) ** 2).sum()
            return float((np.log(sigma) + np.abs(errors) * np.sqrt(2) / sigma).sum() + prior)

        found = minimize(cost, np.array([0.5, 0.7, 0.0]), method="Nelder-Mead")
        largest = np.quantile(np.abs(errors), LARGEST_ERROR)
        return cls(*(float(x) for x in (*found.x, largest)))

    @classmethod
    def of_few(cls, errors: Array, spread: Array) -> Scale:
        """The same for so few errors that the slope is given."""
        logs = np.log(np.maximum(spread, SMALLEST_SPREAD))
        size = np.sqrt(2) * np.mean(np.abs(errors) / np.exp(SLOPE_OF_FEW * logs))
        return cls(float(np.log(max(size, SMALLEST_SPREAD))), SLOPE_OF_FEW)


@dataclass(frozen=True)
class Calibration:
    """What held-out crystals taught about the error bars.

    Attributes
    ----------
    electronic, ionic
        Scales of the parts.
    quantiles
        Part → |error of ln ε̄| in units of the members' standard deviation that 50, 68, 90 and 95 %
        of the held-out crystals stayed below.
    n
        Number of crystals that taught it; 0 if nothing was calibrated.
    """

    electronic: Scale
    ionic: Scale
    quantiles: dict[str, tuple[float, ...]]
    n: int

    @classmethod
    def none(cls) -> Calibration:
        """The raw spread, taken for a Gaussian's."""
        return cls(Scale(), Scale(), dict.fromkeys(PARTS, NORMAL), 0)

    @classmethod
    def assumed(cls) -> Calibration:
        """For ensembles with next to no errors to learn from: what the large tensor table taught.

        There the errors of both parts are e times as large as the spread of five members.
        """
        return cls(Scale(1.0), Scale(1.0), dict.fromkeys(PARTS, NORMAL), 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Calibration:
        """Inverse of :meth:`to_dict`."""
        return cls(
            Scale(**data["electronic"]),
            Scale(**data["ionic"]),
            {part: tuple(q) for part, q in data["quantiles"].items()},
            data["n"],
        )

    def spread_out(self, targets: Array, physics: Array, distance: Array) -> Array:
        """Members' L (m, n, 2, 3, 3), moved apart about their mean to the expected errors.

        Parameters
        ----------
        physics
            1 where there is a physical estimate, (n,).
        distance
            From the training crystals in units of their domain's size, (n,). Outside, where no
            held-out crystal has tested it, the expected error grows in proportion, up to a bound.
        """
        outside = np.clip(distance, 1.0, LARGEST_DISTANCE)
        scales = []
        for part, scale in enumerate((self.electronic, self.ionic)):
            spread = np.maximum(spread_of(targets[:, :, part]), SMALLEST_SPREAD)
            none = np.zeros_like(physics)
            sigma = scale.sigma(spread, none if part == 0 else physics) * outside
            scales.append(np.clip(sigma / spread, 1 / LARGEST_SCALE, LARGEST_SCALE))
        factor = np.stack(scales, axis=-1)[None, :, :, None, None]
        mean = targets.mean(axis=0, keepdims=True)
        return np.asarray(mean + factor * (targets - mean))


def spread_of(targets: Array) -> Array:
    """Standard deviation over members of the mean eigenvalue of L (m, n, 3, 3) → (n,)."""
    return np.asarray(np.trace(targets, axis1=-2, axis2=-1).std(axis=0, ddof=1) / 3)


def quantiles(log_errors: Array, deviations: Array) -> tuple[float, ...]:
    """Conformal quantiles of |error|/σ at ``LEVELS``."""
    ratio = np.sort(np.abs(log_errors) / np.maximum(deviations, SMALLEST_SPREAD))
    ranks = [min(len(ratio) - 1, int(np.ceil(level * (len(ratio) + 1))) - 1) for level in LEVELS]
    return tuple(float(ratio[rank]) for rank in ranks)


def coverage(log_errors: Array, deviations: Array, bounds: tuple[float, ...]) -> list[float]:
    """Share of errors within each of the intervals ``bounds`` · σ."""
    ratio = np.abs(log_errors) / np.maximum(deviations, SMALLEST_SPREAD)
    return [float((ratio <= bound).mean()) for bound in bounds]
