"""InfluencePruner: how many rows go, which, what the rest of the flow sees, and when it refuses."""

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, cross_validate, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktda import Holdout, InfluencePruner, NoisyLabelDetector, PruningWarning
from sktda.attribution import ComplexityGap, LabelPosterior, PrecomputedScores
from sktda.cleaning.removal import rows_per_round
from sktda.selection import removal_quota
from tests.spies import CountingScores, ModelScores, RecordingClassifier, fits, flip, noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees")

X, Y, TRUE = noisy_blobs(120)
RIGHT = (Y == TRUE).astype(float)


def pruner(**params):
    return InfluencePruner(RecordingClassifier(), CountingScores(), **params)


# ---- how many, and which --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [15, 30, 55, 70, 110])
@pytest.mark.parametrize(("ratio", "step"), [(0.45, 0.15), (0.9, 0.15), (0.3, 0.1)])
def test_the_rounds_remove_together_what_one_would(ratio, step, n):
    assert sum(rows_per_round(ratio, step, n)) == round(ratio * n)


@pytest.mark.parametrize("step", [None, 0.03, 0.1, 0.5])
@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("ratio", [0, 0.004, 0.05, 0.1, 0.25, 0.5, 0.9])
def test_round_ratio_times_n_rows_go(ratio, stratify, step):
    fitted = pruner(prune_ratio=ratio, stratify=stratify, step=step).fit(X, Y)
    assert fitted.n_pruned_ == round(ratio * 120) == (~fitted.support_).sum()
    assert len(fitted.estimator_.y_) == 120 - fitted.n_pruned_
    np.testing.assert_array_equal(fitted.estimator_.X_, X[fitted.support_])
    np.testing.assert_array_equal(fitted.estimator_.y_, Y[fitted.support_])
    np.testing.assert_array_equal(fitted.get_support(indices=True), np.flatnonzero(fitted.get_support()))


def test_the_lowest_scores_go():
    fitted = pruner(prune_ratio=0.2, stratify=False).fit(X, Y)
    assert set(np.flatnonzero(~fitted.support_)) == set(np.argsort(X[:, 0])[:24])
    np.testing.assert_array_equal(fitted.scores_, X[:, 0])


def test_every_class_gives_its_share():
    y = np.repeat([0, 1, 2], [70, 37, 13])
    fitted = pruner(prune_ratio=0.1, stratify=True).fit(X, y)
    removed = np.bincount(y[~fitted.support_])
    np.testing.assert_array_equal(removed, removal_quota(np.array([70, 37, 13]), 12, 1))
    assert removed.tolist() == [7, 4, 1]
    for c in range(3):
        rows = np.flatnonzero(y == c)
        assert set(np.flatnonzero(~fitted.support_ & (y == c))) == set(rows[np.argsort(X[rows, 0])[: removed[c]]])


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("floor", [1, 3])
def test_a_rare_class_keeps_its_best_rows(floor, stratify):
    y = np.zeros(120, dtype=int)
    rare = np.argsort(X[:, 0])[:4]  # the rare class has the four lowest scores
    y[rare] = 1
    fitted = pruner(prune_ratio=0.9, stratify=stratify, min_samples_per_class=floor).fit(X, y)
    kept = np.flatnonzero(fitted.support_ & (y == 1))
    assert len(kept) >= floor
    assert set(kept) == set(rare[-len(kept) :])
    assert fitted.n_pruned_ == 108


def test_regression_has_no_classes_to_keep():
    fitted = InfluencePruner(Ridge(), CountingScores(), prune_ratio=0.2).fit(X, Y.astype(float))
    assert set(np.flatnonzero(~fitted.support_)) == set(np.argsort(X[:, 0])[:24])


@pytest.mark.parametrize("stratify", [True, False])
def test_floors_that_cannot_be_kept_are_errors(stratify):
    with pytest.raises(ValueError, match="cannot be removed: at least 10 must stay in each of 3 classes"):
        pruner(prune_ratio=0.9, stratify=stratify, min_samples_per_class=10).fit(X, Y)
    y = np.append([2], np.arange(119) % 2)
    with pytest.raises(ValueError, match="has 1 rows, fewer than min_samples_per_class=2; merge rare"):
        pruner(min_samples_per_class=2, stratify=stratify).fit(X, y)


def test_a_regression_that_would_lose_every_row_is_a_clear_error():
    with pytest.raises(ValueError, match=r"prune_ratio|cannot be removed"):
        InfluencePruner(Ridge(), CountingScores(), prune_ratio=0.99).fit(X[:10], X[:10, 1])


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("prune_ratio", 1.0),
        ("prune_ratio", -0.1),
        ("step", 0.0),
        ("step", 1.0),
        ("min_samples_per_class", -1),
        ("stratify", "yes"),
        ("guard", -0.1),
        ("guard", "yes"),
    ],
)
def test_a_parameter_out_of_range_is_named(param, value):
    with pytest.raises(ValueError, match=f"The '{param}' parameter of InfluencePruner"):
        pruner(**{param: value}).fit(X, Y)


