"""Inputs that were moved against a fitted model, and how many of them it still classifies rightly."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sktda.data import slices
from sktda.devices import exact, resolve_device
from sktda.engine.layers import eval_kernels
from sktda.engine.per_row import PerRow
from sktda.model.adapters import differentiable
from sktda.model.base import Inputs, forward
from sktda.model.given import GivenModel
from sktda.model.likelihood import Binary
from sktda.model.reading import count
from sktda.model.softmax import Categorical
from sktda.objectives import AdversarialLoss, Predict
from sktda.objectives.robustness import classified


def adversarial_examples(
    estimator: Any, X: Any, y: Any, attack: Any = None, *, device: Any = "auto", batch_size: int | str = "auto"
) -> np.ndarray:
    """The inputs of a fitted model after an attack on it.

    Parameters
    ----------
    estimator : estimator
        A fitted skorch net, scikit-learn linear model or MLP, or a Pipeline ending in one.
    X : array-like of shape (n_samples, ...)
        As the estimator takes it.
    y : array-like of shape (n_samples,)
        The right labels. Rows that the model classifies otherwise stay where they are.
    attack : AdversarialLoss or None, default=None
        The kind of attack, its `eps`, steps and bounds; None = ``AdversarialLoss()``.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or "auto", default="auto"
        Rows that go through the model at a time; changes memory and speed, not the result. "auto" = what fits.

    Returns
    -------
    moved : ndarray of shape (n_samples, ...)
        As the model itself takes them: after the transformers of a Pipeline, in the units and the precision that the
        model has. ``pipeline[-1].predict`` takes them.

    Raises
    ------
    TypeError
        For an estimator that cannot be differentiated, an attack that is no AdversarialLoss, inputs that are no floats
        (words, several inputs by name), and the linear attack on a model that predicts numbers.
    ValueError
        For an `eps` as large as the whole range of the inputs, inputs beyond the attack's bounds, a label that the
        model does not know, and no rows.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from sktda.attribution import adversarial_examples
    >>> from sktda.objectives import AdversarialLoss
    >>> X, y = load_digits(return_X_y=True)
    >>> model = make_pipeline(MinMaxScaler(), LogisticRegression()).fit(X, y)
    >>> moved = adversarial_examples(model, X, y, AdversarialLoss("pgd", eps=0.1, bounds=(0, 1)))
    >>> abs(moved - model[:-1].transform(X)).max().round(6)
    np.float64(0.1)
    """
    attack = _checked(attack)
    predict, inputs, targets = _read(estimator, X, y, device, batch_size)
    return attack.perturbed(predict, inputs, targets).cpu().numpy()


def adversarial_accuracy(
    estimator: Any, X: Any, y: Any, attack: Any = None, *, device: Any = "auto", batch_size: int | str = "auto"
) -> float:
    """Share of the rows that a fitted model still classifies rightly after an attack on it.

    Parameters
    ----------
    estimator : estimator
        A fitted classifier, as `adversarial_examples` takes it.
    X : array-like of shape (n_samples, ...)
        As the estimator takes it.
    y : array-like of shape (n_samples,)
        The right labels.
    attack : AdversarialLoss or None, default=None
        The kind of attack, its `eps`, steps and bounds; None = ``AdversarialLoss()``. Its `eps` is in units of the
        model's inputs: after the transformers of a Pipeline.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or "auto", default="auto"
        Rows that go through the model at a time; changes memory and speed, not the result. "auto" = what fits.

    Returns
    -------
    accuracy : float
        From 0 to 1; at most that on the rows as they are. An attack finds what it finds: a stronger one may leave less.

    Raises
    ------
    TypeError, ValueError
        As `adversarial_examples`; TypeError also for a model without class probabilities.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from sktda.attribution import adversarial_accuracy
    >>> from sktda.objectives import AdversarialLoss
    >>> X, y = load_digits(return_X_y=True)
    >>> model = make_pipeline(MinMaxScaler(), LogisticRegression()).fit(X, y)
    >>> [round(adversarial_accuracy(model, X, y, AdversarialLoss("pgd", eps=eps)), 2) for eps in (0.01, 0.05, 0.1)]
    [0.97, 0.84, 0.47]
    """
    attack = _checked(attack)
    predict, inputs, targets = _read(estimator, X, y, device, batch_size)
    if not isinstance(predict.likelihood, Binary | Categorical):
        raise TypeError(
            f"adversarial_accuracy counts rows that are classified rightly, and {GivenModel.of(estimator).name} "
            "was not trained on class probabilities; use a classifier with cross-entropy as its loss"
        )
    moved = attack.perturbed(predict, inputs, targets)
    with torch.no_grad():
        return float(exact(classified(predict, predict(moved), targets)).mean())


def _checked(attack: Any) -> AdversarialLoss:
    if attack is None:
        return AdversarialLoss()
    if not isinstance(attack, AdversarialLoss):
        raise TypeError(f"attack={attack!r} is no attack; give AdversarialLoss('pgd', eps=...) of sktda.objectives")
    return attack


def _read(estimator: Any, X: Any, y: Any, device: Any, batch_size: int | str) -> tuple[Predict, Any, Tensor]:
    """(the model as an attack sees it, its inputs, targets) on the device."""
    n = count(X)
    if n == 0:
        raise ValueError("X has no rows, so there is nothing to attack")
    model = differentiable(estimator, n).to(resolve_device(device))
    rows = model.rows(X, y)
    engine = PerRow(model, batch_size)
    engine.prepare(rows)
    size = engine.batch_size or 1
    inputs, targets, _ = rows.block(slice(0, n), model.device)

    def run(part: Inputs) -> Tensor:
        with eval_kernels(model.module):
            return forward(model.module, part)

    def outputs(given: Any) -> Tensor:
        if len(given) <= size:
            return run(given)
        # a part is computed again where it is differentiated, so that only its own activations are held
        parts = (given[part] for part in slices(len(given), size))
        return torch.cat([checkpoint(run, part, use_reentrant=False, preserve_rng_state=False) for part in parts])

    return Predict(outputs, model.likelihood, model.linear), inputs, targets
