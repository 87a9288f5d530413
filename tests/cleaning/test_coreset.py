"""CoresetSelector keeps exactly what it is asked to, few wrong labels among it, and covers easy and hard scores."""

import pickle
from functools import cache

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV, KFold, PredefinedSplit, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from skorch import NeuralNetClassifier
from torch import nn

from sktda import CoresetSelector, Holdout, NoisyLabelDetector, ResampledEstimator
from sktda.attribution import ComplexityGap, LabelPosterior, PrecomputedScores, TracIn
from sktda.cleaning import GLISTER, CoresetStrategy, KCenter
from sktda.cleaning.coreset import STRATEGIES as ALL
from sktda.cleaning.coreset import named_strategy
from sktda.engine import covering, matching
from sktda.engine.layers import Mapped
from sktda.engine.unit_rows import UnitRows
from tests.spies import CountingScores, RecordingClassifier, fits, flip, noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees", "short_training")

X, Y, TRUE = noisy_blobs(120)
STRATEGIES = ["top", "stratified"]  # more of them below
WEIGHTED = ["craig", "grad-match"]


def precomputed(scores, **params):
    return CoresetSelector(PrecomputedScores(scores), random_state=0, **params)


class WithLeaveOneOut(PrecomputedScores):
    """Scores from elsewhere beside leave-one-out predictions, which say how many labels are wrong."""

    def __init__(self, scores=None, decision=None):
        super().__init__(scores)
        self.decision = decision

    def fit(self, X, y=None, sample_weight=None, X_val=None, y_val=None, metadata_val=None, scores=None):
        self.loo_decision_ = self.decision
        return super().fit(X, y)


# ---- planted answers ------------------------------------------------------------------------------------------------


@cache
def noisy_digits():
    """(X, given labels, true labels, what the default makes of them, fitted once)."""
    X, true = load_digits(return_X_y=True)
    given = flip(true, 0.2)
    return X, given, true, FrozenEstimator(LabelPosterior().fit(X, given))


@pytest.mark.parametrize(("share", "strategy"), [(0.1, "stratified"), (0.3, "top"), (0.5, "stratified")])
def test_a_coreset_of_noisy_digits_keeps_few_wrong_labels(share, strategy):
    X, given, true, attributor = noisy_digits()
    selector = CoresetSelector(attributor, n_samples=share, strategy=strategy, random_state=0).fit(X, given)
    assert (given != true)[selector.sample_indices_].mean() < 0.01


def test_a_stratified_coreset_of_noisy_digits_trains_better_than_random_rows_and_than_the_top():
    accuracy = {share: {"random": [], "top": [], "stratified": []} for share in (0.1, 0.3)}
    for seed in range(2):
        X, X_test, true, y_test = train_test_split(*load_digits(return_X_y=True), random_state=seed)
        y = flip(true, 0.2, seed=seed)
        attributor = FrozenEstimator(ComplexityGap().fit(X, y))
        for share, reached in accuracy.items():
            for strategy in STRATEGIES:
                selector = CoresetSelector(attributor, n_samples=share, strategy=strategy, random_state=seed)
                reached[strategy].append(SVC(C=10).fit(*selector.fit_resample(X, y)).score(X_test, y_test))
            rows = np.random.default_rng(seed).choice(len(y), round(share * len(y)), replace=False)
            reached["random"].append(SVC(C=10).fit(X[rows], y[rows]).score(X_test, y_test))
    for reached in accuracy.values():
        random, top, stratified = (np.mean(values) for values in reached.values())
        assert random < top < stratified
    # measured .833, .902, .927 for a tenth of the rows, .882, .930, .969 for 30 %


def test_top_keeps_the_highest_scores_of_each_class():
    rng = np.random.default_rng(0)
    y, scores = np.repeat(["a", "b"], [80, 40]), rng.normal(size=120)
    selector = precomputed(scores, n_samples=30, strategy="top").fit(X, y)
    expected = [row for c in "ab" for row in sorted(np.flatnonzero(y == c), key=lambda row: -scores[row])]
    assert set(selector.sample_indices_) == set(expected[:20] + expected[80:90])


def test_hardest_keeps_the_lowest_scores_of_each_class():
    rng = np.random.default_rng(0)
    y, scores = np.repeat(["a", "b"], [80, 40]), rng.normal(size=120)
    selector = precomputed(scores, n_samples=30, strategy="hardest").fit(X, y)
    expected = [row for c in "ab" for row in sorted(np.flatnonzero(y == c), key=lambda row: scores[row])]
    assert set(selector.sample_indices_) == set(expected[:20] + expected[80:90])


def test_the_hardest_rows_train_better_than_the_top_only_where_labels_are_right():
    accuracy = {rate: {"hardest": [], "top": []} for rate in (0.0, 0.2)}
    for seed in range(2):
        X, X_test, true, y_test = train_test_split(*load_digits(return_X_y=True), random_state=seed)
        for rate, reached in accuracy.items():
            y = flip(true, rate, seed=seed)
            attributor = FrozenEstimator(ComplexityGap().fit(X, y))
            for strategy, own in reached.items():
                selector = CoresetSelector(attributor, n_samples=0.5, strategy=strategy, random_state=seed)
                own.append(SVC(C=10).fit(*selector.fit_resample(X, y)).score(X_test, y_test))
    assert np.mean(accuracy[0.0]["hardest"]) > np.mean(accuracy[0.0]["top"])
    assert np.mean(accuracy[0.2]["hardest"]) < np.mean(accuracy[0.2]["top"]) - 0.05
    # measured .989 and .971 with right labels, .877 and .958 with wrong ones