def test_row_order_plays_no_part():
    rows = np.random.default_rng(0).permutation(120)
    for attributor in (CountingScores(), ComplexityGap()):
        plain = InfluencePruner(RecordingClassifier(), attributor, step=0.05).fit(X, Y)
        shuffled = InfluencePruner(RecordingClassifier(), attributor, step=0.05).fit(X[rows], Y[rows])
        np.testing.assert_array_equal(shuffled.support_, plain.support_[rows])


# ---- rounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "step", "rows"),
    [
        (0.2, None, [120]),
        (0.2, 0.05, [120, 114, 108, 102]),
        (0.1, 0.03, [120, 116, 113, 109]),  # 3.6, 7.2, 10.8 and 12 rows gone after each round
        (0.1, 0.1, [120]),
        (0.1, 0.3, [120]),
        (0.3, 0.1, [120, 108, 96]),
        (0.27, 0.09, [120, 109, 98]),  # .27 / .09 is 3.0000000000000004 in floats
        (0, 0.05, [120]),
    ],
)
def test_every_round_scores_the_remaining_rows_only(tmp_path, ratio, step, rows):
    log = tmp_path / "log"
    fitted = InfluencePruner(RecordingClassifier(), CountingScores(str(log)), prune_ratio=ratio, step=step).fit(X, Y)
    assert fits(log) == rows
    removed_in = fitted.to_frame()["round"]
    left = [120 - ((removed_in > 0) & (removed_in <= k)).sum() for k in range(len(rows))]
    assert left == rows


def test_rounds_that_remove_nothing_are_not_scored(tmp_path):
    """.1 of 10 rows is one row: a step of .01 cannot be walked in more than one round."""
    log = tmp_path / "log"
    fitted = InfluencePruner(RecordingClassifier(), CountingScores(str(log)), prune_ratio=0.1, step=0.01)
    assert fitted.fit(X[:10], np.arange(10) % 2).n_pruned_ == 1
    assert len(fits(log)) <= 2


class Rescaled(CountingScores):
    """Scores depend on which rows are left: distance from their mean, far = bad."""

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        super().fit(X, y)
        self.scores_ = -np.abs(X[:, 0] - X[:, 0].mean())
        return self


def test_a_score_is_that_of_the_rows_last_round():
    x = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 100.0])[:, None]
    fitted = InfluencePruner(RecordingClassifier(), Rescaled(), prune_ratio=0.2, step=0.1, stratify=False)
    fitted.fit(x, np.arange(10) % 2)
    # round 1: mean 13.6, row 9 goes (86.4 away); round 2: mean 4, rows 0 and 8 tie at 4 away, the first goes
    assert fitted.get_support(indices=True).tolist() == list(range(1, 9))
    frame = fitted.to_frame().sort_index()
    assert frame["round"].tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    np.testing.assert_allclose(fitted.scores_, [-4, -3, -2, -1, 0, -1, -2, -3, -4, -86.4])
    assert frame["rank"].tolist()[9] == 1
    assert frame["rank"].tolist()[0] == 2


class Sinking(CountingScores):
    """The first column, a hundred lower for every row that went."""

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        super().fit(X, y)
        self.scores_ = self.scores_ - 100 * (10 - len(X))
        return self


def test_rows_of_earlier_rounds_rank_before_lower_scores_of_later_ones():
    fitted = InfluencePruner(RecordingClassifier(), Sinking(), prune_ratio=0.2, step=0.1, stratify=False)
    frame = fitted.fit(np.arange(10.0)[:, None], np.arange(10) % 2).to_frame()
    assert frame["score"].tolist()[:2] == [0, -99]
    assert frame["rank"].tolist() == list(range(1, 11))


# ---- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [lambda y: y, lambda y: y[:, None], list], ids=["array", "column", "list"])
@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
def test_the_table_has_one_row_per_row(convert):
    fitted = pruner(prune_ratio=0.1).fit(X, convert(Y))
    frame = fitted.to_frame()
    assert list(frame) == ["given_label", "score", "rank", "kept", "round"]
    assert frame["rank"].tolist() == list(range(1, 121))
    frame = frame.sort_index()
    np.testing.assert_array_equal(frame.index, np.arange(120))
    np.testing.assert_array_equal(frame["given_label"], Y)
    np.testing.assert_array_equal(frame["score"], fitted.scores_)
    np.testing.assert_array_equal(frame["kept"], fitted.support_)
    np.testing.assert_array_equal(frame["round"], (~fitted.support_).astype(int))
    assert sorted(frame["rank"]) == list(range(1, 121))
    assert sorted(frame["rank"][~fitted.support_]) == list(range(1, 13))
    for part in (frame[frame["kept"]], frame[~frame["kept"]]):
        assert part.sort_values("rank")["score"].is_monotonic_increasing


