import numpy as np
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import StratifiedKFold

from sktda import NoisyLabelDetector, ResampledEstimator
from sktda.report import comparison
from sktda.report.comparison import Comparison, ModelScores, compare, visible_gain
from tests.in_turn import in_turn
from tests.spies import noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees")


class SpySampler(BaseEstimator):
    """Drops every third row; `seen` (shared, since it is cloned) gets the first column of what it was fitted on."""

    seen: list = []
    seeds: list = []

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit_resample(self, X, y):
        SpySampler.seeds.append(self.random_state)
        SpySampler.seen.append(np.asarray(X)[:, 0])
        self.sample_indices_ = np.flatnonzero(np.arange(len(y)) % 3 > 0)
        return X[self.sample_indices_], y[self.sample_indices_]


class SpyModel(DummyClassifier):
    """`log` (shared) gets ("fit" | "score", first column of the rows) in the order of the calls."""

    log: list = []

    def fit(self, X, y):
        SpyModel.log.append(("fit", X[:, 0]))
        return super().fit(X, y)

    def score(self, X, y):
        SpyModel.log.append(("score", X[:, 0]))
        return super().score(X, y)


@pytest.fixture
def spied(monkeypatch):
    """(Comparison, rows of each sampler fit, [(rows of fit, rows of score)]) of 90 rows that carry their number."""
    SpySampler.seen, SpyModel.log, Unchanged.seen = [], [], []
    monkeypatch.setattr(comparison, "_models", lambda regression, random_state: {"spy": SpyModel()})
    monkeypatch.setattr(comparison, "_projection", lambda flat, n_train: Unchanged())
    X, y = np.column_stack([np.arange(90.0), np.ones(90)]), np.arange(90) % 2
    result = compare(X, y, SpySampler(), regression=False, cv=3, random_state=0)
    assert [kind for kind, _ in SpyModel.log] == ["fit", "score"] * (len(SpyModel.log) // 2)
    rows = [set(values.astype(int)) for _, values in SpyModel.log]
    return (
        result,
        [set(values.astype(int)) for values in SpySampler.seen],
        list(zip(rows[::2], rows[1::2], strict=True)),
    )


class Unchanged:
    seen: list = []

    def fit(self, X):
        Unchanged.seen.append(set(X[:, 0].astype(int)))
        return self

    def transform(self, X):
        return X


def test_held_out_rows_play_no_part_in_cleaning_or_training(spied):
    _, samplers, fits = spied
    assert len(samplers) == 3
    assert Unchanged.seen == samplers
    per_fold = len(fits) // 3
    held_out = []
    for fold, sampled in enumerate(samplers):
        for trained, judged in fits[fold * per_fold : (fold + 1) * per_fold]:
            assert judged == set(range(90)) - sampled
            assert trained <= sampled
        held_out.append(fits[fold * per_fold][1])
    assert set.union(*held_out) == set(range(90))
    assert sum(map(len, held_out)) == 90


def test_as_many_rows_go_at_random_as_by_the_sampler(spied):
    result, samplers, fits = spied
    per_fold = len(fits) // 3
    assert per_fold == 2 + comparison.N_REPEATS
    assert result.n_removed == (20, 20, 20)
    assert result.n_train == (60, 60, 60)
    for fold, sampled in enumerate(samplers):
        given, cleaned, *at_random = [trained for trained, _ in fits[fold * per_fold : (fold + 1) * per_fold]]
        assert given == sampled
        assert [len(rows) for rows in at_random] == [len(cleaned)] * comparison.N_REPEATS == [40] * comparison.N_REPEATS
        assert len({frozenset(rows) for rows in [cleaned, *at_random]}) == 1 + comparison.N_REPEATS


def test_after_is_the_score_of_a_resampled_estimator():
    X, y, _ = noisy_blobs(n=150)
    detector = comparison.quick(NoisyLabelDetector(random_state=0), False)
    result = compare(X, y, detector, regression=False, cv=3, random_state=0)
    model = comparison._models(False, 0)["random forest"]
    folds = StratifiedKFold(3, shuffle=True, random_state=0).split(X, y)
    expected = []
    for train, test in folds:
        scale = comparison._projection(X, len(train)).fit(X[train])
        # the detector scales by itself, so that it sees the same rows up to rounding
        fitted = ResampledEstimator(model, detector).fit(scale.transform(X[train]), y[train])
        expected.append(fitted.score(scale.transform(X[test]), y[test]))
    np.testing.assert_allclose(result.models[1].after, expected)


def test_an_oracle_gains_and_a_vandal_loses():
    X, given, true = noisy_blobs(n=300, rate=0.4)
    wrong = given != true

    class Oracle(BaseEstimator):
        def __init__(self, vandal=False):
            self.vandal = vandal

        def fit_resample(self, X, y):
            bad = np.isin(X[:, 0], X_all[wrong, 0])
            self.sample_indices_ = np.flatnonzero(bad if self.vandal else ~bad)

    X_all = X
    options = {"regression": False, "cv": 3, "random_state": 0}
    forest = compare(X, given, Oracle(), **options).models[1].summary()
    assert forest["gain"] > 3 * forest["gain_se"] > 0
    assert forest["gain_over_random"] > 0.05
    assert forest["after"] < 1 - wrong.mean() + 0.03
    assert compare(X, given, Oracle(vandal=True), **options).models[1].summary()["gain"] < -0.2


def test_summary_is_mean_and_standard_error_of_paired_folds():
    scores = ModelScores("m", np.array([0.5, 0.7, 0.9]), np.array([0.6, 0.8, 1.0]), np.array([0.4, 0.7, 0.7]))
    numbers = scores.summary()
    assert numbers["before"] == pytest.approx(0.7)
    assert numbers["before_se"] == pytest.approx(0.2 / np.sqrt(3))
    assert numbers["gain"] == pytest.approx(0.1)
    assert numbers["gain_se"] == pytest.approx(0)
    assert numbers["gain_over_random"] == pytest.approx((0.2 + 0.1 + 0.3) / 3)
    assert numbers["gain_over_random_se"] == pytest.approx(0.1 / np.sqrt(3))


@in_turn(
    ("gain", "over_random", "n_removed", "verdict"),
    [
        ([-0.05, -0.04, -0.06, -0.05, -0.04], [0] * 5, 9, "worse"),
        ([-0.05, 0.04, -0.06, 0.05, -0.04], [0] * 5, 9, "unclear"),
        ([-0.03, 0.0, -0.03, 0.02, -0.03], [0] * 5, 9, "unclear"),  # beyond one standard error, not beyond two
        ([0.05, 0.04, 0.06, 0.05, 0.04], [0.02, 0.03, 0.02, 0.03, 0.02], 9, "better"),
        ([0.05, 0.04, 0.06, 0.05, 0.04], [0.05, -0.04, 0.05, -0.04, 0.0], 9, "unclear"),  # no better than chance
        ([0] * 5, [0] * 5, 9, "unclear"),
        ([0] * 5, [0] * 5, 0, "unchanged"),
        ([-0.01] * 5, [0] * 5, 9, "worse"),
    ],
)
def test_the_verdict_is_paired_over_folds_and_beyond_its_error(gain, over_random, n_removed, verdict):
    before = np.array([0.7, 0.9, 0.6, 0.8, 0.5])  # folds differ far more than the arms
    after = before + gain
    scores = ModelScores("m", before, after, after - np.array(over_random))
    opposite = ModelScores("n", before, before + 0.5 * np.array(gain), before + 0.5 * np.array(gain) - over_random)
    for models in ((scores,), (scores, opposite)):
        compared = Comparison(models, 100, (0, n_removed), (80, 80), None)
        assert compared.verdict == compared.numbers("accuracy")["verdict"] == verdict


def test_folds_whose_features_do_not_predict_are_counted_without_warnings():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(120, 3)), rng.integers(0, 2, 120)
    compared = compare(X, y, NoisyLabelDetector(), regression=False, cv=2, random_state=0)
    assert compared.n_untold == 2
    assert compared.verdict == "unchanged"


