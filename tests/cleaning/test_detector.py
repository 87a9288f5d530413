"""NoisyLabelDetector keeps its promises on every kind of label; what it finds is in test_detector_planted.py."""

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_diabetes, load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge

from sktda import InfluencePruner, NoisyLabelDetector, NothingToLearnWarning
from sktda.attribution import (
    ComplexityGap,
    ConfidentLearning,
    KernelForest,
    LabelPosterior,
    PrecomputedProbabilities,
    PrecomputedScores,
    RobustResidual,
)
from tests.spies import CountingScores, fits, flip, noisy_blobs

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* of the labels are called wrong:UserWarning"),
    pytest.mark.usefixtures("few_trees"),
]
CLASSES, NUMBERS = LabelPosterior(KernelForest(n_estimators=30)), RobustResidual(n_estimators=50)


@cache
def of_blobs():
    """(X, y, true labels, the default fitted on them), for tests that only read it."""
    X, y, true = noisy_blobs()
    return X, y, true, NoisyLabelDetector().fit(X, y)


def test_no_noise_means_no_row_below_half():
    X, y, _ = noisy_blobs(rate=0)
    detector = NoisyLabelDetector(contamination=0).fit(X, y)
    assert (detector.labels_ == 1).all()
    assert (detector.label_quality_ > 0.5).all()


# ---- what is called noisy -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contamination", [0, 0.05, 0.25, 0.5, 0.9])
def test_a_given_contamination_decides_how_many(contamination):
    X, y, _ = noisy_blobs()
    detector = NoisyLabelDetector(contamination=contamination).fit(X, y)
    assert detector.noise_rate_ == contamination
    assert (detector.labels_ == -1).sum() == round(contamination * 120)
    lowest = np.argsort(detector.scores_)[: round(contamination * 120)]
    if contamination < 0.5:
        assert set(lowest) == set(np.flatnonzero(detector.labels_ == -1))


@pytest.mark.parametrize("contamination", [1.0, -0.1, "a lot", None])
def test_a_contamination_out_of_range_is_an_error(contamination):
    X, y, _ = noisy_blobs()
    with pytest.raises(ValueError, match="contamination"):
        NoisyLabelDetector(contamination=contamination).fit(X, y)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_contamination_that_leaves_no_row_is_a_clear_error(task):
    X, y, _ = noisy_blobs(30)
    y = y if task == "classification" else X[:, 0]
    with pytest.raises(ValueError, match="cannot be removed"):
        NoisyLabelDetector(contamination=0.99).fit(X, y)


def of_hard_rows(overlap, n=2000):
    """(probabilities of both classes, labels, which are wrong): rows are hard from 0 to 1.

    The model is right of all rows, and surer of easy ones. A quarter of the rows of .4 to .75 are labelled as the other
    class; in what is called overlap the labels of all are drawn by the probabilities.
    """
    rng = np.random.default_rng(0)
    true, hard = rng.integers(0, 2, n), rng.random(n)
    own = 0.98 - (0.45 if overlap else 0.2) * hard
    p = np.where(true == 1, own, 1 - own)
    wrong = (hard > 0.4) & (hard < 0.75) & (rng.random(n) < 0.25)
    y = (rng.random(n) < p).astype(int) if overlap else np.where(wrong, 1 - true, true)
    return np.column_stack([1 - p, p]), y, wrong


def test_the_confident_joint_counts_mistakes_of_hard_rows():
    p, y, wrong = of_hard_rows(overlap=False)
    attributor = PrecomputedProbabilities(p)
    joint = NoisyLabelDetector(attributor, contamination="confident_joint").fit(p, y)
    assert joint.noise_rate_ == pytest.approx(wrong.mean(), abs=0.03)  # .09
    low, high = joint.noise_rate_interval_
    assert low < joint.noise_rate_ < high
    assert (joint.labels_ == -1).sum() == round(joint.noise_rate_ * len(y))
    assert NoisyLabelDetector(attributor).fit(p, y).noise_rate_ < 0.02


