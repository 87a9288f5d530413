"""SelfConfidence, NormalizedMargin, ConfidentLearning: by hand, against cleanlab, planted flips, folds, inputs."""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from joblib import parallel_config
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, RepeatedKFold, StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sktda import CoresetSelector, InfluencePruner, NoisyLabelDetector
from sktda.attribution.predictions import out_of_sample as predictions
from sktda.attribution.predictions.confidence import NormalizedMargin, SelfConfidence
from sktda.attribution.predictions.confident_learning import (
    ConfidentLearning,
    calibrated_joint,
    confident_joint,
    rounded,
    wrong_labels,
)
from sktda.attribution.predictions.out_of_sample import margins
from tests.in_turn import in_turn
from tests.spies import flip, noisy_blobs

ALL = [SelfConfidence, NormalizedMargin, ConfidentLearning]
X, Y, TRUE = noisy_blobs(120, rate=0.2)
WRONG = Y != TRUE
DIGITS, DIGIT = load_digits(return_X_y=True)
FLIPPED = flip(DIGIT, 0.2)


@pytest.fixture
def small_forest(monkeypatch):
    """The default with a few trees, for tests that are not about how well it finds wrong labels."""
    monkeypatch.setattr(predictions, "ExtraTreesClassifier", lambda _, **options: ExtraTreesClassifier(10, **options))


@functools.cache
def by_default(cls):
    """On the digits, a fifth of whose labels are flipped; fitted once for all tests that only read it."""
    return cls().fit(DIGITS, FLIPPED)


def splits(n, k=4, seed=0):
    """Folds as positions, so that they can be moved with the rows."""
    return list(KFold(k, shuffle=True, random_state=seed).split(np.zeros(n)))


def out_of_sample(estimator, X, y, folds):
    """The definition: every row by a model of the rows of the other folds."""
    probs = np.zeros((len(y), len(np.unique(y))))
    for train, test in folds:
        probs[test] = estimator.fit(X[train], y[train]).predict_proba(X[test])
    return probs


# ---- by hand --------------------------------------------------------------------------------------------------------

PROBS = np.array(
    [
        [0.9, 0.1, 0.0],  # labelled 0
        [0.7, 0.2, 0.1],
        [0.2, 0.75, 0.05],  # confidently 1
        [0.1, 0.8, 0.1],  # labelled 1
        [0.3, 0.6, 0.1],
        [0.25, 0.35, 0.4],  # labelled 2: nothing confidently
        [0.05, 0.05, 0.9],
        [0.65, 0.0, 0.35],  # confidently 0
    ]
)
GIVEN = np.array([0, 0, 0, 1, 1, 2, 2, 2])


def test_margins_by_hand():
    expected = [0.8, 0.5, -0.55, 0.7, 0.3, 0.05, 0.85, -0.3]
    np.testing.assert_allclose(margins(PROBS, GIVEN), expected, atol=1e-12)


def test_confident_joint_by_hand():
    counts, thresholds = confident_joint(PROBS, GIVEN)
    np.testing.assert_allclose(thresholds, [0.6, 0.7, 0.55])  # 1.8/3, 1.4/2, 1.65/3
    assert counts.tolist() == [[2, 1, 0], [0, 1, 0], [1, 0, 1]]
    joint = calibrated_joint(counts, GIVEN)
    np.testing.assert_allclose(joint, np.array([[2, 1, 0], [0, 2, 0], [1.5, 0, 1.5]]) / 8)
    assert wrong_labels(PROBS, GIVEN, joint).tolist() == [False, False, True, False, False, False, False, True]


def test_of_several_confident_classes_the_most_probable_counts_and_not_one_below_its_threshold():
    probs = np.array([[0.9, 0.1, 0.0], [0.1, 0.3, 0.6], [0.6, 0.2, 0.2], [0.5, 0.3, 0.2]])
    given = np.array([0, 1, 2, 1])  # thresholds .9, .3, .2
    counts, thresholds = confident_joint(probs, given)
    np.testing.assert_allclose(thresholds, [0.9, 0.3, 0.2])
    assert counts.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]  # the last row: .5 is below .9, so .3 and not .2


