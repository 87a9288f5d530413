"""Scores for objectives: brute-force leave-one-out, several in one pass, orders, batches, metadata."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from skorch import NeuralNet
from torch import nn
from torch.utils.data import TensorDataset

from sktda.attribution import (
    DiffIn,
    Influence,
    InnerProduct,
    SGDInfluence,
    Source,
    Stage,
    TracIn,
    trajectory_scores,
)
from sktda.engine import journal
from sktda.engine.journal import Journal
from sktda.objectives import (
    AdversarialLoss,
    ClassLoss,
    DemographicParity,
    EqualOpportunity,
    Margin,
    SliceLoss,
    ValidationLoss,
    Weighted,
)
from tests.attribution import run_reference as runs
from tests.attribution.run_reference import assert_close, trained
from tests.model.nets import make_net

N, N_VAL = 120, 90
EXACT = {"solver": "newton-cholesky", "tol": 1e-12}
OBJECTIVES = {
    "loss": ValidationLoss(),
    "margin": Margin(),
    "class": ClassLoss(1),
    "slice": SliceLoss("1"),
    "worst slice": SliceLoss(),
    "parity": DemographicParity(positive=1),
    "opportunity": EqualOpportunity(positive=1),
    "opportunity of losses": EqualOpportunity("loss", positive=1),
    "adversarial": AdversarialLoss(),
}


def problem(classes, seed=0):
    """(X, y, X_val, y_val, groups of the validation rows)."""
    X, y = make_classification(
        N + N_VAL, 5, n_informative=4, n_redundant=0, n_classes=classes, flip_y=0.2, random_state=seed
    )
    groups = (X[:, 0] + np.random.default_rng(seed).normal(size=len(X)) > 0).astype(int)
    return X[:N], y[:N], X[N:], y[N:], groups[N:]


def with_features(groups):
    return {"metadata_val": {"sensitive_features": groups}}


# ---- leave-one-out ---------------------------------------------------------------------------------------------------


def settled_values(model, X, y, groups):
    """{name: value as a function of any model}, signs, pairs and moved rows being those of this one; plain NumPy."""
    rows = np.arange(len(y))

    def p(at, X=X):
        return at.predict_proba(X)

    def losses(at, X=X):
        return -np.log(p(at, X)[rows, y])

    def gap(values, among=True):
        masks = [(groups == k) & among for k in (0, 1)]
        sign = np.sign(values(model)[masks[1]].mean() - values(model)[masks[0]].mean())
        return lambda at: sign * (values(at)[masks[1]].mean() - values(at)[masks[0]].mean())

    worst = int(losses(model)[groups == 1].mean() > losses(model)[groups == 0].mean())
    moved = moved_rows(model, X, y)
    return {
        "loss": lambda at: losses(at).mean(),
        "margin": lambda at: np.mean(np.log(1 - p(at)[rows, y]) - np.log(p(at)[rows, y])),
        "class": lambda at: losses(at)[y == 1].mean(),
        "slice": lambda at: losses(at)[groups == 1].mean(),
        "worst slice": lambda at: losses(at)[groups == worst].mean(),
        "parity": gap(lambda at: p(at)[:, 1]),
        "opportunity": gap(lambda at: p(at)[:, 1], y == 1),
        "opportunity of losses": gap(losses, y == 1),
        "adversarial": lambda at: losses(at, moved).mean(),
    }


def moved_rows(model, X, y):
    """1.3 times the way to the nearest boundary, for rows that are classified rightly."""
    w, b = model.coef_, model.intercept_
    if len(w) == 1:
        w, b = np.concatenate([-w, w]) / 2, np.concatenate([-b, b]) / 2
    score, moved = X @ w.T + b, X.copy()
    for i in np.flatnonzero(model.predict(X) == y):
        ways = [(y[i], k) for k in range(len(w)) if k != y[i]]
        steps = [(score[i, a] - score[i, k]) * (w[a] - w[k]) / np.sum((w[a] - w[k]) ** 2) for a, k in ways]
        moved[i] -= 1.3 * min(steps, key=np.linalg.norm)
    return moved


@pytest.mark.parametrize("classes", [2, 3])
def test_predicted_changes_against_refits_without_each_row(classes):
    X, y, X_val, y_val, groups = problem(classes)
    model = LogisticRegression(C=0.1, **EXACT)
    full = clone(model).fit(X, y)
    values = settled_values(full, X_val, y_val, groups)
    before = {name: value(full) for name, value in values.items()}
    changes = {name: np.empty(N) for name in values}
    for row in range(N):
        weight = np.ones(N)
        weight[row] = 0  # with 1/N and the penalty kept, for C stays
        without = clone(model).fit(X, y, sample_weight=weight)
        for name, value in values.items():
            changes[name][row] = value(without) - before[name]
    found = Influence(model, objective=Weighted(OBJECTIVES)).fit(
        X, y, X_val=X_val, y_val=y_val, **with_features(groups)
    )
    assert list(found.objectives_) == list(OBJECTIVES)
    for name, one in found.objectives_.items():
        np.testing.assert_allclose(one.value, before[name], rtol=1e-6, err_msg=name)
        assert np.corrcoef(one.scores, changes[name])[0, 1] >= 0.99, name
        assert 0.9 < np.polyfit(one.scores, changes[name], 1)[0] < 1.3, name
        alone = Influence(FrozenEstimator(full), objective=OBJECTIVES[name])
        alone.fit(X, y, X_val=X_val, y_val=y_val, **with_features(groups))
        assert_close(alone.scores_, one.scores, 1e-6)


def test_changes_against_a_tiny_change_of_one_weight():
    """To more digits than leave-one-out, which is no derivative, can show."""
    X, y, X_val, y_val, groups = problem(2)
    model = LogisticRegression(C=0.1, **EXACT)
    values = settled_values(clone(model).fit(X, y), X_val, y_val, groups)
    found = Influence(model, objective=Weighted(OBJECTIVES)).fit(
        X, y, X_val=X_val, y_val=y_val, **with_features(groups)
    )
    for row in range(0, N, 20):
        ends = []
        for step in (-1e-3, 1e-3):
            weight = np.ones(N)
            weight[row] += step
            ends.append(clone(model).fit(X, y, sample_weight=weight))
        for name, value in values.items():
            slope = (value(ends[0]) - value(ends[1])) / 2e-3
            scale = np.abs(found.objectives_[name].scores).max()
            assert abs(found.objectives_[name].scores[row] - slope) < 1e-4 * scale, name


# ---- several in one pass ---------------------------------------------------------------------------------------------

X, Y = runs.X, runs.Y
X_VAL = np.random.default_rng(5).normal(size=(30, 3))
Y_VAL = np.arange(30) % 3
SEX = (np.random.default_rng(6).normal(size=30) + X_VAL[:, 0] > 0).astype(int)


def mean_square(predict, X, y, **metadata):
    return predict(X).square().mean()


SEVERAL = Weighted(
    {
        "loss": ValidationLoss(),
        "gap": DemographicParity(1),
        "margin": Margin(),
        "attack": AdversarialLoss("fgsm", eps=0.2),
        "mine": mean_square,
    },
    [1.0, -2.0, 0.5, 0.0, 3.0],
)


def with_stages(**params):
    return Source(
        FrozenEstimator(trained("tanh")), stages=[Stage(trained("tanh, nesterov"))], curvature="exact", **params
    )


METHODS = {
    "TracIn": lambda **params: TracIn(FrozenEstimator(trained("tanh")), **params),
    "InnerProduct": lambda **params: InnerProduct(FrozenEstimator(trained("tanh")), **params),
    "Influence, exact": lambda **params: Influence(
        FrozenEstimator(trained("tanh")), curvature="exact", damping=0.1, **params
    ),
    "Influence, ekfac": lambda **params: Influence(
        FrozenEstimator(trained("tanh")), curvature="ekfac", **{"random_state": 0} | params
    ),
    "Influence, cg": lambda **params: Influence(
        FrozenEstimator(trained("tanh")), curvature="cg", damping=0.1, **params
    ),
    "Source": lambda **params: Source(FrozenEstimator(trained("tanh")), curvature="exact", **params),
    "Source, ekfac": lambda **params: Source(
        FrozenEstimator(trained("tanh")), curvature="ekfac", **{"random_state": 0} | params
    ),
    "Source, stages": with_stages,
    "DiffIn, exact": lambda **params: DiffIn(FrozenEstimator(trained("tanh")), hvp="exact", **params),
    "DiffIn, head": lambda **params: DiffIn(FrozenEstimator(trained("softmax")), hvp="exact", **params),
    "DiffIn, gauss-newton": lambda **params: DiffIn(FrozenEstimator(trained("tanh")), hvp="gauss-newton", **params),
    "DiffIn, differences": lambda **params: DiffIn(FrozenEstimator(trained("tanh")), hvp="finite-difference", **params),
    "SGDInfluence": lambda **params: SGDInfluence(FrozenEstimator(trained("tanh")), **params),
    "SGDInfluence, momentum": lambda **params: SGDInfluence(FrozenEstimator(trained("tanh, nesterov")), **params),
}


def asked(method, objective, X=X, y=Y, order=None, **params):
    order = np.arange(len(X_VAL)) if order is None else order
    return METHODS[method](objective=objective, **params).fit(
        X, y, X_val=X_VAL[order], y_val=Y_VAL[order], **with_features(SEX[order])
    )


@pytest.mark.parametrize("method", METHODS)
def test_each_of_several_is_as_alone_and_the_sum_is_weighted(method):
    found = asked(method, SEVERAL)
    assert list(found.objectives_) == list(SEVERAL.named)
    total = np.zeros(len(X))
    for share, (name, one) in zip(SEVERAL.shares, found.objectives_.items(), strict=True):
        alone = asked(method, SEVERAL.named[name])
        assert_close(one.scores, alone.scores_, 1e-6)
        (only,) = alone.objectives_.values()
        assert one.value == pytest.approx(only.value, rel=1e-12)
        assert one.groups == only.groups
        np.testing.assert_array_equal(only.scores, alone.scores_)
        assert np.abs(one.scores).max() > 0
        total += share * one.scores
    assert_close(found.scores_, total, 1e-10)
    assert found.objectives_["gap"].groups in {("0", "1"), ("1", "0")}
    assert [name for name, one in found.objectives_.items() if one.groups is None] == [
        "loss",
        "margin",
        "attack",
        "mine",
    ]


def test_stages_show_the_weighted_sum_of_each():
    found = asked("Source, stages", SEVERAL)
    parts = [asked("Source, stages", one).stage_scores_ for one in SEVERAL.named.values()]
    assert found.stage_scores_.shape == (2, len(X))
    assert_close(found.stage_scores_, np.einsum("k,ksn->sn", SEVERAL.shares, parts), 1e-6)
    assert_close(found.stage_scores_.sum(0), found.scores_, 1e-10)


def test_methods_of_one_pass_ask_about_the_sum():
    options = {"metadata_val": {"sensitive_features": SEX}}
    net = FrozenEstimator(trained("tanh"))
    found = trajectory_scores(net, X, Y, X_VAL, Y_VAL, objective=SEVERAL, **options)
    parts = [trajectory_scores(net, X, Y, X_VAL, Y_VAL, objective=one, **options) for one in SEVERAL.named.values()]
    for name in ("TracIn", "InnerProduct", "DiffIn"):
        assert_close(found[name], np.einsum("k,kn->n", SEVERAL.shares, [part[name] for part in parts]), 1e-6)
    for name in ("TracIn-self", "MoSo"):
        np.testing.assert_array_equal(found[name], parts[0][name])
    assert_close(found["TracIn"], asked("TracIn", SEVERAL).scores_, 1e-8)
    assert_close(found["DiffIn"], asked("DiffIn, exact", SEVERAL).scores_, 1e-6)
    head = trajectory_scores(FrozenEstimator(trained("softmax")), X, Y, X_VAL, Y_VAL, objective=SEVERAL, **options)
    assert_close(head["DiffIn"], asked("DiffIn, head", SEVERAL).scores_, 1e-6)


@pytest.mark.parametrize("method", ["TracIn", "Source, ekfac", "DiffIn, exact", "SGDInfluence"])
def test_what_is_settled_is_of_the_final_model(method):
    """Values, the sign of a gap and attacked rows: the run goes through other parameters, where they would differ."""
    found = asked(method, SEVERAL).objectives_
    expected = asked("Influence, exact", SEVERAL).objectives_
    for name, one in found.items():
        assert one.value == pytest.approx(expected[name].value, rel=1e-12)
        assert one.groups == expected[name].groups


def test_a_gap_along_the_run_is_that_of_the_groups_of_the_end():
    """By hand: sum over checkpoints of rate times <gradient of the signed gap, gradient of the row>."""
    net = trained("tanh")
    run, module = runs.run_of(net), runs.Perceptron()
    module.load_state_dict(net.module_.state_dict())
    inputs, sex = torch.from_numpy(X_VAL), torch.from_numpy(SEX)

    def gap():
        p = module(inputs).softmax(1)[:, 1]
        return p[sex == 1].mean() - p[sex == 0].mean()

    sign = float(gap().detach().sign())
    expected, signs = np.zeros(len(X)), []
    for c, (_, _) in enumerate(runs.weights_of("tanh")):
        module.load_state_dict(run.state(c))
        value = sign * gap()
        signs.append(float(value.detach().sign()))
        q = torch.cat([g.flatten() for g in torch.autograd.grad(value, list(module.parameters()))]).numpy()
        expected += run.effective_rate_sums[c] * runs.reference.row_gradients(module, X, Y) @ q / len(X)
    assert_close(asked("TracIn", DemographicParity(1)).scores_, expected, 1e-9)
    assert_close(asked("TracIn", SEVERAL).objectives_["gap"].scores, expected, 1e-9)


# ---- invariances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["TracIn", "Influence, ekfac", "Source", "DiffIn, exact", "SGDInfluence"])
def test_the_batch_size_changes_nothing(method):
    plain = asked(method, SEVERAL)
    small = asked(method, SEVERAL, batch_size=5)
    for name, one in plain.objectives_.items():
        assert_close(small.objectives_[name].scores, one.scores, 1e-6)


@pytest.mark.parametrize("method", ["TracIn", "Influence, exact", "Source", "DiffIn, exact", "SGDInfluence"])
def test_the_order_of_validation_rows_with_their_metadata_changes_nothing(method):
    plain = asked(method, SEVERAL)
    mixed = asked(method, SEVERAL, order=np.random.default_rng(0).permutation(30))
    for name, one in plain.objectives_.items():
        assert_close(mixed.objectives_[name].scores, one.scores, 1e-8)
        assert mixed.objectives_[name].value == pytest.approx(one.value)


def test_rows_that_are_given_twice_change_no_mean():
    twice = np.tile(np.arange(30), 2)
    for method in ("TracIn", "Influence, exact"):
        plain, doubled = asked(method, SEVERAL), asked(method, SEVERAL, order=twice)
        for name, one in plain.objectives_.items():
            assert_close(doubled.objectives_[name].scores, one.scores, 1e-8)


def test_the_names_of_groups_do_not_matter():
    plain = asked("TracIn", DemographicParity(1)).scores_
    for names in (["b", "a"], [5.5, -1.0], [True, False]):
        found = METHODS["TracIn"](objective=DemographicParity(1)).fit(
            X, Y, X_val=X_VAL, y_val=Y_VAL, **with_features(np.array(names)[SEX])
        )
        assert_close(found.scores_, plain, 1e-12)


def test_a_fit_that_goes_on_ends_with_the_same_scores(tmp_path, monkeypatch):
    """Shards of several columns."""
    monkeypatch.setattr(journal, "SHARD", 10)
    plain, write = asked("TracIn", SEVERAL), Journal.write
    written = []

    def interrupted(self, *args):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(args[0])
        write(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            asked("TracIn", SEVERAL, work_dir=tmp_path)
    found = asked("TracIn", SEVERAL, work_dir=tmp_path)
    np.testing.assert_array_equal(found.scores_, plain.scores_)
    for name, one in plain.objectives_.items():
        np.testing.assert_array_equal(found.objectives_[name].scores, one.scores)
    assert list(tmp_path.iterdir()) == []


def test_a_pipeline_and_a_clone():
    X, y, X_val, y_val, groups = problem(2)
    held = {"X_val": X_val, "y_val": y_val} | with_features(groups)
    objective = Weighted([AdversarialLoss(), DemographicParity(), ClassLoss(1)])
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(**EXACT))
    found = clone(Influence(pipeline, objective=objective)).fit(X, y, **held)
    scale = StandardScaler().fit(X)
    plain = Influence(LogisticRegression(**EXACT), objective=objective)
    plain.fit(scale.transform(X), y, **held | {"X_val": scale.transform(X_val)})
    for name, one in plain.objectives_.items():
        assert_close(found.objectives_[name].scores, one.scores, 1e-6)


# ---- names, cross-fitting --------------------------------------------------------------------------------------------


def test_objectives_of_one_kind_are_numbered():
    X, y, X_val, y_val, _ = problem(3)
    found = Influence(LogisticRegression(), objective=Weighted([ClassLoss(0), ClassLoss(2), ClassLoss(1)]))
    found.fit(X, y, X_val=X_val, y_val=y_val)
    assert list(found.objectives_) == ["ClassLoss", "ClassLoss 2", "ClassLoss 3"]
    for name, label in zip(found.objectives_, [0, 2, 1], strict=True):
        alone = Influence(LogisticRegression(), objective=ClassLoss(label)).fit(X, y, X_val=X_val, y_val=y_val)
        assert_close(found.objectives_[name].scores, alone.scores_, 1e-9)
        assert list(alone.objectives_) == ["ClassLoss"]


def test_names_of_callables_and_of_the_default():
    X, y, X_val, y_val, _ = problem(2)
    held = {"X_val": X_val, "y_val": y_val}
    assert list(Influence(LogisticRegression()).fit(X, y, **held).objectives_) == ["ValidationLoss"]
    assert list(Influence(LogisticRegression(), objective=mean_square).fit(X, y, **held).objectives_) == ["mean_square"]
    own = Influence(LogisticRegression()).fit(X, y, **held)
    assert not hasattr(own.fit(X, y), "objectives_"), "of the earlier fit"


def test_a_class_asked_about_without_validation_rows_is_cross_fitted():
    X, y, *_ = problem(2)
    model = LogisticRegression(**EXACT)
    objective = Weighted({"one": ClassLoss(1), "all": ValidationLoss()}, [2, -1])
    found = Influence(model, objective=objective, random_state=7).fit(X, y)
    splitter = StratifiedKFold(5, shuffle=True, random_state=check_random_state(7).randint(2**31 - 1))
    total, values = np.zeros((2, N)), []
    for train, held in splitter.split(X, y):
        parts = [
            Influence(model, objective=one).fit(X[train], y[train], X_val=X[held], y_val=y[held])
            for one in (ClassLoss(1), ValidationLoss())
        ]
        total[:, train] += [part.scores_ for part in parts]
        losses = -np.log(parts[0].estimator_.predict_proba(X[held])[np.arange(len(held)), y[held]])
        values.append([losses[y[held] == 1].mean(), losses.mean()])
    assert_close(found.objectives_["one"].scores, total[0] / 4, 1e-9)
    assert_close(found.scores_, (2 * total[0] - total[1]) / 4, 1e-9)
    np.testing.assert_allclose([one.value for one in found.objectives_.values()], np.mean(values, axis=0))


# ---- errors ----------------------------------------------------------------------------------------------------------


def refused(error, message, objective, metadata=None, model=None, y_val=None):
    X, y, X_val, own, _ = problem(2)
    y_val = own if y_val is None else y_val
    with pytest.raises(error, match=message):
        Influence(model or LogisticRegression(), objective=objective).fit(
            X, y, X_val=X_val, y_val=y_val, metadata_val=metadata
        )


def test_metadata_that_did_not_come():
    says = (
        r"did not come: sensitive_features; give metadata_val=\{'sensitive_features': \.\.\.\}, or Holdout\(X_val, y_"
    )
    for objective in (DemographicParity(), EqualOpportunity("loss"), SliceLoss(), Weighted([Margin(), SliceLoss(1)])):
        refused(ValueError, says, objective)
    refused(ValueError, "did not come: region", SliceLoss(1, metadata="region"), {"sensitive_features": np.ones(90)})
    refused(ValueError, says, DemographicParity(), {"sensitive_features": None})


def test_metadata_without_validation_rows():
    X, y, *_ = problem(2)
    with pytest.raises(ValueError, match="metadata_val came without X_val and y_val"):
        Influence(LogisticRegression(), objective=DemographicParity()).fit(
            X, y, metadata_val={"sensitive_features": np.arange(N) % 2}
        )


def test_metadata_of_the_wrong_length():
    message = r"metadata_val\['sensitive_features'\] has 91 entries, and there are 90 validation rows"
    for objective in (DemographicParity(), mean_square):
        refused(ValueError, message, objective, {"sensitive_features": np.arange(91) % 2})


def test_groups_and_classes_that_are_not_there():
    _, _, _, y_val, groups = problem(2)
    features = {"sensitive_features": groups}
    refused(ValueError, "all validation rows have sensitive_features=0", DemographicParity(), {
        "sensitive_features": np.zeros(N_VAL, dtype=int)
    })  # fmt: skip
    refused(ValueError, "no validation row of the groups 0 is of the positive class", EqualOpportunity(), {
        "sensitive_features": np.where(y_val == 1, 1, groups)
    })  # fmt: skip
    refused(ValueError, "missing values", DemographicParity(), {"sensitive_features": np.where(groups, np.nan, 1)})
    refused(ValueError, "no validation row has sensitive_features=9; there are 0, 1", SliceLoss(9), features)
    refused(ValueError, "spam", ClassLoss("spam"))
    refused(ValueError, r"ClassLoss\(label=1\) has no validation row", ClassLoss(1), y_val=np.zeros(N_VAL, dtype=int))
    refused(TypeError, "this model predicts none", DemographicParity(), features, Ridge())
    refused(TypeError, "this model predicts none", ClassLoss(1), None, Ridge())


def test_steps_of_an_attack_in_the_wrong_units():
    refused(ValueError, "eps=80 is no small change of inputs", AdversarialLoss("pgd", eps=80))
    X, y, X_val, y_val, _ = problem(2)
    pixels = 255 * (X_val - X_val.min()) / np.ptp(X_val)
    with pytest.warns(UserWarning, match=r"eps=0\.01 is next to nothing beside inputs that lie between 0 and 255"):
        Influence(LogisticRegression(max_iter=10_000), objective=AdversarialLoss("fgsm", eps=0.01)).fit(
            255 * (X - X.min()) / np.ptp(X), y, X_val=pixels, y_val=y_val
        )


class Words(nn.Module):
    """The mean of word vectors."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, X):
        return self.last(self.words(X).mean(1))


