"""Scores from training dynamics: each by NumPy from the outputs at the recorded checkpoints, and planted answers."""

import copy
import re

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits, make_blobs
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn
from torch.utils.data import Subset, TensorDataset

from sktda import CoresetSelector, InfluencePruner, NoisyLabelDetector
from sktda.attribution import AUM, EL2N, Forgetting, GraNd, LogitMargin, Loss, training_dynamics
from sktda.model import proxy
from sktda.model.recorder import TrajectoryRecorder
from tests.attribution.run_reference import Perceptron, X, Y, run_of, targets_of, trained
from tests.in_turn import in_turn
from tests.spies import flip

pytestmark = pytest.mark.usefixtures("few_trees", "short_training")

KINDS = [AUM, EL2N, Forgetting, GraNd, LogitMargin, Loss]
ROWS = np.arange(len(Y))
ONE_HOT = np.eye(3)[Y]


def outputs_at(net, checkpoint, rows=X):
    """(n, k) of a net of run_reference at one of its checkpoints."""
    found = torch.func.functional_call(net.module_, run_of(net).state(checkpoint), torch.from_numpy(rows))
    return found.detach().numpy()


def softmax(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def margins(logits, y=Y):
    own = logits[np.arange(len(y)), y]
    others = np.where(np.eye(logits.shape[1], dtype=bool)[y], -np.inf, logits)
    return own - others.max(axis=1)


def scores_of(kind, net, y=Y, **params):
    return kind(FrozenEstimator(net), **params).fit(X, y).scores_


# ---- closed forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "checkpoint"), [(0.1, 0), (1 / 6, 0), (0.17, 1), (0.5, 2), (1.0, 5)])
def test_one_moment_is_the_first_checkpoint_from_there_on(at, checkpoint):
    net = trained("tanh")
    logits = outputs_at(net, checkpoint)
    p = softmax(logits)
    np.testing.assert_allclose(scores_of(EL2N, net, at=at), -np.linalg.norm(p - ONE_HOT, axis=1), rtol=1e-9)
    np.testing.assert_allclose(scores_of(Loss, net, at=at), np.log(p[ROWS, Y]), rtol=1e-9)
    np.testing.assert_allclose(scores_of(LogitMargin, net, at=at), margins(logits), rtol=1e-9)


def test_grand_of_a_linear_layer_is_error_times_features():
    net = trained("softmax")
    errors = softmax(outputs_at(net, 0)) - ONE_HOT
    lengths = np.linalg.norm(errors, axis=1) * np.sqrt(1 + (X**2).sum(axis=1))
    np.testing.assert_allclose(scores_of(GraNd, net), -lengths, rtol=1e-9)


def test_grand_of_the_last_layer_of_a_net_and_of_all_by_autograd():
    net = trained("tanh")
    module = Perceptron()
    module.load_state_dict(run_of(net).state(2))
    hidden = nn.Sequential(*list(module)[:2])(torch.from_numpy(X)).detach().numpy()
    errors = np.linalg.norm(softmax(outputs_at(net, 2)) - ONE_HOT, axis=1)
    last = errors * np.sqrt(1 + (hidden**2).sum(axis=1))
    np.testing.assert_allclose(scores_of(GraNd, net, at=0.5, parameters="2.*"), -last, rtol=1e-9)
    lengths = []
    for x, y in zip(torch.from_numpy(X), torch.from_numpy(Y), strict=True):
        module.zero_grad()
        nn.functional.cross_entropy(module(x[None]), y[None]).backward()
        lengths.append(sum(float(value.grad.square().sum()) for value in module.parameters()) ** 0.5)
    np.testing.assert_allclose(scores_of(GraNd, net, at=0.5), -np.array(lengths), rtol=1e-9)


@pytest.mark.parametrize("name", ["tanh", "softmax, momentum, decay"])
def test_aum_and_forgetting_follow_all_checkpoints(name):
    net = trained(name)
    along = np.stack([margins(outputs_at(net, c)) for c in range(6)])
    np.testing.assert_allclose(scores_of(AUM, net), along.mean(axis=0), rtol=1e-9)
    right = along > 0
    forgetting = Forgetting(FrozenEstimator(net)).fit(X, Y)
    for row in ROWS:
        events = sum(right[c, row] and not right[c + 1, row] for c in range(5))
        learned = np.flatnonzero(right[:, row])
        assert forgetting.scores_[row] == (-events if len(learned) else -6)
        assert forgetting.first_learned_[row] == (learned[0] if len(learned) else -1)


def test_aum_equals_the_authors_calculator_on_the_same_logits(tmp_path):
    calculator = pytest.importorskip("aum").AUMCalculator(str(tmp_path), compressed=True)
    net = trained("tanh")
    for checkpoint in range(6):
        logits = torch.from_numpy(outputs_at(net, checkpoint))
        found = calculator.update(logits, torch.from_numpy(Y), list(range(len(Y))))
    theirs = np.array([found[row].aum for row in ROWS])
    np.testing.assert_allclose(scores_of(AUM, net), theirs, rtol=1e-6)


def test_numbers_have_an_error_and_a_loss_and_no_margin():
    net, y = trained("squares"), targets_of("squares")
    off = outputs_at(net, 5) - y
    np.testing.assert_allclose(scores_of(EL2N, net, y, at=1.0), -np.linalg.norm(off, axis=1), rtol=1e-9)
    np.testing.assert_allclose(scores_of(Loss, net, y), -(off**2).mean(axis=1), rtol=1e-9)
    for kind in (AUM, Forgetting, LogitMargin):
        with pytest.raises(ValueError, match="compares the logits of classes, and regression has none"):
            scores_of(kind, net, y)


def one_logit(**options):
    torch.manual_seed(0)
    settings = {"max_epochs": 6, "lr": 0.3, "batch_size": 8, "train_split": None, "verbose": 0}
    kind = options.pop("cls", NeuralNetBinaryClassifier)
    return kind(callbacks=[TrajectoryRecorder(every=1)], **settings | options)


def test_one_logit_stands_for_two_classes():
    y = (Y == 1).astype(np.float32)
    rows = X.astype(np.float32)
    net = one_logit(module=nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))).fit(rows, y)
    logit = net.module_(torch.from_numpy(rows)).detach().numpy()
    p = 1 / (1 + np.exp(-logit))
    two = np.column_stack([1 - p, p]) - np.eye(2)[y.astype(int)]
    frozen = FrozenEstimator(net)
    np.testing.assert_allclose(EL2N(frozen, at=1.0).fit(rows, y).scores_, -np.linalg.norm(two, axis=1), rtol=1e-5)
    signed = np.where(y == 1, logit, -logit)
    np.testing.assert_allclose(LogitMargin(frozen).fit(rows, y).scores_, signed, rtol=1e-5)


