"""What stands around a call in torch changes no score; queries and validation rows in every form."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn
from torch.utils.data import Dataset

from sktda.attribution import EL2N, Influence, InnerProduct, TracIn
from sktda.model.settings import seed_generators, torch_state_kept
from tests.model.nets import make_net

pytestmark = pytest.mark.usefixtures("short_training")

rng = np.random.default_rng(0)
X = rng.normal(size=(30, 3)).astype(np.float32)
Y = (X[:, 0] + 0.3 * rng.normal(size=30) > 0).astype(np.int64)


class Pairs(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return X[self.rows[i]], int(Y[self.rows[i]])


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@contextmanager
def default_device():
    torch.set_default_device("meta")  # as a GPU, it takes no tensor of the processor
    yield
    torch.set_default_device(None)


AROUND = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device": default_device,
    "default dtype": default_dtype,
}
METHODS = {
    "frozen": lambda: InnerProduct(FrozenEstimator(make_net().fit(X, Y)), objective="self"),
    "trained": lambda: TracIn(make_net(), objective="self", random_state=0),
    "default net": lambda: EL2N(random_state=0),
    "curvature": lambda: Influence(make_net(), random_state=0),
}


OWN_DTYPE = {"trained", "curvature"}  # a net of the user's own is made in the user's default


@pytest.mark.parametrize(
    ("method", "around"),
    [(m, a) for m in METHODS for a in AROUND if a != "default dtype" or m not in OWN_DTYPE],
)
def test_modes_around_a_fit_change_nothing(method, around):
    attributor = METHODS[method]()
    expected = attributor.fit(X, Y).scores_
    with AROUND[around]():
        attributor.fit(X, Y)
        again = attributor.attribute(X[:2], Y[:2]) if hasattr(attributor, "attribute") else None
    np.testing.assert_array_equal(attributor.scores_, expected)
    if again is not None:
        np.testing.assert_array_equal(again, attributor.attribute(X[:2], Y[:2]))


def test_one_query_without_its_axis_and_no_queries():
    fitted = InnerProduct(FrozenEstimator(make_net().fit(X, Y)), objective=None).fit(X, Y)
    with pytest.raises(ValueError, match=r"X_query has the shape \(3,\), which is that of one row; .*X_query\[None\]"):
        fitted.attribute(X[0], Y[0])
    with pytest.raises(ValueError, match="there are no queries"):
        fitted.attribute(X[:0], Y[:0])


def test_datasets_as_training_and_validation_rows():
    rows, held = np.arange(20), np.arange(20, 30)
    net = FrozenEstimator(make_net().fit(X[rows], Y[rows]))
    method = InnerProduct(net, objective="validation")
    expected = method.fit(X[rows], Y[rows], X_val=X[held], y_val=Y[held]).scores_
    found = method.fit(Pairs(rows), None, X_val=Pairs(held)).scores_
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_dataset_is_cross_fitted():
    method = InnerProduct(make_net(), objective="validation", random_state=0)
    scores = method.fit(Pairs(np.arange(30)), None).scores_
    assert scores.shape == (30,)
    assert np.isfinite(scores).all()


def doubled(batch):
    return torch.stack([2 * torch.as_tensor(x) for x, _ in batch]), torch.tensor([int(y) for _, y in batch])


@pytest.mark.parametrize("iterator", ["iterator_train", "iterator_valid"])
def test_rows_come_through_the_collate_fn_of_training(iterator):
    net = make_net(**{f"{iterator}__collate_fn": doubled}).fit(X, Y)
    plain = make_net().initialize()
    plain.module_.load_state_dict(net.module_.state_dict())
    found = InnerProduct(FrozenEstimator(net), objective="self").fit(X, Y).scores_
    expected = InnerProduct(FrozenEstimator(plain), objective="self").fit(2 * X, Y).scores_
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_nothing_of_nn_is_left_in_double():
    with default_dtype():
        net = EL2N(random_state=0).fit(X, Y).estimator_.net_
    assert {value.dtype for value in net.module_.parameters()} == {torch.float32}
    assert nn.Linear(1, 1).weight.dtype == torch.float32


class Accelerator:
    """A module of a device that nobody has used."""

    def __init__(self, started):
        self.started, self.seeds = started, []

    def is_initialized(self):
        return self.started

    def device_count(self):
        assert self.started, "this starts it"
        return 2

    def get_rng_state(self, device):
        assert self.started, "this starts it"
        return device

    def set_rng_state(self, state, device):
        self.seeds.append((state, device))

    def manual_seed_all(self, seed):
        self.seeds.append(seed)


@pytest.mark.parametrize("started", [False, True])
def test_generators_are_kept_and_no_accelerator_is_started_for_them(started, monkeypatch):
    module = Accelerator(started)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *args: torch.device("cuda"))
    monkeypatch.setattr(torch, "get_device_module", lambda *args: module)
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    with torch_state_kept():
        torch.default_generator.manual_seed(7)
        torch.randn(5)
    assert module.seeds == ([(0, 0), (1, 1)] if started else [3])
    assert torch.equal(torch.randn(2), expected)


def test_generators_begin_as_those_of_torch_do():
    for seed in (0, 2**32 - 1, np.int64(7)):
        with torch_state_kept():
            seed_generators(seed)
            found = torch.randn(5)
        assert torch.equal(found, torch.randn(5, generator=torch.Generator().manual_seed(int(seed))))
