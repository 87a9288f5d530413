"""Rates that moved the parameters: clipped, scaled and accumulated gradients, groups of parameters with their own."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, GradientNormClipping, LRScheduler
from torch import nn

from sktda import TrajectoryRecorder
from sktda.attribution import DiffIn, Influence, InnerProduct, MoSo, SGDInfluence, Source, TracIn, trajectory_scores
from sktda.attribution.runs.stages import UNMET
from sktda.model import step_gradients
from tests.attribution.run_reference import Perceptron, assert_close, run_of

N, SIZE, EPOCHS = 24, 4, 3
RNG = np.random.default_rng(0)
X, Y = 2 * RNG.normal(size=(N, 3)), RNG.integers(0, 3, N)
LR = 0.2


def clipped(net):
    nn.utils.clip_grad_norm_(net.module_.parameters(), 0.5)


def scaled_down(net):
    for value in net.module_.parameters():
        value.grad /= 64


def divided(net):
    """By another number at every step of an epoch."""
    for value in net.module_.parameters():
        value.grad /= len(net.history[-1]["batches"])


class Stepping(NeuralNetClassifier):
    """A training step of the user's own; `loss_scale`: of the loss that is differentiated; `then`: before the step."""

    def __init__(self, *args, loss_scale=1.0, then=None, every=1, in_place=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_scale, self.then, self.every, self.in_place = loss_scale, then, every, in_place

    def train_step(self, batch, **fit_params):
        self._set_training(True)
        output = self.infer(batch[0])
        loss = self.get_loss(output, batch[1], X=batch[0], training=True)
        (self.loss_scale * loss).backward()
        if len(self.history[-1]["batches"]) % self.every == 0:
            if self.then is not None:
                self.then(self)
            self.optimizer_.step()
            self.optimizer_.zero_grad(set_to_none=not self.in_place)
        return {"loss": loss, "y_pred": output}


class Hooked(Perceptron):
    """Every gradient passes a hook of the module's own."""

    def __init__(self, hook, after=False):
        super().__init__()
        for value in self.parameters():
            if after:
                value.register_post_accumulate_grad_hook(lambda value: setattr(value, "grad", hook(value.grad)))
            else:
                value.register_hook(hook)


class Changed(Callback):
    """Something is done to the gradients of every batch."""

    def __init__(self, change):
        self.change = change

    def on_grad_computed(self, net, named_parameters, **kwargs):
        for value in net.module_.parameters():
            self.change(value.grad)


GROUPS = [("0.*", {"lr": 0.05}), ("2.bias", {"lr": 0.4})]
BY_GROUP = [0.05, 0.4, LR]
FACTORS = [lambda epoch: 0.5**epoch, lambda epoch: 1.0, lambda epoch: 1 / (1 + epoch)]
PER_GROUP = LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=FACTORS)

# name: (options of the net, what the loop by hand does)
CASES = {
    "plain": ({}, {}),
    "clipped by a callback": ({"clip": GradientNormClipping(0.5)}, {"max_norm": 0.5}),
    "clipped in the step": ({"cls": Stepping, "then": clipped}, {"max_norm": 0.5}),
    "clipped, momentum": (
        {"clip": GradientNormClipping(0.5), "optimizer__momentum": 0.5},
        {"max_norm": 0.5, "momentum": 0.5},
    ),
    "hook": (
        {"module": Hooked, "module__hook": lambda gradient: 0.25 * gradient, "module__after": True},
        {"scale": 0.25},
    ),
    "scaled and back": ({"cls": Stepping, "loss_scale": 64.0, "then": scaled_down}, {}),
    "accumulated mean": ({"cls": Stepping, "loss_scale": 0.5, "every": 2}, {"every": 2}),
    "accumulated sum": ({"cls": Stepping, "every": 2, "lr": 0.1}, {"every": 2, "scale": 2.0, "lr": 0.1}),
    "accumulated into zeros": (
        {"cls": Stepping, "loss_scale": 0.5, "every": 2, "in_place": True, "then": clipped},
        {"every": 2, "max_norm": 0.5},
    ),
    "groups": ({"optimizer__param_groups": GROUPS}, {"groups": True}),
    "groups, clipped": (
        {"optimizer__param_groups": GROUPS, "clip": GradientNormClipping(0.5)}, {"groups": True, "max_norm": 0.5},
    ),
    "groups, schedules": (
        {"optimizer__param_groups": GROUPS, "scheduler": PER_GROUP}, {"groups": True, "schedules": True},
    ),
}  # fmt: skip


