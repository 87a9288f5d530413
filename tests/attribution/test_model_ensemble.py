"""ModelEnsemble: members by hand, mean and standard error by loops, planted answers, cleaners, errors."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import parallel_config
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from skorch import NeuralNetClassifier
from torch import nn

from sktda import Holdout, InfluencePruner, NoisyLabelDetector
from sktda.attribution import (
    ComplexityGap,
    DiffIn,
    Influence,
    InnerProduct,
    ModelEnsemble,
    MoSo,
    SGDInfluence,
    Source,
    TracIn,
)
from sktda.model.given import GivenModel
from sktda.model.proxy import DefaultClassifier
from sktda.objectives import DemographicParity, ValidationLoss, Weighted
from tests.attribution import run_reference as runs
from tests.attribution.run_reference import trained
from tests.in_turn import in_turn
from tests.model.nets import make_net, record, rows
from tests.spies import flip, noisy_blobs

pytestmark = pytest.mark.usefixtures("short_training")

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 3)), RNG.normal(size=60)
XQ, YQ = RNG.normal(size=(7, 3)), RNG.normal(size=7)
RIDGE = FrozenEstimator(Ridge(alpha=2.0).fit(X, Y))
BLOBS, LABELS, TRUE = noisy_blobs(90, rate=0.1, centers=2)
NET_X, NET_Y = rows()
NET, RUN = record(NET_X, NET_Y, n_checkpoints=4)


def found(scores, wrong):
    """Area under the curve of low scores as a sign of a wrong label."""
    return roc_auc_score(wrong, -scores)


# ---- by hand ---------------------------------------------------------------------------------------------------------


def squares_by_hand(coef, intercept, weight=1.0):
    """(queries, rows) q'g_i / n of squared errors, which are 2 (x w + b - y) (x, 1) each."""

    def gradients(X, y):
        return 2 * (X @ coef + intercept - y)[:, None] * np.column_stack([X, np.ones(len(X))])

    return gradients(XQ, YQ) @ (gradients(X, Y) * np.reshape(weight, (-1, 1))).T / len(X)


@pytest.mark.parametrize("weight", [None, RNG.uniform(0.5, 2.0, 60)], ids=["plain", "weighted"])
def test_mean_and_standard_error_of_masked_models_by_hand(weight):
    ensemble = ModelEnsemble(InnerProduct(RIDGE), n_members=5, dropout=0.6, random_state=0)
    ensemble.fit(X, Y, weight, X_val=XQ, y_val=YQ)
    values = []
    for each in ensemble.attributors_:
        model = each.estimator_.estimator
        values.append(squares_by_hand(model.coef_, model.intercept_, 1.0 if weight is None else weight))
    members = np.array([value.mean(axis=0) for value in values])
    np.testing.assert_allclose(ensemble.member_scores_, members, rtol=1e-9)
    np.testing.assert_allclose(ensemble.scores_, sum(members) / 5, rtol=1e-9)
    spread = np.sqrt(((members - sum(members) / 5) ** 2).sum(axis=0) / 4)
    np.testing.assert_allclose(ensemble.std_error_, spread / np.sqrt(5), rtol=1e-9)
    np.testing.assert_allclose(ensemble.attribute(XQ, YQ), sum(values) / 5, rtol=1e-9)
    assert len({tuple(member) for member in members}) == 5


def test_dropout_zeroes_one_share_of_every_parameter_and_leaves_the_rest():
    net = make_net(module__width=300, max_epochs=1).fit(NET_X, NET_Y)
    ensemble = ModelEnsemble(InnerProduct(FrozenEstimator(net)), n_members=40, dropout=0.4, random_state=0)
    members = [each.estimator_.estimator.module_ for each in ensemble.fit(NET_X, NET_Y).attributors_]
    shares = []
    for name, own in net.module_.named_parameters():
        values = [member.get_parameter(name) for member in members]
        assert all(torch.equal(value, torch.where(value == 0, 0, own)) for value in values), name
        shares.append([float((value == 0).double().mean()) for value in values])
    shares = np.array(shares[:3])  # without the last layer's bias, which is two numbers
    assert np.corrcoef(shares)[0, 1:].min() > 0.9
    assert shares[0].min() < 0.05
    assert 0.35 < shares[0].max() < 0.45  # 900 draws at most 0.4
    assert abs(shares[0].mean() - 0.2) < 0.06  # uniform in (0, 0.4): 0.2 with a standard error of 0.018