def test_stratified_covers_easy_and_hard_scores():
    """Most scores are high, few are low: of equally many strata, both give rows; the top would take high ones only."""
    rng = np.random.default_rng(0)
    y, scores = np.arange(2000) % 2, -rng.exponential(size=2000)
    kept = scores[precomputed(scores, n_samples=200).fit(np.zeros((2000, 1)), y).sample_indices_]
    # 30 % of the rows went; what is left lies between -log(1/.3) and 0, and ten tenths of it give about 20 rows each
    counts = np.histogram(kept, bins=10, range=(np.log(0.3), 0))[0]
    assert counts.sum() >= 195
    assert counts.min() >= 15
    assert counts.max() <= 25


@pytest.mark.parametrize(
    ("wrong", "dropped"),
    [(0.0, 0.1), (0.2, 0.3), (None, 0.3)],
    ids=["no noise", "a fifth is wrong", "no estimate"],
)
def test_the_worst_rows_of_each_class_go_as_far_as_the_labels_are_wrong(wrong, dropped):
    y = np.arange(200) % 2
    scores = np.random.default_rng(0).permutation(200).astype(float)
    attributor = PrecomputedScores(scores)
    if wrong is not None:
        predicted = np.where(np.arange(200) // 2 < 100 * wrong, 1 - y, y)
        attributor = WithLeaveOneOut(scores, np.eye(2)[predicted])
    # all that is left is asked for, so that the draw has no choice
    selector = CoresetSelector(attributor, n_samples=1 - dropped, random_state=0).fit(np.zeros((200, 1)), y)
    for c in (0, 1):
        own = np.sort(scores[y == c])
        np.testing.assert_array_equal(
            np.sort(scores[selector.sample_indices_[y[selector.sample_indices_] == c]]), own[round(100 * dropped) :]
        )
    fewer = clone(selector).set_params(n_samples=0.4).fit(np.zeros((200, 1)), y)
    assert set(fewer.sample_indices_) <= set(selector.sample_indices_)


def test_the_noise_rate_is_that_of_the_detector():
    X, y, _, attributor = noisy_digits()
    share = NoisyLabelDetector(attributor).fit(X, y).noise_rate_ + 0.1
    selector = CoresetSelector(n_samples=0.6, random_state=0).fit(X, y)
    for c in range(10):
        own = np.flatnonzero(y == c)
        gone = own[np.argsort(selector.scores_[own])[: round(share * len(own))]]
        assert np.isin(gone, selector.sample_indices_).sum() <= 1  # shares of a class are rounded


def test_outliers_of_a_regression_go_first():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = X @ [3.0, -2.0, 1.0] + 0.1 * rng.normal(size=300)
    y[:30] += 40
    for strategy in STRATEGIES:
        selector = CoresetSelector(n_samples=0.5, strategy=strategy, random_state=0).fit(X, y)
        assert selector.task_ == "regression"
        assert not hasattr(selector, "classes_")
        assert len(selector.sample_indices_) == 150
        assert (selector.sample_indices_ >= 30).all()


def test_the_share_of_outliers_decides_how_many_rows_of_a_regression_go():
    rng = np.random.default_rng(0)
    y, scores = rng.normal(size=200), rng.permutation(200).astype(float)
    predicted = y + 10 * (np.arange(200) < 20)  # a tenth, so a fifth of the rows goes
    selector = CoresetSelector(WithLeaveOneOut(scores, predicted), n_samples=0.75, random_state=0)
    kept = selector.fit(np.zeros((200, 1)), y).sample_indices_
    assert scores[kept].min() >= 40
    assert (scores[kept] < 50).any(), "the further 5 % are a draw"


# ---- exact numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n_samples", [3, 4, 37, 119, 120, 0.03, 0.5, 0.71, 0.999, 1.0])
def test_exactly_as_many_rows_as_asked_for_are_kept(n_samples, strategy):
    selector = CoresetSelector(ComplexityGap(), n_samples=n_samples, strategy=strategy, random_state=0).fit(X, Y)
    expected = n_samples if isinstance(n_samples, int) else round(n_samples * 120)
    rows = selector.sample_indices_
    assert len(rows) == expected
    assert rows.tolist() == sorted(set(rows))
    assert selector.sample_weight_ is None
    shares = np.bincount(Y[rows], minlength=3), np.bincount(Y) * expected / 120
    assert (np.abs(shares[0] - shares[1]) <= 1).all()
    np.testing.assert_array_equal(selector.get_support(indices=True), rows)
    np.testing.assert_array_equal(np.flatnonzero(selector.get_support()), rows)
    assert selector.get_support().shape == (120,)


def test_one_is_a_count_and_one_point_zero_is_everything():
    x, y = np.arange(10.0)[:, None], np.arange(10) + 0.5
    assert precomputed(np.arange(10.0), n_samples=1, strategy="top").fit(x, y).sample_indices_.tolist() == [9]
    assert precomputed(np.arange(10.0), n_samples=1.0).fit(x, y).sample_indices_.tolist() == list(range(10))
    assert precomputed(np.arange(10.0), n_samples=np.int64(4)).fit(x, y).sample_indices_.shape == (4,)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n_rare", [1, 2])
def test_a_rare_class_survives(n_rare, strategy):
    y = np.append(np.repeat(["a", "b"], 60)[n_rare:], ["rare"] * n_rare)
    scores = np.arange(120.0)[::-1]  # the rare class is the worst
    selector = precomputed(scores, n_samples=0.1, strategy=strategy)
    assert set(selector.fit_resample(X, y)[1]) == {"a", "b", "rare"}
    assert len(selector.sample_indices_) == 12
    if strategy == "top":
        assert 120 - n_rare in selector.sample_indices_, "the best row of the class stays"


def test_no_more_is_dropped_than_n_samples_allows():
    """96 of 100 rows are asked for, so only the 4 lowest go, not 30 %, and nothing is left to the draw."""
    y, scores = np.repeat([0, 1], 50), np.random.default_rng(0).permutation(100).astype(float)
    selector = precomputed(scores, n_samples=96).fit(X[:100], y)
    for c in (0, 1):
        own = np.flatnonzero(y == c)
        assert set(own[np.argsort(scores[own])[:2]]) == set(np.setdiff1d(own, selector.sample_indices_))


# ---- invariances and seeds ------------------------------------------------------------------------------------------


def test_the_order_of_the_rows_plays_no_part_in_the_top():
    scores, order = np.random.default_rng(0).normal(size=120), np.random.default_rng(1).permutation(120)
    plain = precomputed(scores, n_samples=0.3, strategy="top").fit(X, Y)
    shuffled = precomputed(scores[order], n_samples=0.3, strategy="top").fit(X[order], Y[order])
    np.testing.assert_array_equal(np.sort(order[shuffled.sample_indices_]), plain.sample_indices_)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_unit_of_the_scores_and_the_names_of_the_classes_play_no_part(strategy):
    scores = np.random.default_rng(0).normal(size=120)
    plain = precomputed(scores, strategy=strategy).fit(X, Y)
    other = precomputed(1024 * scores, strategy=strategy).fit(X, np.array(["x", "y", "z"])[Y])
    np.testing.assert_array_equal(other.sample_indices_, plain.sample_indices_)
    assert other.classes_.tolist() == ["x", "y", "z"]


def test_a_seed_decides_the_draw():
    gap = ComplexityGap()  # draws nothing of so few rows
    rows = [CoresetSelector(gap, n_samples=30, random_state=seed).fit(X, Y) for seed in (0, 0, 1)]
    rows = [selector.sample_indices_.tolist() for selector in rows]
    assert rows[0] == rows[1] != rows[2]
    top = [
        CoresetSelector(gap, n_samples=30, strategy="top", random_state=seed).fit(X, Y).sample_indices_.tolist()
        for seed in (0, 1)
    ]
    assert top[0] == top[1]


@pytest.mark.parametrize(
    "attributor",
    [None, ComplexityGap(mode="paper", n_repeats=2), TracIn(), PrecomputedScores(lambda X, y: X[:, 0])],
    ids=["None", "paper", "TracIn", "callable"],
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_any_attributor_scores_and_is_seeded(attributor, strategy):
    selector = CoresetSelector(attributor, n_samples=0.4, strategy=strategy, random_state=0)
    first, second = clone(selector).fit(X, Y), clone(selector).fit(X, Y)
    assert len(first.sample_indices_) == 48
    np.testing.assert_array_equal(first.sample_indices_, second.sample_indices_)
    np.testing.assert_array_equal(first.scores_, first.attributor_.scores_)
    assert selector.attributor is None or not hasattr(selector.attributor, "scores_")


def test_a_pickled_one_keeps_everything():
    fitted = CoresetSelector(random_state=0).fit(X, Y)
    restored = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(restored.sample_indices_, fitted.sample_indices_)
    np.testing.assert_array_equal(restored.get_support(), fitted.get_support())


def test_a_later_fit_forgets_the_earlier_one():
    selector = CoresetSelector(random_state=0).fit(pd.DataFrame(X).add_prefix("f"), Y)
    assert selector.feature_names_in_.tolist() == ["f0", "f1", "f2", "f3"]
    assert selector.classes_.tolist() == [0, 1, 2]
    selector.fit(X[:, :2], X[:, 3])
    assert selector.n_features_in_ == 2
    assert not hasattr(selector, "feature_names_in_")
    assert not hasattr(selector, "classes_")


def test_nothing_but_the_attributor_is_fitted(tmp_path):
    """The noise rate is not worth a model of its own: 30 % are dropped where the attributor does not estimate it."""
    log = tmp_path / "log"
    selector = CoresetSelector(CountingScores(str(log)), random_state=0).fit(X, Y)
    assert fits(log) == [120]
    assert not hasattr(selector.attributor_, "loo_decision_")


# ---- data of every kind, pipelines and searches ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        lambda X, y: (X.tolist(), y.tolist()),
        lambda X, y: (pd.DataFrame(X), pd.Series(y)),
        lambda X, y: (sp.csr_matrix(X), y),
        lambda X, y: (sp.csr_array(X), y),
        lambda X, y: (X.reshape(-1, 8, 8), y),
        lambda X, y: (X.astype(np.uint8), y.astype(np.int8)),
    ],
    ids=["lists", "pandas", "csr matrix", "csr array", "images", "small integers"],
)
def test_data_in_every_form_comes_back_as_it_came(convert):
    X, y = load_digits(return_X_y=True)
    X, y = X[:150], y[:150]
    plain = CoresetSelector(n_samples=0.3, random_state=0).fit(X, y)
    X_given, y_given = convert(X, y)
    X_kept, y_kept = clone(plain).fit_resample(X_given, y_given)
    assert type(X_kept) is type(X_given)
    assert type(y_kept) is type(y_given)
    rows = plain.sample_indices_
    np.testing.assert_array_equal(np.asarray(y_kept), y[rows])
    dense = X_kept.toarray() if sp.issparse(X_kept) else np.asarray(X_kept).reshape(-1, 64)
    np.testing.assert_array_equal(dense, X[rows])


