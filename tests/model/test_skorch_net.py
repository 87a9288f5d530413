"""skorch nets: each criterion's loss to the last digit, penalties by parameter, targets in shape, clear refusals."""

import copy

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.dataset import Dataset as SkorchDataset
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from sktda.attribution import InnerProduct
from sktda.model.adapters import can_differentiate, differentiable
from sktda.model.base import forward
from sktda.model.criterion import Custom
from sktda.model.likelihood import Binary, Gaussian
from sktda.model.softmax import Categorical
from tests.in_turn import in_turn

N = 23
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype(np.float32)
CODES = RNG.integers(0, 3, N)
BITS = (X[:, 0] > 0).astype(np.float32)
SEVERAL = RNG.normal(size=(N, 2)).astype(np.float32)
LABELS = (SEVERAL > 0).astype(np.float32)
SETTINGS = {"train_split": None, "max_epochs": 2, "verbose": 0, "batch_size": -1, "lr": 0.05}
CPU = torch.device("cpu")


def net_of(kind, module, criterion, **settings):
    torch.manual_seed(0)
    return kind(module, criterion=criterion, **{**SETTINGS, **settings})


def mlp(k, *end, flat=False):
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, k), *end, *([nn.Flatten(0)] if flat else []))


class LogSum(nn.Module):
    """A criterion of the user's own, per row."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, outputs, targets):
        losses = torch.log(torch.cosh(outputs - targets)).sum(1)
        return losses if self.reduction == "none" else losses.mean()


WEIGHTS = torch.tensor([0.5, 1.0, 2.0])
CASES = {
    "cross-entropy": (NeuralNetClassifier, mlp(3), nn.CrossEntropyLoss(), CODES, Categorical),
    "smoothed": (NeuralNetClassifier, mlp(3), nn.CrossEntropyLoss(label_smoothing=0.2), CODES, Categorical),
    "nll": (NeuralNetClassifier, mlp(3, nn.Softmax(1)), nn.NLLLoss(), CODES, Categorical),
    "nll-of-logs": (NeuralNet, mlp(3, nn.LogSoftmax(1)), nn.NLLLoss(), CODES, Categorical),
    "binary": (NeuralNetBinaryClassifier, mlp(1), nn.BCEWithLogitsLoss(), BITS, Binary),
    "binary-flat": (NeuralNetBinaryClassifier, mlp(1, flat=True), nn.BCEWithLogitsLoss(), BITS, Binary),
    "binary-weighted": (
        NeuralNetBinaryClassifier,
        mlp(1),
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)),
        BITS,
        Binary,
    ),
    "binary-p": (NeuralNetBinaryClassifier, mlp(1, nn.Sigmoid()), nn.BCELoss(), BITS, Binary),
    "labels": (NeuralNet, mlp(2), nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0, 0.5])), LABELS, Binary),
    "labels-plain": (NeuralNet, mlp(2), nn.BCEWithLogitsLoss(), LABELS, Binary),
    "absolute": (NeuralNetRegressor, mlp(2), nn.L1Loss(), SEVERAL, Custom),
    "squares": (NeuralNetRegressor, mlp(1), nn.MSELoss(), SEVERAL[:, :1], Gaussian),
    "squares-flat": (NeuralNetRegressor, mlp(1, flat=True), nn.MSELoss(), SEVERAL[:, 0], Gaussian),
    "squares-several": (NeuralNetRegressor, mlp(2), nn.MSELoss(), SEVERAL, Gaussian),
    "huber": (NeuralNetRegressor, mlp(2), nn.HuberLoss(delta=0.5), SEVERAL, Custom),
    "margin": (NeuralNet, mlp(3), nn.MultiMarginLoss(), CODES, Custom),
    "own": (NeuralNetRegressor, mlp(2), LogSum(), SEVERAL, Custom),
}


def trained_loss(net, X, y):
    """The criterion on all rows, as skorch computes it, in eval mode."""
    net.module_.eval()
    with torch.no_grad():
        return float(net.get_loss(net.infer(torch.as_tensor(X)), torch.as_tensor(y)))


@in_turn("case", CASES)
def test_the_mean_over_rows_is_the_loss_that_the_net_was_trained_with(case):
    kind, module, criterion, y, likelihood = CASES[case]
    net = net_of(kind, module, criterion).fit(X, y)
    before = copy.deepcopy(net.module_.state_dict())
    model = differentiable(net)
    rows = model.rows(X, y)
    assert isinstance(model.likelihood, likelihood)
    inputs, targets, weight = rows.block(slice(None), CPU)
    out = forward(model.module, inputs)
    losses = model.likelihood.losses(out, targets)
    assert losses.shape == (N,)
    assert weight is None
    assert float(losses.detach().mean()) == pytest.approx(trained_loss(net, X, y), rel=2e-6)
    # one row at a time, in another order
    some = np.array([7, 0, 7, 22])
    inputs, targets, _ = rows.block(some, CPU)
    torch.testing.assert_close(model.likelihood.losses(forward(model.module, inputs), targets), losses[some])
    # a copy: what is done to it stays there
    with torch.no_grad():
        for value in model.module.parameters():
            value.fill_(7.0)
    for name, value in net.module_.state_dict().items():
        assert torch.equal(value, before[name])


@in_turn("case", ["labels-plain", "squares-several", "huber", "own", "absolute", "cross-entropy"])
def test_roots_give_the_hessian_of_the_loss_by_the_outputs(case):
    kind, module, criterion, y, _ = CASES[case]
    model = differentiable(net_of(kind, module, criterion).fit(X, y))
    model.module.double()
    inputs, targets, _ = model.rows(X, y).block(slice(0, 6), CPU)
    inputs = inputs.double()
    targets = targets.double() if targets.is_floating_point() else targets
    out = forward(model.module, inputs).detach()
    roots = model.likelihood.roots(out, targets).flatten(2)
    for i in range(6):
        hessian = torch.autograd.functional.hessian(
            lambda o, i=i: model.likelihood.losses(o[None], targets[i : i + 1])[0], out[i]
        ).flatten()
        torch.testing.assert_close((roots[i].T @ roots[i]).flatten(), hessian, rtol=1e-6, atol=1e-9)


def test_weights_of_classes_multiply_the_losses():
    net = net_of(NeuralNetClassifier, mlp(3), nn.CrossEntropyLoss(weight=WEIGHTS)).fit(X, CODES)
    model = differentiable(net)
    inputs, targets, _ = model.rows(X, CODES).block(slice(None), CPU)
    losses = model.likelihood.losses(forward(model.module, inputs), targets).detach()
    # torch divides the sum by that of the weights
    assert float(losses.sum() / WEIGHTS[CODES].sum()) == pytest.approx(trained_loss(net, X, CODES), rel=1e-6)


def test_weight_decay_is_read_by_parameter_group():
    groups = [("0.*", {"weight_decay": 0.3}), ("2.bias", {"weight_decay": 0.0})]
    for optimizer in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        net = net_of(
            NeuralNetClassifier,
            mlp(3),
            nn.CrossEntropyLoss(),
            optimizer=optimizer,
            optimizer__weight_decay=0.1,
            optimizer__param_groups=groups,
        ).fit(X, CODES)
        assert differentiable(net).decay == {"0.weight": 0.3, "0.bias": 0.3, "2.weight": 0.1}


def test_the_penalty_beside_a_sum_is_divided_by_the_rows_of_a_batch():
    settings = {"optimizer__weight_decay": 0.6, "lr": 1e-3}
    net = net_of(NeuralNetRegressor, mlp(2), nn.MSELoss(reduction="sum"), batch_size=6, **settings).fit(X, SEVERAL)
    model = differentiable(net)
    assert model.decay["0.weight"] == pytest.approx(0.1)
    inputs, targets, _ = model.rows(X, SEVERAL).block(slice(None), CPU)
    losses = model.likelihood.losses(forward(model.module, inputs), targets).detach()
    assert float(losses.sum()) == pytest.approx(trained_loss(net, X, SEVERAL), rel=1e-6)
    net = net_of(NeuralNetRegressor, mlp(2), nn.MSELoss(reduction="sum"), **settings).fit(X, SEVERAL)
    assert differentiable(net, n_rows=N).decay["0.weight"] == pytest.approx(0.6 / N)
    with pytest.raises(ValueError, match="pass n_rows"):
        differentiable(net)


def test_frozen_parameters_stay_frozen_and_the_copy_is_in_eval_mode():
    module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))
    module[0].requires_grad_(False)
    net = net_of(NeuralNetClassifier, module, nn.CrossEntropyLoss(), optimizer__weight_decay=0.1).fit(X, CODES)
    net.module_.train()
    model = differentiable(net)
    assert list(model.parameters) == ["1.weight", "1.bias", "3.weight", "3.bias"]
    assert "0.weight" not in model.decay
    assert not any(each.training for each in model.module.modules())
    assert net.module_.training


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, as it loads the compiler
def test_compiled_modules_are_unwrapped_inside_and_out():
    inner = nn.Linear(4, 4)
    module = nn.Sequential(inner, nn.Linear(4, 3))
    net = net_of(NeuralNetClassifier, module, nn.CrossEntropyLoss(), optimizer__weight_decay=0.1).fit(X, CODES)
    net.module_[0] = torch.compile(net.module_[0])
    expected = net.module_[1](inner(torch.from_numpy(X))).detach()
    object.__setattr__(net, "module_", torch.compile(net.module_))
    object.__setattr__(net, "criterion_", torch.compile(net.criterion_))
    model = differentiable(net)
    assert list(model.parameters) == ["0.weight", "0.bias", "1.weight", "1.bias"] == list(model.decay)
    assert not any("Optimized" in type(each).__name__ for each in model.module.modules())
    assert isinstance(model.likelihood, Categorical)
    torch.testing.assert_close(model.module(torch.from_numpy(X)).detach(), expected)


class Tuples(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = mlp(3)

    def forward(self, a, b):
        out = self.inner(torch.cat([a, b], 1))
        return out if self.training else (out, a)  # skorch trains on one output and predicts with the first


class Pairs(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, i):
        return X[i] * 2, int(CODES[i])


class Doubled(SkorchDataset):
    def transform(self, X, y):
        return super().transform(X * 2, y)


def test_inputs_of_every_kind_are_read_block_by_block(tmp_path):
    pd = pytest.importorskip("pandas")
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=X.shape)
    mapped[:] = X
    net = net_of(NeuralNetClassifier, mlp(3), nn.CrossEntropyLoss()).fit(X, CODES)
    some = np.array([3, 0, 3])
    for given, factor in (
        (X, 1),
        (X.astype(float), 1),
        (torch.from_numpy(X), 1),
        (sp.csr_matrix(X), 1),
        (mapped, 1),
        (Pairs(), 2),
        (TensorDataset(torch.from_numpy(X), torch.from_numpy(CODES)), 1),
    ):
        y = None if isinstance(given, Dataset) else pd.Series(CODES, index=np.arange(N) + 5)
        rows = differentiable(net).rows(given, y)
        for block in (some, slice(2, 5)):
            inputs, targets, _ = rows.block(block, CPU)
            np.testing.assert_array_equal(inputs, factor * X[block])
            np.testing.assert_array_equal(targets, CODES[block])
            assert inputs.dtype == torch.float32
    own = net_of(NeuralNetClassifier, mlp(3), nn.CrossEntropyLoss(), dataset=Doubled).fit(X, CODES)
    np.testing.assert_array_equal(differentiable(own).rows(X, CODES).block(some, CPU)[0], 2 * X[some])


def test_a_memory_map_is_never_read_whole(tmp_path):
    class Watched(np.ndarray):
        largest = 0

        def __getitem__(self, key):
            part = super().__getitem__(key)
            Watched.largest = max(Watched.largest, getattr(part, "nbytes", 0))
            return part

    net = net_of(NeuralNetClassifier, mlp(3), nn.CrossEntropyLoss()).fit(X, CODES)
    rows = differentiable(net).rows(X.view(Watched), CODES)
    rows.block(slice(4, 8), CPU)
    assert Watched.largest == X[:4].nbytes


def test_dicts_and_frames_go_in_by_name_and_the_first_output_counts():
    pd = pytest.importorskip("pandas")
    net = net_of(NeuralNetClassifier, Tuples, nn.CrossEntropyLoss())
    given = {"a": X[:, :1], "b": X[:, 1:]}
    net.fit(given, CODES)
    model = differentiable(net)
    inputs, _, _ = model.rows(given, CODES).block(np.array([1, 0]), CPU)
    np.testing.assert_array_equal(inputs["b"], X[[1, 0], 1:])
    logits = net.module_.eval()(torch.from_numpy(X[[1, 0], :1]), torch.from_numpy(X[[1, 0], 1:]))[0]
    torch.testing.assert_close(forward(model.module, inputs), logits)
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1]}, index=list(range(9, 9 + N)))
    narrow = net_of(NeuralNetClassifier, Tuples, nn.CrossEntropyLoss())
    narrow.initialize().module_.inner[0] = nn.Linear(2, 5)
    inputs, _, _ = differentiable(narrow).rows(frame, CODES).block(slice(1, 3), CPU)
    np.testing.assert_array_equal(inputs["b"], X[1:3, 1:2])


def test_whole_numbers_reach_an_embedding_unchanged():
    words = RNG.integers(0, 7, (N, 3))
    module = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 3))
    net = net_of(NeuralNetClassifier, module, nn.CrossEntropyLoss()).fit(words, CODES)
    inputs, _, _ = differentiable(net).rows(words, CODES).block(slice(0, 2), CPU)
    assert inputs.dtype == torch.int64


def test_without_targets_only_outputs_are_defined_and_weights_are_checked():
    net = net_of(NeuralNetClassifier, mlp(3), nn.CrossEntropyLoss()).fit(X, CODES)
    model = differentiable(net)
    assert model.rows(X).block(slice(0, 4), CPU)[1].shape == (4, 0)
    weight = model.rows(X, CODES, np.arange(N)).block(slice(2, 4), CPU)[2]
    assert weight.tolist() == [2, 3]
    with pytest.raises(ValueError, match=r"one weight per row is needed: \(23,\)"):
        model.rows(X, CODES, np.ones(3))
    with pytest.raises(ValueError, match="X and y have 23 and 22 rows"):
        model.rows(X, CODES[:-1])


@pytest.mark.parametrize("criterion", [nn.MSELoss, nn.L1Loss])
def test_targets_that_would_be_broadcast_are_refused(criterion):
    column, flat = SEVERAL[:, :1], SEVERAL[:, 0]
    net = net_of(NeuralNetRegressor, mlp(1), criterion()).fit(X, column)
    with pytest.raises(ValueError, match=r"y is \(n,\) but the net's outputs are \(n, 1\).*y.reshape\(-1, 1\)"):
        differentiable(net).rows(X, flat)
    net = net_of(NeuralNetRegressor, mlp(1, flat=True), criterion()).fit(X, flat)
    with pytest.raises(ValueError, match=r"y is \(n, 1\) but the net's outputs are \(n,\).*y.ravel\(\)"):
        differentiable(net).rows(X, column)


def test_labels_that_the_net_has_no_output_for_are_named():
    model = differentiable(net_of(NeuralNetClassifier, mlp(3), nn.CrossEntropyLoss()).fit(X, CODES))
    with pytest.raises(ValueError, match=r"label 3 \(row 5\).*allowed are 0 to 2"):
        model.rows(X, np.where(np.arange(N) == 5, 3, CODES))
    with pytest.raises(ValueError, match="encode text as numbers"):
        model.rows(X, CODES.astype(str))
    model = differentiable(net_of(NeuralNetBinaryClassifier, mlp(1), nn.BCEWithLogitsLoss()).fit(X, BITS))
    with pytest.raises(ValueError, match=r"label 2.0 \(row 1\).*allowed are 0 and 1"):
        model.rows(X[:2], np.array([0.0, 2.0]))


class OwnLoss(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return super().get_loss(y_pred, y_true, *args, **kwargs) * 2


class OwnInfer(NeuralNetClassifier):
    def infer(self, x, **fit_params):
        return super().infer(x * 2, **fit_params)


class NoReduction(nn.Module):
    def forward(self, outputs, targets):
        return (outputs - targets).square().mean()


def test_losses_that_are_not_known_per_row_are_refused_with_what_to_do():
    for kind, message in ((OwnLoss, "own get_loss.*into a criterion"), (OwnInfer, "own infer")):
        net = net_of(kind, mlp(3), nn.CrossEntropyLoss())
        assert not can_differentiate(net)
        with pytest.raises(TypeError, match=message):
            differentiable(net.fit(X, CODES))
    net = net_of(NeuralNetRegressor, mlp(2), NoReduction()).fit(X, SEVERAL)
    assert can_differentiate(net)
    with pytest.raises(TypeError, match="NoReduction has reduction=None"):
        differentiable(net)
    net = net_of(NeuralNet, mlp(2), nn.BCEWithLogitsLoss(weight=torch.ones(2))).fit(X, LABELS)
    with pytest.raises(ValueError, match="use pos_weight"):
        differentiable(net)


def test_a_criterion_without_a_noise_model_says_so_when_labels_are_drawn():
    model = differentiable(net_of(NeuralNetRegressor, mlp(2), nn.HuberLoss()).fit(X, SEVERAL))
    with pytest.raises(ValueError, match=r"HuberLoss has no noise model.*CrossEntropyLoss"):
        model.likelihood.draw(torch.zeros(3, 2), torch.zeros(3))


def test_a_trimmed_net_and_a_stream_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(Pairs()[i] for i in range(N))

    net = net_of(NeuralNetClassifier, mlp(3), nn.CrossEntropyLoss()).fit(X, CODES)
    with pytest.raises(TypeError, match="map-style Dataset"):
        differentiable(net).rows(Stream())
    net.trim_for_prediction()
    with pytest.raises(ValueError, match="trim_for_prediction"):
        differentiable(net)


def test_negative_curvature_of_a_custom_loss_is_cut_off():
    class Wave(nn.Module):
        reduction = "none"

        def forward(self, outputs, targets):
            return torch.sin(outputs - targets)

    outputs = torch.tensor([[0.5], [-0.5]])  # second derivative of the sine: minus the sine
    roots = Custom(Wave()).roots(outputs, torch.zeros(2, 1))
    torch.testing.assert_close(roots.square().flatten(), torch.sin(torch.tensor([0.0, 0.5])))


class Joint(nn.Module):
    """Cross-entropy and squared error of two heads; targets (n, 3): a class and two numbers."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, outputs, targets):
        codes, numbers = (targets["class"], targets["number"]) if isinstance(targets, dict) else (
            targets[:, 0].long(), targets[:, 1:]
        )  # fmt: skip
        losses = nn.functional.cross_entropy(outputs[:, :3], codes, reduction="none")
        losses = losses + (outputs[:, 3:] - numbers).square().sum(1)
        return losses if self.reduction == "none" else losses.mean()