def test_equal_probabilities_call_nothing_wrong():
    probs, given = np.full((6, 3), 1 / 3), np.array([0, 0, 1, 1, 2, 2])
    counts, _ = confident_joint(probs, given)
    assert counts.tolist() == np.diag([2, 2, 2]).tolist()
    assert not wrong_labels(probs, given, np.full((3, 3), 1 / 9)).any()


def test_a_class_that_its_rows_have_no_probability_of_takes_no_rows():
    probs, given = (
        np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.2, 0.8, 0.0], [0.7, 0.3, 0.0]]),
        np.array([0, 0, 1, 2]),
    )
    counts, thresholds = confident_joint(probs, given)
    assert thresholds[2] == np.inf
    assert counts[:, 2].tolist() == [0, 0, 1]  # only the one that every diagonal holds


@pytest.mark.parametrize(
    ("values", "first", "expected"),
    [([1.5, 0.5], 0, [2, 0]), ([1.5, 0.5], 1, [1, 1]), ([0.2, 0.7, 2.1], 0, [0, 1, 2]), ([3.0, 0.0], 1, [3, 0])],
)
def test_rounding_keeps_the_sum(values, first, expected):
    assert rounded(np.array(values), first).tolist() == expected


def test_a_class_keeps_a_row():
    probs, given = np.tile([0.1, 0.9], (8, 1)), np.array([0, 0, 0, 1, 1, 1, 1, 1])
    assert wrong_labels(probs, given, np.array([[0.0, 3], [0, 5]]) / 8)[:3].sum() == 2


# ---- the definition -------------------------------------------------------------------------------------------------


def test_probabilities_and_scores_are_those_of_the_definition():
    folds = splits(120)
    probs = out_of_sample(LogisticRegression(), X, Y, folds)
    fitted = [cls(LogisticRegression(), cv=folds).fit(X, Y) for cls in ALL]
    for each in fitted:
        np.testing.assert_allclose(each.pred_probs_, probs, rtol=1e-12)
        assert each.scores_.dtype == np.float64
        assert each.classes_.tolist() == [0, 1, 2]
    own = probs[np.arange(120), Y]
    others = np.array([np.delete(row, label).max() for row, label in zip(probs, Y, strict=True)])
    np.testing.assert_allclose(fitted[0].scores_, own, rtol=1e-12)
    np.testing.assert_allclose(fitted[1].scores_, own - others, rtol=1e-12)
    np.testing.assert_allclose(fitted[2].scores_, own - others - 2 * fitted[2].is_wrong_, rtol=1e-12)


def test_confident_learning_describes_the_noise():
    learning = ConfidentLearning().fit(X, Y)
    np.testing.assert_allclose(learning.joint_.sum(axis=1), np.bincount(Y) / 120)
    np.testing.assert_allclose(learning.noise_matrix_.sum(axis=1), 1)
    k, j = 0, 1
    assert learning.noise_matrix_[k, j] == pytest.approx(learning.joint_[j, k] / learning.joint_[:, k].sum())
    assert learning.noise_rate_ == pytest.approx(1 - np.trace(learning.joint_))
    assert learning.noise_rate_ == pytest.approx(WRONG.mean(), abs=0.05)
    worst = learning.scores_.argsort()[: learning.is_wrong_.sum()]
    assert set(worst) == set(np.flatnonzero(learning.is_wrong_))
    assert learning.scores_[learning.is_wrong_].max() < -2 < -1 <= learning.scores_[~learning.is_wrong_].min()


