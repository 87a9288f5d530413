"""Runs of SGD a second time, for the tests of the methods that follow them: plain loops, dense matrices, float64.

The nets of CASES are trained by skorch under the library's recorder; of the library nothing else is used. What a run
did (rates, momentum, decay of every step) is told by CASES, not read from the record: rows of the batches and the
first parameters are, and `final_parameters` from them must end where the training did.
"""

from fnmatch import fnmatch
from functools import cache, partial
from itertools import pairwise

import numpy as np
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import LRScheduler
from torch import nn
from torch.func import functional_call

from sktda.model.recorder import TrajectoryRecorder
from tests.attribution import source_reference as reference
from tests.model.nets import recorder_of

N, QUERIES, EPOCHS, STEPS = 24, 5, 6, 24
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3))
Y = (X @ RNG.normal(size=(3, 3)) + 0.5 * RNG.normal(size=(N, 3))).argmax(axis=1)
TARGETS = np.column_stack([X[:, 0] * X[:, 1], np.sin(X[:, 2])]) + 0.1 * RNG.normal(size=(N, 2))


class Perceptron(nn.Sequential):
    """Linear layers with tanh between, in float64."""

    def __init__(self, widths=(3, 4, 3), bias=True, dtype=torch.float64):
        layers = []
        for inside, outside in pairwise(widths):
            layers += [nn.Linear(inside, outside, bias=bias), nn.Tanh()]
        super().__init__(*layers[:-1])
        self.to(dtype)


HALVED = partial(LRScheduler, torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5)
TO_ZERO = partial(LRScheduler, torch.optim.lr_scheduler.CosineAnnealingLR, T_max=STEPS, step_every="batch")
SCHEDULES = {  # of the learning rate: its share in every step
    None: np.ones(STEPS),
    HALVED: np.repeat([1.0, 1.0, 0.5, 0.5, 0.25, 0.25], 4),
    TO_ZERO: (1 + np.cos(np.pi * np.arange(STEPS) / STEPS)) / 2,
}
HEAD = {"module__widths": (3, 3)}
SUM = {"criterion": nn.CrossEntropyLoss(reduction="sum"), "lr": 0.03}
# options of the net; batches of 7 of 24 rows, so that the last of the four is smaller
CASES = {
    "softmax": HEAD,
    "softmax, momentum, decay": HEAD | {"optimizer__momentum": 0.6, "optimizer__weight_decay": 0.05},
    "softmax without bias": HEAD | {"module__bias": False, "optimizer__weight_decay": 0.05},
    "tanh": {"schedule": HALVED},
    "tanh, nesterov": {"optimizer__momentum": 0.7, "optimizer__nesterov": True, "optimizer__weight_decay": 0.02},
    "tanh, dampening": {"optimizer__momentum": 0.7, "optimizer__dampening": 0.3, "schedule": TO_ZERO},
    "tanh, full batches": {"batch_size": -1, "max_epochs": STEPS, "optimizer__momentum": 0.5},
    "squares": {
        "module__widths": (3, 4, 2), "cls": NeuralNetRegressor, "optimizer__momentum": 0.5,
        "optimizer__weight_decay": 0.02,
    },
    "sum": SUM | {"optimizer__momentum": 0.5, "optimizer__weight_decay": 0.05, "schedule": HALVED},
    "groups": {
        "optimizer__param_groups": [("0.*", {"lr": 0.05, "weight_decay": 0.1}), ("2.bias", {"lr": 0.4})],
        "optimizer__momentum": 0.5, "schedule": HALVED,
    },
}  # fmt: skip
ONE_RATE = [name for name in CASES if name not in {"groups", "sum"}]


def targets_of(name):
    """The targets that a net of CASES was trained on."""
    return TARGETS if "cls" in CASES[name] else Y


def untrained(name="tanh", recorder=None, seed=0, **options):
    """A net of CASES that keeps six checkpoints and its steps."""
    options = CASES[name] | options
    module = options.pop("module", Perceptron)
    schedule, cls = options.pop("schedule", None), options.pop("cls", NeuralNetClassifier)
    settings = {
        "criterion": nn.CrossEntropyLoss if cls is NeuralNetClassifier else nn.MSELoss,
        "max_epochs": EPOCHS, "batch_size": 7, "lr": 0.2, "train_split": None, "iterator_train__shuffle": True,
        "verbose": 0, "callbacks": [recorder or TrajectoryRecorder(steps=True), *([schedule()] if schedule else [])],
    }  # fmt: skip
    torch.manual_seed(seed)
    return cls(module, **settings | options)