def test_the_table_has_the_users_index():
    index = pd.Index(np.random.default_rng(0).permutation(120) + 1000, name="id")
    frame = pruner().fit(pd.DataFrame(X, index=index), pd.Series(Y, index)).to_frame()
    assert set(frame.index) == set(index)
    assert frame.index.name == "id"
    pd.testing.assert_series_equal(frame["given_label"], pd.Series(Y, index)[frame.index], check_names=False)
    assert pruner().fit(X, pd.Series(Y, index)).to_frame().index.equals(frame.index)


def test_the_table_shows_what_the_guard_kept():
    with pytest.warns(PruningWarning):
        frame = refused_pruner().fit(X, Y).to_frame()
    assert frame["kept"].all()
    assert (frame["round"] == 0).all()


# ---- scores ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.1, 0.5])
def test_equal_scores_are_refused(ratio):
    with pytest.raises(ValueError, match="all 120 scores of PrecomputedScores are 3, so rows cannot be ranked"):
        InfluencePruner(RecordingClassifier(), PrecomputedScores(np.full(120, 3.0)), prune_ratio=ratio).fit(X, Y)


def test_equal_scores_are_no_error_when_nothing_goes():
    fitted = InfluencePruner(RecordingClassifier(), PrecomputedScores(), prune_ratio=0).fit(X, Y)
    assert fitted.support_.all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("memory", [False, True])
def test_scores_that_are_not_finite_are_refused(value, memory, tmp_path):
    bad = X.copy()
    bad[[2, 5], 0] = value
    with pytest.raises(ValueError, match="CountingScores returned 2 scores that are NaN or infinite"):
        pruner(memory=str(tmp_path) if memory else None).fit(bad, Y)


def test_an_attributor_without_scores_is_named():
    class Silent(CountingScores):
        def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
            return self

    with pytest.raises(ValueError, match=r"Silent has no scores_ after fit .*give it an objective"):
        InfluencePruner(RecordingClassifier(), Silent()).fit(X, Y)


@pytest.mark.parametrize("attributor", [ComplexityGap, "complexity gap"])
def test_what_is_no_attributor_is_refused(attributor):
    with pytest.raises(TypeError, match="is not an attributor; give an instance"):
        InfluencePruner(RecordingClassifier(), attributor).fit(X, Y)


# ---- what the attributor gets ---------------------------------------------------------------------------------------


def test_what_the_attributor_left_open_is_filled_in():
    model = LogisticRegression(C=7)
    fitted = InfluencePruner(model, ModelScores(), random_state=5).fit(X, Y)
    assert fitted.attributor_.estimator.C == 7
    assert fitted.attributor_.estimator is not model
    assert fitted.attributor_.task == "classification"
    assert isinstance(fitted.attributor_.random_state, int)
    assert InfluencePruner(Ridge(), ModelScores()).fit(X, X[:, 0]).attributor_.task == "regression"
    own = ModelScores(Ridge(alpha=3), task="regression", random_state=1)
    fitted = InfluencePruner(model, own, random_state=5).fit(X, Y)
    assert fitted.attributor_.estimator.alpha == 3
    assert (fitted.attributor_.task, fitted.attributor_.random_state) == ("regression", 1)


def test_nothing_given_is_changed():
    model, attributor = LogisticRegression(), ComplexityGap()
    kept = X.copy(), Y.copy()
    InfluencePruner(model, attributor, random_state=0).fit(X, Y)
    assert not hasattr(model, "coef_")
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    InfluencePruner(pipe, attributor).fit(X, Y)
    assert not hasattr(pipe[0], "mean_")
    assert not hasattr(attributor, "scores_")
    assert attributor.get_params() == ComplexityGap().get_params()
    np.testing.assert_array_equal(X, kept[0])
    np.testing.assert_array_equal(Y, kept[1])


def test_many_whole_numbers_are_classes_for_a_classifier_and_numbers_for_a_regressor():
    y = np.arange(120) // 4
    assert InfluencePruner(KNeighborsClassifier(1), prune_ratio=0.05).fit(X, y).attributor_.task_ == "classification"
    assert InfluencePruner(Ridge(), prune_ratio=0.05).fit(X, y).attributor_.task_ == "regression"


# ---- metadata -------------------------------------------------------------------------------------------------------