def trained(options, recorder=None):
    options = dict(options)
    cls, module = options.pop("cls", NeuralNetClassifier), options.pop("module", Perceptron)
    callbacks = [recorder or TrajectoryRecorder(n_checkpoints=6)]
    callbacks += [options.pop(name) for name in ("clip", "scheduler") if name in options]
    settings = {"lr": LR, "max_epochs": EPOCHS, "batch_size": SIZE, "train_split": None, "verbose": 0}
    torch.manual_seed(0)
    return cls(module, criterion=nn.CrossEntropyLoss, callbacks=callbacks, **settings | options).fit(X, Y)


def group_of(name):
    return 0 if name.startswith("0.") else 1 if name == "2.bias" else 2


def by_hand(max_norm=None, momentum=0.0, scale=1.0, every=1, lr=LR, groups=False, schedules=False):
    """(rates that moved each parameter at every step, last parameters)."""
    torch.manual_seed(0)
    module = Perceptron()
    own, rates = dict(module.named_parameters()), []
    buffer = {name: torch.zeros_like(value) for name, value in own.items()}
    inputs, labels = torch.from_numpy(X), torch.from_numpy(Y)
    for epoch in range(EPOCHS):
        for start in range(0, N, every * SIZE):
            part = slice(start, start + every * SIZE)
            loss = scale * nn.functional.cross_entropy(module(inputs[part]), labels[part])
            gradients = dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))
            norm = torch.sqrt(sum(g.square().sum() for g in gradients.values()))
            clip = 1.0 if max_norm is None else min(1.0, float(max_norm / (norm + 1e-6)))
            now = {}
            for name, value in own.items():
                rate = BY_GROUP[group_of(name)] if groups else lr
                rate *= FACTORS[group_of(name)](epoch) if schedules else 1.0
                buffer[name] = momentum * buffer[name] + clip * gradients[name]
                with torch.no_grad():
                    value -= rate * buffer[name]
                now[name] = rate * clip * scale / (1 - momentum)
            rates.append(now)
    return rates, module.state_dict()


def row_gradients(state):
    """{name: (n, p)} by one backward pass per row."""
    module = Perceptron()
    module.load_state_dict(state)
    own = dict(module.named_parameters())
    found = {name: [] for name in own}
    for x, label in zip(torch.from_numpy(X), torch.from_numpy(Y), strict=True):
        loss = nn.functional.cross_entropy(module(x[None]), label[None])
        for name, g in zip(own, torch.autograd.grad(loss, list(own.values())), strict=True):
            found[name].append(g.flatten())
    return {name: torch.stack(each).numpy() for name, each in found.items()}


@pytest.mark.parametrize("name", CASES)
def test_sums_over_the_run_by_hand(name):
    options, how = CASES[name]
    net = trained(options)
    run = run_of(net)
    rates, final = by_hand(**how)
    for parameter, value in final.items():
        torch.testing.assert_close(net.module_.state_dict()[parameter], value, rtol=1e-9, atol=1e-12)
    assert run.n_steps == len(rates)
    pairs, moso, last, total, before = 0.0, np.zeros(N), None, dict.fromkeys(final, 0.0), 0
    for c, stop in enumerate(run.steps):
        g = row_gradients(run.state(c))
        for parameter, each in g.items():
            here = [rates[t][parameter] for t in range(before, stop)]
            pairs = pairs + sum(here) * each @ each.T / N
            moso += np.mean(here) * ((each @ each.mean(0)) - (each**2).sum(1) / N) * len(rates) / (N * len(run))
            total[parameter] += sum(here)
        last, before = g, stop
    frozen = FrozenEstimator(net)
    tracin = TracIn(frozen).fit(X, Y)
    assert_close(tracin.scores_, -np.diag(pairs), 1e-6)
    assert_close(tracin.attribute(X[:5], Y[:5]), pairs[:5], 1e-6)
    assert_close(TracIn(frozen).fit(X, Y, X_val=X[:7], y_val=Y[:7]).scores_, pairs[:7].mean(0), 1e-6)
    product = sum(total[parameter] * each @ each.T for parameter, each in last.items()) / N
    assert_close(InnerProduct(frozen).fit(X, Y).scores_, -np.diag(product), 1e-6)
    if "schedules" not in name:  # its rate is that of the last step, and here the steps of a checkpoint have one
        assert_close(MoSo(frozen, checkpoints="even").fit(X, Y).scores_, moso, 1e-6)