def test_asymmetric_noise_is_seen_in_the_right_direction():
    y = TRUE.copy()
    moved = np.flatnonzero(TRUE == 0)[::4]
    y[moved] = 2  # a quarter of the true 0 are labelled 2
    learning = ConfidentLearning().fit(X, y)
    assert learning.noise_matrix_[0, 2] == pytest.approx(0.25, abs=0.08)  # of those that are confident
    assert learning.joint_[2, 0] == pytest.approx(len(moved) / 120, abs=0.03)
    assert learning.noise_matrix_[2, 0] < 0.05
    found = np.flatnonzero(learning.is_wrong_)
    assert set(found) <= set(moved)
    assert len(found) > len(moved) / 2


# ---- cleanlab on the same probabilities -----------------------------------------------------------------------------


@pytest.mark.usefixtures("small_forest")
@pytest.mark.parametrize(
    ("load", "kind"),
    [(load_breast_cancer, "uniform"), (load_wine, "next"), (load_wine, "uniform"), (load_digits, "next")],
)
def test_cleanlab_finds_the_same_on_the_same_probabilities(load, kind):
    pytest.importorskip("cleanlab")
    from cleanlab.count import compute_confident_joint
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_normalized_margin_for_each_label, get_self_confidence_for_each_label

    X, y = load(return_X_y=True)
    given = flip(y, 0.15, kind)
    learning = ConfidentLearning(random_state=1).fit(X, given)
    probs = learning.pred_probs_
    folds = {"cv": StratifiedKFold(3)}
    alone = SelfConfidence(**folds).fit(X, given)
    np.testing.assert_allclose(alone.scores_, get_self_confidence_for_each_label(given, alone.pred_probs_))
    margin = NormalizedMargin(**folds).fit(X, given)
    cleanlabs = get_normalized_margin_for_each_label(given, margin.pred_probs_)
    np.testing.assert_allclose((1 + margin.scores_) / 2, cleanlabs, atol=1e-12)
    counts = compute_confident_joint(given, probs, calibrate=False)
    np.testing.assert_array_equal(learning.confident_joint_, counts)
    exact = learning.joint_ * len(given)
    rest = np.sort(exact % 1, axis=1)
    if (np.diff(rest, axis=1)[rest[:, 1:] > 1e-9] > 1e-9).all():  # equal remainders may be rounded either way
        calibrated = compute_confident_joint(given, probs, calibrate=True)
        np.testing.assert_array_equal([rounded(row, i) for i, row in enumerate(exact)], calibrated)
    issues = find_label_issues(given, probs, filter_by="both", n_jobs=1)
    assert (learning.is_wrong_ != issues).sum() <= 3  # of ties
    if load is not load_digits:
        np.testing.assert_array_equal(learning.is_wrong_, issues)


# ---- planted errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ALL)
def test_planted_flips_of_the_digits_have_the_lowest_scores(cls):
    fitted, wrong = by_default(cls), FLIPPED != DIGIT
    assert roc_auc_score(wrong, -fitted.scores_) > 0.98
    assert (fitted.pred_probs_.argmax(axis=1) == DIGIT)[wrong].mean() > 0.9


def test_a_model_that_is_named_finds_planted_flips_too():
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    named = NormalizedMargin(logistic, random_state=0).fit(DIGITS, FLIPPED)
    assert roc_auc_score(FLIPPED != DIGIT, -named.scores_) > 0.95


def test_the_mask_of_confident_learning_holds_the_planted_flips():
    mask, wrong = by_default(ConfidentLearning).is_wrong_, FLIPPED != DIGIT
    assert wrong[mask].mean() > 0.9
    assert mask[wrong].mean() > 0.85


# ---- folds ----------------------------------------------------------------------------------------------------------


