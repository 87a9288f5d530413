"""Objectives that are a loss on part of the rows, or compare groups of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from sktda.objectives.base import Predict, Settled, SettledObjective
from sktda.objectives.groups import check_sharpness, gap, groups_of, of_class, probability_of, shared, some


@dataclass(frozen=True)
class SliceLoss(SettledObjective):
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
            # once, at the trained model: a maximum taken anew along a run would jump between slices
            means = [float(losses[codes == k].mean()) for k in range(len(names))]
            chosen = int(np.argmax(means))
        elif str(self.value) in names:
            chosen = names.index(str(self.value))
        else:
            raise ValueError(f"no validation row has {self.metadata}={self.value!r}; there are {some(names)}")
        mask = codes == chosen
        return Settled(shared(mask))


@dataclass(frozen=True)
class DemographicParity(SettledObjective):
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
        # f = mean p of the group ahead - mean p of the one behind: not below 0 at this model, so no absolute value
        return gap(self, measure(predict(X), y), codes, names, measure)


@dataclass(frozen=True)
class EqualOpportunity(SettledObjective):
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
        # a mean over no row is NaN, which would pass for the largest or be lost in silence
        without = [names[k] for k in range(len(names)) if not positive[codes == k].any()]
        if without:
            raise ValueError(
                f"no validation row of the groups {some(without)} is of the positive class, so {type(self).__name__} "
                "has nothing to compare; give more validation rows, merge groups, or use DemographicParity"
            )
        outputs = predict(X)
        rates = measure(outputs, y)  # of both forms: it refuses several classes of which none is named
        if self.form == "loss":
            # ahead is the group of the larger loss here, the one that the model serves worse
            return gap(self, predict.likelihood.losses(outputs, y), codes, names, None, positive)
        return gap(self, rates, codes, names, measure, positive)