def test_all_trainable_parameters_take_part_and_frozen_ones_do_not():
    class Half(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(3, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 2))
            self[0].requires_grad_(False)

    net = make_net(module=Half).fit(NET_X, NET_Y)
    ensemble = ModelEnsemble(InnerProduct(FrozenEstimator(net)), n_members=3, dropout=0.9, random_state=0)
    for each in ensemble.fit(NET_X, NET_Y).attributors_:
        member = each.estimator_.estimator.module_
        for name, value in member.state_dict().items():
            own = net.module_.state_dict()[name]
            if name in {"1.weight", "1.bias", "3.weight"}:
                assert (value == 0).any(), name
                assert torch.equal(value, torch.where(value == 0, 0, own)), name
            elif name != "3.bias":
                assert torch.equal(value, own), name
    assert ensemble.estimator_.estimator is net


def test_checkpoints_are_those_of_the_run():
    ensemble = ModelEnsemble(InnerProduct(FrozenEstimator(NET)), members="checkpoints")
    ensemble.fit(NET_X, NET_Y, X_val=NET_X[:9], y_val=NET_Y[:9])
    assert len(ensemble.attributors_) == 4
    expected = []
    for c, each in enumerate(ensemble.attributors_):
        state = RUN.state(c)
        for name, value in each.estimator_.estimator.module_.state_dict().items():
            assert torch.equal(value, state[name])
        net = make_net().initialize()
        net.module_.load_state_dict(state)
        scores = InnerProduct(FrozenEstimator(net)).fit(NET_X, NET_Y, X_val=NET_X[:9], y_val=NET_Y[:9]).scores_
        expected.append(scores)
    np.testing.assert_allclose(ensemble.member_scores_, expected, rtol=1e-6)
    # every interval of this run has the same sum of rates, so TracIn is that sum times the mean over checkpoints
    tracin = TracIn(FrozenEstimator(NET)).fit(NET_X, NET_Y, X_val=NET_X[:9], y_val=NET_Y[:9]).scores_
    np.testing.assert_allclose(ensemble.scores_ * RUN.rate_sums.sum(), tracin, rtol=1e-5)


def test_a_checkpoint_has_the_running_statistics_of_its_time():
    class Normed(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))

    scaler = StandardScaler().fit(NET_X)
    scaled = scaler.transform(NET_X)
    net, run = record(scaled, NET_Y, net_options={"module": Normed}, n_checkpoints=3)
    for model, seen in ((net, scaled), (make_pipeline(scaler, net), NET_X)):
        ensemble = ModelEnsemble(InnerProduct(FrozenEstimator(model)), members="checkpoints").fit(seen, NET_Y)
        members = [GivenModel.of(each.estimator_).net.module_ for each in ensemble.attributors_]
        for c, member in enumerate(members):
            for name, value in member.state_dict().items():
                assert torch.equal(value, run.state(c)[name]), name
        assert not torch.equal(members[0][1].running_mean, members[2][1].running_mean)


def test_seeds_are_trainings_and_their_scores_the_attributors_own():
    net = NeuralNetClassifier(
        runs.Perceptron, criterion=nn.CrossEntropyLoss, max_epochs=3, batch_size=7, train_split=None, verbose=0
    )
    ensemble = ModelEnsemble(Source(), estimator=net, members="seeds", n_members=3, random_state=0)
    ensemble.fit(runs.X, runs.Y, X_val=runs.X[:5], y_val=runs.Y[:5])
    weights = [each.estimator_.estimator.module_.state_dict()["0.weight"] for each in ensemble.attributors_]
    assert not any(torch.equal(weights[k], weights[k - 1]) for k in range(3))
    for each, scores in zip(ensemble.attributors_, ensemble.member_scores_, strict=True):
        assert len(each.trajectory_) == 6
        np.testing.assert_array_equal(
            clone(each).fit(runs.X, runs.Y, X_val=runs.X[:5], y_val=runs.Y[:5]).scores_, scores
        )
    assert not hasattr(ensemble, "estimator_")


