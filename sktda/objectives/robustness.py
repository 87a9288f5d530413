"""The loss on inputs that were moved against the model."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sktda.devices import in_blocks
from sktda.model.likelihood import Binary
from sktda.model.softmax import Categorical, Tokens
from sktda.objectives.base import Predict, Settled, SettledObjective

PORTION = 1_024  # rows that are attacked at a time


@dataclass(frozen=True)
class AdversarialLoss(SettledObjective):
    """Mean loss on validation rows that were moved against the trained model, with their labels; in loss units.

    The moved rows are made once, against the final model, and stay fixed. Only rows that it classifies rightly move.

    Parameters
    ----------
    attack : {"auto", "linear", "fgsm", "pgd"}, default="auto"
        "linear": across the nearest boundary, ``x - gamma m w / |w|^2``, m the margin in outputs and w its gradient:
        exact for a linear model. "fgsm": one step of `eps` along the sign of the gradient. "pgd": several, each put
        back into the box of radius `eps` around x (from x itself, without a random start). "auto": "linear" for models
        that are linear in their inputs, else "pgd".
    eps : float, default=0.1
        Largest change of any feature, in units of the model's inputs: after the transformers of a Pipeline, and of
        pixels as the net sees them (8/255 where they lie between 0 and 1).
    steps : int, default=10
        Steps of "pgd", each of 2.5 eps / steps.
    gamma : float, default=1.3
        Of "linear": 1 ends on the boundary, more beyond it.
    bounds : (float, float) or None, default=None
        Lowest and highest value that an input may take, such as (0, 1).

    Raises
    ------
    TypeError
        For inputs that are no floats, such as words.
    ValueError
        For inputs beyond `bounds`, or an `eps` as large as their whole range. One below a ten-thousandth of it gets a
        warning.

    Notes
    -----
    Source: arXiv:2405.17490, section 3 (gamma = 1.3); FGSM: arXiv:1412.6572; PGD: arXiv:1706.06083.

    Examples
    --------
    >>> from sktda.objectives import AdversarialLoss
    >>> AdversarialLoss("pgd", eps=8 / 255, bounds=(0, 1)).steps
    10
    """

    attack: str = "auto"
    eps: float = 0.1
    steps: int = 10
    gamma: float = 1.3
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.attack not in {"auto", "linear", "fgsm", "pgd"}:
            raise ValueError(f"attack={self.attack!r} is not one of 'auto', 'linear', 'fgsm', 'pgd'")
        for name in ("eps", "steps", "gamma"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r} is not above 0")
        if self.bounds is not None and not (len(self.bounds) == 2 and self.bounds[0] < self.bounds[1]):
            raise ValueError(f"bounds={self.bounds!r} is not (lowest, highest)")

    def settled(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Settled:
        """The same weight for all rows, moved."""
        # the moved rows are part of the objective's data: no derivative goes through how they were moved
        return Settled(torch.full((len(y),), 1 / len(y), dtype=torch.float64), X=self.perturbed(predict, X, y))

    def perturbed(self, predict: Predict, X: Any, y: Tensor) -> Tensor:
        """X after the attack."""
        if not isinstance(X, Tensor) or not X.is_floating_point():
            kind = X.dtype if isinstance(X, Tensor) else type(X).__name__
            raise TypeError(f"AdversarialLoss moves inputs by small amounts, which {kind} does not allow")
        attack = self.attack if self.attack != "auto" else "linear" if predict.linear else "pgd"
        self._check_bounds(X)
        # eps is in units of the inputs; "linear" has none, its steps follow from margins
        if attack != "linear":
            self._check_units(X)
        move = {"linear": self._across, "fgsm": self._climbed, "pgd": self._climbed}[attack]

        def attacked(rows: slice) -> Tensor:
            x, target = X[rows].detach(), y[rows]
            with torch.no_grad():
                # a row that is wrong already would be moved across the boundary to the right side
                right = classified(predict, predict(x), target)
            with torch.enable_grad():
                moved = move(predict, x, target, 1 if attack == "fgsm" else self.steps)
            # of "linear": those that climb are within the bounds after every step
            if self.bounds is not None:
                moved = moved.clamp(*self.bounds)
            return torch.where(right.reshape(-1, *[1] * (x.ndim - 1)), moved, x)

        return torch.cat([found for _, found in in_blocks(len(X), PORTION, attacked)])

    def _check_bounds(self, X: Tensor) -> None:
        if self.bounds is None:
            return
        # slack: inputs in float32 may pass a bound by their rounding
        low, high, slack = float(X.min()), float(X.max()), 1e-6 * (self.bounds[1] - self.bounds[0])
        if low < self.bounds[0] - slack or high > self.bounds[1] + slack:
            raise ValueError(
                f"inputs lie between {low:g} and {high:g}, which is beyond bounds={self.bounds!r}; bounds are in the "
                "units of the model's inputs, after the transformers of a Pipeline"
            )

    def _check_units(self, X: Tensor) -> None:
        low, high = float(X.min()), float(X.max())
        if self.eps >= high - low:
            raise ValueError(
                f"eps={self.eps:g} is no small change of inputs that lie between {low:g} and {high:g}; it is in their "
                "units, after the transformers of a Pipeline: 8/255, for pixels between 0 and 1"
            )
        if self.eps < 1e-4 * (high - low):
            warnings.warn(
                f"eps={self.eps:g} is next to nothing beside inputs that lie between {low:g} and {high:g}; it is in "
                "their units: 8, for pixels between 0 and 255",
                UserWarning,
                stacklevel=2,
            )

    def _climbed(self, predict: Predict, x: Tensor, y: Tensor, steps: int) -> Tensor:
        # 2.5 eps in all reach the far side of the box from any point of it, as in the paper of PGD
        size = self.eps if steps == 1 else 2.5 * self.eps / steps
        moved = x
        for _ in range(steps):
            # no graph from step to step: each asks for the slope where it stands
            moved = moved.detach().requires_grad_()
            # summed: rows do not meet, so the gradient of the sum is that of each row
            slope = torch.autograd.grad(predict.likelihood.losses(predict(moved), y).sum(), moved)[0]
            moved = (moved.detach() + size * slope.sign()).clamp(x - self.eps, x + self.eps)
            if self.bounds is not None:
                moved = moved.clamp(*self.bounds)
        return moved

    def _across(self, predict: Predict, x: Tensor, y: Tensor, steps: int) -> Tensor:
        x = x.detach().requires_grad_()
        outputs = predict(x)
        if isinstance(predict.likelihood, Categorical):
            margins = predict.likelihood.log_p(outputs)
            # log p_y - log p_k, of logits z_y - z_k: 0 on the boundary between the own class and k
            margins = margins.gather(1, y[:, None]) - margins  # 0 at the own class
        elif isinstance(predict.likelihood, Binary):
            # the logit towards the own class, one for each label of a row with several
            margins = predict.likelihood.logits(outputs).reshape(len(x), -1) * (2 * y.reshape(len(x), -1) - 1)
        else:
            raise TypeError("attack='linear' crosses the boundary between classes, and this model predicts none")
        best = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        result = x.detach().clone()
        for k in range(margins.shape[1]):
            slope = torch.autograd.grad(margins[:, k].sum(), x, retain_graph=True)[0]
            margin, square = margins[:, k].detach(), slope.flatten(1).square().sum(1)
            # |m| / |w| in input units; inf at the own class, whose margin is 0 everywhere
            distance = torch.where(square > 0, margin.abs() / square.sqrt(), torch.inf)
            shape = (-1, *[1] * (x.ndim - 1))
            # x - gamma m w / |w|^2 has the margin (1 - gamma) m where outputs are linear: beyond 0 for gamma > 1
            moved = x.detach() - (self.gamma * margin / square).reshape(shape) * slope
            nearer = distance < best
            result = torch.where(nearer.reshape(shape), moved, result)
            best = torch.where(nearer, distance, best)
        return result


def classified(predict: Predict, outputs: Tensor, y: Tensor) -> Tensor:
    """Mask (n,) of the rows that the outputs classify rightly; all of a model that predicts numbers."""
    if isinstance(predict.likelihood, Categorical | Tokens) and y.ndim == 1:
        return outputs.argmax(1) == y
    if isinstance(predict.likelihood, Binary):
        return ((predict.likelihood.logits(outputs) > 0) == (y > 0.5)).reshape(len(y), -1).all(1)
    return torch.ones(len(y), dtype=torch.bool, device=outputs.device)
