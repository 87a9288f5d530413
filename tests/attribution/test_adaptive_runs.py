"""SGD-influence of Adam and its kin: torch's own optimisers retrained with nudged weights, and differentiated."""

import copy
from fnmatch import fnmatch
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import LRScheduler
from torch import nn, optim
from torch.func import functional_call

from sktda.attribution import SGDInfluence, unlearn
from sktda.engine import replay
from sktda.model.recorder import TrajectoryRecorder
from tests.attribution import run_reference as runs
from tests.attribution import source_reference as reference
from tests.attribution.run_reference import HALVED, QUERIES, SCHEDULES, STEPS, N, X, Y, assert_close, run_of

GROUPS = [
    ("0.*", {"lr": 0.05, "betas": (0.5, 0.9), "weight_decay": 0.2}),
    ("2.bias", {"lr": 0.003, "eps": 1e-2, "amsgrad": True}),
]
ADAM = {"optimizer": optim.Adam, "lr": 0.03}
CASES = {
    "Adam": ADAM,
    "Adam, decay, schedule": ADAM | {"optimizer__weight_decay": 0.1, "schedule": HALVED},
    "Adam, betas, epsilon": ADAM | {"optimizer__betas": (0.6, 0.8), "optimizer__eps": 1e-2},
    "Adam, fused": ADAM | {"optimizer__fused": True},
    "amsgrad": ADAM | {"optimizer__amsgrad": True, "optimizer__betas": (0.9, 0.7)},
    "AdamW": {"optimizer": optim.AdamW, "lr": 0.03, "optimizer__weight_decay": 0.3, "schedule": HALVED},
    "AdamW, groups": {
        "optimizer": optim.AdamW, "lr": 0.03, "optimizer__weight_decay": 0.1, "optimizer__param_groups": GROUPS,
        "schedule": HALVED,
    },
    "AdamW, sum": {
        "optimizer": optim.AdamW, "lr": 0.03, "optimizer__eps": 1e-3, "criterion": nn.CrossEntropyLoss(reduction="sum"),
    },
    "NAdam": {"optimizer": optim.NAdam, "lr": 0.03, "optimizer__weight_decay": 0.1},
    "NAdam, decoupled": {
        "optimizer": optim.NAdam, "lr": 0.03, "optimizer__weight_decay": 0.1, "optimizer__decoupled_weight_decay": True,
    },
    "RMSprop": {"optimizer": optim.RMSprop, "lr": 0.01, "optimizer__weight_decay": 0.1},
    "RMSprop, centered, momentum": {
        "optimizer": optim.RMSprop, "lr": 0.003, "optimizer__centered": True, "optimizer__momentum": 0.5,
    },
    "Adagrad": {
        "optimizer": optim.Adagrad, "lr": 0.1, "optimizer__lr_decay": 0.1, "optimizer__initial_accumulator_value": 0.01,
        "optimizer__weight_decay": 0.05,
    },
}  # fmt: skip
each_case = pytest.mark.parametrize("name", CASES)


@cache
def trained(name):
    """A fitted net of CASES; do not change it."""
    return runs.untrained("tanh", **{"schedule": None} | CASES[name]).fit(X, Y)


def fitted(net, X=X, y=Y, **params):
    rows = {name: params.pop(name) for name in ("X_val", "y_val", "sample_weight") if name in params}
    return SGDInfluence(FrozenEstimator(net), **params).fit(X, y, **rows)


def end_of(net, options, weight, differentiable=False):
    """Parameters (p,) after torch's own optimiser has gone through the recorded batches with weights of rows (n,)."""
    run = run_of(net)
    shares = SCHEDULES[options.get("schedule")]
    given = {key.removeprefix("optimizer__"): value for key, value in options.items() if key.startswith("optimizer__")}
    special = given.pop("param_groups", [])
    given |= {"fused": None} if differentiable and "fused" in given else {}
    given["differentiable"] = differentiable
    theta = {name: run.initial_state()[name].clone() for name, _ in net.module_.named_parameters()}
    inputs, targets = reference.tensors(X, Y)
    total, state = options.get("criterion") is not None, {}
    for k in range(run.n_steps):
        rows = run.step_rows(k)
        # fresh copies, for the step changes them in place
        leaves = {name: value.clone() if differentiable else value.detach() for name, value in theta.items()}
        if not leaves["0.weight"].requires_grad:
            leaves = {name: value.requires_grad_() for name, value in leaves.items()}
        losses = nn.functional.cross_entropy(
            functional_call(net.module_, leaves, inputs[rows]), targets[rows], reduction="none"
        )
        loss = (weight[rows] * losses).sum() / (1 if total else len(rows))
        slopes = torch.autograd.grad(loss, list(leaves.values()), create_graph=differentiable)
        theta = {name: value.clone() if differentiable else value for name, value in leaves.items()}
        groups = []
        for name, value in theta.items():
            own = next((own for glob, own in special if fnmatch(name, glob)), {})
            groups.append({"params": [value], **own, "lr": own.get("lr", options["lr"]) * shares[k]})
        optimizer = options["optimizer"](groups, **given)
        for (name, value), slope in zip(theta.items(), slopes, strict=True):
            if differentiable:
                value.retain_grad()
            value.grad = slope
            for key, number in state.get(name, {}).items():
                optimizer.state[value][key] = number.clone()
        optimizer.step()
        state = {name: dict(optimizer.state[value]) for name, value in theta.items()}
    return runs.flat(theta)


@cache
def jacobian_of(name):
    """(p, N) of the final parameters by the weights of rows: torch's optimiser differentiated through the whole run."""
    torch.set_default_dtype(torch.float64)  # of the number of steps, from which the corrections of the moments come
    try:
        return runs.jacobian(
            lambda weight: end_of(trained(name), CASES[name], weight, differentiable=True),
            torch.ones(N, dtype=torch.float64),
        )
    finally:
        torch.set_default_dtype(torch.float32)


@each_case
def test_values_are_the_derivatives_of_the_whole_run(name):
    net = trained(name)
    expected = -reference.row_gradients(net.module_, X, Y) @ jacobian_of(name)
    found = fitted(net, X_val=X[:QUERIES], y_val=Y[:QUERIES])
    assert_close(found.attribute(X[:QUERIES], Y[:QUERIES]), expected[:QUERIES], 1e-8)
    assert_close(found.scores_, expected[:QUERIES].mean(axis=0), 1e-8)
    assert_close(fitted(net).scores_, -np.diag(expected), 1e-8)
    change = runs.flat(found.deletion_update([3, 11])).numpy() - runs.flat_of(net.module_)
    assert_close(change, -jacobian_of(name)[:, [3, 11]].sum(axis=1), 1e-8)


@each_case
def test_values_are_what_nudged_weights_do(name):
    """Without any derivative: retrained with a little more and a little less of a row."""
    net, step = trained(name), 1e-6
    whole = torch.ones(N, dtype=torch.float64)
    assert_close(end_of(net, CASES[name], whole).detach().numpy(), runs.flat_of(net.module_), 1e-12)

    def losses(i, change):
        weight, module = whole.clone(), copy.deepcopy(net.module_)
        weight[i] += change
        nn.utils.vector_to_parameters(end_of(net, CASES[name], weight).detach(), module.parameters())
        return runs.row_losses(module(torch.from_numpy(X[:QUERIES])), torch.from_numpy(Y[:QUERIES])).detach().numpy()

    values = fitted(net, objective=None).attribute(X[:QUERIES], Y[:QUERIES])
    for i in (0, 11):
        assert_close(values[:, i], (losses(i, -step) - losses(i, step)) / (2 * step), 1e-5)
