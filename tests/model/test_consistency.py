"""Nets of every kind and losses of every kind: gradients as one backward pass per row gives them, or a refusal."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn
from torch.nn import functional as F

from sktda import TrajectoryRecorder
from sktda.attribution import Influence, InnerProduct, Source, TracIn
from sktda.model.adapters import differentiable
from sktda.model.criterion import tokens_of

N, WIDTH, CLASSES = 10, 4, 3
rng = np.random.default_rng(0)
X = rng.normal(size=(N, WIDTH))
CODES = np.r_[0, 1, 2, rng.integers(0, CLASSES, N - 3)]
NUMBERS = rng.normal(size=N)
BITS = np.r_[0.0, 1.0, rng.integers(0, 2, N - 2)]
WEIGHTS = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)


class Base(nn.Module):
    """Two linear layers, and what a subclass does between them."""

    def __init__(self, out=CLASSES, flat=False):
        super().__init__()
        self.first, self.last, self.flat = nn.Linear(WIDTH, 5), nn.Linear(5, out), flat

    def middle(self, hidden):
        return torch.tanh(hidden)

    def forward(self, x):
        outputs = self.last(self.middle(self.first(x)))
        return outputs[:, 0] if self.flat else outputs


class Temperature(Base):
    """A parameter of shape ()."""

    def __init__(self, *args):
        super().__init__(*args)
        self.temperature = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return super().forward(x) * self.temperature


class Keeps(Base):
    """An activation on self."""

    def middle(self, hidden):
        self.seen = [{"hidden": torch.tanh(hidden)}]
        return self.seen[0]["hidden"]


class Shared(Base):
    def middle(self, hidden):
        return torch.tanh(F.linear(torch.tanh(hidden), self.last.weight.T @ self.last.weight))


class MethodHook(Base):
    """A hook that is a method of the module."""

    def __init__(self, *args):
        super().__init__(*args)
        self.first.register_forward_hook(self.doubled)

    def doubled(self, module, arguments, output):
        return 2 * output


class Convolution(Base):
    def __init__(self, *args):
        super().__init__(*args)
        self.convolution = nn.Conv1d(1, 2, 3, padding=1)

    def middle(self, hidden):
        return torch.tanh(self.convolution(hidden[:, None]).sum(1))


class Recurrent(Base):
    def __init__(self, *args):
        super().__init__(*args)
        self.recurrent = nn.GRU(1, 5, batch_first=True)

    def middle(self, hidden):
        return self.recurrent(hidden[:, :, None])[0][:, -1]


class FrozenFirst(Base):
    def __init__(self, *args):
        super().__init__(*args)
        self.first.requires_grad_(False)


def changed(change):
    """A module kind whose first layer went through a function of torch."""

    def build(*args):
        module = Base(*args)
        change(module.first)
        return module

    return build


def between(layer):
    """A module kind with a layer between the two."""

    def build(*args):
        module = Base(*args)
        module.first = nn.Sequential(module.first, layer())
        return module

    return build


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


MODULES = {
    "plain": Base,
    "parameter of shape ()": Temperature,
    "activation kept on self": Keeps,
    "weight used twice": Shared,
    "hook that is a method": MethodHook,
    "convolution": Convolution,
    "recurrent": Recurrent,
    "frozen part": FrozenFirst,
    "weight_norm of hooks": changed(lambda layer: nn.utils.weight_norm(layer)),
    "weight_norm": changed(lambda layer: nn.utils.parametrizations.weight_norm(layer)),
    "spectral_norm of hooks": changed(lambda layer: nn.utils.spectral_norm(layer)),
    "LayerNorm": between(lambda: nn.LayerNorm(5)),
    "BatchNorm1d": between(lambda: nn.BatchNorm1d(5)),
    "Dropout": between(lambda: nn.Dropout(0.5)),
    "PReLU": between(nn.PReLU),
}


class Own(nn.Module):
    """A criterion of the user's own, by a function (outputs, targets) -> losses."""

    def __init__(self, losses, reduction="mean"):
        super().__init__()
        self.losses, self.reduction = losses, reduction

    def forward(self, outputs, targets):
        found = self.losses(outputs, targets)
        return found if self.reduction == "none" else getattr(found, self.reduction)()


