"""What attribution asks about: a number that a model has on some rows, lower = better, as an object.

An objective is called as `objective(predict, X, y, **metadata)` and returns a 0-d tensor. `predict(X)` gives raw
outputs, differentiable in the parameters; X and y are tensors as the model takes them; metadata are arrays or tensors
with one entry per row. Two optional parts:

- `per_row`: the numbers (n,) that `attribute` explains for single queries; without it these are the losses. Objectives
  that are the mean of `per_row` set `mean_of_rows`, so that their gradient streams over any number of rows.
- `settled(predict, X, y, **metadata)`: called once, at the trained model, it returns a `Settled` sum over rows in which
  everything that depends on that model (the sign of a gap, an adversarial input) is fixed. Its gradient streams, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sktda.data import slices
from sktda.model.likelihood import Binary
from sktda.model.softmax import Categorical

PORTION = 1_024  # rows that are attacked at a time


class Predict:
    """The model as an objective sees it: a callable from inputs to raw outputs, with the model's likelihood.

    linear: whether the outputs are linear in the inputs. encode: the user's labels (k,) as targets of the model.
    """

    def __init__(
        self,
        call: Callable[[Any], Tensor],
        likelihood: Any,
        linear: bool = False,
        encode: Callable[[Any], Tensor] | None = None,
    ) -> None:
        self._call = call
        self.likelihood = likelihood
        self.linear = linear
        self._encode = encode

    def __call__(self, X: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Raw outputs (n, ...)."""
        return self._call(X)

    def encode(self, label: Any) -> int:
        """Code of one of the user's labels; ValueError for one that the model does not know."""
        return int(label) if self._encode is None else int(self._encode([label]).reshape(-1)[0])


Measure = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Settled:
    """The sum over rows of weights (n,) times measure(outputs, targets) (n,), equal to an objective at one model.

    X: the rows, where others than the objective was given; None = those. measure: None = the model's loss. groups:
    of a gap, the one with the larger mean and the one with the smaller.
    """

    weights: Tensor
    measure: Measure | None = None
    X: Tensor | None = None
    groups: tuple[str, str] | None = None

    def value(self, predict: Predict, X: Any, y: Tensor) -> Tensor:
        """The sum (0-d), differentiable."""
        outputs = predict(X if self.X is None else self.X)
        return (self.weights.to(outputs) * (self.measure or predict.likelihood.losses)(outputs, y)).sum()


