"""LoGra: the closed form, planted answers, what users hand over, the store in memory and on disk, what is refused."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch import NeuralNet, NeuralNetClassifier
from torch import nn

from sktda.attribution import Influence, LoGra
from sktda.attribution.gradients import logra as module
from sktda.engine import compressed_curvature, kronecker_blocks
from sktda.engine import store as store_module
from sktda.objectives import Margin
from tests.spies import flip

N, ASKED = 90, 7
X, Y = make_classification(N, 6, n_informative=4, n_classes=3, random_state=0)
X = X.astype(np.float32)
X_NEW, Y_NEW = X[:ASKED] + 0.3, np.roll(Y, 2)[:ASKED]
WEIGHTS = np.random.default_rng(1).uniform(0.2, 3.0, N)
WEIGHTS[4] = 0.0


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(store_module, "SHARD", 25)


def trained(seed=0, X=X, Y=Y, module=None, criterion=nn.CrossEntropyLoss, kind=NeuralNetClassifier, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = module or nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        settings = {"max_epochs": 5, "lr": 0.1, "train_split": None, "verbose": 0} | options
        return FrozenEstimator(kind(module, criterion=criterion, **settings).fit(X, Y))


@pytest.fixture(scope="module")
def net():
    return trained()


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("init", ["pca", "random"])
def test_full_rank_is_the_closed_form_of_softmax_regression(init, weight):
    model = LogisticRegression(C=1e9, max_iter=5000).fit(X, Y, weight)

    def gradients(X, y):
        p, A = model.predict_proba(X), np.column_stack([X, np.ones(len(X))])
        return ((p - np.eye(3)[y])[:, :, None] * A[:, None]).reshape(len(X), -1)

    p, A = model.predict_proba(X), np.column_stack([X, np.ones(N)])
    fisher = p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None]
    w = np.ones(N) if weight is None else weight
    H = np.einsum("n,nab,ni,nj->aibj", w, fisher, A, A).reshape(21, 21) / N
    expected = gradients(X_NEW, Y_NEW) @ np.linalg.solve(H + 0.02 * np.eye(21), gradients(X, Y).T) * w / N
    logra = LoGra(FrozenEstimator(model), rank=9, init=init, damping=0.02, dtype="float32").fit(X, Y, weight)
    assert logra.width_ == 21
    np.testing.assert_allclose(logra.attribute(X_NEW, Y_NEW), expected, rtol=1e-4, atol=1e-6 * abs(expected).max())
    own = np.einsum("np,pn->n", gradients(X, Y), np.linalg.solve(H + 0.02 * np.eye(21), gradients(X, Y).T)) * w / N
    np.testing.assert_allclose(logra.scores_, -own, rtol=1e-4, atol=1e-6 * abs(own).max())
    validated = clone_fit(logra, weight, X_val=X_NEW, y_val=Y_NEW)
    np.testing.assert_allclose(validated.scores_, expected.mean(0), rtol=1e-3, atol=1e-6 * abs(expected).max())


def clone_fit(logra, weight=None, **validation):
    return copy.deepcopy(logra).set_params(objective="auto").fit(X, Y, weight, **validation)


def test_float16_is_within_thousandths_of_the_largest_value(net):
    fine, coarse = (LoGra(net, rank=4, dtype=dtype).fit(X, Y) for dtype in ("float32", "float16"))
    values, rounded = (each.attribute(X_NEW, Y_NEW) for each in (fine, coarse))
    assert 0 < abs(rounded - values).max() < 2e-3 * abs(values).max()
    np.testing.assert_allclose(coarse.scores_, fine.scores_, rtol=2e-3)
    np.testing.assert_allclose(fine.scores_, -np.diag(fine.attribute(X, Y)), rtol=1e-4)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_order_batches_shards_and_place_change_nothing(where, net, tmp_path, monkeypatch):
    work_dir = tmp_path if where == "disk" else None
    options = {"rank": 3, "dtype": "float32", "work_dir": work_dir}
    plain = LoGra(net, **options | {"work_dir": None}).fit(X, Y, WEIGHTS)
    values = plain.attribute(X_NEW, Y_NEW)
    order = np.random.default_rng(0).permutation(N)
    monkeypatch.setattr(store_module, "SHARD", 11)
    monkeypatch.setattr(module, "QUERIES", 3)
    turned = LoGra(net, batch_size=7, **options).fit(X[order], Y[order], WEIGHTS[order])
    close = {"rtol": 1e-3, "atol": 1e-4 * abs(values).max()}
    np.testing.assert_allclose(turned.attribute(X_NEW, Y_NEW), values[:, order], **close)
    np.testing.assert_allclose(turned.scores_, plain.scores_[order], rtol=1e-3, atol=1e-6)
    for harmful in (False, True):
        rows, best = turned.top_k(X_NEW, Y_NEW, k=4, harmful=harmful)
        found = turned.attribute(X_NEW, Y_NEW)
        np.testing.assert_array_equal(rows, np.argsort(found if harmful else -found, axis=1, kind="stable")[:, :4])
        np.testing.assert_allclose(best, np.take_along_axis(found, rows, 1))


def test_queries_may_be_asked_by_another_measure(net):
    logra = LoGra(net, rank=9, damping=0.01, dtype="float32", objective=Margin()).fit(X, Y, X_val=X_NEW, y_val=Y_NEW)
    found = logra.attribute(X_NEW, Y_NEW)
    np.testing.assert_allclose(logra.scores_, found.mean(0), rtol=1e-3, atol=1e-6 * abs(found).max())
    assert np.corrcoef(found.ravel(), LoGra(net, rank=9).fit(X, Y).attribute(X_NEW, Y_NEW).ravel())[0, 1] < 0.99


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_second_fit_has_nothing_of_the_first(where, net, tmp_path):
    logra = LoGra(net, rank=3, work_dir=tmp_path if where == "disk" else None, random_state=3)
    fresh = clone(logra).set_params(work_dir=None).fit(X[30:], Y[30:])
    again = logra.fit(X[:60], Y[:60]).fit(X[30:], Y[30:])
    np.testing.assert_array_equal(again.scores_, fresh.scores_)
    np.testing.assert_array_equal(again.attribute(X_NEW, Y_NEW), fresh.attribute(X_NEW, Y_NEW))


def test_damping_is_changed_without_a_pass(net, tmp_path, monkeypatch):
    logra = LoGra(net, rank=3, work_dir=tmp_path).fit(X, Y)
    fresh = LoGra(net, rank=3, damping=0.5).fit(X, Y).attribute(X_NEW, Y_NEW)
    np.testing.assert_allclose(logra.set_params(damping=0.5).attribute(X_NEW, Y_NEW), fresh)
    monkeypatch.setattr(module, "compressed_curvature", None)
    np.testing.assert_allclose(logra.fit(X, Y).attribute(X_NEW, Y_NEW), fresh)


def test_planted_wrong_labels_have_the_lowest_scores():
    pixels, classes = load_digits(return_X_y=True)
    pixels = (pixels[:600] / 16).astype(np.float32)
    labels = flip(classes[:600], 0.1)
    wrong = labels != classes[:600]
    model = trained(
        X=pixels, Y=labels, module=nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), max_epochs=20
    )
    assert roc_auc_score(wrong, -LoGra(model, rank=8).fit(pixels, labels).scores_) > 0.9


def test_more_rank_is_nearer_to_influence(net):
    exact = Influence(net, curvature="exact", damping=0.02).fit(X, Y).attribute(X_NEW, Y_NEW).ravel()
    near = [
        np.corrcoef(exact, LoGra(net, rank=rank, damping=0.02).fit(X, Y).attribute(X_NEW, Y_NEW).ravel())[0, 1]
        for rank in (1, 9)
    ]
    assert near[0] < near[1]
    assert near[1] > 0.9  # the blocks of layers are apart


# ---- what users hand over --------------------------------------------------------------------------------------------


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 5)
        self.encoder = nn.TransformerEncoderLayer(5, 1, 7, dropout=0.0, batch_first=True)
        self.out = nn.Linear(5, 4)

    def forward(self, X):
        return self.out(self.encoder(self.words(X))).transpose(1, 2)


class Adapted(nn.Module):
    """A frozen map with a trained one of rank 2 beside it."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(6, 5).requires_grad_(False)
        self.lora_A, self.lora_B = nn.Linear(6, 2, bias=False), nn.Linear(2, 5, bias=False)
        self.head = nn.Linear(5, 3)

    def forward(self, X):
        return self.head(torch.tanh(self.base(X) + self.lora_B(self.lora_A(X))))


class TiedTagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(9, 5), nn.Linear(5, 9, bias=False)
        self.out.weight = self.words.weight

    def forward(self, X):
        return self.out(torch.tanh(self.words(X))).transpose(1, 2)


RNG = np.random.default_rng(0)
SENTENCES = RNG.integers(0, 9, (30, 4))
TAGS = RNG.integers(0, 4, (30, 4))
PADDED = np.where(np.arange(4) < RNG.integers(1, 5, (30, 1)), TAGS, -100)
IMAGES = RNG.normal(size=(30, 1, 5, 5)).astype(np.float32)
CASES = {  # estimator, X, y
    "tokens": (Tagger, SENTENCES, PADDED, {"kind": NeuralNet}),
    "tied": (TiedTagger, SENTENCES, RNG.integers(0, 9, (30, 4)), {"kind": NeuralNet}),
    "adapters": (Adapted, X[:30], Y[:30], {}),
    "pictures": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(16, 3)
        ),
        IMAGES,
        Y[:30],
        {},
    ),
    "class weights": (
        lambda: nn.Linear(6, 3), X[:30], Y[:30], {"criterion__weight": torch.tensor([0.2, 1.0, 3.0])}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_blocks_of_full_rank_are_those_of_the_exact_curvature_where_there_is_one_block(name, tmp_path):
    """With large damping the curvature plays no part, and the exact method of all parameters says the same."""
    make, inputs, targets, options = CASES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = trained(X=inputs, Y=targets, module=make(), **options)
    exact = Influence(model, curvature="exact", damping=1e5).fit(inputs, targets).attribute(inputs[:5], targets[:5])
    logra = LoGra(model, rank=40, damping=1e5, dtype="float32", work_dir=tmp_path).fit(inputs, targets)
    tolerance = {"rtol": 1e-2, "atol": 1e-4 * abs(exact).max()}
    np.testing.assert_allclose(logra.attribute(inputs[:5], targets[:5]), exact, **tolerance)
    few, all_of_it = (
        LoGra(model, rank=rank).fit(inputs, targets).attribute(inputs[:9], targets[:9]).ravel() for rank in (3, 40)
    )
    assert np.corrcoef(few, all_of_it)[0, 1] > 0.3
    # a loaded store has what the rows told the likelihood, and a single query finds the layers
    loaded = LoGra.load(tmp_path, model).set_params(damping=1e5)
    np.testing.assert_allclose(loaded.attribute(inputs[:1], targets[:1]), exact[:1], **tolerance)


def test_parameters_that_are_left_out_are_named_once(monkeypatch):
    monkeypatch.setattr(kronecker_blocks, "FORMED_SIZE", 100)

    class Large(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(101))
            self.out = nn.Linear(6, 3)

        def forward(self, X):
            return self.out(X) + self.table[:3]

    model = trained(module=Large(), max_epochs=1)
    with pytest.warns(UserWarning, match="the store leaves out 1 parameters.*: table; they count as fixed") as caught:
        LoGra(model, rank=2).fit(X[:20], Y[:20])
    assert len(caught) == 1


# ---- the store -------------------------------------------------------------------------------------------------------


def counting(monkeypatch):
    passes = []
    own = module.compressed

    def compressed(engine, rows, compression, measure, start, stop):
        passes.append((start, stop))
        return own(engine, rows, compression, measure, start, stop)

    monkeypatch.setattr(module, "compressed", compressed)
    return passes


def test_a_second_fit_and_queries_after_a_restart_pass_over_no_training_row(net, tmp_path, monkeypatch):
    first = LoGra(net, rank=3, work_dir=tmp_path).fit(X, Y)
    values = first.attribute(X_NEW, Y_NEW)
    passes = counting(monkeypatch)
    again = LoGra(net, rank=3, work_dir=tmp_path).fit(X, Y)
    assert passes == []
    np.testing.assert_array_equal(again.scores_, first.scores_)
    loaded = LoGra.load(tmp_path, net)
    np.testing.assert_array_equal(loaded.attribute(X_NEW, Y_NEW), values)
    np.testing.assert_array_equal(loaded.top_k(X_NEW, Y_NEW, k=3)[0], first.top_k(X_NEW, Y_NEW, k=3)[0])
    assert set(passes) == {(0, ASKED)}
    assert loaded.get_params()["rank"] == 3
    assert (loaded.width_, loaded.task_, loaded.folder_) == (first.width_, "classification", first.folder_)
    with pytest.raises(ValueError, match="that of one row"):
        loaded.attribute(X_NEW[0], Y_NEW[:1])
    refitted = loaded.fit(X[:40], Y[:40])  # with rows it is as any other
    assert refitted.scores_ is not None
    assert refitted.attribute(X_NEW, Y_NEW).shape == (ASKED, 40)


@pytest.mark.parametrize("work_dir", [None, "disk"])
def test_a_pickle_answers(work_dir, net, tmp_path):
    first = LoGra(net, rank=3, work_dir=tmp_path if work_dir else None).fit(X, Y)
    again = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(again.attribute(X_NEW, Y_NEW), first.attribute(X_NEW, Y_NEW))


def test_a_fit_that_was_stopped_goes_on(net, tmp_path, monkeypatch):
    plain = LoGra(net, rank=3).fit(X, Y)
    passes, put = counting(monkeypatch), store_module.GradientStore.put

    def third(self, k, *args):
        put(self, k, *args)
        if k == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module.GradientStore, "put", third)
        with pytest.raises(KeyboardInterrupt):
            LoGra(net, rank=3, work_dir=tmp_path).fit(X, Y)
    with pytest.raises(ValueError, match=r"lacks 1 of 4 shards.*goes on where it was"):
        LoGra.load(tmp_path, net)
    np.testing.assert_array_equal(LoGra(net, rank=3, work_dir=tmp_path).fit(X, Y).scores_, plain.scores_)
    assert passes == [(0, 25), (25, 50), (50, 75), (75, 90)]