WEIGHT, GROUP = np.arange(120.0) + 1, np.array([f"g{i}" for i in range(120)])


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("routing", [False, True])
def test_metadata_is_cut_with_the_rows(routing, as_list):
    convert = list if as_list else np.asarray
    model, attributor = RecordingClassifier(), CountingScores()
    if routing:
        sklearn.set_config(enable_metadata_routing=True)
        model.set_fit_request(sample_weight=True, group=True)
        attributor.set_fit_request(sample_weight=True)
    fitted = InfluencePruner(model, attributor, prune_ratio=0.2, step=0.1)
    fitted.fit(X, Y, sample_weight=convert(WEIGHT), group=convert(GROUP))
    np.testing.assert_array_equal(fitted.estimator_.sample_weight_, WEIGHT[fitted.support_])
    np.testing.assert_array_equal(fitted.estimator_.group_, GROUP[fitted.support_])
    first_round_left = fitted.to_frame().sort_index()["round"] != 1
    np.testing.assert_array_equal(fitted.attributor_.sample_weight_, WEIGHT[first_round_left])


def test_metadata_that_is_not_per_row_passes_whole():
    fitted = pruner().fit(X, Y, group="all")
    assert fitted.estimator_.group_ == "all"


@pytest.mark.parametrize("routing", [False, True])
def test_scores_given_to_fit_reach_precomputed_scores(routing):
    attributor, given = PrecomputedScores(), {"scores": RIGHT}
    if routing:
        sklearn.set_config(enable_metadata_routing=True)
        attributor.set_fit_request(scores="my_scores")
        given = {"my_scores": RIGHT}
    fitted = InfluencePruner(RecordingClassifier(), attributor, prune_ratio=0.2, stratify=False).fit(X, Y, **given)
    np.testing.assert_array_equal(~fitted.support_, Y != TRUE)


def test_routed_metadata_is_cut_by_a_search_too():
    sklearn.set_config(enable_metadata_routing=True)
    model = RecordingClassifier().set_fit_request(sample_weight=True, group=True).set_score_request(sample_weight=True)
    attributor = PrecomputedScores().set_fit_request(scores=True, sample_weight=False)
    search = GridSearchCV(
        make_pipeline(StandardScaler().set_fit_request(sample_weight=False), InfluencePruner(model, attributor)),
        {"influencepruner__prune_ratio": [0.1, 0.2]},
        cv=3,
        error_score="raise",
        refit=lambda results: 1,
    )
    fitted = search.fit(X, Y, sample_weight=WEIGHT, group=GROUP, scores=RIGHT).best_estimator_[-1]
    np.testing.assert_array_equal(fitted.estimator_.sample_weight_, WEIGHT[fitted.support_])
    np.testing.assert_array_equal(fitted.estimator_.group_, GROUP[fitted.support_])
    np.testing.assert_array_equal(fitted.scores_, RIGHT)


def test_routed_validation_rows_pass_a_search():
    sklearn.set_config(enable_metadata_routing=True)
    cleaner = InfluencePruner(LogisticRegression(), guard=1.0).set_fit_request(X_val=True, y_val=True)
    search = GridSearchCV(cleaner, {"prune_ratio": [0.1]}, cv=3, error_score="raise")
    assert search.fit(X, Y, X_val=X[:20], y_val=TRUE[:20]).best_estimator_.n_pruned_ == 12


def test_weights_are_routed_past_the_default_attributor():
    """None means LabelPosterior(), whose requests the user cannot set: it must not stand in the way."""
    sklearn.set_config(enable_metadata_routing=True)
    cleaner = InfluencePruner(RecordingClassifier().set_fit_request(sample_weight=True))
    fitted = cleaner.fit(X, Y, sample_weight=WEIGHT)
    np.testing.assert_array_equal(fitted.estimator_.sample_weight_, WEIGHT[fitted.support_])


def test_metadata_of_score_is_routed():
    sklearn.set_config(enable_metadata_routing=True)
    model = LogisticRegression().set_fit_request(sample_weight=False).set_score_request(sample_weight="w")
    cleaner = InfluencePruner(model, ComplexityGap().set_fit_request(sample_weight=False))
    weight = (Y == 0).astype(float)
    scores = cross_validate(cleaner, X, Y, params={"w": weight}, cv=2, return_estimator=True, return_indices=True)
    for i, (fitted, test) in enumerate(zip(scores["estimator"], scores["indices"]["test"], strict=True)):
        zeros = test[Y[test] == 0]
        assert scores["test_score"][i] == pytest.approx((fitted.predict(X[zeros]) == 0).mean())


def test_a_weight_that_the_estimator_cannot_take_is_an_error():
    with pytest.raises(ValueError, match="sample_weight was given, but KNeighborsClassifier"):
        InfluencePruner(KNeighborsClassifier()).fit(X, Y, sample_weight=WEIGHT)


# ---- memory ---------------------------------------------------------------------------------------------------------

RATIOS = {"prune_ratio": [0, 0.05, 0.1, 0.2, 0.3]}


