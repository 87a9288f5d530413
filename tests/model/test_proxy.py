"""The default net: fits whatever comes, in the user's labels and units, reproducibly, fast, and differentiably."""

import time

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import cross_val_score

from sktda.model import proxy
from sktda.model.adapters import differentiable
from sktda.model.base import forward
from sktda.model.fingerprint import row_fingerprints
from sktda.model.fitting import train_clone
from sktda.model.given import GivenModel, GivenRows
from sktda.model.proxy import DefaultClassifier, default_net
from sktda.model.recorder import TrajectoryRecorder
from sktda.model.scaled import ScaledRows

CPU = torch.device("cpu")


@pytest.fixture
def few_steps(monkeypatch):
    """For tests in which it is all the same how well the net has learned."""
    monkeypatch.setattr(proxy, "STEPS", 24)


def mean_loss(model, rows):
    inputs, targets, _ = rows.block(slice(None), CPU)
    return float(model.likelihood.losses(forward(model.module, inputs), targets).detach().mean())


def test_tables_are_learned_within_a_second_or_two():
    X, y = load_digits(return_X_y=True)
    names = np.array([f"d{k}" for k in range(10)])[y]
    default_net("classification", 0).fit(X[:100], names[:100])  # loads what torch loads once
    start = time.process_time()
    net = default_net("classification", 0).fit(X[:1500], names[:1500])
    assert time.process_time() - start < 1.5
    assert net.score(X[1500:], names[1500:]) > 0.88
    assert set(net.predict(X[1500:])) <= set(names)
    np.testing.assert_allclose(net.predict_proba(X[:9]).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("form", ["n h w", "n h w c", "n c h w"])
def test_images_are_learned_in_every_layout(form):
    X, y = load_digits(return_X_y=True)
    images = X.reshape(-1, 8, 8)
    if form == "n h w c":
        images = np.stack([images, images, 16 - images], axis=-1).astype(np.uint8)
    if form == "n c h w":
        images = images[:, None].astype(np.float32)
    net = default_net("classification", 0).fit(images[:300], y[:300])
    assert isinstance(net.net_.module_[0], torch.nn.Conv2d)
    assert net.net_.module_[0].in_channels == (3 if form == "n h w c" else 1)
    assert net.score(images[300:600], y[300:600]) > 0.8


def test_numbers_are_learned_in_their_own_units():
    X, y = load_diabetes(return_X_y=True)
    for target in (1e6 * y + 1e9, np.column_stack([y, -1e-5 * y])):
        net = default_net("regression", 0)
        assert cross_val_score(net, X, target, cv=2).mean() > 0.25
        assert net.fit(X, target).predict(X).shape == target.shape


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 2), (1, 1, 3), (2, 3, 2, 2)])
def test_small_odd_and_huge_inputs_survive(shape, monkeypatch):
    """Every shape with every number of rows; the task and the optimizer, which see no shape, by turns."""
    monkeypatch.setattr(proxy, "STEPS", 6)
    rng = np.random.default_rng(0)
    for k, n in enumerate((1, 2, 20, 1, 2, 20), start=len(shape)):
        task, optimizer = ("classification", "regression")[k % 2], ("adamw", "sgd")[k // 2 % 2]
        X = 1e12 * rng.normal(size=(n, *shape)) + 1e15
        X[:, ..., 0] = 7.0  # a constant
        y = np.arange(n) % 2
        net = default_net(task, 0, optimizer).fit(X, y if task == "classification" else y * 1e8)
        assert net.predict(X).shape == (n,), (task, n, optimizer)
        assert np.isfinite(net._outputs(X)).all(), (task, n, optimizer)


@pytest.mark.usefixtures("few_steps")
def test_a_seed_fixes_the_net_and_the_global_state_is_left_alone():
    X, y = load_digits(return_X_y=True)
    X, y = X[:200], y[:200]
    state = torch.random.get_rng_state()
    nets = [train_clone(default_net("classification"), X, y, random_state=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)
    first, same, other = (net.predict_proba(X) for net in nets)
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-3
    again = clone(default_net("classification", 5)).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), default_net("classification", 5).fit(X, y).predict_proba(X))


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("image", [False, True])
def test_the_copy_gives_the_nets_outputs_and_the_loss_it_was_trained_with(task, image):
    X, y = load_digits(return_X_y=True)
    X, y = X[:150].reshape(-1, 8, 8) if image else X[:150], y[:150]
    y = np.array(list("abcdefghij"))[y] if task == "classification" else y * 10.0
    net = default_net(task, 0).fit(X, y)
    model = differentiable(net)
    rows = model.rows(X, y)
    with torch.no_grad():
        outputs = torch.cat([forward(model.module, rows.block(np.arange(k, k + 1), CPU)[0]) for k in range(150)])
    torch.testing.assert_close(outputs, torch.from_numpy(net._outputs(X)), atol=1e-5, rtol=1e-4)
    data = net.dataset(X, y)
    whole, targets = data.__getitems__(list(range(150)))
    loss = float(net.net_.get_loss(net.net_.module_.eval()(whole), targets).detach())
    assert mean_loss(model, rows) == pytest.approx(loss, rel=1e-5)
    assert set(model.decay.values()) == {0.01}
    assert model.decay.keys() == model.parameters.keys()
    with torch.no_grad():
        next(model.module.parameters()).zero_()
    assert net.net_.module_[0].weight.abs().sum() > 0


