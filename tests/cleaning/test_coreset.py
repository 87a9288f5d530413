"""CoresetSelector keeps exactly what it is asked to, few wrong labels among it, and covers easy and hard scores."""

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sktda import CoresetSelector, NoisyLabelDetector, ResampledEstimator
from sktda.attribution import ComplexityGap, PrecomputedScores, TracIn
from tests.spies import CountingScores, RecordingClassifier, fits, flip, noisy_blobs

X, Y, TRUE = noisy_blobs(120)
STRATEGIES = ["top", "stratified"]


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


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_a_coreset_of_noisy_digits_keeps_few_wrong_labels(share, strategy):
    X, true = load_digits(return_X_y=True)
    given = flip(true, 0.2)
    selector = CoresetSelector(n_samples=share, strategy=strategy, random_state=0).fit(X, given)
    assert (given != true)[selector.sample_indices_].mean() < 0.01


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_stratified_coreset_of_noisy_digits_trains_better_than_random_rows_and_than_the_top(share):
    accuracy = {"random": [], "top": [], "stratified": []}
    for seed in range(3):
        X, X_test, true, y_test = train_test_split(*load_digits(return_X_y=True), random_state=seed)
        y = flip(true, 0.2, seed=seed)
        attributor = ComplexityGap()
        for strategy in STRATEGIES:
            selector = CoresetSelector(attributor, n_samples=share, strategy=strategy, random_state=seed)
            accuracy[strategy].append(SVC(C=10).fit(*selector.fit_resample(X, y)).score(X_test, y_test))
        rows = np.random.default_rng(seed).choice(len(y), round(share * len(y)), replace=False)
        accuracy["random"].append(SVC(C=10).fit(X[rows], y[rows]).score(X_test, y_test))
    random, top, stratified = (np.mean(values) for values in accuracy.values())
    assert random < top < stratified  # measured .833, .902, .927 for a tenth of the rows, .882, .930, .969 for 30 %


def test_top_keeps_the_highest_scores_of_each_class():
    rng = np.random.default_rng(0)
    y, scores = np.repeat(["a", "b"], [80, 40]), rng.normal(size=120)
    selector = precomputed(scores, n_samples=30, strategy="top").fit(X, y)
    expected = [row for c in "ab" for row in sorted(np.flatnonzero(y == c), key=lambda row: -scores[row])]
    assert set(selector.sample_indices_) == set(expected[:20] + expected[80:90])


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
    X, true = load_digits(return_X_y=True)
    y = flip(true, 0.2)
    share = NoisyLabelDetector().fit(X, y).noise_rate_ + 0.1
    selector = CoresetSelector(n_samples=0.6, random_state=0).fit(X, y)
    for c in range(10):
        own = np.flatnonzero(y == c)
        gone = own[np.argsort(selector.scores_[own])[: round(share * len(own))]]
        assert not np.isin(gone, selector.sample_indices_).any()


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
    selector = CoresetSelector(n_samples=n_samples, strategy=strategy, random_state=0).fit(X, Y)
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
    rows = [CoresetSelector(n_samples=30, random_state=seed).fit(X, Y).sample_indices_.tolist() for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]
    top = [
        CoresetSelector(n_samples=30, strategy="top", random_state=seed).fit(X, Y).sample_indices_.tolist()
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
    X, y = X[:300], y[:300]
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


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_plain_pipeline_searches_over_size_and_strategy(n_jobs):
    pipe = make_pipeline(StandardScaler(), ResampledEstimator(LogisticRegression(), CoresetSelector(random_state=0)))
    grid = {
        "resampledestimator__sampler__n_samples": [20, 0.5, 1.0],
        "resampledestimator__sampler__strategy": STRATEGIES,
    }
    search = GridSearchCV(pipe, grid, cv=3, n_jobs=n_jobs, error_score="raise").fit(X, Y)
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