def test_scores_from_elsewhere_need_no_numbers_in_X():
    frame = pd.DataFrame({"text": [f"row {i}" for i in range(120)]}, index=np.arange(120) + 1000)
    scores = pd.Series(np.arange(120.0), index=frame.index)
    X_kept, y_kept = precomputed(scores, n_samples=12, strategy="top").fit_resample(frame, pd.Series(Y, frame.index))
    assert X_kept.index.equals(y_kept.index)
    assert np.bincount(y_kept).tolist() == np.bincount(Y[X_kept.index - 1000]).tolist()
    assert X_kept.equals(frame.loc[X_kept.index])
    texts = [f"row {i}" for i in range(120)]
    assert len(precomputed(np.arange(120.0), n_samples=12).fit_resample(texts, Y)[0]) == 12


def test_a_plain_pipeline_searches_over_size_and_strategy():
    pipe = make_pipeline(StandardScaler(), ResampledEstimator(LogisticRegression(), CoresetSelector(random_state=0)))
    grid = {
        "resampledestimator__sampler__n_samples": [20, 0.5, 1.0],
        "resampledestimator__sampler__strategy": STRATEGIES,
    }
    search = GridSearchCV(pipe, grid, cv=3, error_score="raise").fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(search.predict(X)) == 120


def test_metadata_follows_the_rows_and_no_weight_is_made_up():
    fitted = ResampledEstimator(RecordingClassifier(), CoresetSelector(random_state=0))
    assert fitted.fit(X, Y).estimator_.sample_weight_ is None
    weight = np.arange(120.0)
    fitted.fit(X, Y, sample_weight=weight)
    np.testing.assert_array_equal(fitted.estimator_.sample_weight_, weight[fitted.sampler_.sample_indices_])