REFUSED = {
    "clipped by value": {"clip": Changed(lambda gradient: gradient.clamp_(-0.05, 0.05))},
    "clipped by value in a hook": {
        "module": Hooked, "module__after": True, "module__hook": lambda gradient: gradient.clamp(-0.05, 0.05),
    },
    "noise": {"clip": Changed(lambda gradient: gradient.add_(0.1 * torch.randn_like(gradient)))},
    "one layer is scaled": {
        "cls": Stepping, "then": lambda net: next(net.module_.parameters()).grad.mul_(0.5),
    },
}  # fmt: skip


class OtherLoss(NeuralNetClassifier):
    """Trains with another loss than the criterion."""

    def train_step_single(self, batch, **fit_params):
        output = self.infer(batch[0])
        loss = output.square().mean()
        loss.backward()
        return {"loss": loss, "y_pred": output}


@pytest.mark.parametrize("name", [*REFUSED, "another loss"])
def test_gradients_of_no_multiple_of_the_loss_are_refused(name):
    net = FrozenEstimator(trained(REFUSED.get(name, {"cls": OtherLoss})))
    for method in (TracIn(net), InnerProduct(net), MoSo(net), DiffIn(net), Source(net, curvature="exact")):
        with pytest.raises(ValueError, match=r"the optimiser got gradients of which \d+% was not of the criterion's"):
            method.fit(X, Y)
    Influence(net, damping=0.1).fit(X, Y)  # follows no run