LOSSES = {  # name: (criterion of a reduction, outputs (width, flat), targets)
    "CrossEntropyLoss": (lambda r: nn.CrossEntropyLoss(reduction=r), (CLASSES,), CODES),
    "smoothed": (lambda r: nn.CrossEntropyLoss(reduction=r, label_smoothing=0.2), (CLASSES,), CODES),
    "subclass": (lambda r: type("Mine", (nn.CrossEntropyLoss,), {})(reduction=r), (CLASSES,), CODES),
    "MSELoss": (lambda r: nn.MSELoss(reduction=r), (1,), NUMBERS[:, None]),
    "MSELoss flat": (lambda r: nn.MSELoss(reduction=r), (1, True), NUMBERS),
    "MSELoss several": (lambda r: nn.MSELoss(reduction=r), (2,), np.c_[NUMBERS, BITS]),
    "HuberLoss flat": (lambda r: nn.HuberLoss(reduction=r), (1, True), NUMBERS),
    "L1Loss": (lambda r: nn.L1Loss(reduction=r), (1,), NUMBERS[:, None]),
    "SmoothL1Loss flat": (lambda r: nn.SmoothL1Loss(reduction=r), (1, True), NUMBERS),
    "PoissonNLLLoss flat": (lambda r: nn.PoissonNLLLoss(reduction=r), (1, True), BITS),
    "BCEWithLogitsLoss flat": (lambda r: nn.BCEWithLogitsLoss(reduction=r), (1, True), BITS),
    "BCEWithLogitsLoss": (lambda r: nn.BCEWithLogitsLoss(reduction=r, pos_weight=WEIGHTS[1:2]), (1,), BITS[:, None]),
    "own flat": (lambda r: Own(lambda o, t: F.softplus(-(2 * t - 1) * o), r), (1, True), BITS),
    "own": (lambda r: Own(lambda o, t: (o[:, 0] - t).pow(4), r), (1,), NUMBERS),
    "SoftMarginLoss": (lambda r: nn.SoftMarginLoss(reduction=r), (1, True), 2 * BITS - 1),
    "MultiMarginLoss": (lambda r: nn.MultiMarginLoss(reduction=r), (CLASSES,), CODES),
}


def trained(module, criterion, y, cls=NeuralNet, X=X, **options):
    torch.manual_seed(0)
    settings = {"lr": 0.1, "max_epochs": 2, "train_split": None, "verbose": 0, "optimizer": torch.optim.SGD}
    return cls(module, criterion=criterion, **settings | options).fit(X, y)


def by_row(net, y, scale=1.0, X=X):
    """(n, p) gradients by one backward pass per row, by skorch's own call of the criterion, times the scale of each."""
    module = net.module_.eval()
    parameters = [value for value in module.parameters() if value.requires_grad]
    found = []
    for i in range(len(X)):
        loss = net.get_loss(net.infer(torch.from_numpy(X[[i]])), torch.from_numpy(y[[i]]), X=None, training=False)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        found.append(torch.cat([each.reshape(-1) for each in gradients]).numpy())
    return np.array(found) * np.broadcast_to(scale, N)[:, None]


def assert_gradients(net, y, expected, X=X):
    found = InnerProduct(FrozenEstimator(net), objective=None).fit(X, y).attribute(X, y)
    np.testing.assert_allclose(found, expected @ expected.T / len(X), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss, reduction):
    criterion, out, y = LOSSES[loss]
    net = trained(Base(*out), criterion(reduction), y, lr=0.01)
    assert_gradients(net, y, by_row(net, y))


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("loss", ["CrossEntropyLoss", "own flat", "MSELoss several"])
@pytest.mark.parametrize("kind", MODULES)
def test_every_module(kind, loss):
    criterion, out, y = LOSSES[loss]
    net = trained(MODULES[kind](*out), criterion("mean"), y)
    before = {name: value.clone() for name, value in net.module_.state_dict().items()}
    assert_gradients(net, y, by_row(net, y))
    assert all(torch.equal(value, before[name]) for name, value in net.module_.state_dict().items())


@pytest.mark.parametrize("kind", ["CrossEntropyLoss", "NLLLoss", "smoothed"])
@pytest.mark.parametrize("factor", [1, 40])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_class_weights_are_those_of_torchs_mean(kind, factor, reduction):
    options = {"weight": factor * WEIGHTS, "reduction": reduction}
    if kind == "NLLLoss":
        net = trained(nn.Sequential(Base(), nn.Softmax(1)), nn.NLLLoss(**options), CODES, NeuralNetClassifier)
    else:
        smoothing = 0.1 if kind == "smoothed" else 0.0
        net = trained(Base(), nn.CrossEntropyLoss(**options, label_smoothing=smoothing), CODES)
    weight = WEIGHTS.numpy()[CODES]
    scale = 1.0 if reduction == "sum" else weight / weight.mean()  # a mean over one row has lost its weight
    expected = by_row(net, CODES, scale)
    assert_gradients(net, CODES, expected)
    if reduction == "mean":  # the rows make up the gradient of the whole
        output, labels = net.infer(torch.from_numpy(X)), torch.from_numpy(CODES)
        whole = torch.autograd.grad(net.get_loss(output, labels, training=False), list(net.module_.parameters()))
        np.testing.assert_allclose(expected.mean(0), torch.cat([g.reshape(-1) for g in whole]).numpy(), atol=1e-12)