def test_a_regression_in_a_resampled_estimator():
    y = X @ [1.0, -2.0, 0.5, 3.0]
    wrong = y.copy()
    wrong[:10] += 200
    fitted = ResampledEstimator(Ridge(), CoresetSelector(random_state=0)).fit(X, wrong)
    assert fitted.score(X, y) > 0.99


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("n_samples", "message"),
    [
        (121, r"n_samples=121 is more than the 120 rows of X; give a count up to 120, or a share such as 0\.5"),
        (2, r"n_samples=2 keeps 2 of 120 rows, but each of 3 classes keeps at least 1; keep more rows"),
        (0.01, r"n_samples=0\.01 keeps 1 of 120 rows, but each of 3 classes keeps at least 1; keep more rows"),
        (0, r"n_samples.* must be an int in the range \[1, inf\) or a float in the range \(0\.0, 1\.0\]"),
        (1.5, r"n_samples.* must be an int in the range \[1, inf\) or a float in the range \(0\.0, 1\.0\]"),
        (-0.1, r"n_samples"),
        ("half", r"n_samples"),
        (None, r"n_samples"),
    ],
)
def test_a_number_of_rows_that_cannot_be_kept_is_an_error(n_samples, message, strategy):
    with pytest.raises(ValueError, match=message):
        CoresetSelector(n_samples=n_samples, strategy=strategy).fit(X, Y)


def test_no_row_of_a_regression_is_an_error():
    with pytest.raises(ValueError, match=r"n_samples=0\.001 keeps 0 of 120 rows, but at least 1 row must stay"):
        CoresetSelector(n_samples=0.001).fit(X, X[:, 0])


def test_a_strategy_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match=r"'strategy' parameter .* must be a str among .* Got 'best' instead"):
        CoresetSelector(strategy="best").fit(X, Y)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_constant_scores_are_refused_unless_everything_stays(strategy):
    with pytest.raises(ValueError, match=r"all 120 scores of PrecomputedScores are 0, so rows cannot be ranked"):
        CoresetSelector(PrecomputedScores(), strategy=strategy).fit(X, Y)
    everything = CoresetSelector(PrecomputedScores(), strategy=strategy, n_samples=1.0).fit(X, Y)
    assert everything.sample_indices_.tolist() == list(range(120))


def test_a_missing_target_is_an_error():
    with pytest.raises(ValueError, match="CoresetSelector requires y to be passed, but the target y is None"):
        precomputed(np.arange(120.0)).fit(X, None)


def test_an_attributor_without_scores_is_an_error():
    with pytest.raises(ValueError, match=r"TracIn has no scores_ after fit .* give it an objective"):
        CoresetSelector(TracIn(objective=None), random_state=0).fit(X, Y)


# ---- strategies by features and by gradients ------------------------------------------------------------------------

FROZEN = FrozenEstimator(LogisticRegression(C=1e-2).fit(X, Y))  # far from its optimum without a penalty
NUMBERS = FrozenEstimator(Ridge().fit(X, X[:, 0] * X[:, 1]))


def chosen(strategy, X=X, Y=Y, **params):
    """Fitted, around a frozen model, so that no net is trained."""
    strategy = named(strategy, **{"estimator": FROZEN, **params})
    params = {name: value for name, value in params.items() if name not in ("estimator", "validation")}
    return CoresetSelector(strategy=strategy, **{"random_state": 0, **params}).fit(X, Y)


def named(strategy, **params):
    """The strategy with those of the parameters that it has."""
    made = named_strategy(strategy)
    return made.set_params(**{name: value for name, value in params.items() if name in made.get_params()})