def test_a_dict_of_targets_is_refused_and_one_array_of_them_is_right():
    y = {"class": CODES, "number": X[:, :2]}

    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            return X[i], {name: value[i] for name, value in y.items()}

    message = r"y is a dict of arrays \('class', 'number'\).*side by side into one array"
    net = net_of(NeuralNet, nn.Linear(4, 5), Joint()).fit(X, y)
    with pytest.raises(TypeError, match=message):
        InnerProduct(FrozenEstimator(net)).fit(X, y)
    with pytest.raises(TypeError, match=message):
        InnerProduct(FrozenEstimator(net)).fit(Pairs(), None)
    joined = np.column_stack([CODES, X[:, :2]]).astype(np.float32)
    net = net_of(NeuralNet, nn.Linear(4, 5), Joint()).fit(X, joined)
    found = InnerProduct(FrozenEstimator(net)).fit(X, joined).scores_
    own = Joint("none")(net.module_(torch.from_numpy(X)), torch.from_numpy(joined))
    lengths = [
        sum(
            float(g.square().sum())
            for g in torch.autograd.grad(loss, list(net.module_.parameters()), retain_graph=True)
        )
        for loss in own
    ]
    np.testing.assert_allclose(found, -np.array(lengths) / len(X), rtol=1e-4)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16, np.uint32])