def test_the_confident_joint_calls_overlap_mistakes():
    p, y, _ = of_hard_rows(overlap=True)
    attributor = PrecomputedProbabilities(p)
    rates = [NoisyLabelDetector(attributor, contamination=c).fit(p, y).noise_rate_ for c in ("auto", "confident_joint")]
    assert rates[0] < 0.05 < 0.15 < rates[1]


def test_the_confident_joint_is_that_of_confident_learning():
    X, y, _ = noisy_blobs()
    learning = ConfidentLearning(LogisticRegression()).fit(X, y)
    detector = NoisyLabelDetector(FrozenEstimator(learning), contamination="confident_joint").fit(X, y)
    assert detector.noise_rate_ == pytest.approx(learning.noise_rate_, abs=1e-12)


def test_the_confident_joint_finds_none_where_nothing_can_be_told():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 3)), rng.integers(0, 2, 200)
    with pytest.warns(NothingToLearnWarning):
        detector = NoisyLabelDetector(contamination="confident_joint").fit(X, y)
    assert (detector.labels_ == 1).all()


def test_the_confident_joint_is_of_classes(tmp_path):
    X, _ = load_diabetes(return_X_y=True)
    attributor = CountingScores(tmp_path / "log")
    with pytest.raises(ValueError, match='numbers to be predicted; take contamination="auto"'):
        NoisyLabelDetector(attributor, contamination="confident_joint").fit(X, X[:, 0])
    assert fits(tmp_path / "log") == []  # before any work


def imbalanced(n_rare, seed=0):
    """200 rows of classes "a" and "b", 10 % flipped, and a class "rare" whose rows look like class "a"."""
    X, y, true = noisy_blobs(200, 0.1, centers=2, seed=seed)
    looks_alike = X[true == 0][:n_rare] + 0.1
    return np.vstack([X, looks_alike]), np.append(np.array(["a", "b"])[y], ["rare"] * n_rare)


@pytest.mark.parametrize(
    ("n_rare", "contamination"), [(1, "auto"), (1, 0.05), (1, 0.3), (2, "auto"), (2, 0.05), (2, 0.1), (3, 0.3)]
)
def test_a_rare_class_survives_and_noisy_rows_beside_it_are_below_half(n_rare, contamination):
    """The last row of its class stays, however low its score; the quality of the noisy rows still says noisy."""
    X, y = imbalanced(n_rare)
    detector = NoisyLabelDetector(CLASSES, contamination=contamination)
    X_clean, y_clean = detector.fit_resample(X, y)
    assert set(y_clean) == {"a", "b", "rare"}
    assert len(X_clean) == len(y_clean) == len(y) - round(detector.noise_rate_ * len(y))
    rare = np.flatnonzero(y == "rare")
    assert detector.labels_[rare[np.argmax(detector.scores_[rare])]] == 1, "the best row of the class stays"
    assert (detector.label_quality_[detector.labels_ == -1] < 0.5).all()
    spared = (detector.labels_ == 1) & (detector.label_quality_ < 0.5)
    assert set(y[spared]) <= {"rare"}


# ---- labels and data of every kind ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [["z", "a", "m"], [7, -3, 100], [1.0, 0.0, 2.0], np.array(["x", 1, 2.5], dtype=object).astype(str)],
    ids=["strings", "integers", "floats", "numerals"],
)
def test_the_names_of_the_labels_play_no_part(names):
    X, y, _, plain = of_blobs()
    renamed = NoisyLabelDetector().fit(X, np.asarray(names)[y])
    np.testing.assert_allclose(renamed.scores_, plain.scores_, rtol=1e-9)
    np.testing.assert_array_equal(renamed.labels_, plain.labels_)
    np.testing.assert_array_equal(renamed.suggested_labels_, np.asarray(names)[plain.suggested_labels_])
    assert renamed.suggested_labels_.dtype == np.asarray(names).dtype
    assert renamed.classes_.tolist() == sorted(names)
    assert renamed.noise_rate_ == pytest.approx(plain.noise_rate_, abs=1e-9)


def test_boolean_labels():
    X, y, true = noisy_blobs(centers=2)
    detector = NoisyLabelDetector().fit(X, y.astype(bool))
    np.testing.assert_array_equal(detector.labels_, NoisyLabelDetector().fit(X, y).labels_)
    assert detector.suggested_labels_.dtype == bool
    assert (detector.suggested_labels_ == true).mean() > 0.9