def test_other_models_rows_and_compressions_are_never_mixed(net, tmp_path, monkeypatch):
    passes, other = counting(monkeypatch), trained(seed=1)
    cases = [
        {"estimator": other},
        {"rank": 2},
        {"init": "random"},
        {"dtype": "float32"},
        {"parameters": "0.*"},
        {"random_state": 1},
        {"X": X[::-1].copy()},
        {"y": np.roll(Y, 1)},
        {"sample_weight": WEIGHTS},
        {},
    ]
    for number, case in enumerate(cases):
        rows = {name: case.pop(name) for name in ("X", "y", "sample_weight") if name in case}
        options = {"estimator": net, "rank": 3} | case
        LoGra(work_dir=tmp_path, objective=None, **options).fit(**{"X": X, "y": Y} | rows)
        assert len(list(tmp_path.iterdir())) == number + 1
        assert len(passes) == 4 * (number + 1)
    with pytest.raises(ValueError, match=r"holds 9 stores of this model; name the folder of one: .*gradients-"):
        LoGra.load(tmp_path, net)
    found = [LoGra.load(folder, net) for folder in tmp_path.iterdir() if is_of(folder, net)]
    assert len(found) == 9
    assert LoGra.load(tmp_path, other).attribute(X_NEW, Y_NEW).shape == (ASKED, N)
    with pytest.raises(ValueError, match="holds 10 stores, and none is of this model"):
        LoGra.load(tmp_path, trained(seed=2))
    with pytest.raises(ValueError, match="holds 0 stores, and none is of this model"):
        LoGra.load(tmp_path / "nowhere", net)