def test_a_part_of_the_gradients_tells_as_much_after_the_first_steps(monkeypatch):
    for name, value in {"WHOLE": 1, "EVERY": 1_000, "LARGE": 2, "SMALL": 2}.items():
        monkeypatch.setattr(step_gradients, name, value)
    for name in ("clipped in the step", "accumulated into zeros", "plain"):
        options, how = CASES[name]
        rates = [step["0.weight"] for step in by_hand(**how)[0]]
        run = run_of(trained(options))
        expected = np.add.reduceat(rates, [0, *run.steps[:-1]])
        np.testing.assert_allclose(run.effective_rate_sums, expected, rtol=1e-9)
        assert not run.misfits.any()

    class Late(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            if len(net.history) > 1:
                for value in net.module_.parameters():
                    value.grad.clamp_(-0.02, 0.02)

    misfits = run_of(trained({"clip": Late()})).misfits
    assert not misfits[:2].any()
    assert (misfits[2:] > 0.01).all()


class Looked(nn.Module):
    """Rows of a long table, few of them in a batch; a bias that changes nothing stands last."""

    def __init__(self):
        super().__init__()
        self.table, self.bias = nn.Embedding(200, 3, dtype=torch.float64), nn.Parameter(torch.zeros(3).double())

    def forward(self, X):
        return self.table((37 * X[:, 0].abs()).long() % 200) + 0 * self.bias


@pytest.mark.parametrize("groups", [{}, {"optimizer__param_groups": [("table.*", {"lr": LR})]}])
def test_zeros_do_not_hide_that_gradients_were_clipped(groups, monkeypatch):
    for name, value in {"WHOLE": 0, "EVERY": 4, "LARGE": 6, "SMALL": 6}.items():
        monkeypatch.setattr(step_gradients, name, value)
    options = {"module": Looked, "cls": Stepping, "then": lambda net: net.module_.table.weight.grad.mul_(0.25)}
    run = run_of(trained(options | groups, TrajectoryRecorder(n_checkpoints=18)))
    np.testing.assert_allclose(run.group_effective_rate_sums[:, 0], 0.25 * LR)
    assert not run.misfits.any()


def test_a_hook_that_changes_gradients_on_their_way_is_seen_by_the_record():
    run = run_of(trained({"module": Hooked, "module__hook": lambda gradient: 0.25 * gradient}))
    np.testing.assert_allclose(run.rescalings, 0.75)
    np.testing.assert_allclose(run.effective_rate_sums, 0.25 * run.rate_sums)
    clamped = run_of(trained({"module": Hooked, "module__hook": lambda gradient: gradient.clamp(-0.05, 0.05)}))
    assert clamped.misfits.min() > 0.01


def test_a_run_that_cannot_be_gone_through_again_or_has_several_rates_is_refused():
    steps = TrajectoryRecorder(steps=True)
    net = trained({"cls": Stepping, "then": divided}, steps)
    with pytest.raises(ValueError, match="neither the factor of the other steps nor clipping by norm at their limit"):
        SGDInfluence(FrozenEstimator(net)).fit(X, Y)
    with pytest.raises(ValueError, match="a batch ended after 0 optimiser steps"):
        trained(CASES["accumulated mean"][0], steps)
    groups = FrozenEstimator(trained(CASES["groups"][0]))
    for call in (DiffIn(groups).fit, lambda *rows: trajectory_scores(groups, *rows, *rows)):
        with pytest.raises(ValueError, match="parameter groups at different learning rates, and this needs one"):
            call(X, Y)
    decayed = trained(CASES["clipped by a callback"][0] | {"optimizer__weight_decay": 0.1})
    with pytest.raises(ValueError, match="scaled before the decay"):
        DiffIn(FrozenEstimator(decayed)).fit(X, Y)


@pytest.mark.parametrize("curvature", ["exact", "blockwise", "ekfac"])
def test_groups_and_clipping_along_a_flow(curvature):
    """Source of one segment, averaged: (1/n) R (1 - exp(-M)) M^-1 R g g, M = R (H + decay) R, R the roots of rates."""
    heads = {"module__widths": (3, 3), "optimizer__weight_decay": 0.05, "clip": GradientNormClipping(0.5)}
    same = curvature == "ekfac"  # weight and bias are in one matrix there
    groups = {} if same else {"optimizer__param_groups": [("*.bias", {"lr": 0.02, "weight_decay": 0.3})]}
    net = trained(heads | groups)
    run = run_of(net)
    found = Source(FrozenEstimator(net), n_segments=1, fast=True, curvature=curvature).fit(X, Y)
    if curvature == "ekfac":  # drawn labels: compare with itself through the exact one
        exact = Source(FrozenEstimator(net), n_segments=1, fast=True, curvature="exact").fit(X, Y)
        assert np.corrcoef(found.scores_, exact.scores_)[0, 1] > 0.95
        return
    states = [run.state(c) for c in range(len(run))]
    module = Perceptron((3, 3))
    module.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    inputs = torch.column_stack([torch.from_numpy(X), torch.ones(N, dtype=torch.float64)])
    with torch.no_grad():
        probs = module(torch.from_numpy(X)).softmax(1)
    weight = torch.diag_embed(probs) - probs[:, :, None] * probs[:, None]
    H = torch.einsum("nij,na,nb->iajb", weight, inputs, inputs).reshape(12, 12) / N  # (out, in + bias)
    bias = torch.zeros(3, 4, dtype=torch.bool)
    bias[:, 3] = True
    group = run.parameter_groups
    column = torch.where(bias.flatten(), group["0.bias"], group["0.weight"])
    rate = torch.from_numpy(run.group_effective_rate_sums.sum(0))[column]
    decay = torch.where(bias.flatten(), 0.3, 0.05).double() * torch.from_numpy(run.group_rate_sums.sum(0))[column]
    root = rate.sqrt()
    M = root[:, None] * H * root + torch.diag(decay)
    values, vectors = torch.linalg.eigh(M)
    kernel = vectors @ torch.diag(-torch.expm1(-values) / values) @ vectors.T
    at_mean = scores_of(module, inputs)
    final = Perceptron((3, 3))
    final.load_state_dict(net.module_.state_dict())
    u = scores_of(final, inputs)
    expected = -((root * u) @ kernel * (root * at_mean)).sum(1) / N
    assert_close(found.scores_, expected.numpy(), 1e-6)


def scores_of(module, inputs):
    """(n, 12) gradients of rows by (out, in + bias)."""
    with torch.no_grad():
        slope = module(torch.from_numpy(X)).softmax(1) - torch.eye(3, dtype=torch.float64)[Y]
    return (slope[:, :, None] * inputs[:, None]).reshape(N, 12)


# ---- settings that a schedule changes --------------------------------------------------------------------------------


class Stepped(torch.optim.lr_scheduler.LRScheduler):
    """Another value of a setting at every step, the last as the first."""

    def __init__(self, optimizer, name, values, last_epoch=-1):
        self.name, self.values = name, values
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        for group in self.optimizer.param_groups:
            group[self.name] = self.values[self.last_epoch % len(self.values)]
        return self.base_lrs


def stepped(name, values, *callbacks, **options):
    schedule = LRScheduler(Stepped, name=name, values=values, step_every="batch")
    options = {"max_epochs": 2, "batch_size": 8, "lr": 0.1, "train_split": None, "verbose": 0, **options}
    callbacks = [*callbacks, schedule]
    return NeuralNetClassifier(Perceptron, criterion=nn.CrossEntropyLoss, callbacks=callbacks, **options).fit(X, Y)


@pytest.mark.parametrize("score", [Source, DiffIn, trajectory_scores])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_weight_decay_that_changed_is_no_single_number(score, optimizer):
    net = FrozenEstimator(
        stepped("weight_decay", [0.0, 0.1, 0.2], TrajectoryRecorder(optimizer_state=True), optimizer=optimizer)
    )
    with pytest.raises(ValueError, match=r"weight_decay was not one number: it went from 0 to 0\.2 .*use SGDInfluence"):
        score(net, X, Y, X, Y) if score is trajectory_scores else score(net).fit(X, Y)


@pytest.mark.parametrize("name", ["momentum", "dampening"])
def test_momentum_that_changed_between_checkpoints_of_clipped_steps(name):
    """Beside decay, which is not clipped; the checkpoints all see one value."""
    momentum = {"optimizer__momentum": 0.5, "optimizer__weight_decay": 0.01}
    net = stepped(name, [0.5, 0.2, 0.5], TrajectoryRecorder(n_checkpoints=2), GradientNormClipping(0.1), **momentum)
    assert np.ptp(run_of(net).group_momenta) == 0
    with pytest.raises(ValueError, match=f"{name} was not one number: it went from 0.2 to 0.5"):
        Source(FrozenEstimator(net), n_segments=2).fit(X, Y)
    assert np.isfinite(TracIn(FrozenEstimator(net)).fit(X, Y).scores_).all()  # which knows every step's


def test_trajectory_scores_refuse_what_diff_in_refuses():
    net = stepped(
        "momentum", [0], TrajectoryRecorder(n_checkpoints=2), GradientNormClipping(0.1), optimizer__weight_decay=0.01
    )
    with pytest.raises(ValueError, match="DiffIn follows steps whose gradient and weight decay have one rate"):
        trajectory_scores(FrozenEstimator(net), X, Y, X, Y)


def test_second_moments_are_corrected_by_the_betas_of_their_group_and_step():
    """Of Adam under Source: P = 1 / (sqrt(v) + eps), at rates that are all one."""
    betas, groups = [(0.9, 0.9), (0.9, 0.5), (0.8, 0.7), (0.9, 0.8)], [("0.*", {"eps": 0.3})]
    recorder = TrajectoryRecorder(n_checkpoints=3, optimizer_state=True)
    net = stepped("betas", betas, recorder, optimizer=torch.optim.Adam, optimizer__param_groups=groups)
    fitted = Source(FrozenEstimator(net), curvature="exact", n_segments=3).fit(X, Y)
    (run,) = fitted._live.stages.runs
    trajectory = fitted.trajectory_
    for c, segment in enumerate(run.segments):
        step, found = int(trajectory.steps[c]), run._scale(segment)
        for name, state in trajectory.optimizer_state(c).items():
            v = state["exp_avg_sq"] / (1 - betas[(step - 1) % 4][1] ** step)
            last = trajectory.optimizer_state(2)[name]["exp_avg_sq"]
            floor = UNMET * last / (1 - betas[(trajectory.n_steps - 1) % 4][1] ** trajectory.n_steps)
            expected = 1 / (v.maximum(floor).sqrt() + (0.3 if name.startswith("0.") else 1e-8))
            torch.testing.assert_close(found[name], expected)
