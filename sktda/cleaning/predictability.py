"""Whether the features predict the labels, and how many of these are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sktda.noise import (
    NoiseRate,
    as_probabilities,
    association,
    balanced_accuracy,
    balanced_prediction,
    counted,
    explained_variance,
    label_noise,
    outliers,
)

BEYOND_CHANCE = 2.0  # standard errors above chance, from where on features are taken to predict the label
OVERLAP = ((0.1, 0.25), (0.25, 0.35))  # so little of the way from chance, so many wrong labels: see can_tell_


@dataclass(frozen=True)
class Predictability:
    """How well out-of-sample predictions meet the labels, with its standard error and what chance would reach.

    noise: how many labels are wrong, which says something only where can_tell.
    """

    noise: NoiseRate
    predictability: float
    error: float
    chance: float
    can_tell: bool


def disagreeing(decision: np.ndarray, codes: np.ndarray) -> NoiseRate:
    """How many labels are wrong, if every row has one right label that a confident prediction meets.

    decision (n, n_classes), codes (n,): as `sktda.noise` takes them. 1 - trace of the calibrated joint of confident
    learning (arXiv:1911.00068, eq. 3): predictions that are as confident of another class as they are of its own rows
    count as mistakes wherever they are, those of overlapping classes included, which `label_noise` leaves out.
    """
    from sktda.attribution.predictions.confident_learning import calibrated_joint, confident_joint

    counts, _ = confident_joint(as_probabilities(decision, 0.0), codes)
    return counted(float(1 - calibrated_joint(counts, codes).trace()), len(codes))


def of_classes(decision: np.ndarray, codes: np.ndarray) -> Predictability:
    """Of out-of-sample predictions (n, n_classes) and labels (n,), by balanced accuracy."""
    noise = label_noise(decision, codes)
    predicted = balanced_prediction(decision)
    accuracy, error = balanced_accuracy(predicted, codes)
    chance = 1 / decision.shape[1]
    far = (accuracy - chance) / (1 - chance)
    beyond = association(predicted, codes) > BEYOND_CHANCE
    can_tell = beyond and not any(far < weak and noise.rate > much for weak, much in OVERLAP)
    return Predictability(noise, accuracy, error, chance, can_tell)


def of_numbers(attributor: Any, target: np.ndarray) -> Predictability:
    """Of a fitted attributor and the target (n,) of a regression, by R2; its own where it has one."""
    if hasattr(attributor, "predictability_"):
        explained, error = attributor.predictability_, attributor.predictability_error_
    else:
        explained, error = explained_variance(attributor.loo_decision_, target)
    return Predictability(outliers(attributor, target), explained, error, 0.0, bool(explained > BEYOND_CHANCE * error))
