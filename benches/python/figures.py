"""Figures of interleaved rounds: medians, ratios and differences formed inside each round, with bootstrap intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000


class Estimate(NamedTuple):
    """A median over rounds, and the interval that 95 % of resampled medians lie in."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Estimate":
        """The median of one figure a round."""
        values = np.asarray(figures, np.float64)
        generator = np.random.default_rng(1)
        medians = np.median(generator.choice(values, (RESAMPLES, len(values))), axis=1)
        low, high = np.percentile(medians, [2.5, 97.5])
        return cls(float(np.median(values)), float(low), float(high))

    @classmethod
    def ratio(cls, above: Sequence[float], below: Sequence[float]) -> "Estimate":
        """The ratio of two figures that were taken in the same rounds."""
        return cls.of([a / b for a, b in zip(above, below, strict=True)])

    @classmethod
    def difference(cls, this: Sequence[float], other: Sequence[float]) -> "Estimate":
        """The difference of two figures that were taken in the same rounds."""
        return cls.of([a - b for a, b in zip(this, other, strict=True)])

    def __str__(self) -> str:
        """`1.02 [1.01, 1.03]`."""
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"