@pytest.mark.parametrize("attributor", [InnerProduct(objective="self"), TracIn(objective="self"), Influence()])
def test_a_factor_of_the_class_weights_changes_no_score(attributor):
    nets = [trained(Base, nn.CrossEntropyLoss(weight=factor * WEIGHTS), CODES) for factor in (1, 40)]
    fits = [clone(attributor).set_params(estimator=net, random_state=0).fit(X, CODES) for net in nets]
    np.testing.assert_allclose(fits[0].scores_, fits[1].scores_, rtol=1e-6)


# ---- several positions in a row, soft labels, labels that do not count -----------------------------------------------


class Sequence(nn.Module):
    """Logits (n, classes, positions)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(1, CLASSES, 3, padding=1)

    def forward(self, x):
        return self.layer(x[:, None])


LABELS = rng.integers(0, CLASSES, (N, WIDTH))
IGNORED = np.where(rng.random((N, WIDTH)) < 0.4, -100, LABELS)
IGNORED[:, 0] = LABELS[:, 0]
TARGETS = {
    "positions": (Sequence, LABELS, {}),
    "positions that do not count": (Sequence, IGNORED, {}),
    "another ignore_index": (Sequence, np.where(IGNORED < 0, 2, IGNORED % 2), {"ignore_index": 2}),
    "weighted positions": (Sequence, IGNORED, {"weight": WEIGHTS}),
    "weighted and smoothed": (Sequence, IGNORED, {"weight": WEIGHTS, "label_smoothing": 0.2}),
    "soft labels": (Base, rng.dirichlet(np.ones(CLASSES), N), {}),
    "soft and weighted": (Base, rng.dirichlet(np.ones(CLASSES), N), {"weight": WEIGHTS}),
    "soft positions": (Sequence, rng.dirichlet(np.ones(CLASSES), (N, WIDTH)).transpose(0, 2, 1).copy(), {}),
}


def denominators(y, options):
    """(n,) what torch's mean over a row alone divides by."""
    if y.dtype.kind == "f":
        return np.full(N, np.prod(y.shape[2:]))
    ignored = options.get("ignore_index", -100)
    weight = options.get("weight", torch.ones(CLASSES)).numpy()
    return np.where(y == ignored, 0, weight[np.where(y == ignored, 0, y)]).sum(1)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", TARGETS)
def test_positions_soft_labels_and_labels_that_do_not_count(kind, reduction):
    module, y, options = TARGETS[kind]
    net = trained(module(), nn.CrossEntropyLoss(**options, reduction=reduction), y)
    own = denominators(y, options)
    assert_gradients(net, y, by_row(net, y, own / own.mean() if reduction == "mean" else 1.0))


