"""SGD-influence of Adam and its kin: torch's own optimisers retrained with nudged weights, and differentiated."""

import copy
from fnmatch import fnmatch
from functools import cache, partial

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from skorch.callbacks import GradientNormClipping, LRScheduler
from torch import nn, optim
from torch.func import functional_call

from sktda.attribution import SGDInfluence, unlearn
from sktda.engine.optimizer_steps import Before, OptimizerSteps
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
CYCLED = partial(LRScheduler, optim.lr_scheduler.OneCycleLR, max_lr=0.05, total_steps=13, step_every="batch")
each_case = pytest.mark.parametrize("name", CASES)


@cache
def trained(name):
    """A fitted net of CASES; do not change it."""
    return runs.untrained("tanh", **{"schedule": None, "max_epochs": 3} | CASES[name]).fit(X, Y)


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
    assert_close(values[:, 11], (losses(11, -step) - losses(11, step)) / (2 * step), 1e-5)


# ---- gradients that were scaled, settings that changed ---------------------------------------------------------------


def retrained(net, make, weight, clip=None, scale=1.0, schedule=None, X=X):
    """Parameters (p,) of a plain loop through the recorded batches, with weights of the rows (n,)."""
    run, module = run_of(net), copy.deepcopy(net.module_)
    module.load_state_dict(run.initial_state())
    optimizer = make(module)
    scheduler = schedule(optimizer) if schedule else None
    inputs, targets = reference.tensors(X, Y)
    for k in range(run.n_steps):
        rows = run.step_rows(k)
        optimizer.zero_grad()
        losses = nn.functional.cross_entropy(module(inputs[rows]), targets[rows], reduction="none")
        (scale * (weight[rows] * losses).mean()).backward()
        if clip:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()
        if scheduler:
            scheduler.step()
    return runs.flat_of(module)


class Halved(NeuralNetClassifier):
    """Differentiates half of the loss."""

    def train_step_single(self, batch, **fit_params):
        self._set_training(True)
        output = self.infer(batch[0])
        loss = self.get_loss(output, batch[1], X=batch[0], training=True)
        (0.5 * loss).backward()
        return {"loss": loss, "y_pred": output}


def one_cycle(optimizer):
    return optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=13)


class Warmed(optim.lr_scheduler.LRScheduler):
    """Momentum from 0, through 0."""

    def get_lr(self):
        for group in self.optimizer.param_groups:
            group["momentum"] = [0, 0, 0.5, 0.9, 0, 0.7][self.last_epoch % 6]
        return self.base_lrs


ADAMS = {"optimizer": optim.AdamW, "lr": 0.03, "optimizer__weight_decay": 0.1}
WARMED = partial(LRScheduler, Warmed, step_every="batch")
SGDS = {"optimizer": optim.SGD, "lr": 0.2, "optimizer__momentum": 0.9, "optimizer__weight_decay": 0.02}
HALF = {"cls": Halved, "criterion": nn.CrossEntropyLoss}
CLIP = {"callbacks": [GradientNormClipping(0.4)]}
CHANGED = {
    "AdamW, clipped": (ADAMS | CLIP, {"clip": 0.4}),
    "SGD, clipped": (SGDS | CLIP, {"clip": 0.4}),
    "Adam, half of the loss": (
        ADAM | {"optimizer__eps": 1e-2, "cls": Halved, "criterion": nn.CrossEntropyLoss},
        {"scale": 0.5},
    ),
    "SGD, half of the loss": (SGDS | {"cls": Halved, "criterion": nn.CrossEntropyLoss}, {"scale": 0.5}),
    "AdamW, one cycle": (ADAMS | {"schedule": CYCLED}, {"schedule": one_cycle}),
    "SGD, one cycle": (SGDS | {"schedule": CYCLED}, {"schedule": one_cycle}),
    "NAdam, one cycle": (
        ADAM | {"optimizer": optim.NAdam, "schedule": CYCLED, "optimizer__weight_decay": 0.1},
        {"schedule": one_cycle},
    ),
    "SGD, momentum from 0": (
        SGDS | {"optimizer__momentum": 0.0, "optimizer__dampening": 0.5, "schedule": WARMED},
        {"schedule": Warmed},
    ),
}


@pytest.mark.parametrize("name", CHANGED)
def test_clipping_scaling_and_cycles_are_part_of_the_run(name):
    options, loop = CHANGED[name]
    extra, schedule = options.get("callbacks", []), options.get("schedule")
    callbacks = [TrajectoryRecorder(steps=True), *copy.deepcopy(extra), *([schedule()] if schedule else [])]
    net = runs.untrained("tanh", **options | {"callbacks": callbacks, "schedule": None, "max_epochs": 3}).fit(X, Y)
    given = {key.removeprefix("optimizer__"): v for key, v in options.items() if key.startswith("optimizer__")}

    def end(weight):
        return retrained(
            net, lambda module: options["optimizer"](module.parameters(), lr=options["lr"], **given), weight, **loop
        )

    whole, step = torch.ones(N, dtype=torch.float64), 1e-6
    assert_close(end(whole), runs.flat_of(net.module_), 1e-12)
    scales = run_of(net).group_step_scales
    assert ("clipped" in name) == (np.ptp(scales) > 0.1)
    if "clipped" in name:
        assert (scales == 1).any(), "some steps are not clipped"
    found = fitted(net, objective=None)
    values = found.attribute(X[:QUERIES], Y[:QUERIES])
    slopes = reference.row_gradients(net.module_, X[:QUERIES], Y[:QUERIES])
    weight = whole.clone()
    weight[11] += step
    more = end(weight)
    weight[11] -= 2 * step
    nudged = (end(weight) - more) / (2 * step)
    assert_close(runs.flat(found.deletion_update([11])).numpy() - runs.flat_of(net.module_), nudged, 1e-5)
    assert_close(values[:, 11], slopes @ nudged, 1e-5)
    weight = whole.clone()
    weight[[3, 11]] = 0
    again = unlearn(found, [3, 11], retrain=True).retrained
    assert_close(runs.flat_of(again.module_), end(weight), 1e-9)