def test_labels_of_a_type_too_small_for_the_number_of_outputs(kind):
    codes = np.array([0, 100, 127])
    net = net_of(NeuralNetClassifier, mlp(300), nn.CrossEntropyLoss(), max_epochs=0).fit(X[:3], codes)
    _, targets = differentiable(net).rows(X[:3], codes.astype(kind)).read(slice(0, 3))
    assert targets.tolist() == codes.tolist()


def test_labels_that_wrap_to_the_one_that_does_not_count_count():
    # -100 in uint8 is 156
    masks = np.array([[156, 1]])
    net = net_of(NeuralNetClassifier, mlp(400, nn.Unflatten(1, (200, 2))), nn.CrossEntropyLoss(), max_epochs=0)
    _, targets = differentiable(net.fit(X[:1], masks)).rows(X[:1], masks.astype(np.uint8)).read(slice(0, 1))
    assert targets.tolist() == masks.tolist()
    assert targets.dtype is torch.int64
    net = net_of(NeuralNetClassifier, mlp(6, nn.Unflatten(1, (3, 2))), nn.CrossEntropyLoss(), max_epochs=0)
    with pytest.raises(ValueError, match=r"label 156 .*allowed are 0 to 2"):
        differentiable(net.fit(X[:1], masks % 3)).rows(X[:1], masks.astype(np.uint8)).read(slice(0, 1))