def test_row_order_plays_no_part():
    X, y, _, plain = of_blobs()
    rows = np.random.default_rng(0).permutation(len(y))
    shuffled = NoisyLabelDetector().fit(X[rows], y[rows])
    np.testing.assert_allclose(shuffled.scores_, plain.scores_[rows], rtol=1e-8)
    np.testing.assert_array_equal(shuffled.labels_, plain.labels_[rows])
    np.testing.assert_array_equal(shuffled.suggested_labels_, plain.suggested_labels_[rows])
    np.testing.assert_allclose(shuffled.label_quality_, plain.label_quality_[rows], rtol=1e-8)


def test_units_of_the_columns_play_no_part():
    X, y, _, plain = of_blobs()
    scaled = NoisyLabelDetector().fit(X * [1e-3, 1, 50, 1e6] + [5, 0, -1, 1e5], y)
    np.testing.assert_array_equal(scaled.labels_, plain.labels_)
    np.testing.assert_allclose(scaled.scores_, plain.scores_, rtol=1e-5)


def test_a_wrong_copy_of_a_row_is_found_among_its_duplicates():
    X, _, true = noisy_blobs(60)
    X, true = np.tile(X, (3, 1)), np.tile(true, 3)
    given = true.copy()
    given[:20] = (given[:20] + 1) % 3
    detector = NoisyLabelDetector().fit(X, given)
    np.testing.assert_array_equal(np.sort(detector.scores_.argsort()[:20]), np.arange(20))
    noisy = np.flatnonzero(detector.labels_ == -1)
    assert 14 <= len(noisy) <= 20
    np.testing.assert_array_equal(detector.suggested_labels_[noisy], true[noisy])


@cache
def of_digits():
    X, y = load_digits(return_X_y=True)
    X, y = X[:150], flip(y[:150], 0.2)
    return X, y, NoisyLabelDetector().fit(X, y)


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
def test_data_in_every_form_gives_the_same_decision_and_comes_back_as_it_came(convert):
    X, y, plain = of_digits()
    X_given, y_given = convert(X, y)
    detector = NoisyLabelDetector()
    X_clean, y_clean = detector.fit_resample(X_given, y_given)
    np.testing.assert_array_equal(detector.labels_, plain.labels_)
    assert type(X_clean) is type(X_given)
    assert type(y_clean) is type(y_given)
    np.testing.assert_array_equal(np.asarray(y_clean), y[plain.labels_ == 1])
    dense = X_clean.toarray() if sp.issparse(X_clean) else np.asarray(X_clean).reshape(-1, 64)
    np.testing.assert_array_equal(dense, X[plain.labels_ == 1])


def test_coordinate_matrices_come_back_as_rows():
    X, y, _ = noisy_blobs()
    X_clean, y_clean = NoisyLabelDetector(contamination=0.1).fit_resample(sp.coo_array(X), y)
    assert X_clean.shape == (108, 4)
    assert len(y_clean) == 108


def test_pandas_rows_keep_their_index_and_dtypes():
    X, y, _ = noisy_blobs(50)
    index = pd.Index([f"id{i}" for i in range(50)], name="key")
    frame = pd.DataFrame(X, index=index).add_prefix("f").astype({"f0": "float32"})
    labels = pd.Series(pd.Categorical(np.array(["a", "b", "c"])[y]), index, name="target")
    detector = NoisyLabelDetector(contamination=0.2)
    X_clean, y_clean = detector.fit_resample(frame, labels)
    assert (X_clean.dtypes == frame.dtypes).all()
    assert y_clean.dtype == labels.dtype
    assert X_clean.index.equals(y_clean.index)
    assert X_clean.equals(frame[detector.labels_ == 1])
    assert detector.feature_names_in_.tolist() == ["f0", "f1", "f2", "f3"]