def test_an_int_is_stratified_and_shuffled_folds():
    y = np.repeat([0, 1, 2], [90, 20, 10])
    seen = []

    class Noting(KNeighborsClassifier):
        def fit(self, X, y):
            seen.append((set(X[:, 0].astype(int)), np.bincount(y)))
            return super().fit(X, y)

    rows = np.arange(120.0)[:, None]
    fitted = SelfConfidence(Noting(3), cv=10, random_state=0).fit(rows, y)
    assert [counts.tolist() for _, counts in seen] == [[81, 18, 9]] * 10
    left_out = [set(range(120)) - trained for trained, _ in seen]
    assert set.union(*left_out) == set(range(120))
    assert sum(map(len, left_out)) == 120
    assert max(left_out[0]) - min(left_out[0]) > 90
    assert not all(np.ptp([row for row in part if row < 90]) < 12 for part in left_out)  # not one block per class
    assert fitted.pred_probs_.shape == (120, 3)


@pytest.mark.usefixtures("small_forest")
def test_a_rare_class_lowers_the_number_of_folds_and_says_so():
    y = np.repeat(["a", "b", "c"], [60, 57, 3])
    with pytest.warns(UserWarning, match=r"class 'c' has 3 rows, fewer than the 5 folds, so 3 folds .* cv=3"):
        lowered = SelfConfidence(random_state=0).fit(X, y)
    np.testing.assert_array_equal(lowered.pred_probs_, SelfConfidence(cv=3, random_state=0).fit(X, y).pred_probs_)


@pytest.mark.usefixtures("small_forest")
@pytest.mark.parametrize("cls", ALL)
def test_a_class_of_one_row_has_probability_zero_and_leaves_the_folds_alone(cls):
    y = TRUE.copy()
    y[7] = 5
    with pytest.warns(UserWarning, match=r"classes of 1 row: 1, such as 5;"):
        fitted = cls().fit(X, y)
    assert fitted.pred_probs_[7, 3] == 0
    assert fitted.pred_probs_[:, 3].max() > 0  # the other folds trained on it
    np.testing.assert_allclose(fitted.pred_probs_.sum(axis=1), 1)
    assert fitted.scores_.argmin() == 7
    if cls is ConfidentLearning:
        assert not fitted.is_wrong_[7]  # one row of each class stays
        assert fitted.confident_joint_[:3, 3].tolist() == [0, 0, 0]
        assert fitted.noise_rate_ < 0.02


@pytest.mark.usefixtures("small_forest")
def test_one_class_left_to_train_on_has_all_the_probability():
    y = np.array([0] * 9 + [1])
    with pytest.warns(UserWarning, match="1 row"):
        fitted = SelfConfidence().fit(np.arange(10.0)[:, None], y)
    assert fitted.pred_probs_[9].tolist() == [1, 0]
    assert np.isfinite(fitted.scores_).all()


def test_no_class_of_two_rows_is_an_error():
    with pytest.raises(ValueError, match="each of the 3 classes has 1 row"):
        SelfConfidence().fit(np.eye(3), ["a", "b", "c"])


@pytest.mark.usefixtures("small_forest")
def test_splitters_are_taken_as_they_are_and_must_predict_every_row_once():
    expected = cross_val_predict(LogisticRegression(), X, Y, cv=KFold(3), method="predict_proba")
    for cv in (KFold(3), list(KFold(3).split(X))):
        np.testing.assert_allclose(SelfConfidence(LogisticRegression(), cv=cv).fit(X, Y).pred_probs_, expected)
    with pytest.raises(ValueError, match="0 rows never and 120 rows more than once"):
        SelfConfidence(cv=RepeatedKFold(n_splits=3, n_repeats=2)).fit(X, Y)
    with pytest.raises(ValueError, match="80 rows never"):
        SelfConfidence(cv=splits(120, 3)[:1]).fit(X, Y)


# ---- seeds ----------------------------------------------------------------------------------------------------------