def gradients_of(rows):
    """Those of the frozen model, from its own probabilities."""
    errors = FROZEN.predict_proba(X[rows]) - np.eye(3)[Y[rows]]
    inputs = np.column_stack([X[rows], np.ones(len(rows))])
    return Mapped(torch.from_numpy(inputs), torch.from_numpy(errors), True, True)


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("n_samples", [3, 37, 0.5, 119, 1.0])
def test_every_strategy_keeps_balanced_budgets(n_samples, strategy):
    selector = chosen(strategy, n_samples=n_samples)
    expected = n_samples if isinstance(n_samples, int) else round(n_samples * 120)
    rows = selector.sample_indices_
    assert len(rows) == expected == selector.get_support().sum()
    assert rows.tolist() == sorted(set(rows))
    assert (np.abs(np.bincount(Y[rows], minlength=3) - np.bincount(Y) * expected / 120) <= 1).all()
    np.testing.assert_array_equal(np.flatnonzero(selector.get_support()), rows)
    if strategy not in WEIGHTED or n_samples == 1.0:
        assert selector.sample_weight_ is None
    else:
        assert selector.sample_weight_.shape == rows.shape
        assert (selector.sample_weight_ > 0).all()
        assert selector.sample_weight_.mean() == pytest.approx(1)


@pytest.mark.parametrize("strategy", ALL)
def test_every_strategy_is_seeded_and_does_not_look_at_names(strategy):
    first = chosen(strategy, n_samples=0.3)
    names = np.array(["x", "y", "z"])[Y]
    net = FrozenEstimator(LogisticRegression(C=1e-2).fit(X, names))
    other = chosen(strategy, Y=names, n_samples=0.3, estimator=net)
    assert other.classes_.tolist() == ["x", "y", "z"]
    np.testing.assert_array_equal(other.sample_indices_, first.sample_indices_)
    np.testing.assert_array_equal(chosen(strategy, n_samples=0.3).sample_indices_, first.sample_indices_)


@pytest.mark.parametrize(
    "strategy", ["top", "hardest", "moderate", "k-center", "herding", "grad-match", "glister", "d2"]
)
def test_the_order_of_the_rows_plays_no_part_where_nothing_is_drawn_or_tied(strategy):
    """Not so "craig": of two rows that are nearest to each other, and to no other row, both gain the same."""
    order = np.random.default_rng(1).permutation(120)
    plain, shuffled = chosen(strategy, n_samples=0.3), chosen(strategy, X[order], Y[order], n_samples=0.3)
    back = np.argsort(order[shuffled.sample_indices_])
    np.testing.assert_array_equal(order[shuffled.sample_indices_][back], plain.sample_indices_)
    if strategy in WEIGHTED:
        np.testing.assert_allclose(shuffled.sample_weight_[back], plain.sample_weight_)


@pytest.mark.parametrize("strategy", ["k-center", "herding", "moderate"])
@pytest.mark.parametrize("estimator", [FROZEN, None])
def test_features_are_the_inputs_of_the_last_layer_or_the_scaled_rows(strategy, estimator):
    """The last layer of a linear model sees the rows themselves."""
    choose = {"k-center": covering.k_center, "herding": covering.herding, "moderate": covering.moderate}[strategy]
    expected = []
    for c in range(3):
        rows = np.flatnonzero(c == Y)
        features = UnitRows(X).block(rows, torch.float32, "cpu") if estimator is None else torch.from_numpy(X[rows])
        expected += rows[choose(features, 10)].tolist()
    selector = chosen(strategy, estimator=estimator, n_samples=30)
    assert selector.sample_indices_.tolist() == sorted(expected)
    assert hasattr(selector.strategy_, "estimator_") == (estimator is not None)


@pytest.mark.parametrize("strategy", WEIGHTED)
def test_gradients_are_those_of_the_last_layer(strategy):
    expected = np.zeros(120)
    for c in range(3):
        rows = np.flatnonzero(c == Y)
        own = gradients_of(rows)
        if strategy == "craig":
            found, weights = matching.facility_location(matching.closeness(own), 8)
        else:
            found, weights = matching.matching_pursuit(own.gram(own).numpy(), 8)
        expected[rows[found]] = weights
    selector = chosen(strategy, n_samples=24)
    assert selector.sample_indices_.tolist() == np.flatnonzero(expected).tolist()
    np.testing.assert_allclose(selector.sample_weight_, expected[expected > 0] / expected[expected > 0].mean())


def test_d2_takes_hard_rows_of_those_that_are_not_suspicious():
    scores = np.random.default_rng(0).normal(size=120)
    expected = []
    for c in range(3):
        rows = np.flatnonzero(c == Y)
        rows = rows[np.argsort(scores[rows])][round(0.3 * len(rows)) :]
        hard_first = np.arange(len(rows), 0, -1) / len(rows)
        expected += rows[covering.message_passing(torch.from_numpy(X[rows]), hard_first, 10)].tolist()
    assert chosen("d2", attributor=PrecomputedScores(scores), n_samples=30).sample_indices_.tolist() == sorted(expected)


def test_weighted_rows_stand_for_the_gradient_of_all():
    formed = gradients_of(np.arange(120)).gradients().numpy()

    def away(rows, weights):
        return np.linalg.norm((weights[:, None] * formed[rows]).mean(axis=0) - formed.mean(axis=0))

    random = np.mean(
        [
            away(chosen("random", n_samples=24, estimator=None, random_state=seed).sample_indices_, np.ones(24))
            for seed in range(20)
        ]
    )
    for strategy in WEIGHTED:
        selector = chosen(strategy, n_samples=24)
        assert away(selector.sample_indices_, selector.sample_weight_) < 0.7 * random


@pytest.mark.parametrize("strategy", ALL)
def test_a_regression_is_one_class(strategy):
    y = X[:, 0] * X[:, 1]
    selector = chosen(strategy, Y=y, estimator=NUMBERS, n_samples=0.3)
    assert selector.task_ == "regression"
    assert not hasattr(selector, "classes_")
    assert len(set(selector.sample_indices_)) == 36
    if strategy == "k-center":
        assert selector.sample_indices_.tolist() == sorted(covering.k_center(torch.from_numpy(X), 36).tolist())


