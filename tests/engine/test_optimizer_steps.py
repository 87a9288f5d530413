"""Steps of optimisers against torch's own, with every hyperparameter another one at each step."""

import copy

import numpy as np
import pytest
import torch
from torch import optim

from sktda.engine.optimizer_steps import KINDS, OptimizerSteps
from sktda.model.base import unflatten
from sktda.model.step_settings import StepSettings, at_step

STEPS = 6
SHAPES = {"a": torch.Size([3]), "b": torch.Size([2])}
CHANGING = {
    "lr": [0.1, 0.03, 0.2, 0.05, 0.15, 0.08],
    "weight_decay": [0.1, 0.0, 0.3, 0.2, 0.0, 0.1],
    "betas": [(0.9, 0.99), (0.5, 0.9), (0.7, 0.8), (0.95, 0.999), (0.6, 0.7), (0.8, 0.95)],
    "eps": [1e-3, 1e-2, 3e-2, 2e-3, 1e-1, 5e-3],
    "momentum": [0.9, 0.5, 0.7, 0.2, 0.8, 0.6],
    "dampening": [0.3, 0.1, 0.5, 0.2, 0.0, 0.4],
    "alpha": [0.9, 0.5, 0.7, 0.99, 0.8, 0.6],
    "momentum_decay": [0.004, 0.5, 0.1, 0.02, 0.3, 0.05],
    "lr_decay": [0.1, 0.5, 0.2, 0.3, 0.0, 0.4],
}
CASES = {
    "SGD": (optim.SGD, {"momentum": CHANGING["momentum"]}),
    "SGD, momentum from 0 and through 0": (optim.SGD, {"momentum": [0, 0, 0.7, 0, 0.8, 0.6]}),
    "SGD, Nesterov": (optim.SGD, {"nesterov": [True] * STEPS, "dampening": [0] * STEPS}),
    "Adam": (optim.Adam, {}),
    "Adam, amsgrad in some steps": (optim.Adam, {"amsgrad": [True, True, False, False, True, True]}),
    "AdamW": (optim.AdamW, {}),
    "NAdam": (optim.NAdam, {}),
    "NAdam, decoupled": (optim.NAdam, {"decoupled_weight_decay": [True] * STEPS}),
    "RMSprop": (optim.RMSprop, {"momentum": [0] * STEPS}),
    "RMSprop, centered, momentum through 0": (
        optim.RMSprop,
        {"centered": [True, True, False, True, False, True], "momentum": [0.5, 0, 0.3, 0, 0, 0.7]},
    ),
    "Adagrad": (optim.Adagrad, {}),
}


def test_every_optimiser_is_among_the_cases():
    assert {kind.__name__ for kind, _ in CASES.values()} == {"SGD", *KINDS}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("double", [True, False], ids=["exact numbers", "numbers as torch keeps them"])
def test_every_step_is_that_of_torch(name, double):
    torch.set_default_dtype(torch.float64 if double else torch.float32)  # of the numbers in an optimiser's state
    try:
        compare(*CASES[name], 1e-12 if double else 1e-7)
    finally:
        torch.set_default_dtype(torch.float32)


def compare(kind, special, tolerance):
    random = torch.Generator().manual_seed(0)

    def drawn():
        return torch.randn(sum(map(torch.Size.numel, SHAPES.values())), generator=random, dtype=torch.float64)

    own = {name: value.requires_grad_() for name, value in unflatten(drawn(), SHAPES).items()}
    optimizer = kind([{"params": [value]} for value in own.values()], lr=1.0)
    changing = {name: values for name, values in (CHANGING | special).items() if name in optimizer.defaults}
    turn = 0 if {"amsgrad", "centered"} & special.keys() else 2  # torch wants moments that a group begins with
    settings = [[{n: v[(k + g * turn) % STEPS] for n, v in changing.items()} for g in range(2)] for k in range(STEPS)]
    noted = StepSettings()
    for k, each in enumerate(settings):
        noted.note(k, [optimizer.defaults | group for group in each])
    groups = [
        {"parameters": [name], **optimizer.defaults, **settings[-1][g], **noted.described(g, STEPS)}
        for g, name in enumerate(own)
    ]
    steps = OptimizerSteps(kind.__name__, groups, SHAPES, "cpu")
    for k, each in enumerate(settings):
        for group, values in zip(optimizer.param_groups, each, strict=True):
            group.update(values)
        before, rates = started(steps, own, drawn(), optimizer), np.array([group["lr"] for group in each])
        found = steps.linear(at_step(groups, k), rates, k, before)
        expected = after(steps, optimizer, own, before)
        assert_close(values_of(steps, at_step(groups, k), rates, k, before, found), expected, tolerance)
        held = [n for n in before.memory if all(state.get(n) is not None for state in states(optimizer, own))]
        for name in ("parameters", "gradient", *held):
            up, down = (after(steps, optimizer, own, before, name, by) for by in (1e-6, -1e-6))
            slopes = {result: (up[result] - down[result]) / 2e-6 for result in expected}
            assert_close({result: found[result].get(name, 0.0) for result in expected}, slopes, 1e-6)
        for name, value in unflatten(before.gradient, SHAPES).items():
            own[name].grad = value
        optimizer.step()


def states(optimizer, own):
    return [optimizer.state.get(value, {}) for value in own.values()]


def started(steps, own, gradient, optimizer):
    """Where a step begins, with the buffer of SGD, which the library's derivatives do not need."""
    before = steps.before(own, gradient, optimizer)
    for name in () if steps.adaptive else steps.memory:
        buffers = [state.get(name) for state in states(optimizer, own)]
        parts = [torch.zeros_like(v) if b is None else b for v, b in zip(own.values(), buffers, strict=True)]
        before.memory = {name: torch.cat(parts).detach()}
    return before


def after(steps, optimizer, own, before, name=None, by=0.0):
    """(p,) each of what torch's step makes, by name, with an input moved a little."""
    optimizer, own = copy.deepcopy((optimizer, own))
    gradient = before.gradient + (by if name == "gradient" else 0)
    for key, value in unflatten(gradient, SHAPES).items():
        own[key].grad = value
        own[key].data += by if name == "parameters" else 0
        if optimizer.state.get(own[key], {}).get(name) is not None:
            optimizer.state[own[key]][name] += by
    optimizer.step()
    again = started(steps, own, gradient, optimizer)
    return {"parameters": again.parameters, **again.memory}


def values_of(steps, groups, rates, k, before, found):
    """(p,) each of what our step makes, by name."""
    inputs = {"parameters": before.parameters, "gradient": before.gradient, **before.memory}
    if steps.kind == "SGD":  # whose steps are linear
        return found.forward(inputs)
    results = {name: value.clone() for name, value in inputs.items() if name != "gradient"}
    for group, kept, rate, place in zip(groups, before.kept, rates, steps.places, strict=True):
        own = {name: value[place] for name, value in inputs.items()}
        for name, value in KINDS[steps.kind]({**group, **kept}, rate, k + 1, **own).items():
            results[name][place] = value
    return results


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name] + torch.zeros_like(value), value, rtol=tolerance, atol=tolerance)