# ---- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["ab", [0, 1]], ids=["strings", "integers"])
def test_the_table_has_the_users_index_and_the_worst_row_first(names):
    X, y, _ = noisy_blobs(centers=2)
    index = np.random.default_rng(0).permutation(len(y)) + 1000
    y = pd.Series(np.array(list(names))[y], index)
    detector = NoisyLabelDetector().fit(pd.DataFrame(X, index=index), y)
    frame = detector.to_frame()
    assert list(frame) == ["given_label", "suggested_label", "label_quality", "score", "noisy"]
    assert frame["label_quality"].is_monotonic_increasing
    assert frame["noisy"].dtype == bool
    assert (frame["given_label"] == y[frame.index]).all()
    in_order = frame.loc[index]
    np.testing.assert_array_equal(in_order["score"], detector.scores_)
    np.testing.assert_array_equal(in_order["noisy"], detector.labels_ == -1)
    np.testing.assert_array_equal(in_order["label_quality"], detector.label_quality_)
    np.testing.assert_array_equal(in_order["suggested_label"], detector.suggested_labels_)


def test_the_table_of_arrays_is_numbered_and_a_series_brings_its_index():
    X, y, _ = noisy_blobs(30)
    assert sorted(NoisyLabelDetector().fit(X, y).to_frame().index) == list(range(30))
    frame = NoisyLabelDetector().fit(X, pd.Series(y, index=np.arange(30) + 5)).to_frame()
    assert sorted(frame.index) == list(range(5, 35))


def test_a_repeated_index_is_kept():
    X, y, _ = noisy_blobs(30)
    frame = NoisyLabelDetector().fit(pd.DataFrame(X, index=[1] * 30), y).to_frame()
    assert frame.index.tolist() == [1] * 30


# ---- regression -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.05, 0.15])
def test_planted_outliers_of_a_regression_are_found(share):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4))
    true = X @ [30.0, -20.0, 10.0, 5.0] + 100  # its own spread hides the outliers
    y = true + 5 * rng.normal(size=300)
    wrong = np.zeros(300, dtype=bool)
    wrong[rng.choice(300, round(share * 300), replace=False)] = True
    y[wrong] += 80 * rng.choice([-1, 1], wrong.sum())
    detector = NoisyLabelDetector().fit(X, y)
    assert detector.task_ == "regression"
    assert not hasattr(detector, "classes_")
    assert detector.noise_rate_ == pytest.approx(share, abs=0.04)
    assert (detector.labels_ == -1).sum() == round(detector.noise_rate_ * 300)
    if share:
        assert (detector.labels_[wrong] == -1).mean() > 0.75
        worst = np.argsort(detector.scores_)[: wrong.sum()]
        assert wrong[worst].mean() > 0.9
        error = np.abs(detector.suggested_labels_ - true)[wrong]
        assert np.median(error) < 0.2 * 80


@pytest.mark.parametrize("n", [150, 1000])
def test_a_smooth_target_without_noise_has_hardly_any_outliers(n):
    """Predictions are nearly exact, so their errors are tiny and heavy-tailed: no reason to distrust a target."""
    X = np.random.default_rng(0).normal(size=(n, 2))
    assert NoisyLabelDetector().fit(X, X @ [1.0, 3.0]).noise_rate_ < 0.03


@pytest.mark.filterwarnings("ignore::sktda.NothingToLearnWarning")
def test_whole_numbers_are_a_regression_where_the_attributor_says_so():
    X, y = load_diabetes(return_X_y=True)
    y = np.round(y / 20)
    assert NoisyLabelDetector().fit(X, y).task_ == "classification"
    detector = NoisyLabelDetector(ComplexityGap(task="regression")).fit(X, y)
    assert detector.task_ == "regression"
    assert detector.to_frame()["suggested_label"].dtype == float


@pytest.mark.filterwarnings("ignore::sktda.NothingToLearnWarning")
def test_a_constant_target_has_no_outliers():
    X, _, _ = noisy_blobs()
    assert NoisyLabelDetector(ComplexityGap(task="regression")).fit(X, np.full(120, 0.1)).noise_rate_ == 0


# ---- attributors ----------------------------------------------------------------------------------------------------


