"""Power laws of the loss in size and compute, as in Kaplan et al. 2020."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanogpt.report.groups import same_but
from nanogpt.report.intervals import t_975
from nanogpt.report.run import Run

# The settings that a sweep over sizes changes.
SIZE_SETTINGS = {"model.n_layer", "model.n_head", "model.n_embd"}


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient * x^exponent.

    half_width: of the exponent's 95 % interval; None with fewer than four distinct x.
    """

    coefficient: float
    exponent: float
    half_width: float | None

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = self.coefficient * x**self.exponent
        return result


def fit_power_law(x: NDArray[np.float64], y: NDArray[np.float64]) -> PowerLaw | None:
    """Fit a power law by least squares in logarithms; None for fewer than three distinct x.

    As in Kaplan et al. 2020 (arXiv:2001.08361), values with the same x are averaged first. The
    interval is the regression's, with two degrees of freedom fewer than there are distinct x,
    because several seeds of one size say nothing about whether the law holds. Three sizes leave one
    degree of freedom, too few for a useful interval.
    """
    good = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    sizes, place = np.unique(x[good], return_inverse=True)
    if len(sizes) < 3:
        return None
    log_x = np.log(sizes)
    log_y = np.bincount(place, np.log(y[good])) / np.bincount(place)
    exponent, intercept = np.polyfit(log_x, log_y, 1)
    rest = log_y - (intercept + exponent * log_x)
    degrees = len(sizes) - 2
    variance = (rest**2).sum() / degrees / ((log_x - log_x.mean()) ** 2).sum()
    half_width = t_975(degrees) * math.sqrt(variance) if degrees > 1 else None
    return PowerLaw(math.exp(intercept), float(exponent), half_width)


def size_families(runs: Sequence[Run]) -> list[list[Run]]:
    """Return families of finished runs that differ only in SIZE_SETTINGS and seed.

    Each family has at least two sizes.
    """
    families: dict[str, list[Run]] = {}
    for run in runs:
        if run.status == "finished" and run.model:
            families.setdefault(same_but(run, SIZE_SETTINGS | {"train.seed"}), []).append(run)
    return [family for family in families.values() if len({run.n_parameters for run in family}) > 1]