def test_visible_gain_is_the_slope_of_measured_accuracy():
    rng = np.random.default_rng(0)
    n, classes, rate = 400_000, 4, 0.3
    true = rng.integers(0, classes, n)
    given = np.where(rng.random(n) < rate, (true + rng.integers(1, classes, n)) % classes, true)
    measured = []
    for accuracy in (0.6, 0.9):
        predicted = np.where(rng.random(n) < accuracy, true, (true + rng.integers(1, classes, n)) % classes)
        measured.append((predicted == given).mean())
    assert (measured[1] - measured[0]) / 0.3 == pytest.approx(visible_gain(rate, classes), abs=0.01)
    assert visible_gain(0.5, 2) is visible_gain(0.2, 1) is None
    assert visible_gain(0, 2) == 1


def test_rare_classes_and_sparse_rows_are_compared():
    X, y, _ = noisy_blobs()
    y[:2], y[2] = 3, 4
    dense = compare(X, y, NoisyLabelDetector(), regression=False, cv=5, random_state=0)
    assert len(dense.n_removed) == 5
    rows = compare(sparse.coo_matrix(X), y, NoisyLabelDetector(), regression=False, cv=3, random_state=0)
    assert all(np.isfinite(scores.after).all() for scores in rows.models)


def test_a_training_part_of_one_class_is_no_error():
    class OneClass(SpySampler):
        def fit_resample(self, X, y):
            self.sample_indices_ = np.flatnonzero(y == y[0])

    X, y, _ = noisy_blobs(centers=2)
    result = compare(X, y, OneClass(), regression=False, cv=2, random_state=0)
    assert result.models[0].after.mean() == pytest.approx(0.5, abs=0.1)