@pytest.mark.parametrize("frames", [False, True], ids=["arrays", "pandas"])
@pytest.mark.parametrize(("cached", "expected"), [(True, 6), (False, 26)])
def test_a_search_over_ratios_scores_every_fold_once(tmp_path, cached, expected, frames):
    """5 ratios x 5 folds and the refit: 26 fits, 6 different sets of rows."""
    log = tmp_path / "log"
    memory = str(tmp_path / "memory") if cached else None
    cleaner = InfluencePruner(RecordingClassifier(), CountingScores(str(log)), memory=memory)
    data = (pd.DataFrame(X).add_prefix("f"), pd.Series(np.array(["a", "b", "c"])[Y])) if frames else (X, Y)
    search = GridSearchCV(cleaner, RATIOS, cv=5, error_score="raise").fit(*data)
    assert len(fits(log)) == expected
    assert sorted(set(fits(log))) == [96, 120]
    assert search.best_estimator_.attributor_.scores_ is not None


def test_scores_from_memory_are_the_same(tmp_path):
    def supports(memory):
        cleaner = InfluencePruner(LogisticRegression(), memory=memory, prune_ratio=0.2)
        return [cleaner.fit(X, Y).support_, clone(cleaner).fit(X, Y).support_, cleaner.fit(X[::2], Y[::2]).scores_]

    for cached, computed in zip(supports(str(tmp_path)), supports(None), strict=True):
        np.testing.assert_array_equal(cached, computed)


@pytest.mark.parametrize(
    ("change", "recomputed"),
    [
        (lambda c: (c, X, Y, {}), False),
        (lambda c: (c, X.copy(), Y.copy(), {}), False),
        (lambda c: (clone(c).set_params(prune_ratio=0.3, stratify=False), X, Y, {}), False),
        (lambda c: (clone(c).set_params(attributor__damping=0.5), X, Y, {}), True),
        (lambda c: (c, X, np.roll(Y, 1), {}), True),
        (lambda c: (c, X + [0, 0, 0, 1e-9], Y, {}), True),
        (lambda c: (c, X[::-1], Y[::-1], {}), True),
        (lambda c: (c, X, Y, {"sample_weight": WEIGHT}), True),
    ],
    ids=["same", "equal copies", "decision only", "damping", "labels", "features", "row order", "weights"],
)
def test_the_key_is_the_parameters_the_rows_and_the_metadata(tmp_path, change, recomputed):
    log = tmp_path / "log"
    cleaner = InfluencePruner(RecordingClassifier(), CountingScores(str(log)), memory=str(tmp_path / "memory"))
    cleaner.fit(X, Y)
    changed, X_new, y_new, params = change(cleaner)
    changed.fit(X_new, y_new, **params)
    assert len(fits(log)) == 1 + recomputed


def test_different_weights_are_different_keys(tmp_path):
    log = tmp_path / "log"
    cleaner = InfluencePruner(RecordingClassifier(), CountingScores(str(log)), memory=str(tmp_path / "memory"))
    for weight in (WEIGHT, WEIGHT, WEIGHT[::-1]):
        cleaner.fit(X, Y, sample_weight=weight)
    assert len(fits(log)) == 2


class OtherScores(CountingScores):
    """Same parameters, another class."""


def test_another_method_is_another_key(tmp_path):
    log = tmp_path / "log"
    for attributor in (CountingScores(str(log)), OtherScores(str(log)), CountingScores(str(log))):
        InfluencePruner(RecordingClassifier(), attributor, memory=str(tmp_path / "memory")).fit(X, Y)
    assert len(fits(log)) == 2


def test_what_cannot_be_hashed_warns_and_is_computed_again(tmp_path):
    log = tmp_path / "log"

    def count(X, y):
        with open(log, "a", encoding="utf-8") as file:
            file.write("1\n")
        return X[:, 0]

    cleaner = InfluencePruner(RecordingClassifier(), PrecomputedScores(count), memory=str(tmp_path / "memory"))
    for times in (1, 2):
        with pytest.warns(UserWarning, match=r"PrecomputedScores or its data cannot be hashed .*computed again"):
            cleaner.fit(X, Y)
        assert len(fits(log)) == times
    np.testing.assert_array_equal(cleaner.scores_, X[:, 0])


# ---- guard ----------------------------------------------------------------------------------------------------------


def refused_pruner(**params):
    """Right labels have the lowest scores: a nearest neighbour on what is left must be worse."""
    params = {"guard": True, "prune_ratio": 0.5, "stratify": False, **params}
    return InfluencePruner(KNeighborsClassifier(1), PrecomputedScores(backwards), **params)


def backwards(X, y):
    """-1 where the label is what the true centres say: needs no state, so folds can call it."""
    return np.where(np.asarray(y) == truth(X), -1.0, 0.0) + 1e-3 * np.asarray(X)[:, 1]