def test_of_several_labels_the_worst_margin_counts():
    y = np.column_stack([Y == 0, X[:, 0] > 0]).astype(np.float32)
    rows = X.astype(np.float32)
    net = one_logit(cls=NeuralNet, module=nn.Linear(3, 2), criterion=nn.BCEWithLogitsLoss).fit(rows, y)
    logits = net.module_(torch.from_numpy(rows)).detach().numpy()
    frozen = FrozenEstimator(net)
    signed = np.where(y == 1, logits, -logits).min(axis=1)
    np.testing.assert_allclose(LogitMargin(frozen).fit(rows, y).scores_, signed, rtol=1e-5)
    errors = np.linalg.norm(1 / (1 + np.exp(-logits)) - y, axis=1)
    np.testing.assert_allclose(EL2N(frozen, at=1.0).fit(rows, y).scores_, -errors, rtol=1e-5)


def test_a_criterion_without_classes_says_what_can_be_used():
    net = one_logit(cls=NeuralNet, module=nn.Linear(3, 1), criterion=nn.L1Loss).fit(
        X.astype(np.float32), X[:, :1].astype(np.float32)
    )
    with pytest.raises(ValueError, match=r"this criterion has none; use Loss, EL2N or GraNd"):
        LogitMargin(FrozenEstimator(net)).fit(X.astype(np.float32), X[:, :1].astype(np.float32))


SPREAD = np.random.default_rng(1).dirichlet(np.ones(3), len(Y))
YES = (SPREAD > 0.3).astype(float)