def test_a_seed_in_the_estimator_is_replaced():
    pipe = make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=5, random_state=0, tol=1.0, n_iter_no_change=2))
    ensemble = ModelEnsemble(InnerProduct(pipe), members="seeds", n_members=2, random_state=0).fit(BLOBS, LABELS)
    assert np.abs(np.diff(ensemble.member_scores_, axis=0)).max() > 0
    assert pipe[-1].random_state == 0
    assert (ensemble.std_error_ > 0).all()


@pytest.mark.parametrize("make", [list, tuple])
def test_given_models_are_not_trained(make):
    nets = make(make_net(seed=seed).fit(NET_X, NET_Y) for seed in (0, 1, 2))
    ensemble = ModelEnsemble(Influence(damping=0.1), members=nets, random_state=0).fit(NET_X, NET_Y)
    for net, each, scores in zip(nets, ensemble.attributors_, ensemble.member_scores_, strict=True):
        assert each.estimator_.estimator is net
        np.testing.assert_array_equal(clone(each).fit(NET_X, NET_Y).scores_, scores)
    recorded = ModelEnsemble(MoSo(), members=[trained("tanh"), trained("tanh, full batches")], random_state=0)
    recorded.fit(runs.X, runs.Y)
    assert recorded.scores_.shape == (runs.N,)
    assert not hasattr(recorded, "attribute")
    assert not recorded.needs.validation


def test_the_objectives_of_all_members_are_averaged():
    rng = np.random.default_rng(0)
    sex = rng.integers(0, 2, 80)
    seen = np.column_stack([rng.normal(size=80), sex])
    models = [
        LogisticRegression().fit(seen, seen[:, 0] + 2 * favoured + rng.normal(size=80) > 1)
        for favoured in (sex, sex, 1 - sex)
    ]
    objective = Weighted({"gap": DemographicParity(), "loss": ValidationLoss()})
    given = {
        "X_val": seen[:40],
        "y_val": models[0].predict(seen[:40]),
        "metadata_val": {"sensitive_features": sex[:40]},
    }
    y = models[0].predict(seen)
    for members, groups in ((models[:2], ("1", "0")), (models, None)):
        ensemble = ModelEnsemble(Influence(objective=objective), members=members, random_state=0).fit(seen, y, **given)
        each = [attributor.objectives_ for attributor in ensemble.attributors_]
        assert list(ensemble.objectives_) == ["gap", "loss"]
        for name, found in ensemble.objectives_.items():
            np.testing.assert_allclose(found.value, sum(member[name].value for member in each) / len(each))
            np.testing.assert_allclose(found.scores, sum(member[name].scores for member in each) / len(each))
        assert ensemble.objectives_["gap"].groups == groups
        total = sum(found.scores for found in ensemble.objectives_.values())
        np.testing.assert_allclose(ensemble.scores_, total, rtol=1e-9)


def test_queries_only():
    ensemble = ModelEnsemble(Influence(RIDGE, objective=None), n_members=3, random_state=0).fit(X, Y)
    for name in ("scores_", "std_error_", "member_scores_"):
        assert not hasattr(ensemble, name)
    assert ensemble.attribute(XQ, YQ).shape == (7, 60)


# ---- orders, jobs, seeds ---------------------------------------------------------------------------------------------


def test_the_order_of_rows_changes_nothing():
    order = np.random.default_rng(0).permutation(60)
    for attributor in (InnerProduct(RIDGE), Influence(RIDGE)):
        plain = ModelEnsemble(attributor, n_members=4, dropout=0.5, random_state=0).fit(X, Y, X_val=XQ, y_val=YQ)
        moved = clone(plain).fit(X[order], Y[order], X_val=XQ, y_val=YQ)
        np.testing.assert_allclose(moved.scores_, plain.scores_[order], rtol=1e-9)
        np.testing.assert_allclose(moved.std_error_, plain.std_error_[order], rtol=1e-9)


CASES = {
    "dropout": ModelEnsemble(Influence(), n_members=3, random_state=0),
    "seeds": ModelEnsemble(TracIn(), members="seeds", n_members=3, random_state=0),
    "checkpoints": ModelEnsemble(members="checkpoints", n_members=3, random_state=0),
}