def forwards(X, y):
    return -backwards(X, y)


def truth(X):
    nearest = np.square(np.asarray(X)[:, None, :] - np.asarray(X_ALL)[None]).sum(axis=2).argmin(axis=1)
    return TRUE_ALL[nearest]


X_ALL, TRUE_ALL = X, TRUE
CLEAN = Holdout(X + 0.01, TRUE)
GUARDS = [True, 0.02, {"accuracy": 0.02}, {"balanced_accuracy": 0, "accuracy": 0.3}]
by_guard = pytest.mark.parametrize(
    ("guard", "validation"),  # every guard out of fold, and of the two kinds each kind of validation rows
    [*((guard, None) for guard in GUARDS)]
    + [(guard, validation) for guard in (True, GUARDS[3]) for validation in (3, 0.3, CLEAN)],
    ids=lambda each: type(each).__name__ if each is CLEAN else str(each),
)


@by_guard
def test_harmful_scores_are_refused(validation, guard):
    cleaner = refused_pruner(guard=guard, validation=validation, random_state=0)
    with pytest.warns(PruningWarning, match=r"all rows are kept: without the \d+ lowest-scored rows .* would go from"):
        cleaner.fit(X, Y)
    assert cleaner.support_.all()
    assert cleaner.n_pruned_ == 0
    full, pruned = cleaner.guard_scores_[next(iter(cleaner.guard_scores_))]
    assert full > pruned
    plain = KNeighborsClassifier(1).fit(X, Y)
    np.testing.assert_array_equal(cleaner.predict(X), plain.predict(X))


@by_guard
def test_helpful_scores_are_accepted(validation, guard):
    cleaner = InfluencePruner(
        KNeighborsClassifier(1), PrecomputedScores(forwards), prune_ratio=0.2, stratify=False, random_state=0
    )
    cleaner.set_params(guard=guard, validation=validation).fit(X, Y)
    assert cleaner.n_pruned_ >= 16
    assert (~cleaner.support_ & (Y == TRUE)).sum() <= 2
    assert list(cleaner.guard_scores_) == (list(guard) if isinstance(guard, dict) else ["score"])
    full, pruned = cleaner.guard_scores_[next(iter(cleaner.guard_scores_))]
    assert pruned > full


def test_the_tolerance_is_the_largest_drop_allowed():
    with pytest.warns(PruningWarning):
        full, pruned = refused_pruner(validation=CLEAN).fit(X, Y).guard_scores_["score"]
    drop = full - pruned
    assert drop > 0.1
    assert refused_pruner(validation=CLEAN, guard=drop + 1e-6).fit(X, Y).n_pruned_ == 60
    with pytest.warns(PruningWarning, match=f"a drop of more than {drop - 1e-3:g}"):
        refused_pruner(validation=CLEAN, guard=drop - 1e-3).fit(X, Y)


@pytest.mark.parametrize(
    "guard", [True, np.True_, 0, 0.0, np.float64(0)], ids=lambda guard: f"{type(guard).__name__} {guard}"
)
def test_without_a_tolerance_any_drop_is_too_much(guard):
    scores = iter([0.8, 0.799])
    with pytest.warns(PruningWarning, match=r"from 0\.8000 to 0\.7990, a drop of more than 0$"):
        refused_pruner(validation=CLEAN, guard=guard, scoring=lambda *_: next(scores)).fit(X, Y)


@pytest.mark.parametrize("guard", [False, np.False_])
def test_without_a_guard_harmful_scores_are_followed(guard):
    cleaner = refused_pruner(guard=guard).fit(X, Y)
    assert cleaner.n_pruned_ == 60
    assert not hasattr(cleaner, "guard_scores_")


def test_the_guard_uses_the_scorer_it_is_given():
    def constant(y, predicted):
        return 1.0

    cleaner = refused_pruner(scoring=make_scorer(constant)).fit(X, Y)
    assert cleaner.n_pruned_ == 60
    with pytest.warns(PruningWarning, match="balanced_accuracy would go from"):
        refused_pruner(scoring="balanced_accuracy").fit(X, Y)


def test_a_guard_score_that_is_nan_keeps_the_rows():
    with pytest.warns(PruningWarning):
        assert refused_pruner(scoring=make_scorer(lambda y, p: np.nan), validation=CLEAN).fit(X, Y).n_pruned_ == 0