def test_the_estimator_says_what_whole_numbers_are():
    assert not hasattr(chosen("k-center", estimator=FrozenEstimator(Ridge().fit(X, Y))), "classes_")
    assert chosen("k-center").classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("strategy", ["craig", "grad-match", "glister"])
@pytest.mark.parametrize("y", [Y, X[:, 0] * X[:, 1]], ids=["classes", "numbers"])
def test_the_default_net_is_trained_where_gradients_are_needed(strategy, y):
    first, second = (chosen(strategy, Y=y, estimator=None, n_samples=0.3) for _ in range(2))
    assert hasattr(first.strategy_.estimator_, "net_")
    np.testing.assert_array_equal(first.sample_indices_, second.sample_indices_)
    assert len(first.sample_indices_) == 36


def net(frozen=False):
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    made = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, max_epochs=3, train_split=None, verbose=0)
    return FrozenEstimator(made.initialize()) if frozen else made


def test_a_net_is_trained_on_a_clone_and_a_frozen_one_is_not():
    data, frozen, given = X.astype(np.float32), net(frozen=True), net()
    selector = chosen("k-center", X=data, estimator=frozen, n_samples=30)
    assert selector.strategy_.estimator_ is frozen
    with torch.no_grad():
        features = frozen.estimator.module_[1](frozen.estimator.module_[0](torch.from_numpy(data)))
    expected = [row for c in range(3) for row in np.flatnonzero(c == Y)[covering.k_center(features[c == Y], 10)]]
    assert selector.sample_indices_.tolist() == sorted(expected)
    trained = chosen("k-center", X=data, estimator=given, n_samples=30).strategy_.estimator_
    assert len(trained.history) == 3
    assert not given.initialized_


def test_scores_are_made_only_where_a_strategy_uses_them(tmp_path):
    for strategy in ALL:
        log = tmp_path / strategy
        selector = chosen(strategy, attributor=CountingScores(str(log)))
        used = strategy in {"top", "hardest", "stratified", "ccs", "d2"}
        assert (fits(log) == [120]) == used == hasattr(selector, "scores_") == hasattr(selector, "attributor_")


def test_the_attributor_gets_the_estimator_of_the_strategy():
    assert chosen("d2", attributor=TracIn()).attributor_.estimator_ is FROZEN


def test_a_later_strategy_forgets_what_the_earlier_one_made():
    selector = chosen("d2")
    assert hasattr(selector, "scores_")
    selector.set_params(strategy="random").fit(X, Y)
    assert not {"scores_", "attributor_"} & set(vars(selector))
    selector.set_params(strategy=named("craig", estimator=FROZEN)).fit(X, Y)
    assert selector.sample_weight_ is not None
    assert selector.set_params(strategy="herding").fit(X, Y).sample_weight_ is None


# ---- planted answers of theirs --------------------------------------------------------------------------------------


def clusters():
    """(X, y, cluster) of two classes of ten clusters each, of which the first holds nine of ten rows."""
    rng = np.random.default_rng(0)
    own = np.append(np.tile(np.arange(10), 2), rng.choice(10, 280, p=[0.91, *[0.01] * 9]))
    y = np.append(np.repeat([0, 1], 10), rng.integers(2, size=280))
    return 20 * rng.normal(size=(20, 6))[own + 10 * y] + rng.normal(size=(300, 6)), y, own + 10 * y


def test_k_center_covers_every_cluster_that_a_random_draw_misses():
    X, y, cluster = clusters()
    rows = CoresetSelector(strategy="k-center", n_samples=40, random_state=0).fit(X, y).sample_indices_
    assert len(set(cluster[rows])) == 20
    random = CoresetSelector(strategy="random", n_samples=40, random_state=0).fit(X, y).sample_indices_
    assert len(set(cluster[random])) < 20


def test_moderate_and_herding_leave_outliers_out_and_k_center_takes_them():
    data = X.copy()
    data[::12] += 30 * np.random.default_rng(0).normal(size=(10, 4))
    outlier = np.arange(120) % 12 == 0
    kept = {name: outlier[chosen(name, data, n_samples=30).sample_indices_].sum() for name in ALL}
    assert kept["moderate"] <= 1
    assert kept["k-center"] == 10


@pytest.mark.parametrize(("strategy", "share"), [("d2", 0.1), ("ccs", 0.3)])
def test_coverage_of_noisy_digits_trains_better_than_random_rows(strategy, share):
    X, X_test, true, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
    y = flip(true, 0.2)
    accuracy = {}
    for name in (strategy, "random"):
        selector = CoresetSelector(n_samples=share, strategy=name, random_state=0)
        accuracy[name] = SVC(C=10).fit(*selector.fit_resample(X, y)).score(X_test, y_test)
        wrong = (y != true)[selector.sample_indices_].mean()
        assert (wrong < 0.01) == (name == strategy)
    assert accuracy[strategy] > accuracy["random"] + 0.05  # measured .95 against .85 and .98 against .89


@pytest.mark.usefixtures("full_training")
def test_glister_follows_clean_validation_rows_past_wrong_labels():
    X, X_val, true, y_val = train_test_split(*load_digits(return_X_y=True), test_size=0.3, random_state=0)
    y = flip(true, 0.2)
    wrong = {}
    for name, validation in (("clean", Holdout(X_val, y_val)), ("own", None)):
        selector = CoresetSelector(n_samples=0.3, strategy=GLISTER(validation=validation), random_state=0)
        wrong[name] = (y != true)[selector.fit(X, y).sample_indices_].mean()
    assert wrong["clean"] < 0.13 < 0.25 < wrong["own"]  # 0.2 of the rows; with their own loss, wrong rows matter most


