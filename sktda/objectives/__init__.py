"""What attribution asks about: a number that a model has on some rows, lower = better, as an object.

An objective is called as `objective(predict, X, y, **metadata)` and returns a 0-d tensor. `predict(X)` gives raw
outputs, differentiable in the parameters; X and y are tensors as the model takes them; metadata are arrays or tensors
with one entry per row. Two optional parts:

- `per_row`: the numbers (n,) that `attribute` explains for single queries; without it these are the losses. Objectives
  that are the mean of `per_row` set `mean_of_rows`, so that their gradient streams over any number of rows.
- `settled(predict, X, y, **metadata)`: called once, at the trained model, it returns a `Settled` sum over rows in which
  everything that depends on that model (the sign of a gap, an adversarial input) is fixed. Its gradient streams, too.
"""

from sktda.objectives.base import Predict, Settled
from sktda.objectives.fairness import DemographicParity, EqualOpportunity, SliceLoss
from sktda.objectives.losses import ClassLoss, Margin, Output, ValidationLoss
from sktda.objectives.robustness import AdversarialLoss
from sktda.objectives.weighted import Weighted

__all__ = [
    "AdversarialLoss",
    "ClassLoss",
    "DemographicParity",
    "EqualOpportunity",
    "Margin",
    "Output",
    "Predict",
    "Settled",
    "SliceLoss",
    "ValidationLoss",
    "Weighted",
]