def test_rows_that_judge_play_no_part_in_the_choice():
    """Out of fold, each guard model is fitted, and its rows chosen, without the rows that it is judged on."""
    judged = []

    def scorer(model, X_test, y_test):
        judged.append((model, X_test))
        return 1.0

    X_unique = X + np.arange(120)[:, None] * 1e-6
    cleaner = InfluencePruner(RecordingClassifier(), CountingScores(), guard=True, scoring=scorer).fit(X_unique, Y)
    assert cleaner.n_pruned_ == 12
    assert len(judged) == 10, "with and without pruning in each of 5 folds"
    held_out = np.vstack([X_test for _, X_test in judged])
    trusted = NoisyLabelDetector(LabelPosterior(task="classification")).fit(X_unique, Y).labels_ == 1
    assert 0 < (~trusted).sum() < 40, "rows whose label is called wrong do not judge"
    np.testing.assert_array_equal(np.unique(held_out, axis=0), np.unique(X_unique[trusted], axis=0))
    for model, X_test in judged:
        seen = model.estimator_.X_ if isinstance(model, InfluencePruner) else model.X_
        assert not set(map(tuple, seen)) & set(map(tuple, X_test))
        assert len(seen) == (86 if isinstance(model, InfluencePruner) else 96)


def test_rows_held_out_judge_models_that_did_not_see_them():
    judged = []

    def scorer(model, X_test, y_test):
        judged.append((model.X_, X_test))
        return 1.0

    cleaner = InfluencePruner(
        RecordingClassifier(), CountingScores(), guard=True, scoring=scorer, validation=0.25, random_state=0
    ).fit(X, Y)
    held = np.isnan(cleaner.scores_)
    trusted = NoisyLabelDetector(LabelPosterior(task="classification")).fit(X, Y).labels_ == 1
    n_judges = int((held & trusted).sum())
    assert 20 < n_judges < 30
    assert [(len(seen), len(test)) for seen, test in judged] == [(90, n_judges), (81, n_judges)]
    assert all(not set(map(tuple, seen)) & set(map(tuple, test)) for seen, test in judged)
    assert len(cleaner.estimator_.X_) == 111, "in the end the held-out rows train too"


class Falling:
    """A scorer by which pruning loses .01 on average: on two folds of five it gains, on three it loses."""

    def __init__(self):
        self.asked = 0

    def __call__(self, model, X_test, y_test):
        fold, pruned = divmod(self.asked, 2)
        self.asked += 1
        return 0.8 + pruned * (-0.01 + (-0.1, 0.1, -0.1, 0.1, 0.0)[fold])


@pytest.mark.parametrize(("labels", "n_pruned"), [(Y, 12), (TRUE, 0)], ids=["dirty", "clean"])
def test_a_drop_by_chance_counts_only_where_pruning_is_not_expected_to_help(labels, n_pruned):
    cleaner = InfluencePruner(LogisticRegression(), ComplexityGap(), prune_ratio=0.1, guard=True, scoring=Falling())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PruningWarning)
        cleaner.fit(X, labels)
    assert cleaner.n_pruned_ == n_pruned
    full, pruned = next(iter(cleaner.guard_scores_.values()))
    assert full - pruned == pytest.approx(0.01)


def test_a_guard_does_not_hurt_on_clean_data():
    data = train_test_split(*load_digits(return_X_y=True), train_size=400, random_state=0)
    X_train, X_test, y_train, y_test = data
    plain = KNeighborsClassifier(1).fit(X_train, y_train).score(X_test, y_test)
    cleaner = InfluencePruner(KNeighborsClassifier(1), prune_ratio=0.2, guard=True)
    with pytest.warns(PruningWarning):
        assert cleaner.fit(X_train, y_train).score(X_test, y_test) >= plain - 0.005


def test_cleaning_helps_on_noisy_data_guarded_or_not():
    X_train, X_test, y_train, y_test = train_test_split(*load_digits(return_X_y=True), train_size=500, random_state=0)
    noisy = flip(y_train, 0.2)
    plain = KNeighborsClassifier(1).fit(X_train, noisy).score(X_test, y_test)
    oracle = KNeighborsClassifier(1).fit(X_train[noisy == y_train], y_train[noisy == y_train]).score(X_test, y_test)
    for guard in (False, True):
        cleaned = InfluencePruner(KNeighborsClassifier(1), prune_ratio=0.2, guard=guard, stratify=False)
        assert cleaned.fit(X_train, noisy).score(X_test, y_test) > oracle - 0.02
    assert plain < oracle - 0.1


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_a_guard_with_a_class_rarer_than_the_folds():
    """A class of two rows cannot be in all folds' training parts twice: its floor must not stop the guard."""
    y = np.append([2, 2], np.arange(118) % 2)
    cleaner = InfluencePruner(KNeighborsClassifier(1), CountingScores(), min_samples_per_class=2, guard=1.0)
    assert cleaner.fit(X, y).support_[:2].all()