def is_of(folder, model):
    try:
        return LoGra.load(folder, model) is not None
    except ValueError:
        return False


def test_another_scaler_before_the_model_is_another_model(tmp_path):
    pipes = [
        FrozenEstimator(make_pipeline(StandardScaler(), LogisticRegression(C=1e9)).fit(shift * X, Y))
        for shift in (1.0, 2.0)
    ]
    LoGra(pipes[0], work_dir=tmp_path).fit(X, Y)
    assert LoGra.load(tmp_path, pipes[0]).attribute(X_NEW, Y_NEW).shape == (ASKED, N)
    with pytest.raises(ValueError, match="none is of this model"):
        LoGra.load(tmp_path, pipes[1])


def test_transformers_without_a_name_are_refused_on_disk_only(tmp_path):
    pipe = make_pipeline(FunctionTransformer(lambda X: 2 * X), LogisticRegression(C=1e9)).fit(X, Y)
    assert LoGra(FrozenEstimator(pipe)).fit(X, Y).folder_ is None
    with pytest.raises(TypeError, match=r"cannot be pickled .*; give functions that have names, or work_dir=None"):
        LoGra(FrozenEstimator(pipe), work_dir=tmp_path).fit(X, Y)


def test_a_damaged_shard_is_refused_and_made_again_by_a_fit(net, tmp_path, monkeypatch):
    logra = LoGra(net, rank=3, work_dir=tmp_path).fit(X, Y)
    values = logra.attribute(X_NEW, Y_NEW)
    path = sorted(tmp_path.rglob("rows-*"))[1]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for each in (logra, LoGra.load(tmp_path, net)):
        with pytest.raises(ValueError, match=r"damaged shard; fit again.*makes this shard anew"):
            each.attribute(X_NEW, Y_NEW)
    passes = counting(monkeypatch)
    np.testing.assert_array_equal(LoGra(net, rank=3, work_dir=tmp_path).fit(X, Y).attribute(X_NEW, Y_NEW), values)
    assert passes == [(25, 50), (0, ASKED)]


