"""Groups of rows from metadata or classes, and how they are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sktda.devices import exact
from sktda.model.likelihood import Binary
from sktda.model.softmax import Categorical
from sktda.objectives.base import Measure, Predict, Settled


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
    # codes are on the processor, and a mask from there chooses from a card's outputs, too
    masks = [(codes == k) & (True if among is None else among) for k in range(len(names))]
    # in float64: single precision could put the wrong one of two nearly equal groups ahead
    means = [float(exact(values[mask]).mean()) for mask in masks]
    ahead = int(np.argmax(means))
    # not the group ahead itself, where all means are equal: the weights would be 0 for every row
    behind = min((k for k in range(len(names)) if k != ahead), key=lambda k: means[k])
    return Settled(shared(masks[ahead]) - shared(masks[behind]), measure, groups=(names[ahead], names[behind]))


def shared(mask: Tensor) -> Tensor:
    """(n,) weights of the mean over the rows of a mask, float64."""
    weights = exact(mask)
    return weights / weights.sum()


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
    # by text: values of different types have no order
    rows = [tuple(map(str, row)) for row in zip(*(column.tolist() for column in columns), strict=True)]
    known = sorted(set(rows))
    numbers = {row: k for k, row in enumerate(known)}
    return torch.tensor([numbers[row] for row in rows]), [", ".join(row) for row in known]


def missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or pandas' NA."""
    try:
        # NaN and NaT are what does not equal itself
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
        # 1 - sigmoid(z) = sigmoid(-z): the probability of the other of two classes
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
        # log-odds of one class against all others, so that sharpness means the same for two classes and for many
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