@pytest.mark.usefixtures("few_steps")
def test_weights_count_as_the_loss_says():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), np.arange(60) % 2
    plain = default_net("classification", 0).fit(X, y).predict_proba(X)
    ones = default_net("classification", 0).fit(X, y, np.ones(60)).predict_proba(X)
    np.testing.assert_allclose(ones, plain, atol=1e-5)
    only = default_net("classification", 0).fit(X, y, y + 0.0).predict(X)
    assert (only == 1).all()
    for task in ("classification", "regression"):
        model = differentiable(train_clone(default_net(task), X, y, np.ones(60), random_state=0))
        assert model.rows(X, y, np.arange(60)).block(slice(2, 4), CPU)[2].tolist() == [2, 3]


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_recorded_training_is_the_same_and_its_rows_are_recognised(steps, weighted):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(50, 4)), np.array(["a", "b"])[rng.integers(0, 2, 50)]
    weight = rng.uniform(0, 3, 50) if weighted else None
    recorder = [("recorder", TrajectoryRecorder(steps=steps))]
    recorded = train_clone(default_net("classification"), X, y, weight, random_state=0, callbacks=recorder)
    plain = train_clone(default_net("classification"), X, y, weight, random_state=0)
    np.testing.assert_array_equal(recorded.predict_proba(X), plain.predict_proba(X))
    given = GivenModel.of(recorded)
    net, seen_X, seen_y = given.net, *given.seen(GivenRows(X[10:20], y[10:20]))
    trajectory = dict(net.callbacks_)["recorder"].trajectory_
    np.testing.assert_array_equal(trajectory.positions(seen_X, seen_y), np.arange(10, 20))
    model = differentiable(recorded)
    model.load(trajectory.state(len(trajectory) - 1))
    inputs, _, _ = model.rows(X).block(slice(None), CPU)
    np.testing.assert_allclose(model.module(inputs).detach(), recorded._outputs(X), atol=1e-6)


@pytest.mark.usefixtures("few_steps")
def test_sparse_tables_frames_and_memory_maps_are_read_alike(tmp_path):
    pd = pytest.importorskip("pandas")
    X, y = load_digits(return_X_y=True)
    X, y = X[:100].astype(np.float32), y[:100]
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=X.shape)
    mapped[:] = X
    expected = default_net("classification", 0).fit(X, y).predict_proba(X)
    for given in (sp.csr_matrix(X), mapped, pd.DataFrame(X, columns=[f"p{k}" for k in range(64)])):
        net = default_net("classification", 0).fit(given, y)
        np.testing.assert_allclose(net.predict_proba(given), expected, atol=1e-5)


@pytest.mark.usefixtures("few_steps")
def test_rows_come_one_by_one_as_well_as_in_batches():
    X, y = load_digits(return_X_y=True)
    net = default_net("classification", 0).fit(X[:50], y[:50])
    data = net.dataset(X[:50], y[:50])
    x, target = data[7]
    batch, targets = data.__getitems__([7, 3])
    assert torch.equal(batch[0], x)
    assert targets.tolist() == [y[7], y[3]]
    assert target == y[7]
    weighted = ScaledRows(data.X, data.y, data.scaled, torch.arange(50.0))
    assert torch.equal(weighted[7][0], x)
    assert weighted[7][1] == y[7]  # a row by itself, and its fingerprint, has no weight
    assert weighted.__getitems__([3, 5])[1][1].tolist() == [3, 5]
    one_by_one = [row_fingerprints(*(each[None] for each in weighted[row]))[0] for row in (7, 3)]
    assert row_fingerprints(weighted, None, np.array([7, 3])).tolist() == one_by_one