def test_scores_from_elsewhere_rank_the_rows():
    X, y, true, by_default = of_blobs()
    right = (y == true).astype(float)
    detector = NoisyLabelDetector(PrecomputedScores(right), contamination=np.mean(y != true)).fit(X, y)
    np.testing.assert_array_equal(detector.labels_ == -1, y != true)
    np.testing.assert_array_equal(detector.scores_, right)
    assert (detector.suggested_labels_[y != true] == true[y != true]).mean() > 0.9
    assert NoisyLabelDetector(PrecomputedScores(right)).fit(X, y).noise_rate_ == by_default.noise_rate_


def test_equal_scores_are_refused_unless_no_row_goes():
    X, y, _ = noisy_blobs()
    with pytest.raises(ValueError, match="all 120 scores of PrecomputedScores are 0, so rows cannot be ranked"):
        NoisyLabelDetector(PrecomputedScores(), contamination=0.1).fit(X, y)
    assert (NoisyLabelDetector(PrecomputedScores(), contamination=0).fit(X, y).labels_ == 1).all()


class Contrary(CountingScores):
    """Has leave-one-out predictions of its own, which contradict every label."""

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        super().fit(X, y)
        self.task_, self.n_features_in_ = "classification", X.shape[1]
        self.loo_decision_ = 1.0 - np.eye(2)[y]
        return self


def test_predictions_of_the_attributor_are_used_and_cannot_empty_a_class():
    X, y, _ = noisy_blobs(6, centers=2)
    detector = NoisyLabelDetector(Contrary(), contamination=4 / 6).fit(X, y)
    np.testing.assert_array_equal(detector.suggested_labels_, 1 - y)
    assert set(y[detector.labels_ == 1]) == {0, 1}


def test_the_papers_scheme_ranks_and_its_task_holds():
    """30 small classes with whole numbers as names look like a regression; the attributor says they are not."""
    rng = np.random.default_rng(0)
    true = np.repeat(np.arange(30), 5)
    X = rng.normal(size=(30, 8))[true] * 5 + rng.normal(size=(150, 8)) * 0.1
    detector = NoisyLabelDetector(ComplexityGap(mode="paper", n_repeats=2, task="classification", random_state=0))
    assert detector.fit(X, flip(true, 0.1)).task_ == "classification"


class Ranks(CountingScores):
    """Scores that are no array of floats."""

    def __init__(self, kind=list):
        self.kind = kind

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        self.scores_ = self.kind(range(len(X)))
        return self


@pytest.mark.parametrize("cleaner", [NoisyLabelDetector, lambda ranks, **_: InfluencePruner(Ridge(), ranks)])
@pytest.mark.parametrize("dtype", [list, np.uint8, np.int64, np.float16, object, "Series"])
def test_scores_of_any_kind_of_number(cleaner, dtype):
    convert = {list: list, "Series": lambda rows: pd.Series(rows, index=rows[::-1])}
    X, y, _ = noisy_blobs(30)
    fitted = cleaner(Ranks(convert.get(dtype, lambda rows: np.array(rows, dtype=dtype))), contamination=0.1).fit(X, y)
    assert fitted.to_frame().index.tolist() == list(range(30))
    assert fitted.scores_.tolist() == list(range(30))


@pytest.mark.parametrize("attributor", ["complexity gap", ComplexityGap, 3])
def test_what_is_no_attributor_is_refused(attributor):
    X, y, _ = noisy_blobs(30)
    with pytest.raises(TypeError, match=r"is not an attributor; give an instance such as LabelPosterior\(\)"):
        NoisyLabelDetector(attributor).fit(X, y)


class TooShort(CountingScores):
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        super().fit(X, y)
        self.scores_ = self.scores_[:-1]
        return self


class NoScores(CountingScores):
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        return self


@pytest.mark.parametrize(
    ("attributor", "message"), [(TooShort(), "29 scores .* 30 rows"), (NoScores(), "NoScores has no scores_")]
)
def test_an_attributor_that_breaks_its_contract_is_named(attributor, message):
    X, y, _ = noisy_blobs(30)
    with pytest.raises(ValueError, match=message):
        NoisyLabelDetector(attributor, contamination=0.1).fit(X, y)