def test_folds_of_sorted_rows_that_leave_a_class_out_are_said():
    X, y = np.arange(12.0)[:, None], np.repeat(["a", "b", "c"], 4)
    with pytest.warns(
        UserWarning, match="12 rows, the first of class 'a', are predicted by folds that are trained on no"
    ):
        sorted_folds = SelfConfidence(DecisionTreeClassifier(), cv=KFold(3)).fit(X, y)
    assert (sorted_folds.scores_ == 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SelfConfidence(DecisionTreeClassifier(), cv=StratifiedKFold(3)).fit(X, y)
        SelfConfidence(FrozenEstimator(DecisionTreeClassifier().fit(X, y)), cv=KFold(3)).fit(X, y)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_the_seed_decides_everything_and_global_states_are_left_alone(n_jobs):
    """With two jobs, too, by threads: what other processes do to their own global states would not be seen."""
    forest = RandomForestClassifier(5)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    with parallel_config("threading"):
        first = SelfConfidence(forest, random_state=3, n_jobs=n_jobs).fit(X, Y).scores_
    np.testing.assert_array_equal(SelfConfidence(forest, random_state=3).fit(X, Y).scores_, first)
    assert (SelfConfidence(forest, random_state=4).fit(X, Y).scores_ != first).any()
    np.testing.assert_array_equal(
        SelfConfidence(forest).fit(X, Y).scores_, SelfConfidence(forest, random_state=0).fit(X, Y).scores_
    )
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert forest.random_state is None
    assert not hasattr(forest, "estimators_")


# ---- invariances ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_forest")
@pytest.mark.parametrize("cls", ALL)
def test_invariances(cls):
    folds = splits(120)
    base = cls(cv=folds).fit(X, Y)
    order = np.random.default_rng(0).permutation(120)
    place = np.argsort(order)
    moved = cls(cv=[(place[train], place[test]) for train, test in folds]).fit(X[order], Y[order])
    np.testing.assert_allclose(moved.scores_, base.scores_[order], atol=1e-4)
    renamed = cls(cv=folds).fit(X, np.array(["c", "a", "b"])[Y])
    np.testing.assert_allclose(renamed.scores_, base.scores_, atol=1e-4)
    np.testing.assert_allclose(renamed.pred_probs_, base.pred_probs_[:, [1, 2, 0]], atol=1e-4)
    rescaled = cls(cv=folds).fit(X * 1000 - 7, Y)
    np.testing.assert_allclose(rescaled.scores_, base.scores_, atol=1e-4)
    names = np.array(["c", "a", "b"])
    np.testing.assert_allclose(cls().fit(X, names[Y]).scores_, cls().fit(X, Y).scores_, atol=1e-4)


@pytest.mark.usefixtures("small_forest")
def test_a_row_s_own_label_plays_no_part_in_its_probabilities():
    folds = splits(120)
    base = SelfConfidence(cv=folds).fit(X, Y).pred_probs_
    y = Y.copy()
    y[folds[0][1]] = (y[folds[0][1]] + 1) % 3
    np.testing.assert_array_equal(SelfConfidence(cv=folds).fit(X, y).pred_probs_[folds[0][1]], base[folds[0][1]])


# ---- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_forest")
def test_weight_two_is_the_row_twice_and_weight_zero_is_no_row():
    folds, weight = splits(120), np.random.default_rng(0).integers(0, 3, 120)
    weighted = SelfConfidence(LogisticRegression(tol=1e-8), cv=folds).fit(X, Y, sample_weight=weight).pred_probs_
    for train, test in folds:
        rows = np.repeat(train, weight[train])
        expected = LogisticRegression(tol=1e-8).fit(X[rows], Y[rows]).predict_proba(X[test])
        np.testing.assert_allclose(weighted[test], expected, atol=1e-5)
    default = SelfConfidence(cv=folds)
    assert np.abs(default.fit(X, Y).scores_ - default.fit(X, Y, sample_weight=weight).scores_).max() > 0.01


def test_an_estimator_without_weights_refuses_them():
    with pytest.raises(ValueError, match="KNeighborsClassifier takes no sample_weight"):
        SelfConfidence(KNeighborsClassifier()).fit(X, Y, sample_weight=np.ones(120))
    for estimator in (None, LogisticRegression()):
        with pytest.raises(ValueError, match="non-negative"):
            SelfConfidence(estimator).fit(X, Y, sample_weight=-np.ones(120))


# ---- inputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("labels", [np.array(["no", "yes", "äh"]), np.array([5, -5, 7]), np.array([0.0, 1.0, 2.0])])
def test_labels_of_every_kind(cls, labels):
    fitted = cls(LogisticRegression()).fit(X, labels[Y])
    assert fitted.classes_.tolist() == sorted(labels.tolist())
    assert roc_auc_score(WRONG, -fitted.scores_) > 0.95


@pytest.mark.usefixtures("small_forest")
def test_pandas_lists_sparse_and_images_are_their_arrays():
    base = SelfConfidence().fit(X, Y)
    frame = pd.DataFrame(X, columns=list("abcd"), index=[f"id{i}" for i in range(120)])
    framed = SelfConfidence().fit(frame, pd.Series(Y, index=frame.index).astype("category"))
    np.testing.assert_array_equal(framed.scores_, base.scores_)
    assert framed.feature_names_in_.tolist() == list("abcd")
    named = SelfConfidence(LogisticRegression()).fit(frame, Y)
    assert named.feature_names_in_.tolist() == list("abcd")
    assert named.n_features_in_ == 4
    np.testing.assert_array_equal(SelfConfidence().fit(X.tolist(), Y.tolist()).scores_, base.scores_)
    np.testing.assert_array_equal(SelfConfidence().fit(X.reshape(120, 2, 2), Y).scores_, base.scores_)
    counts = np.abs(X.round())
    dense = SelfConfidence(LogisticRegression()).fit(counts, Y).scores_
    for kind in (sp.csr_array, sp.csc_matrix, sp.coo_array, sp.dok_array):
        fitted = SelfConfidence(LogisticRegression()).fit(kind(counts), Y)
        np.testing.assert_allclose(fitted.scores_, dense, atol=1e-4)
        fitted = SelfConfidence().fit(kind(counts), Y)
        scaled = make_pipeline(StandardScaler(with_mean=False), LogisticRegression(C=0.1, max_iter=1000))
        np.testing.assert_allclose(fitted.scores_, SelfConfidence(scaled).fit(counts, Y).scores_, atol=1e-3)


@pytest.mark.usefixtures("small_forest")
def test_constant_columns_give_the_shares_of_the_classes():
    fitted = SelfConfidence(cv=5).fit(np.ones((40, 2)), np.repeat([0, 1], [30, 10]))
    np.testing.assert_allclose(fitted.pred_probs_, np.tile([0.75, 0.25], (40, 1)), atol=1e-3)


def test_pipelines_of_mixed_columns_and_of_text_take_what_they_take():
    frame = pd.DataFrame({"x": X[:, 0], "z": X[:, 1], "kind": np.array(["u", "v", "w"])[TRUE]})
    encode = make_column_transformer((OneHotEncoder(), ["kind"]), remainder=StandardScaler())
    fitted = NoisyLabelDetector(SelfConfidence(make_pipeline(encode, LogisticRegression()))).fit(frame, Y)
    assert roc_auc_score(WRONG, -fitted.scores_) > 0.99
    assert (fitted.suggested_labels_[WRONG] == TRUE[WRONG]).mean() > 0.95
    texts = [f"{'good fine' if k else 'bad poor'} {i % 7}" for i, k in enumerate([0, 1] * 30)]
    labels = np.array([0, 1] * 30)
    labels[:2] = [1, 0]
    words = ConfidentLearning(make_pipeline(TfidfVectorizer(), LogisticRegression())).fit(texts, labels)
    assert set(np.flatnonzero(words.is_wrong_)) == {0, 1}


def test_a_frozen_estimator_predicts_and_is_not_trained():
    model = LogisticRegression().fit(X[::2], TRUE[::2])
    fitted = SelfConfidence(FrozenEstimator(model)).fit(X[1::2], Y[1::2])
    np.testing.assert_array_equal(fitted.pred_probs_, model.predict_proba(X[1::2]))
    with pytest.raises(ValueError, match=r"predicts classes that no row of y has, such as 2 \(y has 0, 1\)"):
        SelfConfidence(FrozenEstimator(model)).fit(X, np.minimum(Y, 1))


def test_a_skorch_net_takes_images():
    skorch = pytest.importorskip("skorch")
    digits, y = load_digits(return_X_y=True)
    images, y = digits[:300].reshape(-1, 1, 8, 8).astype(np.float32) / 16, y[:300]
    net = skorch.NeuralNetClassifier(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)),
        criterion=torch.nn.CrossEntropyLoss,
        lr=0.5,
        max_epochs=15,
        train_split=None,
        verbose=0,
    )
    given = flip(y, 0.1)
    fitted = NormalizedMargin(net, cv=3, random_state=0).fit(images, given)
    assert roc_auc_score(given != y, -fitted.scores_) > 0.9
    with pytest.raises(ValueError, match="dim 4"):
        NormalizedMargin(LogisticRegression()).fit(images, given)