@pytest.mark.parametrize("kind", TARGETS)
def test_the_curvature_of_every_position(kind):
    module, y, options = TARGETS[kind]
    net = trained(module(), nn.CrossEntropyLoss(**options), y)
    model = differentiable(net, N)
    inputs, targets, _ = model.training_rows(X, y).block(slice(0, N), model.device)
    likelihood, outputs = model.likelihood, model.module(inputs).detach()
    along = torch.from_numpy(rng.normal(size=outputs.shape))
    roots = likelihood.roots(outputs, targets).flatten(2) if outputs.ndim > 2 else likelihood.roots(outputs, targets)
    product = torch.einsum("nko,nk->no", roots, torch.einsum("nko,no->nk", roots, along.flatten(1)))
    np.testing.assert_allclose(likelihood.curved(outputs, targets, along).flatten(1), product, atol=1e-12)
    _, truth = torch.autograd.functional.hvp(lambda o: likelihood.losses(o, targets).sum(), outputs, along)
    np.testing.assert_allclose(likelihood.curved(outputs, targets, along), truth, atol=1e-12)
    generator = torch.Generator().manual_seed(0)
    times, found = 4000, 0.0
    for _ in range(times // N):
        noise = likelihood.noise(outputs.shape, generator).to(outputs.device)
        slopes = likelihood.slopes(outputs, targets, noise)
        found = found + slopes * (slopes * along).flatten(1).sum(1).reshape(-1, *[1] * (outputs.ndim - 1))
    np.testing.assert_allclose(found / (times // N), truth, atol=6 * truth.abs().max() / (times // N) ** 0.5)


OPTIONS = {"plain": {}, "weighted": {"weight": WEIGHTS}, "smoothed": {"weight": WEIGHTS, "label_smoothing": 0.2}}


def marked(mark, shape):
    """(module, labels 0 and 1, in place of some of which stands the mark)."""
    ignored = IGNORED < 0
    if shape == "rows":
        return Base, np.where(ignored[:, 1], mark, LABELS[:, 1] % 2)
    return Sequence, np.where(ignored, mark, LABELS % 2)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", ["rows", "positions"])
@pytest.mark.parametrize("mark", [255, -1, 2])  # no class, no class, and the last one
def test_labels_that_do_not_count_may_have_any_number(mark, shape, options):
    answers = []
    for ignored in (mark, -100):
        module, y = marked(ignored, shape)
        torch.manual_seed(0)
        tokens = tokens_of(nn.CrossEntropyLoss(**OPTIONS[options], ignore_index=ignored))
        targets = torch.from_numpy(y)
        tokens = tokens.settled([targets])
        outputs = module().double()(torch.from_numpy(X)).detach().requires_grad_()
        losses = tokens.losses(outputs, targets)
        noise = tokens.noise(outputs.shape, torch.Generator().manual_seed(0))
        answers.append(
            [
                losses.detach(),
                *torch.autograd.grad(losses.sum(), outputs),
                tokens.curved(outputs, targets, torch.ones_like(outputs).cumsum(1)).detach(),
                tokens.roots(outputs, targets).detach(),
                tokens.slopes(outputs, targets, noise).detach(),
                tokens.margins(outputs, targets).detach(),
                torch.tensor(tokens.size(targets)),
            ]
        )
    for found, expected in zip(*answers, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "method",
    [
        TracIn,
        lambda net: Influence(net, damping=0.1, curvature="exact"),
        lambda net: Influence(net, damping=0.1, curvature="ekfac"),
        lambda net: Influence(net, damping=0.1, curvature="cg"),
        lambda net: Source(net),
    ],
    ids=["TracIn", "exact", "EK-FAC", "CG", "Source"],
)
@pytest.mark.filterwarnings("ignore:EK-FAC leaves out")
def test_scores_do_not_depend_on_the_number_of_labels_that_do_not_count(method):
    scores = []
    for ignored in (-100, 255, -1, 2):
        module, y = marked(ignored, "positions")
        torch.manual_seed(0)
        criterion = nn.CrossEntropyLoss(WEIGHTS, ignore_index=ignored)
        net = trained(module(), criterion, y, max_epochs=6, callbacks=[TrajectoryRecorder()])
        scores.append(method(FrozenEstimator(net)).fit(X, y, X_val=X[:4], y_val=y[:4]).scores_)
    assert np.ptp(scores[0]) > 0
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], rtol=1e-9)


def test_labels_beyond_the_outputs_are_refused_by_row():
    net = trained(Sequence(), nn.CrossEntropyLoss(), LABELS)
    y = LABELS.copy()
    y[4, 1] = CLASSES
    with pytest.raises(ValueError, match=r"the label 3 \(row 4\)"):
        InnerProduct(FrozenEstimator(net), objective=None).fit(X, y)
    with pytest.raises(ValueError, match=r"y must be \(n, 4\) with a label for each position"):
        InnerProduct(FrozenEstimator(net), objective=None).fit(X, LABELS[:, :2])


class Several(Base):
    """A forward that returns two outputs of different shapes."""

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return self.last(hidden), hidden


def test_a_criterion_of_all_outputs():
    def losses(outputs, targets):
        logits, hidden = outputs
        return F.cross_entropy(logits, targets, reduction="none") + 0.1 * hidden.square().sum(1)

    net = trained(Several(), Own(losses), CODES)
    assert_gradients(net, CODES, by_row(net, CODES))


def test_a_criterion_of_ones_own_in_a_binary_classifier():
    net = trained(Base(1), Own(lambda o, t: F.softplus(-(2 * t - 1) * o)), BITS, NeuralNetBinaryClassifier)
    assert_gradients(net, BITS, by_row(net, BITS))


def test_targets_keep_their_precision_behind_a_half_precision_part():
    class Mixed(Base):
        def __init__(self):
            super().__init__(1)
            self.first.to(torch.bfloat16).requires_grad_(False)
            self.last.to(torch.float32)

        def forward(self, x):
            return self.last(torch.tanh(self.first(x.bfloat16()).float()))

    rows, y = X.astype(np.float32), (100 + NUMBERS[:, None]).astype(np.float32)
    net = trained(Mixed(), nn.MSELoss(), y, X=rows, lr=1e-4)
    expected = by_row(net, y, X=rows)
    found = InnerProduct(FrozenEstimator(net), objective=None).fit(rows, y).attribute(rows, y)
    np.testing.assert_allclose(found, expected @ expected.T / N, rtol=1e-4)


# ---- what has no losses by row ---------------------------------------------------------------------------------------


class Meets(Base):
    def middle(self, hidden):
        hidden = torch.tanh(hidden)
        return hidden - hidden.mean(0)


class Attends(Base):
    def middle(self, hidden):
        return torch.softmax(hidden @ hidden.T, dim=1) @ hidden


class AlwaysDrops(Base):
    def middle(self, hidden):
        return F.dropout(torch.tanh(hidden), 0.5, training=True)


class Draws(Base):
    def middle(self, hidden):
        return torch.tanh(hidden) + torch.randn_like(hidden)


class Counts(Base):
    """A forward that changes a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def middle(self, hidden):
        self.calls += 1
        return torch.tanh(hidden) * (1 + 1 / (1 + self.calls))


REFUSED = {
    "rows meet in a mean": (Meets, "rows meet in its forward"),
    "attention over rows": (Attends, "rows meet in its forward"),
    "dropout that is always on": (AlwaysDrops, "when the same rows are given twice"),
    "noise in forward": (Draws, "when the same rows are given twice"),
    "a state that a pass changes": (Counts, "when the same rows are given twice"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_forward_without_rows_of_their_own_is_refused(kind):
    module, message = REFUSED[kind]
    net = trained(module(), nn.CrossEntropyLoss(), CODES)
    with pytest.raises(ValueError, match=message):
        InnerProduct(FrozenEstimator(net), objective=None).fit(X, CODES)


class RootMean(nn.Module):
    reduction = "mean"

    def forward(self, outputs, targets):
        squares = (outputs - targets).square()
        return squares if self.reduction == "none" else squares.mean().sqrt()


class Pairs(nn.Module):
    reduction = "mean"

    def forward(self, outputs, targets):
        if self.reduction == "none":
            return (outputs - targets).square()
        return torch.relu(1 - (outputs - outputs.T) * torch.sign(targets - targets.T)).mean()


@pytest.mark.parametrize("criterion", [RootMean, Pairs])
def test_a_criterion_that_is_no_mean_over_rows_is_refused(criterion):
    net = trained(Base(1), criterion(), NUMBERS[:, None])
    with pytest.raises(ValueError, match=f"{criterion.__name__} of 6 rows is .*it is no mean over rows"):
        InnerProduct(FrozenEstimator(net), objective=None).fit(X, NUMBERS[:, None])


def test_a_gradient_that_a_hook_changes_is_refused():
    module = Base()
    net = trained(module, nn.CrossEntropyLoss(), CODES)
    net.module_.last.register_full_backward_pre_hook(lambda layer, given: (3 * given[0],))
    net.module_.last.weight.register_hook(lambda gradient: 3 * gradient)  # which a copy does not have
    with pytest.raises(ValueError, match="the gradient of CrossEntropyLoss differs by"):
        InnerProduct(FrozenEstimator(net), objective=None).fit(X, CODES)


def test_a_hook_that_holds_the_original_is_refused():
    net = trained(Base(), nn.CrossEntropyLoss(), CODES)
    original = net.module_

    def hook(layer, arguments, output):
        original.seen = output.detach()

    original.first.register_forward_hook(hook)
    with pytest.raises(TypeError, match="a forward hook of the module 'first' is a function that holds modules"):
        InnerProduct(FrozenEstimator(net), objective=None).fit(X, CODES)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_script_module_is_refused():
    net = trained(torch.jit.script(nn.Linear(WIDTH, CLASSES)), nn.CrossEntropyLoss(), CODES)
    with pytest.raises(TypeError, match="is a ScriptModule"):
        InnerProduct(FrozenEstimator(net), objective=None).fit(X, CODES)
