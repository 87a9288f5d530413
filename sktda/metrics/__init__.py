"""How far attributions and models can be believed: compared with retrained models, with known mistakes, and by labels
of which some are wrong. NumPy only.

Values are oriented as everywhere here: (n_query, n_train), the predicted rise of a query's loss when a row is removed.
Functions of many queries return one number for each; their mean is what papers report, `bootstrap_interval` its spread.
"""

from sktda.metrics.counterfactual import (
    distributional_lds,
    leave_one_out_correlation,
    linear_datamodeling_score,
    noise_ceiling,
)
from sktda.metrics.detection import detection_curve, removal_curve
from sktda.metrics.fairness import demographic_parity_gap, equal_opportunity_gap
from sktda.metrics.noisy_labels import NoiseCorrectedScorer, noise_corrected_accuracy
from sktda.metrics.searches import BeyondChance, beyond_chance
from sktda.metrics.statistics import bootstrap_interval, standard_error

__all__ = [
    "BeyondChance",
    "NoiseCorrectedScorer",
    "beyond_chance",
    "bootstrap_interval",
    "demographic_parity_gap",
    "detection_curve",
    "distributional_lds",
    "equal_opportunity_gap",
    "leave_one_out_correlation",
    "linear_datamodeling_score",
    "noise_ceiling",
    "noise_corrected_accuracy",
    "removal_curve",
    "standard_error",
]