def test_words_cannot_be_attacked_but_their_gap_is_known():
    words, labels = np.random.default_rng(0).integers(0, 9, (40, 3)), np.arange(40) % 2
    net = make_net(module=Words, max_epochs=2).fit(words, labels)
    held = {"X_val": words[:20], "y_val": labels[:20]} | with_features(labels[:20])
    with pytest.raises(TypeError, match=r"moves inputs by small amounts, which torch\.int64 does not allow"):
        InnerProduct(FrozenEstimator(net), objective=AdversarialLoss(eps=0.1)).fit(words, labels, **held)
    found = InnerProduct(FrozenEstimator(net), objective=DemographicParity()).fit(words, labels, **held)
    p = net.predict_proba(words[:20])[:, 1]
    gap = abs(p[labels[:20] == 1].mean() - p[labels[:20] == 0].mean())
    assert found.objectives_["DemographicParity"].value == pytest.approx(gap, rel=1e-5)


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("kind", [ClassLoss, lambda label: EqualOpportunity("loss", positive=label)])
def test_the_class_that_is_asked_about_is_the_same_in_a_dataset(kind, first):
    """Whatever class its first row has."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(18, 4)).astype(np.float32)
    y = np.roll(np.arange(18) % 3, -first)
    pairs = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    settings = {"module__in_features": 4, "module__out_features": 3, "criterion": nn.CrossEntropyLoss}
    net = NeuralNet(nn.Linear, **settings, train_split=None, max_epochs=2, verbose=0).fit(X, y)
    metadata = {"sensitive_features": np.arange(18) % 2}
    metadata = {} if kind is ClassLoss else {"metadata_val": metadata}
    for label in range(3):
        method = InnerProduct(FrozenEstimator(net), objective=kind(label))
        expected = method.fit(X, y, X_val=X, y_val=y, **metadata).scores_
        assert np.ptp(expected) > 0
        np.testing.assert_allclose(method.fit(pairs, None, X_val=pairs, **metadata).scores_, expected, rtol=1e-5)
    for label, said in [("spam", "give the number of 'spam'"), (7, "the label 7")]:
        with pytest.raises(ValueError, match=said):
            method.set_params(objective=kind(label)).fit(pairs, None, X_val=pairs, **metadata)