def test_glister_without_validation_rows_takes_the_rows_themselves():
    own, given = (chosen("glister", validation=validation, n_samples=0.3) for validation in (None, Holdout(X, Y)))
    np.testing.assert_array_equal(own.sample_indices_, given.sample_indices_)
    few = chosen("glister", validation=Holdout(X[:20], Y[:20]), n_samples=0.3)
    assert few.sample_indices_.tolist() != own.sample_indices_.tolist()


# ---- weights reach the estimator ------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", WEIGHTED)
def test_weights_reach_the_estimator_times_those_given(strategy):
    sampler = CoresetSelector(strategy=named(strategy, estimator=FROZEN), n_samples=30, random_state=0)
    fitted = ResampledEstimator(RecordingClassifier(), sampler).fit(X, Y)
    np.testing.assert_array_equal(fitted.estimator_.X_, X[fitted.sampler_.sample_indices_])
    np.testing.assert_array_equal(fitted.estimator_.sample_weight_, fitted.sampler_.sample_weight_)
    given = np.arange(120.0)
    fitted.fit(X, Y, sample_weight=given)
    kept = fitted.sampler_.sample_indices_
    np.testing.assert_allclose(fitted.estimator_.sample_weight_, given[kept] * fitted.sampler_.sample_weight_)
    model = ResampledEstimator(LogisticRegression(), sampler).fit(X, Y)
    weight = model.sampler_.sample_weight_
    np.testing.assert_allclose(
        model.estimator_.coef_, LogisticRegression().fit(X[kept], Y[kept], sample_weight=weight).coef_
    )
    with pytest.raises(ValueError, match=r"CoresetSelector weights its rows but KNeighborsClassifier\.fit takes no"):
        ResampledEstimator(KNeighborsClassifier(), sampler).fit(X, Y)


def test_a_search_over_all_strategies():
    sampler = CoresetSelector(n_samples=0.3, random_state=0)
    model = ResampledEstimator(LogisticRegression(), sampler)
    grid = {"sampler__strategy": [named(strategy, estimator=FROZEN) for strategy in ALL]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


# ---- data of every kind, and errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["k-center", "d2", "craig", "random"])
@pytest.mark.parametrize(
    "convert",
    [
        lambda X: X.tolist(),
        lambda X: pd.DataFrame(X).add_prefix("f"),
        lambda X: sp.csr_matrix(X),
        lambda X: sp.coo_array(X),
        lambda X: X.reshape(-1, 8, 8),
    ],
    ids=["lists", "pandas", "csr matrix", "coo array", "images"],
)
def test_features_and_gradients_of_data_in_every_form(convert, strategy):
    X, y = load_digits(return_X_y=True)
    X, y = X[:150], y[:150]
    given = convert(X)
    selector = CoresetSelector(strategy=strategy, n_samples=30, random_state=0).fit(given, y)
    assert len(set(selector.sample_indices_)) == 30
    if strategy in {"k-center", "random"}:
        plain = CoresetSelector(strategy=strategy, n_samples=30, random_state=0).fit(X, y)
        np.testing.assert_array_equal(selector.sample_indices_, plain.sample_indices_)
    assert hasattr(selector, "feature_names_in_") == isinstance(given, pd.DataFrame)


def test_validation_rows_of_a_frame_go_with_a_frame():
    frame = pd.DataFrame(X).add_prefix("f")
    selector = CoresetSelector(strategy=GLISTER(validation=Holdout(frame, Y)), n_samples=0.3, random_state=0)
    assert len(selector.fit(frame, Y).sample_indices_) == 36


def test_a_random_draw_needs_no_numbers():
    texts = [f"row {i}" for i in range(120)]
    kept, labels = CoresetSelector(strategy="random", n_samples=30, random_state=0).fit_resample(texts, Y)
    assert len(kept) == len(labels) == 30
    np.testing.assert_array_equal(labels, Y[[texts.index(text) for text in kept]])


@pytest.mark.parametrize("strategy", ["k-center", "craig", "glister"])
def test_texts_go_through_the_pipeline_of_the_estimator(strategy):
    rng, words, y = np.random.default_rng(0), [f"word{i}" for i in range(50)], np.arange(100) % 2
    texts = [" ".join(rng.choice(words[:30] if label else words[20:], 8)) for label in y]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression())
    strategy = named(strategy, estimator=model, validation=Holdout(texts[:20], y[:20]))
    selector = CoresetSelector(strategy=strategy, n_samples=20)
    kept, labels = selector.fit_resample(texts, y)
    assert len(kept) == 20
    assert np.bincount(labels).tolist() == [10, 10]
    assert selector.strategy_.estimator_.score(texts, y) > 0.9


@pytest.mark.parametrize("strategy", ["moderate", "k-center", "herding", "craig", "grad-match", "glister"])
def test_features_must_be_finite_numbers_of_several_classes(strategy):
    selector = CoresetSelector(strategy=strategy, random_state=0)
    holes = np.where(np.arange(480).reshape(120, 4) == 5, np.nan, X)
    with pytest.raises(ValueError, match="Input X contains NaN: column 1 has 1 values"):
        selector.fit(holes, Y)
    with pytest.raises(ValueError, match=r"no column can be used as a feature .*one value only"):
        selector.fit(pd.DataFrame({"text": ["a"] * 120}), Y)
    with pytest.raises(ValueError, match="y holds 1 class"):
        selector.fit(X, np.zeros(120, dtype=int))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        selector.fit(X, Y[:-1])