def test_the_given_attributor_stays_unfitted_and_its_seed_wins():
    X, y, _ = noisy_blobs()
    attributor = ComplexityGap(mode="nystrom", n_landmarks=10, random_state=3)
    detector = NoisyLabelDetector(attributor, random_state=0).fit(X, y)
    assert not hasattr(attributor, "scores_")
    np.testing.assert_array_equal(detector.scores_, attributor.fit(X, y).scores_)


def test_the_detectors_seed_reaches_an_attributor_without_one():
    X, y, _ = noisy_blobs()
    loose = ComplexityGap(mode="nystrom", n_landmarks=10)
    first, again, other = (NoisyLabelDetector(loose, random_state=seed).fit(X, y).scores_ for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


# ---- bad input and second fits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda X, y: (np.where(X[3, 1] == X, np.nan, X), y), r"NaN: column 1 has 1 values .* the first in row 3"),
        (lambda X, y: (np.where(X[3, 1] == X, np.inf, X), y), r"infinity: column 1"),
        (lambda X, y: (X, np.zeros(30)), r"y holds 1 class \(.*0.* in all 30 rows\)"),
        (lambda X, y: (X, None), "requires y to be passed"),
        (lambda X, y: (X, y[:-1]), "inconsistent numbers of samples"),
        (lambda X, y: (X, np.column_stack([y, y])), "y should be a 1d array"),
        (lambda X, y: (X, np.append(np.nan, y[1:])), "y contains NaN"),
        (lambda X, y: (X, np.append(None, y[1:].astype(object))), "NaN|None|missing"),
    ],
    ids=["NaN", "infinity", "one class", "no y", "lengths", "two targets", "NaN label", "None label"],
)
@pytest.mark.parametrize("attributor", [None, PrecomputedScores(np.arange(30.0))], ids=["default", "precomputed"])
def test_bad_input_gives_one_clear_error(attributor, damage, message):
    X, y, _ = noisy_blobs(30)
    with pytest.raises(ValueError, match=message):
        NoisyLabelDetector(attributor).fit(*damage(X, y))


def test_a_second_fit_leaves_nothing_of_the_first():
    X, y, _ = noisy_blobs(60)
    detector = NoisyLabelDetector().fit(pd.DataFrame(X).add_prefix("f"), y)
    again, fresh = detector.fit(X, X[:, 0]), NoisyLabelDetector().fit(X, X[:, 0])
    assert set(vars(again)) == set(vars(fresh))
    assert sorted(again.to_frame().index) == list(range(60))


# ---- healthy tables stay whole --------------------------------------------------------------------------------------


def grades(rng, n, n_columns, unit=1.0, offset=0.0):
    """Non-negative columns of one unit, and a grade by their mean: the level of a row is all that counts."""
    ability = rng.normal(70, 14, (n, 1))
    marks = (ability + rng.normal(0, 6, (n, n_columns))).clip(0, 100).round()
    return marks * unit + offset, np.array(list("FDCBA"))[np.digitize(marks.mean(axis=1), [50, 60, 70, 80])]


@pytest.mark.usefixtures("all_trees")
@pytest.mark.parametrize(
    ("n_columns", "unit", "offset"), [(1, 1e-6, 0.0), (2, 1.0, 0.0), (3, 1e5, 273.15), (20, 1e-6, 0.0)]
)
def test_tables_whose_columns_share_a_unit(n_columns, unit, offset):
    X, y = grades(np.random.default_rng(n_columns), 400, n_columns, unit, offset)
    detector = NoisyLabelDetector().fit(X, y)
    assert (detector.labels_ == -1).mean() <= 0.02
    assert detector.can_tell_


def overlapping(rng, n):
    X = rng.normal(size=(n, 4))
    return X, (X[:, 0] + rng.normal(size=n) > 0).astype(int)


def ordinal(rng, n):
    X = rng.normal(size=(n, 4))
    return X, np.digitize(X[:, 0] + X[:, 1] + 0.7 * rng.normal(size=n), [-1.5, -0.5, 0.5, 1.5])


def imbalanced_classes(rng, n):
    y = (rng.random(n) < 0.07).astype(int)
    return rng.normal(size=(n, 4)) + 2 * y[:, None], y