@pytest.mark.parametrize(
    ("criterion", "y", "predicted", "expected"),
    [
        (nn.CrossEntropyLoss(), SPREAD, softmax, SPREAD),
        (nn.CrossEntropyLoss(), ONE_HOT, softmax, ONE_HOT),
        (nn.PoissonNLLLoss(), 9 * YES, np.exp, 9 * YES),
        (nn.PoissonNLLLoss(log_input=False), 9 * YES, np.asarray, 9 * YES),
        (nn.KLDivLoss(reduction="sum"), SPREAD, np.exp, SPREAD),
        (nn.KLDivLoss(reduction="sum", log_target=True), np.log(SPREAD), np.exp, SPREAD),
        (nn.MultiLabelSoftMarginLoss(), YES, lambda z: 1 / (1 + np.exp(-z)), YES),
        (nn.SoftMarginLoss(), 2 * YES - 1, lambda z: 1 / (1 + np.exp(-z)), YES),
        (nn.HuberLoss(), SPREAD, np.asarray, SPREAD),
    ],
)
def test_errors_are_those_of_predictions_where_outputs_are_logarithms_or_logits(criterion, y, predicted, expected):
    rows, y = X.astype(np.float32), y.astype(np.float32)
    end = [nn.LogSoftmax(1)] if isinstance(criterion, nn.KLDivLoss) else []
    end = end if getattr(criterion, "log_input", True) else [nn.Softplus()]
    module = nn.Sequential(nn.Linear(3, 3), *end)
    net = one_logit(cls=NeuralNet, module=module, criterion=criterion, lr=0.01, max_epochs=2).fit(rows, y)
    errors = predicted(net.module_(torch.from_numpy(rows)).detach().numpy()) - expected
    scores = EL2N(FrozenEstimator(net), at=1.0).fit(rows, y).scores_
    np.testing.assert_allclose(scores, -np.linalg.norm(errors, axis=1), rtol=1e-5)


# ---- invariances -----------------------------------------------------------------------------------------------------