@pytest.mark.usefixtures("small_forest")
def test_a_second_fit_forgets_the_first():
    fitted = ConfidentLearning().fit(pd.DataFrame(X).add_prefix("f"), Y).fit(X[:, :2], Y)
    assert fitted.n_features_in_ == 2
    assert not hasattr(fitted, "feature_names_in_")


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ALL)
def test_regression_is_refused_and_complexity_gap_named(cls):
    X, y = load_diabetes(return_X_y=True)
    for target in (y, y + 0.5):
        with pytest.raises(ValueError, match=r"Unknown label type: .* regression target; use ComplexityGap"):
            cls().fit(X, target)
    for estimator in (LogisticRegression(), Ridge()):
        with pytest.raises(ValueError, match="use ComplexityGap"):
            cls(estimator).fit(X, y + 0.5)
    with pytest.raises(TypeError, match="use ComplexityGap"):
        cls(LinearRegression()).fit(X, y)


def test_many_whole_numbers_are_classes_for_whoever_names_a_classifier():
    y = np.repeat(np.arange(30), 4)
    centres = np.random.default_rng(0).normal(size=(30, 5)) * 10
    X = centres[y] + np.random.default_rng(1).normal(size=(120, 5))
    with pytest.raises(ValueError, match="30 different numbers in 120 rows"):
        SelfConfidence().fit(X, y)
    fitted = SelfConfidence(KNeighborsClassifier(1), cv=4).fit(X, y)
    np.testing.assert_array_equal(SelfConfidence(KNeighborsClassifier(1), cv=4).fit(X, y.astype(str)).scores_, 1.0)
    assert fitted.scores_.mean() > 0.95