@pytest.mark.parametrize("name", CASES)
def test_jobs_change_nothing_and_seeds_do(name):
    """By threads; other processes do the same in test_distributional.py."""
    alone = clone(CASES[name]).fit(BLOBS, LABELS)
    assert alone.member_scores_.shape == (3, 90)
    with parallel_config("threading"):
        threads = clone(CASES[name]).set_params(n_jobs=2).fit(BLOBS, LABELS)
    for other in (pickle.loads(pickle.dumps(alone)), threads):
        np.testing.assert_array_equal(other.member_scores_, alone.member_scores_)
        np.testing.assert_array_equal(other.attribute(BLOBS[:2], LABELS[:2]), alone.attribute(BLOBS[:2], LABELS[:2]))
        assert len({id(each._data.X) for each in other.attributors_}) == 1, "one copy of the rows"
    assert not np.allclose(clone(CASES[name]).set_params(random_state=1).fit(BLOBS, LABELS).scores_, alone.scores_)


def test_the_random_state_of_the_attributor_is_replaced():
    one, other = (
        ModelEnsemble(InnerProduct(random_state=seed), n_members=2, random_state=0).fit(BLOBS, LABELS).scores_
        for seed in (0, 1)
    )
    np.testing.assert_array_equal(one, other)


def test_a_second_fit_forgets_the_first():
    ensemble = ModelEnsemble(InnerProduct(RIDGE), n_members=2, random_state=0).fit(X, Y)
    ensemble.set_params(attributor__objective=None).fit(X, Y)
    assert not hasattr(ensemble, "scores_")
    assert ensemble.n_features_in_ == 3


# ---- planted answers -------------------------------------------------------------------------------------------------


IMAGES, DIGITS = load_digits(return_X_y=True)
IMAGES, DIGITS = (IMAGES[:700] / 16).astype(np.float32), DIGITS[:700]
NOISY = flip(DIGITS[:500], 0.2)