def test_a_class_is_not_pruned_away_in_the_guards_folds():
    """Its six rows score lowest; the folds' models would not know it."""
    labels, n_classes = np.where(np.arange(len(TRUE)) % 20 == 0, 3, TRUE), []

    def scorer(model, X_test, y_test):
        n_classes.append(len(set(getattr(model, "estimator_", model).y_)))
        return 1.0

    lowest = PrecomputedScores(lambda X, y: np.where(y == 3, -1.0, 0.0) + 1e-3 * X[:, 1])
    cleaner = InfluencePruner(RecordingClassifier(), lowest, prune_ratio=0.2, stratify=False, guard=True)
    cleaner.set_params(scoring=scorer, min_samples_per_class=2).fit(X, labels)
    assert n_classes == [4] * 10


def test_guard_folds_in_workers_keep_the_configuration():
    """Metadata routing is set per process: the folds must route as the outer fit does."""
    sklearn.set_config(enable_metadata_routing=True)
    attributor = PrecomputedScores().set_fit_request(scores="my_scores")
    results = []
    for n_jobs in (1, 2):
        cleaner = InfluencePruner(KNeighborsClassifier(1), attributor, prune_ratio=0.2, stratify=False, guard=True)
        results.append(cleaner.set_params(n_jobs=n_jobs).fit(X, Y, my_scores=RIGHT).guard_scores_)
    assert results[0] == results[1]


# ---- data of every kind ---------------------------------------------------------------------------------------------


@cache
def of_digits():
    digits, y = load_digits(return_X_y=True)
    digits, y = digits[y < 3][:90], flip(y[y < 3][:90], 0.1)
    return digits, y, InfluencePruner(KNeighborsClassifier(1), guard=1.0).fit(digits, y)


@pytest.mark.parametrize(
    "convert",
    [
        lambda X, y: (X.tolist(), y.tolist()),
        lambda X, y: (pd.DataFrame(X), pd.Series(y)),
        lambda X, y: (sp.csr_matrix(X), y),
        lambda X, y: (sp.coo_array(X), y),
        lambda X, y: (X, np.array(["z", "a", "m"])[y]),
        lambda X, y: (X, pd.Series(np.array(["z", "a", "m"])[y], dtype="category")),
    ],
    ids=["lists", "pandas", "csr", "coo", "strings", "categories"],
)
def test_data_in_every_form_gives_the_same_decision(convert):
    """Also in the folds of a guard, which accepts what was decided."""
    digits, y, plain = of_digits()
    X_given, y_given = convert(digits, y)
    fitted = InfluencePruner(KNeighborsClassifier(1), guard=1.0).fit(X_given, y_given)
    assert fitted.n_pruned_ > 0
    np.testing.assert_array_equal(fitted.support_, plain.support_)
    assert len(fitted.predict(X_given)) == 90
    assert set(fitted.classes_) == set(np.asarray(y_given))


def test_boolean_labels():
    y = Y > 0
    fitted = InfluencePruner(LogisticRegression()).fit(X, y)
    np.testing.assert_array_equal(fitted.support_, InfluencePruner(LogisticRegression()).fit(X, y.astype(int)).support_)
    assert fitted.predict(X).dtype == bool


def test_images_pass_to_a_model_that_takes_them():
    images, y = load_digits().images[:100], load_digits().target[:100]
    fitted = InfluencePruner(RecordingClassifier()).fit(images, y)
    assert fitted.estimator_.X_.shape == (90, 8, 8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda X, y: (np.where(X[3, 1] == X, np.nan, X), y), r"NaN: column 1 has 1 values .* the first in row 3"),
        (lambda X, y: (X, np.zeros(120)), "y holds 1 class"),
        (lambda X, y: (X, None), "requires y to be passed"),
        (lambda X, y: (X, y[:-1]), "inconsistent numbers of samples"),
        (lambda X, y: (X, np.append([None], np.array(["a", "b", "c"], dtype=object)[y[1:]])), "NaN|None|missing"),
        (lambda X, y: (X, np.append([1], np.array(["a", "b", "c"], dtype=object)[y[1:]])), "Unknown label type|mix"),
        (lambda X, y: (X, X[:, 0]), "Unknown label type|continuous"),
    ],
    ids=["NaN", "one class", "no y", "lengths", "missing label", "mixed labels", "numbers"],
)
def test_bad_input_gives_one_clear_error(damage, message):
    with pytest.raises(ValueError, match=message):
        InfluencePruner(LogisticRegression()).fit(*damage(X, Y))


def test_a_second_fit_leaves_nothing_of_the_first():
    cleaner = pruner(guard=1.0, validation=0.2, step=0.05, random_state=0).fit(pd.DataFrame(X), pd.Series(Y))
    cleaner.set_params(guard=False, validation=None, step=None).fit(X[:60], Y[:60])
    fresh = pruner(random_state=0).fit(X[:60], Y[:60])
    assert set(vars(cleaner)) == set(vars(fresh))
    pd.testing.assert_frame_equal(cleaner.to_frame(), fresh.to_frame())