@in_turn(
    ("params", "X", "y", "error", "message"),
    [
        ({"estimator": RidgeClassifier()}, X, Y, TypeError, "RidgeClassifier has none; .*CalibratedClassifierCV"),
        ({}, np.where(X[3, 1] == X, np.nan, X), Y, ValueError, "column 1 has 1 values"),
        ({}, X, np.zeros(120), ValueError, "1 class"),
        ({}, X, None, ValueError, "requires y to be passed"),
        ({"estimator": LogisticRegression()}, X, Y[:-1], ValueError, "inconsistent numbers of samples"),
        ({"cv": 1}, X, Y, ValueError, "cv"),
    ],
)
def test_bad_input_gets_an_error_that_says_what_to_do(params, X, y, error, message):
    with pytest.raises(error, match=message):
        SelfConfidence(**params).fit(X, y)


def test_probabilities_of_nan_are_refused():
    class Broken(LogisticRegression):
        def predict_proba(self, X):
            return np.full((len(X), 3), np.nan)

    with pytest.raises(ValueError, match="NaN or infinity for 24 of 24 rows"):
        SelfConfidence(Broken()).fit(X, Y)


# ---- in the cleaners ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_forest")
@pytest.mark.parametrize("cls", ALL)
def test_in_every_cleaner(cls):
    detector = NoisyLabelDetector(cls()).fit(X, Y)
    assert detector.noise_rate_ == pytest.approx(WRONG.mean(), abs=0.05)
    assert WRONG[detector.labels_ == -1].mean() > 0.9
    assert (detector.suggested_labels_[WRONG] == TRUE[WRONG]).mean() > 0.9
    coreset = CoresetSelector(cls(), n_samples=60, random_state=0).fit(X, Y)
    assert WRONG[coreset.sample_indices_].mean() < 0.05
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    pruner = InfluencePruner(pipe, cls(random_state=0))
    pruner.fit(X, Y, logisticregression__sample_weight=np.ones(120))
    assert pruner.n_pruned_ == 12
    assert WRONG[~pruner.support_].mean() > 0.9
    assert pruner.attributor_.estimator.steps[0][0] == "standardscaler"