# ---- second moments of 0 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Adam", "NAdam", "RMSprop", "Adagrad"])
def test_the_derivative_where_no_gradient_was(kind):
    """Of a first gradient that begins to differ from 0: by epsilon alone."""
    group = {"betas": (0.9, 0.999), "eps": 1e-3, "alpha": 0.9, "momentum_decay": 0.004, "lr_decay": 0.0}
    steps = OptimizerSteps(kind, [group | {"parameters": ["w"]}], {"w": torch.Size([2])}, "cpu")
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    memory = {name: torch.zeros(2, dtype=torch.float64) for name in steps.memory}

    def moved(size):
        value = start.clone().requires_grad_()
        own = {name: number for name, number in group.items() if name in getattr(optim, kind)([value]).defaults}
        optimizer = getattr(optim, kind)([value], lr=0.1, **own)
        value.grad = torch.tensor([size, 0.0], dtype=torch.float64)
        optimizer.step()
        return (value.detach() - start)[0]

    found = steps.linear(
        [group], [0.1], 0, Before(start, torch.zeros(2, dtype=torch.float64), memory, [{"mu_product": 1.0}])
    )
    slopes = found["parameters"]["gradient"]
    assert all(torch.isfinite(number).all() for inputs in found.values() for number in inputs.values())
    assert slopes[0] == slopes[1]
    np.testing.assert_allclose(slopes[0], moved(1e-10) / 1e-10, rtol=1e-5)


def test_inputs_that_are_0_until_late_and_units_that_are_never_on():
    """Some gradients are 0 in every step, some until one of the last."""
    rare = X.copy()
    rare[:, 0], rare[:, 1] = 0, 0

    class Off(runs.Perceptron):
        def __init__(self):
            super().__init__()
            self[1] = nn.ReLU()
            self[0].bias.data[0] = -100

        def forward(self, inputs):
            return super().forward(inputs)

    options = ADAM | {"module": Off, "schedule": None, "optimizer__eps": 1e-4}
    net = runs.untrained("tanh", **options).fit(rare, Y)
    last = run_of(net).step_rows(STEPS - 3)[0]
    rare[last, 1] = 1.0  # a value that a row of one of the last steps alone has
    net = runs.untrained("tanh", **options, iterator_train__shuffle=False).fit(rare, Y)
    assert (run_of(net).state(-1)["0.weight"][:, 0] == run_of(net).initial_state()["0.weight"][:, 0]).all()
    values = fitted(net, rare, objective=None).attribute(rare[:QUERIES], Y[:QUERIES])
    assert np.isfinite(values).all()
    whole, step = torch.ones(N, dtype=torch.float64), 1e-7
    slopes = reference.row_gradients(net.module_, rare[:QUERIES], Y[:QUERIES])
    for i in (0, int(last)):
        ends = []
        for change in (-step, step):
            weight = whole.clone()
            weight[i] += change
            ends.append(retrained(net, lambda module: optim.Adam(module.parameters(), 0.03, eps=1e-4), weight, X=rare))
        assert_close(values[:, i], slopes @ (ends[0] - ends[1]) / (2 * step), 1e-5)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_record_that_began_after_the_first_steps():
    net = runs.untrained("tanh", callbacks=[], schedule=None, **ADAM).fit(X, Y)
    net.callbacks = [("recorder", TrajectoryRecorder(steps=True))]
    net.initialize_callbacks().partial_fit(X, Y)
    with pytest.raises(ValueError, match="the optimiser had made steps before the record began"):
        fitted(net)


def test_dropout_is_seen_even_where_every_step_is_a_checkpoint():
    """Moments come from gradients, which are not those of the training."""

    class Dropped(runs.Perceptron):
        def __init__(self):
            super().__init__()
            self.insert(2, nn.Dropout(0.3))

    recorder = TrajectoryRecorder(n_checkpoints=STEPS, steps=True)
    net = runs.untrained("tanh", recorder=recorder, module=Dropped, schedule=None, **ADAM).fit(X, Y)
    with pytest.raises(ValueError, match="do not lead to the recorded parameters"):
        fitted(net)


def test_rows_are_unlearned_by_the_derivative_where_steps_of_adam_were_recorded():
    net = trained("AdamW")
    expected = unlearn(net, [3, 11], X, Y, attributor=SGDInfluence()).estimator
    found = unlearn(net, [3, 11], X, Y).estimator  # without a warning
    np.testing.assert_array_equal(runs.flat_of(found.module_), runs.flat_of(expected.module_))