@cache
def trained(name):
    """A fitted net of CASES; do not change it."""
    return untrained(name).fit(X, targets_of(name))


def run_of(net):
    """The recorded run of a fitted net."""
    return recorder_of(net).trajectory_


# ---- what every step did ---------------------------------------------------------------------------------------------


def settings_of(name, parameter, step):
    """(learning rate, momentum, dampening, Nesterov, weight decay) of a parameter at a step of a case."""
    options = CASES[name]
    own = next((own for glob, own in options.get("optimizer__param_groups", []) if fnmatch(parameter, glob)), {})
    default = {"lr": options.get("lr", 0.2)}
    default |= {
        key: options.get(f"optimizer__{key}", 0) for key in ("momentum", "dampening", "nesterov", "weight_decay")
    }
    found = default | own
    rate = found["lr"] * SCHEDULES[options.get("schedule")][step]
    return rate, found["momentum"], found["dampening"], found["nesterov"], found["weight_decay"]


def weights_of(name, checkpoints=range(6)):
    """Of every checkpoint, (t, eta_t / (1 - momentum)) of a case."""
    steps = [round((c + 1) * STEPS / 6) for c in checkpoints]
    found = []
    for t in steps:
        rate, momentum, dampening, _, _ = settings_of(name, "0.weight", t - 1)
        found.append((t, rate * ((1 - dampening) / (1 - momentum) if momentum else 1)))
    return found


def decay_of(name):
    """(p,) weight decay of the mean loss, by coordinate."""
    module = trained(name).module_
    parts = [torch.full_like(v, settings_of(name, n, 0)[4]) for n, v in module.named_parameters()]
    return torch.cat([part.flatten() for part in parts]).numpy()


def row_losses(outputs, targets):
    """(n,) cross-entropy of classes, else the mean of the squared errors of a row."""
    if targets.dtype == torch.int64:
        return nn.functional.cross_entropy(outputs, targets, reduction="none")
    return (outputs - targets).square().mean(dim=1)


def final_parameters(module, start, batches, settings, X, y, weight, total=False, divisor=None, losses=row_losses):
    """Parameters by name at the end of SGD as torch does it, differentiable by the weights of the rows (n,).

    settings(parameter, step) as `settings_of`; the losses of a batch are divided by its size, by 1 (total), or by
    divisor(rows).
    """
    X, y = reference.tensors(X, y)
    theta = {name: start[name].double().clone().requires_grad_() for name, _ in module.named_parameters()}
    buffers = {}
    for step, rows in enumerate(batches):
        summed = (weight[rows] * losses(functional_call(module, theta, X[rows]), y[rows])).sum()
        size = divisor(rows) if divisor else 1 if total else len(rows)
        slopes = torch.autograd.grad(summed / size, list(theta.values()), create_graph=True)
        moved = {}
        for (name, value), slope in zip(theta.items(), slopes, strict=True):
            rate, momentum, dampening, nesterov, decay = settings(name, step)
            change = slope + decay * value
            if momentum:
                first = name not in buffers
                buffers[name] = change if first else momentum * buffers[name] + (1 - dampening) * change
                change = change + momentum * buffers[name] if nesterov else buffers[name]
            moved[name] = value - rate * change
        theta = moved
    return theta


def flat(theta):
    """(p,) of parameters by name."""
    return torch.cat([value.flatten() for value in theta.values()])


def end_of(name, weight=None, batches=None):
    """Parameters (p,) at the end of a case's run with these weights of the rows; torch, differentiable."""
    net = trained(name)
    run = run_of(net)
    weight = torch.ones(N, dtype=torch.float64) if weight is None else weight
    batches = [run.step_rows(k) for k in range(run.n_steps)] if batches is None else batches
    total = "criterion" in CASES[name]
    theta = final_parameters(
        net.module_, run.initial_state(), batches, partial(settings_of, name), X, targets_of(name), weight, total
    )
    return flat(theta)


def jacobian(end, weight):
    """(p, n) derivatives of the parameters end(weight) (p,), back through the whole run."""
    weight = weight.clone().requires_grad_()
    values = end(weight)
    each = torch.eye(len(values), dtype=torch.float64)
    return torch.autograd.grad(values, weight, each, is_grads_batched=True)[0].numpy()