def test_in_rounds_and_under_a_guard():
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    attributor = ConfidentLearning(random_state=0)
    pruner = InfluencePruner(pipe, attributor, prune_ratio=0.15, step=0.05, guard=1.0).fit(X, Y)
    assert pruner.n_pruned_ == 18
    assert WRONG[~pruner.support_].mean() > 0.9


def test_an_estimator_without_probabilities_is_named_and_one_around_it_serves():
    with pytest.raises(TypeError, match="RidgeClassifier has none"):
        SelfConfidence(RidgeClassifier()).fit(X, Y)
    own = SelfConfidence(CalibratedClassifierCV(RidgeClassifier(), cv=3))
    assert WRONG[~InfluencePruner(RidgeClassifier(), own, prune_ratio=0.1).fit(X, Y).support_].mean() > 0.9


def test_probabilities_of_zero_and_one_rank_and_give_finite_estimates():
    learning = ConfidentLearning(DecisionTreeClassifier()).fit(X, Y)
    assert np.isfinite(learning.scores_).all()
    assert np.isfinite(learning.joint_).all()
    assert 0 <= learning.noise_rate_ < 1


@pytest.mark.usefixtures("small_forest")
def test_no_warning_where_there_is_nothing_to_warn_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SelfConfidence().fit(X, Y)


@pytest.mark.usefixtures("small_forest")
@pytest.mark.parametrize("kind", [SelfConfidence, NormalizedMargin, ConfidentLearning])
def test_a_cleaner_around_a_classifier_without_probabilities(kind):
    plain = InfluencePruner(RidgeClassifier(), kind(random_state=0)).fit(X, Y)
    np.testing.assert_array_equal(plain.scores_, kind(random_state=0).fit(X, Y).scores_)
    piped = InfluencePruner(make_pipeline(StandardScaler(), RidgeClassifier()), kind(random_state=0)).fit(X, Y)
    assert isinstance(piped.attributor_.estimator[0][0], StandardScaler)
    own = InfluencePruner(LogisticRegression(), kind(random_state=0)).fit(X, Y)
    assert isinstance(own.attributor_.estimator, LogisticRegression)


def test_a_detector_takes_a_list_of_texts():
    words = np.array([["red apple", "green pear", "sweet plum"], ["blue car", "fast bus", "old train"]])
    y = np.repeat([0, 1], 30)
    texts = [" ".join(np.random.default_rng(i).choice(words[c], 2)) for i, c in enumerate(y)]
    y[0] = 1
    pipe = make_pipeline(TfidfVectorizer(), LogisticRegression())
    detector = NoisyLabelDetector(SelfConfidence(pipe)).fit(texts, y)
    assert detector.scores_.argmin() == 0
    assert not hasattr(detector, "n_features_in_")