@in_turn("kind", KINDS)
def test_scores_do_not_depend_on_the_batch_size_or_the_order_of_rows(kind):
    net = trained("tanh")
    expected = scores_of(kind, net)
    np.testing.assert_allclose(scores_of(kind, net, batch_size=5), expected, rtol=1e-9)
    order = np.random.default_rng(0).permutation(len(Y))
    np.testing.assert_allclose(kind(FrozenEstimator(net)).fit(X[order], Y[order]).scores_, expected[order], rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_train_but_do_not_weigh_the_scores(kind):
    weight = np.linspace(0.5, 2, len(Y))
    np.testing.assert_allclose(
        kind(FrozenEstimator(trained("tanh"))).fit(X, Y, weight).scores_, scores_of(kind, trained("tanh")), rtol=1e-9
    )
    alone, weighted = (kind(random_state=0).fit(X, Y, w).scores_ for w in (None, weight * (1 + 9 * (Y == 0))))
    assert not np.array_equal(alone, weighted)


@pytest.mark.parametrize("kind", KINDS)
def test_validation_rows_change_nothing(kind):
    frozen = FrozenEstimator(trained("tanh"))
    np.testing.assert_array_equal(
        kind(frozen).fit(X, Y, X_val=X[:5], y_val=Y[:5]).scores_, kind(frozen).fit(X, Y).scores_
    )
    with pytest.warns(UserWarning, match="validation"):
        InfluencePruner(LogisticRegression(), kind(frozen), validation=3).fit(X, Y)


def test_the_net_is_left_as_it_was():
    net = trained("tanh")
    before = {name: value.clone() for name, value in net.module_.state_dict().items()}
    for kind in KINDS:
        scores_of(kind, net)
    for name, value in net.module_.state_dict().items():
        assert torch.equal(value, before[name])


def test_one_training_serves_all():
    net = trained("tanh")
    found = training_dynamics(FrozenEstimator(net), X, Y)
    assert list(found) == ["AUM", "Forgetting", "EL2N", "GraNd", "Loss", "LogitMargin"]
    for kind in KINDS:
        np.testing.assert_array_equal(found[kind.__name__], scores_of(kind, net))
    first, second = (training_dynamics(None, X, Y, random_state=0) for _ in range(2))
    pd.testing.assert_frame_equal(pd.DataFrame(first), pd.DataFrame(second))


# ---- what is trained -------------------------------------------------------------------------------------------------


def test_a_net_without_a_recorder_gets_one_checkpoint_per_epoch():
    net = NeuralNetClassifier(
        Perceptron, criterion=nn.CrossEntropyLoss, max_epochs=7, lr=0.1, train_split=None, verbose=0
    )
    for kind in KINDS:
        assert len(kind(net, random_state=0).fit(X, Y).trajectory_) == 7
    piped = make_pipeline(StandardScaler(), net)
    assert len(AUM(piped, random_state=0).fit(X, Y).trajectory_) == 7


def test_models_without_a_run_are_measured_at_the_end():
    model = LogisticRegression().fit(X, Y)
    p = model.predict_proba(X)
    np.testing.assert_allclose(
        EL2N(FrozenEstimator(model)).fit(X, Y).scores_, -np.linalg.norm(p - ONE_HOT, axis=1), rtol=1e-6
    )
    for kind in (AUM, Forgetting):
        with pytest.raises(ValueError, match=f"{kind.__name__} follows a recorded training run"):
            kind(LogisticRegression()).fit(X, Y)


# ---- planted answers -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noisy_digits():
    X, y = load_digits(return_X_y=True)
    X, y = X[:900], y[:900]
    given = flip(y, 0.2)
    return X, given, given != y


@pytest.fixture(scope="module")
def learned(noisy_digits):
    """The default net, recorded after every epoch, as users have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxy, "EPOCHS", (6, 100))
        return AUM(random_state=0).fit(*noisy_digits[:2]).estimator_


@pytest.mark.parametrize(("kind", "least"), list(zip(KINDS, [0.98, 0.93, 0.85, 0.9, 0.9, 0.85], strict=True)))
def test_wrong_labels_score_low(noisy_digits, learned, kind, least):
    X, y, wrong = noisy_digits
    early = {"at": 0.2} if hasattr(kind, "at") or "at" in kind().get_params() else {}
    scores = kind(FrozenEstimator(learned), **early).fit(X, y).scores_
    assert roc_auc_score(~wrong, scores) > least


def test_labels_as_text_and_images_and_frames(noisy_digits):
    X, y, _ = (each[:300] for each in noisy_digits)
    names = np.array(["abcdefghij"[c] for c in y])
    np.testing.assert_array_equal(AUM(random_state=0).fit(X, names).scores_, AUM(random_state=0).fit(X, y).scores_)
    np.testing.assert_array_equal(
        EL2N(random_state=0).fit(pd.DataFrame(X), pd.Series(names)).scores_, EL2N(random_state=0).fit(X, y).scores_
    )
    assert np.isfinite(Forgetting(random_state=0).fit(X.reshape(-1, 8, 8), names).scores_).all()


@pytest.mark.usefixtures("full_training")
@pytest.mark.parametrize("kind", [AUM, GraNd])
def test_in_a_pruner(noisy_digits, kind):
    X, y, wrong = noisy_digits
    pruner = InfluencePruner(RandomForestClassifier(10), kind(random_state=0), prune_ratio=0.2).fit(X, y)
    assert wrong[~pruner.support_].mean() > 0.4


@pytest.mark.parametrize("kind", [EL2N, Forgetting])
def test_in_a_detector(noisy_digits, kind):
    X, y, _ = (each[:300] for each in noisy_digits)
    detector = NoisyLabelDetector(kind(random_state=0)).fit(X, y)
    assert (detector.labels_ == -1).sum() == round(detector.noise_rate_ * len(y))


@pytest.mark.usefixtures("full_training")
@pytest.mark.parametrize("kind", [LogitMargin, Loss])
def test_in_a_coreset(noisy_digits, kind):
    X, y, wrong = noisy_digits
    kept = CoresetSelector(kind(random_state=0), n_samples=200, random_state=0).fit(X, y).sample_indices_
    assert wrong[kept].mean() < 0.15


# ---- the threshold of a made-up class --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_a_threshold(noisy_digits):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxy, "EPOCHS", (6, 100))  # as users have it
        return AUM(percentile=99, random_state=0).fit(*noisy_digits[:2])


@pytest.mark.usefixtures("full_training")
def test_the_threshold_separates_right_from_wrong(noisy_digits, with_a_threshold):
    X, y, wrong = noisy_digits
    aum = with_a_threshold
    assert aum.is_wrong_.tolist() == (aum.scores_ < aum.threshold_).tolist()
    assert aum.is_wrong_[wrong].mean() > 0.9
    assert aum.is_wrong_[~wrong].mean() < 0.2
    lower = AUM(percentile=50, random_state=0).fit(X, y)
    assert lower.threshold_ < aum.threshold_
    np.testing.assert_array_equal(lower.scores_, aum.scores_)


@pytest.mark.usefixtures("full_training")
def test_rows_of_the_made_up_class_are_scored_with_their_own_label(noisy_digits, with_a_threshold):
    """A row that only one run left its label has a score from it; all rows have one."""
    X, y, _ = noisy_digits
    scores = with_a_threshold.scores_
    assert scores.shape == y.shape
    assert np.isfinite(scores).all()
    again = copy.deepcopy(with_a_threshold).set_params(percentile=None).fit(X, y)
    assert not hasattr(again, "threshold_")
    assert np.corrcoef(scores, again.scores_)[0, 1] > 0.9


def test_a_given_net_needs_an_output_for_the_made_up_class(noisy_digits):
    X, y, wrong = noisy_digits
    X = X.astype(np.float32) / 16
    settings = {"criterion": nn.CrossEntropyLoss, "max_epochs": 20, "lr": 0.2, "batch_size": 32, "train_split": None}
    net = NeuralNetClassifier(nn.Linear, module__in_features=64, module__out_features=11, verbose=0, **settings)
    aum = AUM(net, percentile=99, random_state=0).fit(X, y)
    assert roc_auc_score(~wrong, aum.scores_) > 0.9
    with pytest.raises(ValueError, match=re.escape("give the net 11 outputs")):
        AUM(net.set_params(module__out_features=10), percentile=99).fit(X, y)
    with pytest.raises(ValueError, match=re.escape("must know as 0 to 9; encode y")):
        AUM(net, percentile=99).fit(X, y + 1)
    with pytest.raises(ValueError, match="cannot learn"):
        AUM(FrozenEstimator(trained("softmax")), percentile=99).fit(X, y)
    with pytest.raises(ValueError, match="regression has none"):
        AUM(percentile=99).fit(X, np.random.default_rng(0).normal(size=len(y)))


def paired(rows):
    return torch.stack([row["input"] for row in rows]), torch.stack([row["labels"] for row in rows])


@pytest.mark.parametrize("form", ["pairs", "numbers", "dicts", "a Dataset beside y"])
def test_the_threshold_with_labels_in_a_dataset_is_that_of_arrays(form):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 3)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    settings = {"criterion": nn.CrossEntropyLoss, "max_epochs": 2, "batch_size": 10, "train_split": None, "verbose": 0}
    net = NeuralNet(nn.Linear, module__in_features=3, module__out_features=3, **settings)
    expected = AUM(net, percentile=80, random_state=0).fit(X, y)
    pairs = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    rows = {
        "numbers": Subset(list(zip(X, y.tolist(), strict=True)), range(30)),
        "dicts": [{"input": a, "labels": b} for a, b in pairs],
    }.get(form, pairs)
    if form == "dicts":
        net.set_params(iterator_train__collate_fn=paired, iterator_valid__collate_fn=paired)
    found = AUM(net, percentile=80, random_state=0).fit(rows, 1 - y if "beside" in form else None)
    np.testing.assert_allclose(found.scores_, expected.scores_, rtol=1e-6)
    assert found.threshold_ == pytest.approx(expected.threshold_)
    with pytest.raises(ValueError, match="AUM requires y"):
        AUM(percentile=80).fit(rows, None)


def test_regression_targets_of_the_default_net():
    y = X[:, 0] * 3 + 1
    assert np.isfinite(EL2N(random_state=0).fit(X, y).scores_).all()
    assert np.isfinite(Loss(Ridge()).fit(X, y).scores_).all()


def test_the_threshold_of_many_classes_with_text_labels():
    X, y = make_blobs(300, 6, centers=30, random_state=0)
    names = np.char.mod("class %02d", y)
    aum = AUM(percentile=90, random_state=0).fit(pd.DataFrame(X, columns=list("abcdef")), names)
    assert np.isfinite(aum.scores_).all()
    assert not hasattr(aum.fit(X, names), "feature_names_in_")
    pruner = InfluencePruner(RandomForestClassifier(10), AUM(percentile=90, random_state=0)).fit(X, names)
    assert pruner.n_pruned_ == 30


def test_a_net_with_one_logit_has_no_place_for_a_made_up_class():
    net = one_logit(module=nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)))
    with pytest.raises(ValueError, match="use NeuralNetClassifier with three outputs"):
        AUM(net, percentile=99).fit(X.astype(np.float32), (Y == 1).astype(int))


@pytest.mark.parametrize("at", [0.07, 0.14, 0.28, 0.55, 0.56])
def test_shares_of_steps_are_not_rounded_up(at):
    net = NeuralNetClassifier(
        nn.Linear, module__in_features=3, module__out_features=3, criterion=nn.CrossEntropyLoss, max_epochs=100,
        batch_size=24, train_split=None, verbose=0, callbacks=[TrajectoryRecorder(every=1)],
    ).fit(X.astype(np.float32), Y)  # fmt: skip
    module = nn.Linear(3, 3)
    module.load_state_dict(run_of(net).state(round(100 * at) - 1))
    losses = nn.functional.cross_entropy(module(torch.from_numpy(X).float()), torch.from_numpy(Y), reduction="none")
    found = Loss(FrozenEstimator(net), at=at).fit(X.astype(np.float32), Y).scores_
    np.testing.assert_allclose(found, -losses.detach().numpy(), rtol=1e-5)