@cache
def jacobian_of(name):
    """(p, N) of a case's final parameters by the weights of its rows."""
    return jacobian(partial(end_of, name), torch.ones(N, dtype=torch.float64))


# ---- second derivatives ----------------------------------------------------------------------------------------------


def row_hessians(module, X, y):
    """(n, p, p) of each row's loss: the derivatives of the entries of its gradient."""
    X, y = reference.tensors(X, y)
    own, found = list(module.parameters()), []
    every = torch.eye(sum(value.numel() for value in own), dtype=torch.float64)
    for i in range(len(X)):
        slopes = torch.autograd.grad(reference.loss(module(X[i : i + 1])[0], y[i]), own, create_graph=True)
        entries = torch.cat([slope.flatten() for slope in slopes])
        parts = torch.autograd.grad(entries, own, every, is_grads_batched=True, materialize_grads=True)
        found.append(torch.cat([part.flatten(1) for part in parts], dim=1).numpy())
    return np.stack(found)


def row_gauss_newtons(module, X, y):
    """(n, p, p) of each row."""
    return np.stack([reference.gauss_newton(module, X[i : i + 1], y[i : i + 1]) for i in range(len(X))])


def flat_of(module):
    """(p,) parameters."""
    return torch.cat([value.detach().flatten() for value in module.parameters()]).numpy()


@cache
def gradients_of(name, c):
    """(N, p) of the rows at a checkpoint."""
    return reference.row_gradients(module_at(name, c), X, targets_of(name))


@cache
def curvatures_of(name, c):
    """(Hessians, Gauss-Newton matrices) (N, p, p) of the rows at a checkpoint."""
    module, y = module_at(name, c), targets_of(name)
    return row_hessians(module, X, y), row_gauss_newtons(module, X, y)


def module_at(name, c):
    """The module of a case at a checkpoint."""
    net = trained(name)
    return reference.at(net.module_, run_of(net).state(c))


def bends(name, c, *, weight=None, gauss_newton=False, risk=slice(None)):
    """(N, p) b_i = H g_i + H_i G at a checkpoint; risk: the rows whose mean loss gives H."""
    gradients, (hessians, gauss_newtons) = gradients_of(name, c), curvatures_of(name, c)
    decay, weight = decay_of(name), np.ones(N) if weight is None else weight
    gradients, hessians = weight[:, None] * gradients, weight[:, None, None] * hessians
    curved = weight[:, None, None] * gauss_newtons if gauss_newton else hessians
    H = curved[risk].mean(axis=0) + np.diag(decay)
    G = gradients.mean(axis=0) + decay * flat_of(module_at(name, c))
    return gradients @ H + hessians @ G


def diff_in(name, *, checkpoints=range(6), queries=None, weight=None, gauss_newton=False, risk=None):
    """(N, N) values of all rows for all rows: sum over checkpoints of T t eta^2 / (N m) v' b_i.

    queries(c): (k, p) gradients at a checkpoint in place of those of the rows' losses. risk: as in `bends`, by
    checkpoint.
    """
    total = 0.0
    for c, (t, rate) in zip(checkpoints, weights_of(name, checkpoints), strict=True):
        v = gradients_of(name, c) if queries is None else queries(c)
        rows = slice(None) if risk is None else risk(c)
        b = bends(name, c, weight=weight, gauss_newton=gauss_newton, risk=rows)
        total = total + STEPS * t * rate**2 / (N * len(checkpoints)) * v @ b.T
    return total


def moso(name, *, checkpoints=range(6), weight=None):
    """(N,) T / (N m) sum of eta <mean of the gradients - g_i / N, g_i>."""
    weight = np.ones(N) if weight is None else weight
    total = np.zeros(N)
    for c, (_, rate) in zip(checkpoints, weights_of(name, checkpoints), strict=True):
        gradients = weight[:, None] * gradients_of(name, c)
        mean = gradients.mean(axis=0)
        for i, gradient in enumerate(gradients):
            total[i] += STEPS / (N * len(checkpoints)) * rate * (mean - gradient / N) @ gradient
    return total


def assert_close(found, expected, tolerance=1e-9):
    """Largest error as a share of the largest value."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
