"""A numeric target as people have it: its transforms, its atom, how far it spreads and to what step it is rounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter

from sktda.model.standard import power_of_two
from sktda.noise import robust_deviation

LEAST_SCALE = 1e-3  # of a residual, in standard deviations of the target
ATOM_SHARE, ATOM_ROWS, ATOM_LEAD = 0.05, 10, 10


@dataclass(frozen=True)
class Transform:
    """A monotone function of the target, the logarithm of its slope, and its inverse."""

    name: str
    to: Callable[[np.ndarray], np.ndarray]
    log_slope: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


def transforms(y: np.ndarray) -> list[Transform]:
    """Those that y (n,), without absurd values, admits; what lies outside of its range can be transformed too."""
    unit = float(np.median(np.abs(y))) or spread_of(y)
    found = [Transform("identity", lambda v: v, np.zeros_like, lambda z: z)]
    if y.min() >= 0:
        tiny = 1e-3 * unit  # the slope at zero is infinite
        found.append(
            Transform(
                "square root",
                lambda v: np.sign(v) * np.sqrt(np.abs(v)),
                lambda v: -np.log(2) - np.log(np.maximum(np.abs(v), tiny)) / 2,
                lambda z: z * np.abs(z),
            )
        )
    if y.min() > 0:
        low = y.min()  # below, a straight line goes on
        found.append(
            Transform(
                "logarithm",
                lambda v: np.log(np.maximum(v, low)) + np.minimum(v / low - 1, 0),
                lambda v: -np.log(np.maximum(v, low)),
                np.exp,
            )
        )
    found.append(
        Transform(
            "signed logarithm",
            lambda v: np.arcsinh(v / unit),
            lambda v: -np.log(unit) - np.log(np.hypot(1, v / unit)),
            lambda z: unit * np.sinh(z),
        )
    )
    return found


def unit_of(y: np.ndarray) -> float:
    """A power of two to divide y (n,) by where its usual size is so extreme that squares over- or underflow, else 1."""
    sizes = np.abs(y[y != 0])
    middle = float(np.median(sizes)) if len(sizes) else 1.0
    return 1.0 if 1e-50 < middle < 1e50 else float(power_of_two(np.array(middle)))


def find_atom(y: np.ndarray) -> float | None:
    """The value that is its own kind (see `RobustResidual.atom_`), or None."""
    values, counts = np.unique(y, return_counts=True)
    order = np.argsort(counts, kind="stable")
    first, second = counts[order[-1]], counts[order[-2]] if len(counts) > 1 else 0
    many = first >= max(ATOM_ROWS, ATOM_SHARE * len(y)) and first >= ATOM_LEAD * second
    # a target of one value has no amounts beside it
    return float(values[order[-1]]) if (many or 2 * first > len(y)) and second else None


def spread_of(values: np.ndarray) -> float:
    """Robust deviation; where more than half of the values are equal, that of the others; 1 if there are none."""
    away = np.abs(values - np.median(values))
    return robust_deviation(values) or (1.4826 * float(np.median(away[away > 0])) if away.any() else 1.0)


def rounding(values: np.ndarray) -> float:
    """Half the usual step between different values (n,), and at least LEAST_SCALE: no residual is known any better."""
    steps = np.diff(np.unique(values))
    return max(float(np.median(steps)) / 2 if len(steps) else 0.0, LEAST_SCALE)


def running_median(position: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Median (n,) of the values of the rows that are nearest in position: a twentieth of all, from 11 to 101."""
    order = np.argsort(position, kind="stable")
    smooth = np.empty_like(values)
    # an odd window, which has a middle
    smooth[order] = median_filter(values[order], size=int(np.clip(len(values) // 20, 11, 101)) | 1, mode="reflect")
    return smooth


def standard(values: np.ndarray, mean: float, unit: float) -> np.ndarray:
    """(values - mean) / unit, cut where squares would overflow."""
    return np.clip((values - mean) / unit, -1e100, 1e100)


def left_out_deviation(values: np.ndarray) -> np.ndarray:
    """Each value minus the mean of the others (n,)."""
    return (values - values.mean()) * len(values) / max(len(values) - 1, 1)


def r_squared(error: np.ndarray, deviation: np.ndarray) -> tuple[float, float]:
    """(1 - mean square of error by that of deviation, its standard error by linearisation)."""
    scale = np.square(deviation).mean()
    if scale == 0:
        return 0.0, 0.0
    ratio = np.square(error).mean() / scale
    # what each row adds to the ratio, to first order: the errors of numerator and denominator go together
    influence = (np.square(error) - ratio * np.square(deviation)) / scale
    return float(1 - ratio), float(influence.std() / np.sqrt(len(influence)))


def surer(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether a is more of its standard errors above 0 than b: pairs (value, standard error)."""
    return a[0] / max(a[1], 1e-12) > b[0] / max(b[1], 1e-12)