@pytest.mark.usefixtures("few_steps")
def test_the_optimiser_is_adamw_unless_sgd_with_momentum_is_asked_for():
    X, y = load_digits(return_X_y=True)
    X, y = X[:100], y[:100]
    plain = default_net("classification", 0).fit(X, y)
    np.testing.assert_array_equal(
        plain.predict_proba(X), default_net("classification", 0, "adamw").fit(X, y).predict_proba(X)
    )
    (group,) = plain.net_.optimizer_.param_groups
    assert type(plain.net_.optimizer_) is torch.optim.AdamW
    assert (group["lr"], group["weight_decay"]) == (2e-3, 1e-2)
    net = clone(default_net("classification", 0, optimizer="sgd")).fit(X, y)
    (group,) = net.net_.optimizer_.param_groups
    assert type(net.net_.optimizer_) is torch.optim.SGD
    assert (group["lr"], group["momentum"], group["dampening"], group["nesterov"]) == (0.05, 0.9, 0, False)
    assert set(differentiable(net).decay.values()) == {1e-4}
    np.testing.assert_array_equal(
        net.predict_proba(X), default_net("classification", 0, "sgd").fit(X, y).predict_proba(X)
    )
    with pytest.raises(ValueError, match="optimizer='adam' is not one of 'adamw', 'sgd'"):
        default_net("classification", optimizer="adam").fit(X, y)


@pytest.mark.parametrize("image", [False, True])
def test_sgd_learns_classes_about_as_well_as_adamw(image):
    X, y = load_digits(return_X_y=True)
    X = X.reshape(-1, 8, 8) if image else X
    adamw, sgd = (default_net("classification", 0, name).fit(X[:1200], y[:1200]) for name in ("adamw", "sgd"))
    assert sgd.score(X[1200:], y[1200:]) > adamw.score(X[1200:], y[1200:]) - 0.03


def test_sgd_learns_numbers_about_as_well_as_adamw():
    X, y = load_diabetes(return_X_y=True)
    adamw, sgd = (cross_val_score(default_net("regression", 0, name), X, y, cv=2).mean() for name in ("adamw", "sgd"))
    assert sgd > adamw - 0.05


@pytest.mark.parametrize(
    ("task", "shape"),
    [
        ("classification", (300,)),
        ("regression", (300,)),
        ("regression", (5_000,)),
        ("regression", (16, 16)),
        ("classification", (16, 16, 3)),
    ],
)
def test_sgd_does_not_diverge_where_all_columns_or_pixels_are_equal(task, shape, monkeypatch):
    monkeypatch.setattr(proxy, "STEPS", 120)
    rng = np.random.default_rng(0)
    z = rng.normal(size=64)
    X = z.reshape(-1, *[1] * len(shape)) * np.ones(shape)
    y = np.digitize(z, [-1, 0, 1]) if task == "classification" else 3 * z + 0.1 * rng.standard_t(1.5, size=64)
    assert default_net(task, 0, "sgd").fit(X, y).score(X, y) > 0.75


@pytest.mark.usefixtures("few_steps")
def test_sgd_takes_the_same_steps_whatever_the_size_of_the_weights():
    rng = np.random.default_rng(0)
    X, y, weight = rng.normal(size=(60, 3)), np.arange(60) % 2, rng.uniform(0.1, 2, 60)
    one, other = (default_net("classification", 0, "sgd").fit(X, y, k * weight) for k in (1, 1e4))
    np.testing.assert_allclose(other.predict_proba(X), one.predict_proba(X), atol=1e-3)


@pytest.mark.usefixtures("few_steps")
def test_wrong_labels_and_tasks_are_named():
    with pytest.raises(ValueError, match="task='auto' is not one of"):
        default_net("auto")
    X = np.random.default_rng(0).normal(size=(20, 2))
    model = differentiable(DefaultClassifier(random_state=0).fit(X, np.repeat(["a", "b"], 10)))
    with pytest.raises(ValueError, match=r"label 'c' \(row 1"):
        model.rows(X[:2], ["a", "c"])