def test_a_damaged_head_makes_a_new_store(net, tmp_path):
    scores = LoGra(net, rank=3, work_dir=tmp_path).fit(X, Y).scores_
    (head,) = tmp_path.rglob("store.safetensors")
    head.write_bytes(head.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match="is damaged"):
        LoGra.load(tmp_path, net)
    np.testing.assert_array_equal(LoGra(net, rank=3, work_dir=tmp_path).fit(X, Y).scores_, scores)


def test_what_is_on_disk_says_what_it_is(net, tmp_path):
    logra = LoGra(net, rank=3, work_dir=tmp_path).fit(X, Y)
    assert len(list(tmp_path.rglob("rows-*"))) == 4
    about = logra._store.about
    assert json.loads(json.dumps(about)) == about
    assert [block["name"] for block in about["blocks"]] == ["0", "2"]


def test_the_curvature_of_many_rows_is_drawn_from_some(net, monkeypatch):
    whole = LoGra(net, rank=3).fit(X, Y).attribute(X_NEW, Y_NEW)
    monkeypatch.setattr(compressed_curvature, "ROOTS", 0)
    monkeypatch.setattr(compressed_curvature, "CURVATURE_ROWS", 60)
    monkeypatch.setattr(compressed_curvature, "BASIS_ROWS", 60)
    drawn = LoGra(net, rank=3).fit(X, Y).attribute(X_NEW, Y_NEW)
    assert 0.8 < np.corrcoef(whole.ravel(), drawn.ravel())[0, 1] < 1
