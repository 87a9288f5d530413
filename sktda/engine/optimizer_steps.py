"""Steps of torch's optimisers as functions of where they began, and their derivatives.

All of them work coordinate by coordinate, so that a derivative is one number per coordinate: of every result of a step
(the parameters, and the moments that the optimiser keeps) by every one of its inputs (these, and the gradient of the
batch's loss).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sktda.model.base import flatten
from sktda.model.step_settings import BY_STEP

Group = Mapping[str, Any]
Results = dict[str, Tensor]


@dataclass
class Before:
    """Where a step begins, (p,) each: parameters, gradient of the batch's loss without a penalty, moments by name."""

    parameters: Tensor
    gradient: Tensor
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    kept: Sequence[Mapping[str, float]] = ()
    """By group, numbers that the optimiser keeps because they come of the settings of all its steps so far."""


class Linear(dict[str, dict[str, "Tensor | float"]]):
    """Derivatives {result: {input: (p,) or one number for all coordinates}}; those that are missing are 0."""

    def back(self, slopes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Derivatives (k, p) of k numbers by the inputs, from theirs by the results."""
        found: dict[str, Tensor] = {}
        for result, inputs in self.items():
            for name, number in inputs.items():
                _add(found, name, number, slopes[result])
        return found

    def forward(self, changes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Changes (k, p) of the results, from those of the inputs."""
        found: dict[str, Tensor] = {}
        for result, inputs in self.items():
            for name, number in inputs.items():
                _add(found, result, number, changes[name])
        return found


def _add(found: dict[str, Tensor], name: str, number: Tensor | float, value: Tensor) -> None:
    """found[name] += number * value, in one kernel."""
    # a new tensor, so that what is added to it in place changes nobody's slopes
    if name not in found:
        found[name] = number * value
    elif isinstance(number, Tensor):
        found[name].addcmul_(number, value)
    else:
        found[name].add_(value, alpha=number)


class OptimizerSteps:
    """The steps of one optimiser with these parameter groups; it has derivatives if it is SGD or one of `KINDS`.

    groups: as in `Trajectory.groups`. shapes: of the parameters in the order of the vectors (p,).
    """

    def __init__(self, kind: str, groups: list[dict[str, Any]], shapes: Mapping[str, torch.Size], device: Any) -> None:
        self.kind = kind
        self.memory = tuple(name for name, used in MEMORY.get(kind, {}).items() if any(map(used, groups)))
        """Names of the moments."""
        ends = np.cumsum([0, *(shape.numel() for shape in shapes.values())])
        spans = {name: np.arange(start, stop) for name, start, stop in zip(shapes, ends[:-1], ends[1:], strict=True)}
        self.names = [[name for name in group["parameters"] if name in spans] for group in groups]
        # a group may have none of these parameters, and of no arrays there is no concatenation
        places = [np.concatenate([*map(spans.get, names), np.arange(0)]) for names in self.names]
        self.size = int(ends[-1])
        self.places: list[Tensor | None] = [torch.from_numpy(part).to(device) for part in places]
        """Where the coordinates of each group are; None = one group has all in order."""
        if len(groups) == 1 and np.array_equal(places[0], np.arange(self.size)):
            self.places = [None]

    @property
    def adaptive(self) -> bool:
        """Whether derivatives depend on where a step began."""
        return self.kind in KINDS

    def before(self, own: Mapping[str, Tensor], gradient: Tensor, optimizer: torch.optim.Optimizer) -> Before:
        """Where the optimiser's next step begins, with this gradient (p,); moments where derivatives need them."""
        parameters = flatten(own).detach()
        states = {name: optimizer.state.get(value, {}) for name, value in own.items()}
        kept = [
            {name: number(states[names[0]]) for name, number in KEPT.get(self.kind, {}).items()} if names else {}
            for names in self.names
        ]
        if not self.adaptive:
            return Before(parameters, gradient, kept=kept)

        def moment(key: str) -> Tensor:
            # moments that torch has not made yet begin at 0
            parts = {n: state[key] if key in state else torch.zeros_like(own[n]) for n, state in states.items()}
            return flatten(parts).detach()

        return Before(parameters, gradient, {key: moment(key) for key in self.memory}, kept)

    def linear(self, groups: list[dict[str, Any]], rates: np.ndarray, done: int, before: Before) -> Linear:
        """Derivatives of one step with these settings and rates of the groups, after `done` others."""
        if self.kind == "AdamW":  # which says so itself in newer versions of torch only
            groups = [group | {"decoupled_weight_decay": True} for group in groups]
        found = [
            self._of_group({**group, **kept}, float(rate), done, before, place)
            for group, kept, rate, place in zip(groups, before.kept, rates, self.places, strict=True)
        ]
        if self.places == [None]:
            return found[0]
        merged = Linear({result: {} for part in found for result in part})
        for part, place in zip(found, self.places, strict=True):
            for result, inputs in part.items():
                for name, number in inputs.items():
                    if name not in merged[result]:
                        merged[result][name] = torch.zeros_like(before.parameters)
                    merged[result][name][place] = number  # type: ignore[index]
        return merged

    def _of_group(self, group: Group, rate: float, done: int, before: Before, place: Tensor | None) -> Linear:
        unchanged = Linear({name: {name: 1.0} for name in self.memory})  # moments that this group's step leaves alone
        if self.kind == "SGD":
            return Linear(unchanged | _sgd(group, rate))
        given = {"parameters": before.parameters, "gradient": before.gradient, **before.memory}
        inputs = {name: (v if place is None else v[place]).detach().requires_grad_() for name, v in given.items()}
        found, leaves = unchanged, list(inputs.values())
        # coordinates do not meet: the gradient of the sum is the diagonal of the Jacobian
        ones = torch.ones_like(inputs["parameters"])
        with torch.enable_grad():
            # torch counts from 1 in its corrections of the bias
            for result, value in KINDS[self.kind](group, rate, done + 1, **inputs).items():
                slopes = torch.autograd.grad(value, leaves, ones, retain_graph=True, allow_unused=True)
                found[result] = {name: slope for name, slope in zip(inputs, slopes, strict=True) if slope is not None}
        return found


# ---- steps -------------------------------------------------------------------------------------------------------


def _sgd(group: Group, rate: float) -> Linear:
    momentum, decay = float(group.get("momentum", 0)), float(group.get("weight_decay", 0))
    share = 1 - float(group.get("dampening", 0)) if group["begun"] else 1.0  # the buffer starts with the whole gradient
    nesterov = bool(group.get("nesterov"))
    # parameters -= rate * (gradient, where there is no other momentum than Nesterov's) + by_buffer * buffer
    # with buffer = momentum * (buffer of before) + share * gradient, where the gradient has decay * parameters in it
    by_buffer = rate * (momentum if nesterov else 1.0) if momentum else 0.0
    slope = -rate * (not momentum or nesterov) - by_buffer * share
    found = Linear({"parameters": {"gradient": slope, "parameters": 1 + decay * slope}})
    if momentum:
        found["parameters"]["momentum_buffer"] = -by_buffer * momentum
        found["momentum_buffer"] = {"gradient": share, "momentum_buffer": momentum}
        if decay:
            found["momentum_buffer"]["parameters"] = decay * share
    return found


def _adam(
    group: Group,
    rate: float,
    step: int,
    parameters: Tensor,
    gradient: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    max_exp_avg_sq: Tensor | None = None,
) -> Results:
    parameters, gradient = _decayed(group, rate, parameters, gradient)
    m, v = _moments(group, gradient, exp_avg, exp_avg_sq)
    beta1, beta2 = group["betas"]
    found = {"exp_avg": m, "exp_avg_sq": v}
    if group.get("amsgrad") and max_exp_avg_sq is not None:
        found["max_exp_avg_sq"] = v = torch.maximum(max_exp_avg_sq, v)
    # in torch's order: the largest v is kept before the bias is corrected, and epsilon comes after the root
    bottom = _root(v) / (1 - beta2**step) ** 0.5 + group["eps"]
    return {"parameters": parameters - rate / (1 - beta1**step) * m / bottom, **found}


def _nadam(
    group: Group,
    rate: float,
    step: int,
    parameters: Tensor,
    gradient: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
) -> Results:
    parameters, gradient = _decayed(group, rate, parameters, gradient)
    m, v = _moments(group, gradient, exp_avg, exp_avg_sq)
    beta1, beta2 = group["betas"]
    mu, following = (beta1 * (1 - 0.5 * 0.96 ** (k * group["momentum_decay"])) for k in (step, step + 1))
    so_far = group["mu_product"] * mu  # each step's with its own betas
    bottom = _root(v / (1 - beta2**step)) + group["eps"]
    moved = (1 - mu) / (1 - so_far) * gradient + following / (1 - so_far * following) * m
    return {"parameters": parameters - rate * moved / bottom, "exp_avg": m, "exp_avg_sq": v}


def _rmsprop(
    group: Group,
    rate: float,
    step: int,
    parameters: Tensor,
    gradient: Tensor,
    square_avg: Tensor,
    grad_avg: Tensor | None = None,
    momentum_buffer: Tensor | None = None,
) -> Results:
    parameters, gradient = _decayed(group, rate, parameters, gradient)
    alpha, found = group["alpha"], {}
    found["square_avg"] = spread = alpha * square_avg + (1 - alpha) * gradient.square()
    if group.get("centered") and grad_avg is not None:
        found["grad_avg"] = mean = alpha * grad_avg + (1 - alpha) * gradient
        spread = spread - mean.square()
    moved = gradient / (_root(spread) + group["eps"])
    if group.get("momentum") and momentum_buffer is not None:
        found["momentum_buffer"] = moved = group["momentum"] * momentum_buffer + moved
    return {"parameters": parameters - rate * moved, **found}


def _adagrad(
    group: Group,
    rate: float,
    step: int,
    parameters: Tensor,
    gradient: Tensor,
    sum: Tensor,
) -> Results:
    parameters, gradient = _decayed(group, rate, parameters, gradient)
    total = sum + gradient.square()
    # torch counts from 0 here
    rate = rate / (1 + (step - 1) * group["lr_decay"])
    return {"parameters": parameters - rate * gradient / (_root(total) + group["eps"]), "sum": total}


def _decayed(group: Group, rate: float, parameters: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Parameters and gradient after weight decay, which acts on one of them."""
    decay = group.get("weight_decay", 0)
    if not decay:
        return parameters, gradient
    if group.get("decoupled_weight_decay"):
        return (1 - rate * decay) * parameters, gradient
    return parameters, gradient + decay * parameters


def _moments(group: Group, gradient: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor) -> tuple[Tensor, Tensor]:
    beta1, beta2 = group["betas"]
    return beta1 * exp_avg + (1 - beta1) * gradient, beta2 * exp_avg_sq + (1 - beta2) * gradient.square()


def _root(values: Tensor) -> Tensor:
    """Square root whose derivative at 0 is 0.

    Second moments are 0 where every gradient so far was. Of gradients that begin to differ from 0 by a small e the
    root is of order |e|, beside the optimiser's epsilon, and what it divides is of order e: together of order e^2, so
    that nothing of it is left in the derivative.
    """
    some = values > 0
    return torch.where(some, torch.where(some, values, 1.0).sqrt(), 0.0)


KINDS: dict[str, Callable[..., Results]] = {
    "Adam": _adam,
    "AdamW": _adam,
    "NAdam": _nadam,
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
}
"""Results of a step by the optimiser's name; those of SGD need no function."""


def _always(group: Group) -> bool:
    return True


def _ever(name: str) -> Callable[[Group], bool]:
    """Whether a group has a setting at any step: schedules may begin with a momentum of 0."""
    return lambda group: any(group.get(BY_STEP, {}).get(name, [group.get(name)]))


MEMORY: dict[str, dict[str, Callable[[Group], bool]]] = {
    "SGD": {"momentum_buffer": _ever("momentum")},
    "Adam": {"exp_avg": _always, "exp_avg_sq": _always, "max_exp_avg_sq": _ever("amsgrad")},
    "NAdam": {"exp_avg": _always, "exp_avg_sq": _always},
    "RMSprop": {
        "square_avg": _always,
        "grad_avg": _ever("centered"),
        "momentum_buffer": _ever("momentum"),
    },
    "Adagrad": {"sum": _always},
}
"""What an optimiser keeps, by its name, and whether a group needs it."""
MEMORY["AdamW"] = MEMORY["Adam"]
KEPT: dict[str, dict[str, Callable[[Mapping[str, Any]], float]]] = {
    "SGD": {"begun": lambda state: state.get("momentum_buffer") is not None},  # at the first momentum that is not 0
    "NAdam": {"mu_product": lambda state: float(state.get("mu_product", 1))},
}
"""`Before.kept`, from an optimiser's state of a parameter."""