@pytest.mark.usefixtures("all_trees")
@pytest.mark.parametrize("made", [overlapping, ordinal, imbalanced_classes])
def test_overlap_is_not_taken_for_noise(made):
    """All labels are right, and a fifth to a half of them cannot be predicted."""
    flagged = []
    for seed in range(2):
        X, y = made(np.random.default_rng(seed), 500)
        flagged.append(NoisyLabelDetector().fit(X, y).noise_rate_)
    assert np.mean(flagged) <= 0.1


# ---- features that do not predict the label -------------------------------------------------------------------------


def unrelated(rng, kind):
    X = rng.normal(size=(150, 5))
    if kind == "numbers":
        return X, rng.lognormal(size=150), NUMBERS
    shares = {"two classes": [0.5, 0.5], "a rare class": [0.93, 0.07], "five classes": [0.4, 0.3, 0.1, 0.1, 0.1]}[kind]
    return X, rng.choice(len(shares), 150, p=shares), CLASSES


@pytest.mark.parametrize("kind", ["two classes", "a rare class", "five classes", "numbers"])
def test_nothing_is_flagged_where_features_say_nothing(kind):
    told = 0
    for seed in range(5):
        X, y, attributor = unrelated(np.random.default_rng(seed), kind)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            detector = NoisyLabelDetector(attributor).fit(X, y)
        if not detector.can_tell_:
            told += 1
            assert (detector.labels_ == 1).all()
            assert detector.noise_rate_ == detector.noise_rate_interval_[0] == 0
            assert [each.category for each in caught] == [NothingToLearnWarning]
            assert "the features do not predict the labels" in str(caught[0].message)
    assert told >= 4


def test_who_insists_gets_the_worst_rows():
    X, y, attributor = unrelated(np.random.default_rng(0), "two classes")
    detector = NoisyLabelDetector(attributor, contamination=0.2).fit(X, y)
    assert not detector.can_tell_
    assert (detector.labels_ == -1).sum() == 30
    assert set(np.flatnonzero(detector.labels_ == -1)) == set(detector.scores_.argsort()[:30])


def test_predictability_is_told():
    X, y, _ = noisy_blobs(rate=0)
    detector = NoisyLabelDetector(CLASSES).fit(X, y)
    assert detector.predictability_ == 1
    assert 0 < detector.predictability_error_ < 0.05
    assert detector.chance_ == pytest.approx(1 / 3)
    assert detector.can_tell_


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("container", [list, lambda y: pd.Series(y, dtype="Int64")])
def test_whole_numbers_without_some_are_missing_in_the_table(container):
    X = np.random.default_rng(0).normal(size=(60, 2))
    y = (100 * X[:, 0] + 30 * X[:, 1]).round().astype(int).tolist()
    y[5] = None
    detector = NoisyLabelDetector(NUMBERS, unlabelled="keep").fit(X, container(y))
    given = detector.to_frame().sort_index()["given_label"]
    assert np.flatnonzero(given.isna()).tolist() == [5]
    assert given.drop(5).tolist() == y[:5] + y[6:]


@pytest.mark.parametrize("others", [[], [7]])
def test_masked_labels_are_none(others):
    X = np.random.default_rng(0).normal(size=(60, 2))
    y = np.ma.masked_array((X[:, 0] > 0).astype(float), mask=np.arange(60) == 4)
    y[others] = np.nan
    detector = NoisyLabelDetector(CLASSES, unlabelled="drop").fit(X, y)
    assert np.flatnonzero(detector.labels_ == 0).tolist() == [4, *others]
    assert not np.isin([4, *others], detector.sample_indices_).any()


def test_many_flagged_rows_are_a_reason_to_look():
    X, y, _ = noisy_blobs(300, rate=0.45)
    with pytest.warns(
        UserWarning, match=r"[34]\d% of the labels are called wrong.*may be shifted, shuffled or another"
    ):
        NoisyLabelDetector(CLASSES).fit(X, y)


# ---- findings before statistics -------------------------------------------------------------------------------------