@pytest.mark.parametrize("strategy", ["k-center", "craig", "d2"])
def test_an_estimator_that_cannot_be_differentiated_is_an_error(strategy):
    with pytest.raises(TypeError, match="SVC cannot be differentiated; allowed are"):
        chosen(strategy, estimator=SVC())


def test_gradients_need_a_net_that_ends_in_a_linear_layer():
    module = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))
    softmax = NeuralNetClassifier(module, max_epochs=2, train_split=None, verbose=0)
    data = X.astype(np.float32)
    assert len(chosen("k-center", data, estimator=softmax, n_samples=30).sample_indices_) == 30
    with pytest.raises(TypeError, match=r"outputs of this Sequential are not those of its last nn\.Linear"):
        chosen("craig", data, estimator=softmax)


def test_validation_rows_that_missed_the_preprocessing_are_warned_about_and_others_refused():
    with pytest.warns(UserWarning, match="validation rows differ tenfold from X"):
        chosen("glister", validation=Holdout(1000 * X, Y))
    with pytest.raises(ValueError, match="is a pair of rows and labels; give validation=Holdout"):
        chosen("glister", validation=(X, Y))
    with pytest.raises(ValueError, match=r"'validation' parameter of GLISTER must be an instance of .*Holdout"):
        chosen("glister", validation=1.5)
    with pytest.raises(ValueError, match="y holds the label 7"):
        chosen("glister", validation=Holdout(X[:2], [0, 7]))


# ---- strategies as objects ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ALL)
def test_a_name_is_the_object_as_it_comes(strategy):
    by_name, by_object = (
        CoresetSelector(ComplexityGap(), strategy=each, n_samples=0.3, random_state=0).fit(X, Y)
        for each in (strategy, named_strategy(strategy))
    )
    np.testing.assert_array_equal(by_name.sample_indices_, by_object.sample_indices_)
    assert type(by_name.strategy_) is type(named_strategy(strategy))
    assert clone(by_object).get_params().keys() == by_object.get_params().keys()


def test_a_search_reaches_into_the_strategy():
    grid = {"strategy__estimator": [None, FROZEN], "strategy__device": ["cpu"]}
    model = ResampledEstimator(LogisticRegression(), CoresetSelector(strategy=KCenter(), random_state=0))
    search = GridSearchCV(model, {f"sampler__{name}": values for name, values in grid.items()}, cv=2)
    assert np.isfinite(search.fit(X, Y).cv_results_["mean_test_score"]).all()
    assert model.sampler.strategy.estimator is None


class First(CoresetStrategy):
    """A strategy of somebody else's: the first rows of each class."""

    def __init__(self, weight=None, forget=0):
        self.weight = weight
        self.forget = forget

    def choose(self, candidates, budget):
        rows, _ = candidates.by_class(budget, lambda rows, quota: (rows[:quota], None))
        return rows[self.forget :], None if self.weight is None else np.full(budget, self.weight)


def test_a_strategy_of_somebody_elses():
    selector = CoresetSelector(strategy=First(), n_samples=30).fit([f"text {i}" for i in range(120)], Y)
    assert selector.sample_indices_.tolist() == sorted(row for c in range(3) for row in np.flatnonzero(c == Y)[:10])
    assert selector.sample_weight_ is None
    assert selector.set_params(strategy__weight=7.0).fit(X, Y).sample_weight_.tolist() == [1.0] * 30
    with pytest.raises(ValueError, match="sample_weight must be finite and non-negative"):
        selector.set_params(strategy__weight=-1.0).fit(X, Y)
    with pytest.raises(ValueError, match="30 different positions from 0 to 119 are due"):
        selector.set_params(strategy=First(forget=1)).fit(X, Y)
    with pytest.raises(ValueError, match=r"instance of .*CoresetStrategy.* Got <class"):
        selector.set_params(strategy=First).fit(X, Y)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("validation", [3, KFold(3), 0.2], ids=str)
def test_glister_takes_validation_rows_of_every_kind(validation, frozen):
    model = FROZEN if frozen else LogisticRegression(C=1e-2)
    selector = chosen("glister", estimator=model, validation=validation, n_samples=30)
    assert len(set(selector.sample_indices_)) == 30
    assert np.bincount(Y[selector.sample_indices_]).tolist() == [10, 10, 10]
    again = chosen("glister", estimator=model, validation=validation, n_samples=30)
    np.testing.assert_array_equal(again.sample_indices_, selector.sample_indices_)
    if isinstance(validation, float | list):
        with pytest.raises(ValueError, match="rows aside, so that 119 rows of all classes cannot be kept"):
            chosen("glister", estimator=model, validation=validation, n_samples=119)
    else:
        assert len(chosen("glister", estimator=model, validation=validation, n_samples=119).sample_indices_) == 119


def test_rows_that_validate_are_not_kept():
    held = np.arange(80, 120)
    split = PredefinedSplit(np.where(np.arange(120) < 80, -1, 0))
    rows = chosen("glister", validation=split, n_samples=30).sample_indices_
    given = chosen("glister", X[:80], Y[:80], validation=Holdout(X[held], Y[held]), n_samples=30).sample_indices_
    np.testing.assert_array_equal(rows, given)


def test_folds_keep_wrong_labels_out_that_judge_themselves_otherwise():
    X, true = load_digits(return_X_y=True)
    X, true = X[:600] / 16, true[:600]
    y = flip(true, 0.2)
    wrong = {
        name: (y != true)[
            chosen("glister", X, y, estimator=RidgeClassifier(), validation=validation).sample_indices_
        ].mean()
        for name, validation in (("own", None), ("folds", 3))
    }
    assert wrong["folds"] < wrong["own"]