class _SettledObjective:
    """Calls an objective that has `settled`."""

    def settled(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Settled:
        raise NotImplementedError

    def __call__(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """The objective's value (0-d)."""
        with torch.no_grad():
            found = self.settled(predict, X, y, **metadata)
        return found.value(predict, X, y)


# ---- losses --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ValidationLoss:
    """The model's own loss, averaged over the rows, in loss units (without the penalty).

    Examples
    --------
    >>> from sktda.objectives import ValidationLoss
    >>> ValidationLoss()
    ValidationLoss()
    """

    mean_of_rows: ClassVar[bool] = True

    def __call__(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """Mean loss."""
        return self.per_row(predict, X, y).mean()

    def per_row(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """Losses (n,)."""
        return predict.likelihood.losses(predict(X), y)


@dataclass(frozen=True)
class Margin:
    """Minus the margin log p - log(1 - p) of the right class, averaged; for numbers, the absolute error.

    Examples
    --------
    >>> from sktda.objectives import Margin
    >>> Margin()
    Margin()
    """

    mean_of_rows: ClassVar[bool] = True

    def __call__(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """Mean of `per_row`."""
        return self.per_row(predict, X, y).mean()

    def per_row(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """Minus the margins (n,)."""
        return -predict.likelihood.margins(predict(X), y)


@dataclass(frozen=True)
class Output:
    """What the model puts out, averaged: a number, or the raw output (logit) of one class.

    Neither good nor bad: for asking how rows move predictions, or their variance over runs (`Distributional`).

    Parameters
    ----------
    column : int or None, default=None
        Position of the output, where there are several; None = that of the row's own class, or the mean of all.

    Examples
    --------
    >>> from sktda.objectives import Output
    >>> Output(column=2)
    Output(column=2)
    """

    column: int | None = None
    mean_of_rows: ClassVar[bool] = True

    def __call__(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """Mean of `per_row`."""
        return self.per_row(predict, X, y).mean()

    def per_row(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """Outputs (n,)."""
        outputs = predict(X).reshape(len(y), -1)
        if self.column is not None:
            if not 0 <= self.column < outputs.shape[1]:
                raise ValueError(f"column={self.column} is not one of the {outputs.shape[1]} outputs of the model")
            return outputs[:, self.column]
        if isinstance(predict.likelihood, Categorical):
            return outputs.gather(1, y[:, None])[:, 0]
        return outputs.mean(dim=1)


@dataclass(frozen=True)
class ClassLoss(_SettledObjective):
    """The model's loss, averaged over the validation rows of one class, in loss units.

    Parameters
    ----------
    label : label
        The class, as y names it (for skorch nets its code).

    Raises
    ------
    ValueError
        For a label that the model does not know or no validation row has.

    Examples
    --------
    >>> from sktda.objectives import ClassLoss
    >>> ClassLoss("spam")
    ClassLoss(label='spam')
    """

    label: Any

    def settled(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Settled:
        """The same weight for all rows of the class."""
        mask = of_class(self, predict, y, self.label)
        if not mask.any():
            raise ValueError(f"{self} has no validation row of that class; give some, or another label")
        return Settled(shared(mask))


@dataclass(frozen=True)
class SliceLoss(_SettledObjective):
    """The model's loss, averaged over one slice of the validation rows, in loss units.

    Parameters
    ----------
    value : value or None, default=None
        Rows whose metadata has this value; None = the slice with the largest mean loss at the trained model.
    metadata : str, default="sensitive_features"
        Name of the metadata, as given to ``Holdout(X, y, name=...)`` or in ``metadata_val``.

    Raises
    ------
    ValueError
        Without the metadata, or for a value that no validation row has.

    Examples
    --------
    >>> from sktda.objectives import SliceLoss
    >>> SliceLoss("north", metadata="region")
    SliceLoss(value='north', metadata='region')
    """

    value: Any = None
    metadata: str = "sensitive_features"

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the metadata that must come with the rows."""
        return (self.metadata,)

    def settled(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Settled:
        """The same weight for all rows of the slice."""
        codes, names = groups_of(self, metadata, self.metadata, len(y))
        if self.value is None:
            losses = predict.likelihood.losses(predict(X), y)
            means = [float(losses[codes == k].mean()) for k in range(len(names))]
            chosen = int(np.argmax(means))
        elif str(self.value) in names:
            chosen = names.index(str(self.value))
        else:
            raise ValueError(f"no validation row has {self.metadata}={self.value!r}; there are {some(names)}")
        mask = codes == chosen
        return Settled(shared(mask))


# ---- gaps between groups -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DemographicParity(_SettledObjective):
    """Difference in mean probability of the positive class between groups of rows; in units of probability.

    With several groups, that of the two furthest apart at the trained model. Which one is ahead is taken from that
    model, too, so that the value falls below 0 when another one overtakes it.

    Parameters
    ----------
    positive : label or None, default=None
        The class whose probability is compared; None = the second of two.
    sharpness : float, default=1.0
        Multiplies the log-odds of the positive class. 1 = probabilities; the larger, the nearer to predicted classes,
        and the fewer rows, those near the boundary, that the derivative sees.

    Raises
    ------
    ValueError
        Without the metadata ``sensitive_features`` (n,), or (n, k) for groups that several features make together;
        with one group only; or for more than two classes without `positive`.
    TypeError
        For a model without class probabilities.

    Notes
    -----
    Probabilities in place of predicted classes make it differentiable. Source: arXiv:2405.17490, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktda.attribution import Influence
    >>> from sktda.objectives import DemographicParity
    >>> rng = np.random.default_rng(0)
    >>> sex = rng.integers(0, 2, 200)
    >>> X = np.c_[rng.normal(size=200), sex]
    >>> y = (X[:, 0] + sex + rng.normal(size=200) > 0.5).astype(int)
    >>> influence = Influence(LogisticRegression(), objective=DemographicParity())
    >>> influence = influence.fit(X, y, X_val=X, y_val=y, metadata_val={"sensitive_features": sex})
    >>> influence.objectives_["DemographicParity"].groups
    ('1', '0')
    """

    positive: Any = None
    sharpness: float = 1.0
    needs: ClassVar[tuple[str, ...]] = ("sensitive_features",)

    def __post_init__(self) -> None:
        check_sharpness(self.sharpness)

    def settled(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Settled:
        """Plus and minus the weight of a mean, for the group ahead and the one behind."""
        codes, names = groups_of(self, metadata, "sensitive_features", len(y))
        measure = probability_of(self, predict, y, self.positive)
        return gap(self, measure(predict(X), y), codes, names, measure)


@dataclass(frozen=True)
class EqualOpportunity(_SettledObjective):
    """Difference between groups among the rows of the positive class: of its mean probability, or of the mean loss.

    As `DemographicParity`, but over the rows that are positive.

    Parameters
    ----------
    form : {"rate", "loss"}, default="rate"
        "rate": the soft true positive rate, in units of probability. "loss": the model's loss, in its units.
    positive : label or None, default=None
        None = the second of two classes.
    sharpness : float, default=1.0
        Of the form "rate", as `DemographicParity` takes it.

    Raises
    ------
    ValueError
        As `DemographicParity`, and for a group without positive rows.
    TypeError
        For a model without class probabilities.

    Notes
    -----
    Source: arXiv:2405.17490, section 3.

    Examples
    --------
    >>> from sktda.objectives import EqualOpportunity
    >>> EqualOpportunity(form="loss")
    EqualOpportunity(form='loss', positive=None, sharpness=1.0)
    """

    form: str = "rate"
    positive: Any = None
    sharpness: float = 1.0
    needs: ClassVar[tuple[str, ...]] = ("sensitive_features",)

    def __post_init__(self) -> None:
        check_sharpness(self.sharpness)
        if self.form not in {"rate", "loss"}:
            raise ValueError(f"form={self.form!r} is not 'rate' or 'loss'")

    def settled(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Settled:
        """Plus and minus the weight of a mean, for the positive rows of two groups."""
        codes, names = groups_of(self, metadata, "sensitive_features", len(y))
        measure = probability_of(self, predict, y, self.positive)
        positive = of_class(self, predict, y, self.positive)
        without = [names[k] for k in range(len(names)) if not positive[codes == k].any()]
        if without:
            raise ValueError(
                f"no validation row of the groups {some(without)} is of the positive class, so {type(self).__name__} "
                "has nothing to compare; give more validation rows, merge groups, or use DemographicParity"
            )
        outputs = predict(X)
        rates = measure(outputs, y)  # of both forms: it refuses several classes of which none is named
        if self.form == "loss":
            return gap(self, predict.likelihood.losses(outputs, y), codes, names, None, positive)
        return gap(self, rates, codes, names, measure, positive)


def gap(
    objective: Any,
    values: Tensor,
    codes: Tensor,
    names: list[str],
    measure: Measure | None,
    among: Tensor | None = None,
) -> Settled:
    """Mean value of the group where it is largest minus that of the group where it is smallest."""
    if len(names) < 2:
        raise ValueError(
            f"all validation rows have sensitive_features={names[0]}, and {type(objective).__name__} compares groups; "
            "give rows of at least two"
        )
    masks = [(codes == k) & (True if among is None else among) for k in range(len(names))]
    means = [float(values[mask].double().mean()) for mask in masks]
    ahead = int(np.argmax(means))
    behind = min((k for k in range(len(names)) if k != ahead), key=lambda k: means[k])
    return Settled(shared(masks[ahead]) - shared(masks[behind]), measure, groups=(names[ahead], names[behind]))


def shared(mask: Tensor) -> Tensor:
    """(n,) weights of the mean over the rows of a mask, float64."""
    return mask.double() / mask.sum()


def groups_of(objective: Any, metadata: Mapping[str, Any], name: str, n: int) -> tuple[Tensor, list[str]]:
    """(codes (n,), names) of the groups that metadata of this name makes."""
    if metadata.get(name) is None:
        raise ValueError(
            f"{type(objective).__name__} needs the metadata {name!r} of the validation rows, and got "
            f"{some(sorted(metadata)) if metadata else 'none'}; give Holdout(X_val, y_val, {name}=...) to a cleaner, "
            f"or metadata_val={{{name!r}: ...}} to an attributor"
        )
    values = metadata[name]
    values = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if values.ndim not in (1, 2) or len(values) != n:
        raise ValueError(f"{name} has shape {values.shape}, and there are {n} validation rows")
    columns = values.reshape(n, -1).T
    if any(missing(value) for column in columns for value in column.tolist()):
        raise ValueError(f"{name} holds missing values; drop those rows, or give them a group of their own")
    rows = [tuple(map(str, row)) for row in zip(*(column.tolist() for column in columns), strict=True)]
    known = sorted(set(rows))
    numbers = {row: k for k, row in enumerate(known)}
    return torch.tensor([numbers[row] for row in rows]), [", ".join(row) for row in known]


def missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or pandas' NA."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # of NA it is not known whether it equals itself
        return True


def check_sharpness(sharpness: float) -> None:
    """ValueError unless it is above 0."""
    if not sharpness > 0:
        raise ValueError(f"sharpness={sharpness!r} is not above 0; 1 compares probabilities")


def probability_of(objective: Any, predict: Predict, y: Tensor, positive: Any) -> Measure:
    """Probability of the positive class as a function of outputs (and targets, which do not matter)."""
    likelihood, sharpness = predict.likelihood, objective.sharpness
    if isinstance(likelihood, Binary) and y[0].numel() == 1:
        sign = 1 if positive is None or predict.encode(positive) == 1 else -1
        logits = likelihood.logits
        return lambda outputs, _: torch.sigmoid(sign * sharpness * logits(outputs)).reshape(len(outputs))
    if not isinstance(likelihood, Categorical):
        raise TypeError(f"{type(objective).__name__} compares probabilities of a class, and this model predicts none")

    code = 1 if positive is None else predict.encode(positive)

    def measure(outputs: Tensor, _: Tensor) -> Tensor:
        if positive is None and outputs.shape[1] != 2:
            raise ValueError(
                f"{type(objective).__name__} compares the probability of one class, and there are {outputs.shape[1]}; "
                "name it with positive="
            )
        log_p = likelihood.log_p(outputs)
        if sharpness == 1:
            return log_p[:, code].exp()
        others = torch.cat([log_p[:, :code], log_p[:, code + 1 :]], dim=1).logsumexp(dim=1)
        return torch.sigmoid(sharpness * (log_p[:, code] - others))

    return measure


def of_class(objective: Any, predict: Predict, y: Tensor, label: Any) -> Tensor:
    """Mask (n,) of the rows of a class, on the processor; None = the second of two."""
    if not isinstance(predict.likelihood, Binary | Categorical) or y[0].numel() != 1:
        raise TypeError(f"{type(objective).__name__} needs one class per row, and this model predicts none")
    return y.reshape(len(y)).cpu() == (1 if label is None else predict.encode(label))


def some(names: Sequence[str]) -> str:
    """A few names for a message."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# ---- robustness ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AdversarialLoss(_SettledObjective):
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
        return Settled(torch.full((len(y),), 1 / len(y), dtype=torch.float64), X=self.perturbed(predict, X, y))

    def perturbed(self, predict: Predict, X: Any, y: Tensor) -> Tensor:
        """X after the attack."""
        if not isinstance(X, Tensor) or not X.is_floating_point():
            kind = X.dtype if isinstance(X, Tensor) else type(X).__name__
            raise TypeError(f"AdversarialLoss moves inputs by small amounts, which {kind} does not allow")
        attack = self.attack if self.attack != "auto" else "linear" if predict.linear else "pgd"
        self._check_bounds(X)
        if attack != "linear":
            self._check_units(X)
        move = {"linear": self._across, "fgsm": self._climbed, "pgd": self._climbed}[attack]
        parts = []
        for rows in slices(len(X), PORTION):
            x, target = X[rows].detach(), y[rows]
            with torch.no_grad():
                right = classified(predict, predict(x), target)
            with torch.enable_grad():
                moved = move(predict, x, target, 1 if attack == "fgsm" else self.steps)
            if self.bounds is not None:
                moved = moved.clamp(*self.bounds)
            parts.append(torch.where(right.reshape(-1, *[1] * (x.ndim - 1)), moved, x))
        return torch.cat(parts)

    def _check_bounds(self, X: Tensor) -> None:
        if self.bounds is None:
            return
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
        size = self.eps if steps == 1 else 2.5 * self.eps / steps
        moved = x
        for _ in range(steps):
            moved = moved.detach().requires_grad_()
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
            margins = margins.gather(1, y[:, None]) - margins  # 0 at the own class
        elif isinstance(predict.likelihood, Binary):
            margins = predict.likelihood.logits(outputs).reshape(len(x), -1) * (2 * y.reshape(len(x), -1) - 1)
        else:
            raise TypeError("attack='linear' crosses the boundary between classes, and this model predicts none")
        best = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        result = x.detach().clone()
        for k in range(margins.shape[1]):
            slope = torch.autograd.grad(margins[:, k].sum(), x, retain_graph=True)[0]
            margin, square = margins[:, k].detach(), slope.flatten(1).square().sum(1)
            distance = torch.where(square > 0, margin.abs() / square.sqrt(), torch.inf)
            shape = (-1, *[1] * (x.ndim - 1))
            moved = x.detach() - (self.gamma * margin / square).reshape(shape) * slope
            nearer = distance < best
            result = torch.where(nearer.reshape(shape), moved, result)
            best = torch.where(nearer, distance, best)
        return result


def classified(predict: Predict, outputs: Tensor, y: Tensor) -> Tensor:
    """Mask (n,) of the rows that the outputs classify rightly; all of a model that predicts numbers."""
    if isinstance(predict.likelihood, Categorical):
        return outputs.argmax(1) == y
    if isinstance(predict.likelihood, Binary):
        return ((predict.likelihood.logits(outputs) > 0) == (y > 0.5)).reshape(len(y), -1).all(1)
    return torch.ones(len(y), dtype=torch.bool, device=outputs.device)


# ---- several -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weighted:
    """Weighted sum of objectives; an attributor also shows the scores for each of them.

    Their gradients are met with those of the training rows in one pass. A weight of 0 only shows an objective.

    Parameters
    ----------
    objectives : sequence or mapping
        Objectives or callables; a mapping names them, otherwise the names of their types do.
    weights : sequence of float or None, default=None
        One per objective; None = 1 for each.

    Raises
    ------
    ValueError
        For none, or another number of weights.

    Examples
    --------
    >>> from sktda.objectives import DemographicParity, ValidationLoss, Weighted
    >>> list(Weighted([ValidationLoss(), DemographicParity()], [1, 0.5]).named)
    ['ValidationLoss', 'DemographicParity']
    """

    objectives: Sequence[Any] | Mapping[str, Any]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        found = list(self.named.values())
        wrong = [each for each in found if isinstance(each, type | Weighted) or not callable(each)]
        if not found or wrong:
            raise ValueError(f"Weighted takes objectives or callables, and got {wrong[0] if wrong else 'none'!r}")
        if self.weights is not None and len(self.weights) != len(found):
            raise ValueError(f"{len(self.weights)} weights came for {len(found)} objectives")

    @property
    def named(self) -> dict[str, Any]:
        """The objectives by name."""
        if isinstance(self.objectives, Mapping):
            return dict(self.objectives)
        result: dict[str, Any] = {}
        for each in self.objectives:
            name = getattr(each, "__name__", type(each).__name__)
            number = sum(known.split(" ")[0] == name for known in result)
            result[f"{name} {number + 1}" if number else name] = each
        return result

    @property
    def shares(self) -> list[float]:
        """The weights, one per objective."""
        return [1.0] * len(self.named) if self.weights is None else [float(each) for each in self.weights]

    def __call__(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """The weighted sum (0-d)."""
        parts = zip(self.shares, self.named.values(), strict=True)
        return torch.stack([share * each(predict, X, y, **metadata) for share, each in parts]).sum()


def needed(objective: Any) -> set[str]:
    """Names of the metadata that an objective must be given."""
    if isinstance(objective, Weighted):
        return set().union(*(needed(each) for each in objective.named.values()))
    return set(getattr(objective, "needs", ()))