def test_whole_numbers_stay_classes_in_every_fold():
    class Kinds(SpySampler):
        def fit_resample(self, X, y):
            SpySampler.seen.append(np.asarray(y).dtype.kind)
            self.sample_indices_ = np.arange(len(y))

    SpySampler.seen = []
    X, y, _ = noisy_blobs(n=200, centers=40)
    compare(X, y, Kinds(), regression=False, cv=2, random_state=0)
    assert SpySampler.seen == ["U", "U"]


@pytest.mark.parametrize(("own", "used"), [(None, 5), (7, 7)])
def test_the_seed_reaches_a_detector_without_one(own, used):
    SpySampler.seeds = []
    X, y, _ = noisy_blobs()
    compare(X, y, SpySampler(own), regression=False, cv=2, random_state=5)
    assert SpySampler.seeds == [used, used]


def test_wide_rows_are_thinned_out_and_too_few_refused(monkeypatch):
    monkeypatch.setattr(comparison, "MAX_VALUES", 1_100 * 4)
    X, y, _ = noisy_blobs(n=1_200)
    result = compare(X, y, SpySampler(), regression=False, cv=2, random_state=0)
    assert result.n_rows == 1_100
    with pytest.raises(ValueError, match="3 rows are too few"):
        compare(X[:3], np.arange(3), SpySampler(), regression=False, cv=5, random_state=0)


def test_large_data_are_learnt_from_in_part_and_judged_by_all_rows(monkeypatch):
    monkeypatch.setattr(comparison, "MAX_TRAIN", (20, 20))
    monkeypatch.setattr(comparison, "TRAIN_PER_CLASS", 8)
    SpySampler.seen = []
    X, y = np.column_stack([np.arange(90.0), np.ones(90)]), np.arange(90) % 3
    result = compare(X, y, SpySampler(), regression=False, cv=3, random_state=0)
    assert (result.n_train, result.n_rows, result.is_sampled) == ((24, 24, 24), 90, True)  # 8 rows of each class
    assert [len(rows) for rows in SpySampler.seen] == [24, 24, 24]
    held_out = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
    for (train, _), seen in zip(held_out, SpySampler.seen, strict=True):
        assert set(seen.astype(int)) < set(train)