def test_spellings_are_one_label_and_stay_as_they_are():
    X, y, _ = noisy_blobs(200, rate=0, centers=2)
    given = np.array(["no", "yes"], dtype=object)[y]
    given[::3] = [f" {label.upper()}" for label in given[::3]]
    detector = NoisyLabelDetector(CLASSES).fit(X, given)
    assert (detector.labels_ == 1).all()
    assert detector.classes_.tolist() == ["no", "yes"]
    assert [finding.kind for finding in detector.findings_] == ["spelling"]
    assert detector.to_frame()["given_label"].sort_index().tolist() == given.tolist()
    plain = NoisyLabelDetector(CLASSES).fit(X, np.array(["no", "yes"])[y])
    np.testing.assert_array_equal(detector.scores_, plain.scores_)


@pytest.mark.parametrize("frame", [False, True])
def test_a_column_that_gives_the_label_away_is_left_out(frame):
    X, y, true = noisy_blobs(200, rate=0.1)
    leaking = np.column_stack([X[:, :2], y + 7, X[:, 2:]])
    container = pd.DataFrame if frame else np.asarray
    detector = NoisyLabelDetector(CLASSES).fit(container(leaking), y)
    assert [finding.kind for finding in detector.findings_] == ["leak"]
    assert detector.findings_[0].positions == (2,)
    np.testing.assert_allclose(detector.scores_, NoisyLabelDetector(CLASSES).fit(X, y).scores_)
    assert detector.n_features_in_ == 5
    assert set(np.flatnonzero(y != true)) >= set(detector.scores_.argsort()[:15])


def test_equal_rows_with_different_labels_are_named():
    X, y, _ = noisy_blobs(200, rate=0)
    X, y = np.vstack([X, X[:8]]), np.append(y, (y[:8] + 1) % 3)
    finding = NoisyLabelDetector(CLASSES).fit(X, y).findings_[0]
    assert finding.kind == "contradiction"
    assert set(finding.rows) == {*range(8), *range(200, 208)}


def test_names_of_rows_are_no_classes():
    X = noisy_blobs(60)[0]
    with pytest.raises(ValueError, match=r"60 different labels in 60 rows, such as .*: these are no classes"):
        NoisyLabelDetector(CLASSES).fit(X, [f"row {i}" for i in range(60)])


@pytest.mark.parametrize("container", [sp.csr_matrix, sp.coo_array, pd.DataFrame, lambda X: X.reshape(len(X), 2, 2)])
def test_the_container_plays_no_part(container):
    X, y, _ = noisy_blobs(60, rate=0.1)
    X = np.round(X, 3)
    expected = NoisyLabelDetector(CLASSES).fit(X, y)
    found = NoisyLabelDetector(CLASSES).fit(container(X), y)
    np.testing.assert_allclose(found.scores_, expected.scores_, atol=1e-8)
    np.testing.assert_array_equal(found.labels_, expected.labels_)
    assert found.scale_ == expected.scale_


@pytest.mark.parametrize("absurd", [False, True])
def test_quality_is_spread_over_the_rows(absurd):
    """Also where nothing is flagged, or one score is a million times lower than all others."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = X @ [3.0, 2.0, 1.0] + rng.normal(size=300)
    y[7] += 1e9 * absurd
    detector = NoisyLabelDetector(NUMBERS).fit(X, y)
    assert (detector.labels_ == -1).sum() == absurd
    assert (detector.label_quality_[7] < 0.1) == absurd
    low, middle, high = np.quantile(detector.label_quality_, [0.02, 0.5, 0.98])
    assert 0.5 < low < middle - 0.1
    assert middle + 0.01 < high < 0.99
    assert np.ptp(detector.suggested_labels_) < 2 * np.ptp(np.delete(y, 7))


@pytest.mark.usefixtures("all_trees")
@pytest.mark.filterwarnings("ignore::sktda.NothingToLearnWarning")
@pytest.mark.parametrize("n_classes", [2, 5])
def test_a_weak_signal_is_no_reason_to_throw_a_table_away(n_classes):
    """One column moves by a third of a deviation from class to class: all labels are right, and hardly predictable."""
    flagged = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, n_classes, 300)
        X = rng.normal(size=(300, 6))
        X[:, 0] += y / 3
        flagged.append((NoisyLabelDetector().fit(X, y).labels_ == -1).mean())
    assert np.mean(flagged) < 0.1
    assert max(flagged) < 0.36