class Digits(nn.Sequential):
    """A class, so that every seed starts from weights of its own."""

    def __init__(self):
        super().__init__(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


MLP = NeuralNetClassifier(
    Digits, criterion=nn.CrossEntropyLoss, max_epochs=10, batch_size=32, lr=0.1, train_split=None, verbose=0
)


@pytest.mark.parametrize("members", ["dropout", "checkpoints", "seeds"])
def test_flipped_digits_come_last(members):
    """A fifth of 500 labels is wrong, 200 right rows validate."""
    ensemble = ModelEnsemble(Influence(MLP), members=members, n_members=4, random_state=0)
    ensemble.fit(IMAGES[:500], NOISY, X_val=IMAGES[500:], y_val=DIGITS[500:])
    wrong = DIGITS[:500] != NOISY
    assert found(ensemble.scores_, wrong) > 0.88  # measured: .912, .915, .907
    assert ensemble.scores_[wrong].mean() < 0 < ensemble.scores_[~wrong].mean()
    ensemble.set_params(attributor=InnerProduct(MLP)).fit(IMAGES[:500], NOISY)
    assert found(ensemble.scores_, wrong) > 0.92  # measured: .987, .969, .988


# ---- inside the cleaners ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.* a small net that stands in for it")
def test_a_pruner_hands_its_estimator_on():
    pruner = InfluencePruner(LogisticRegression(), ModelEnsemble(n_members=3), random_state=0).fit(BLOBS, LABELS)
    assert isinstance(pruner.attributor_.estimator_, LogisticRegression)
    assert found(pruner.scores_, LABELS != TRUE) > 0.9
    kept = ModelEnsemble(InnerProduct(LogisticRegression(C=0.01)), n_members=3)
    pruner = InfluencePruner(LogisticRegression(), kept, random_state=0).fit(BLOBS, LABELS)
    assert pruner.attributor_.estimator_.C == 0.01
    forest = InfluencePruner(RandomForestClassifier(3, random_state=0), ModelEnsemble(n_members=2), random_state=0)
    assert isinstance(forest.fit(BLOBS, LABELS).attributor_.estimator_, DefaultClassifier)


@pytest.mark.parametrize(
    "ensemble",
    [ModelEnsemble(members="checkpoints", n_members=3), ModelEnsemble(DiffIn(), members="seeds", n_members=2)],
    ids=["checkpoints", "a method that needs a run"],
)
def test_a_pruner_around_a_model_without_steps_lends_the_attributors_net(ensemble):
    pruner = InfluencePruner(LogisticRegression(), ensemble, random_state=0).fit(BLOBS, LABELS)
    members = [each.estimator_.estimator for each in pruner.attributor_.attributors_]
    assert {type(member) for member in members} == {DefaultClassifier}
    assert members[0].optimizer == ("sgd" if ensemble.members == "seeds" else "adamw")


def test_validation_rows_reach_every_member():
    held = Holdout(BLOBS[:30], TRUE[:30])
    ensemble = ModelEnsemble(Influence(), n_members=3, random_state=0)
    pruner = InfluencePruner(LogisticRegression(), ensemble, validation=held).fit(BLOBS[30:], LABELS[30:])
    direct = clone(ensemble).set_params(estimator=LogisticRegression())
    direct.fit(BLOBS[30:], LABELS[30:], X_val=BLOBS[:30], y_val=TRUE[:30])
    np.testing.assert_array_equal(pruner.scores_, direct.scores_)
    asked = ModelEnsemble(Influence(objective="validation"), n_members=2)
    assert np.isfinite(InfluencePruner(LogisticRegression(), asked, validation=3).fit(BLOBS, LABELS).scores_).all()


def test_a_search_over_members_and_the_inner_attributor():
    pruner = InfluencePruner(LogisticRegression(), ModelEnsemble(Influence(), n_members=2), random_state=0)
    grid = {
        "attributor__attributor__damping": [1e-3, 1.0],
        "attributor__members": ["dropout", "seeds"],
        "attributor__estimator": [None, LogisticRegression(C=0.1)],
    }
    search = GridSearchCV(pruner, grid, cv=2, error_score="raise").fit(BLOBS, LABELS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_frozen_members_inside_a_detector():
    nets = [FrozenEstimator(make_net(seed=seed).fit(NET_X, NET_Y)) for seed in (0, 1)]
    detector = NoisyLabelDetector(ModelEnsemble(members=nets), contamination=0.1, random_state=0).fit(NET_X, NET_Y)
    assert (detector.labels_ == -1).sum() == 4
    bare = [net.estimator for net in nets]
    with pytest.raises(ValueError, match=r"members\[0\]=NeuralNetClassifier is not a fitted.*as FrozenEstimator"):
        NoisyLabelDetector(ModelEnsemble(members=bare), contamination=0.1).fit(NET_X, NET_Y)


def test_clones_and_parameters():
    ensemble = ModelEnsemble(Influence(damping=0.1), n_members=2, random_state=0)
    assert ensemble.get_params()["attributor__damping"] == 0.1
    fitted = ensemble.fit(BLOBS, LABELS)
    np.testing.assert_array_equal(clone(fitted).fit(BLOBS, LABELS).scores_, fitted.scores_)
    assert not hasattr(clone(fitted), "attributors_")
    with pytest.raises(NotFittedError):
        clone(fitted).attribute(BLOBS, LABELS)


def test_names_of_columns_are_kept():
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    ensemble = ModelEnsemble(InnerProduct(Ridge()), n_members=2, random_state=0).fit(frame, Y)
    assert ensemble.feature_names_in_.tolist() == ["a", "b", "c"]
    assert ensemble.attribute(frame[:2], Y[:2]).shape == (2, 60)


# ---- what is refused -------------------------------------------------------------------------------------------------

RUN_METHODS = [Source(), DiffIn(), SGDInfluence(), MoSo()]


@in_turn("members", ["dropout", "checkpoints"])
@in_turn("attributor", RUN_METHODS)
def test_a_method_that_follows_a_run_needs_members_with_one(attributor, members):
    with pytest.raises(ValueError, match=f"{type(attributor).__name__} follows .* members='{members}' .*use .*'seeds'"):
        ModelEnsemble(attributor, members=members).fit(BLOBS, LABELS)


@pytest.mark.parametrize("attributor", [ComplexityGap(), ModelEnsemble(), LogisticRegression(), Influence], ids=str)
def test_attributors_without_gradients(attributor):
    with pytest.raises(TypeError, match="is no such attributor; allowed are instances of Influence"):
        ModelEnsemble(attributor).fit(BLOBS, LABELS)


@in_turn(
    "params",
    [{"n_members": 1}, {"n_members": 2.5}, {"dropout": 0.0}, {"dropout": 1}, {"dropout": -0.1}, {"members": "epochs"}],
)
def test_parameters_that_are_refused(params):
    with pytest.raises(InvalidParameterError, match=f"The '{next(iter(params))}' parameter of ModelEnsemble must be"):
        ModelEnsemble(**params).fit(BLOBS, LABELS)


@pytest.mark.parametrize("members", [[], [NET]], ids=["none", "one"])
def test_too_few_members_are_given(members):
    with pytest.raises(ValueError, match=f"members is a list of {len(members)}, and at least two fitted"):
        ModelEnsemble(members=members).fit(NET_X, NET_Y)


@pytest.mark.parametrize("stranger", [3, "net", make_net(), LogisticRegression()], ids=["3", "text", "net", "model"])
def test_members_that_are_no_fitted_estimators(stranger):
    with pytest.raises(ValueError, match=r"members\[1\]=\w+ is not a fitted estimator"):
        ModelEnsemble(members=[NET, stranger]).fit(NET_X, NET_Y)


@pytest.mark.parametrize(
    "frozen", [RIDGE, make_pipeline(StandardScaler(), RIDGE)], ids=["alone", "at the end of a pipeline"]
)
def test_seeds_of_a_model_that_is_not_trained(frozen):
    with pytest.raises(ValueError, match=r"'seeds' trains the estimator anew .* give the estimator without Frozen"):
        ModelEnsemble(InnerProduct(frozen), members="seeds").fit(X, Y)


@pytest.mark.parametrize("estimator", [Ridge(), RIDGE, FrozenEstimator(make_net().fit(NET_X, NET_Y))], ids=str)
def test_checkpoints_without_a_run(estimator):
    given = (NET_X, NET_Y) if "NeuralNet" in str(estimator) else (X, Y)
    with pytest.raises(ValueError, match=r"'checkpoints' are those of a recorded run, and this .* has none; train a"):
        ModelEnsemble(InnerProduct(estimator), members="checkpoints").fit(*given)


def test_a_run_with_one_checkpoint_or_of_other_rows():
    net, _ = record(NET_X, NET_Y, n_checkpoints=1)
    with pytest.raises(ValueError, match="has one checkpoint, and an ensemble needs at least two; train with Traj"):
        ModelEnsemble(InnerProduct(FrozenEstimator(net)), members="checkpoints").fit(NET_X, NET_Y)
    for members in ("dropout", "checkpoints"):
        with pytest.raises(ValueError, match="rows are not among the 40 rows that the net was trained on"):
            ModelEnsemble(InnerProduct(FrozenEstimator(NET)), members=members).fit(NET_X + 1, NET_Y)


def test_an_objective_of_validation_rows_without_them():
    ensemble = ModelEnsemble(Influence(objective="validation"), n_members=2)
    with pytest.raises(ValueError, match=r"objective='validation' of Influence needs validation rows.*in a cleaner"):
        ensemble.fit(BLOBS, LABELS)
    frozen = FrozenEstimator(LogisticRegression().fit(BLOBS, LABELS))
    prepared = clone(ensemble).set_params(estimator=frozen).fit(BLOBS, LABELS)
    assert not hasattr(prepared, "scores_"), "as the attributor around a frozen model: queries only"
    with pytest.raises(ValueError, match="X_val came without y_val"):
        ModelEnsemble(InnerProduct(frozen)).fit(BLOBS, LABELS, X_val=BLOBS)


def test_estimators_that_cannot_be_differentiated():
    with pytest.raises(TypeError, match="RandomForestClassifier cannot be differentiated"):
        ModelEnsemble(estimator=RandomForestClassifier()).fit(BLOBS, LABELS)
    with pytest.raises(ValueError, match="early_stopping=True trains on"):
        ModelEnsemble(estimator=MLPClassifier(early_stopping=True)).fit(BLOBS, LABELS)
