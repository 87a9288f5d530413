"""Pruning for an objective: flips planted in one group, where the rounds end, folds, guard, routing, cache."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, train_test_split

from sktda import Holdout, InfluencePruner, PruningWarning
from sktda.attribution import ComplexityGap, Influence, ModelEnsemble
from sktda.cleaning.objectives import Found
from sktda.cleaning.removal import Gap
from sktda.objectives import (
    AdversarialLoss,
    ClassLoss,
    DemographicParity,
    EqualOpportunity,
    SliceLoss,
    ValidationLoss,
    Weighted,
)
from sktda.selection import removal_quota

pytestmark = pytest.mark.usefixtures("few_trees")

N = 600


def planted(n, flips, seed):
    """(X, y, group, flipped): labels follow one feature, and of group 0 a share of the positive ones is denied.

    The feature has the same mean in both groups, so that nothing else makes a gap.
    """
    rng = np.random.default_rng(seed)
    group, signal = rng.integers(0, 2, n), rng.normal(size=n)
    for k in (0, 1):
        signal[group == k] -= signal[group == k].mean()
    y = (signal + 0.3 * rng.normal(size=n) > 0).astype(int)
    flipped = (group == 0) & (y == 1) & (rng.random(n) < flips)
    return np.column_stack([signal, group, rng.normal(size=n)]), np.where(flipped, 0, y), group, flipped


X, Y, GROUP, FLIPPED = planted(N, 0.4, 0)
X_VAL, Y_VAL, GROUP_VAL, _ = planted(400, 0, 1)
X_TEST, Y_TEST, GROUP_TEST, _ = planted(2000, 0, 2)
HOLDOUT = Holdout(X_VAL, Y_VAL, sensitive_features=GROUP_VAL)
PARITY = Influence(objective=DemographicParity())
SEED = {"random_state": 0}


def pruner(attributor=PARITY, **params):
    params = {"prune_ratio": 0.2, "step": 0.02, "validation": HOLDOUT, "stratify": False} | params
    return InfluencePruner(LogisticRegression(), attributor, **params)


def rates(model, X=X_TEST, group=GROUP_TEST, soft=False):
    """Positive predictions of group 1 minus those of group 0."""
    found = model.predict_proba(X)[:, 1] if soft else model.predict(X)
    return found[group == 1].mean() - found[group == 0].mean()


@pytest.fixture(scope="module")
def full():
    return LogisticRegression().fit(X, Y)


@pytest.fixture(scope="module")
def pruned():
    return pruner().fit(X, Y)


# ---- planted answers -------------------------------------------------------------------------------------------------


def test_the_rows_that_make_the_gap_go_and_the_gap_with_them(full, pruned):
    assert rates(full) > 0.1
    assert abs(rates(pruned)) < rates(full) / 2
    assert FLIPPED[~pruned.support_].mean() > 0.5 > 4 * FLIPPED.mean(), "most of those removed are planted"
    assert (~pruned.support_)[FLIPPED].mean() > 0.8, "most of those planted are removed"
    assert pruned.score(X_TEST, Y_TEST) > full.score(X_TEST, Y_TEST)


@pytest.mark.parametrize("objective", [EqualOpportunity(), EqualOpportunity("loss")], ids=str)
def test_equal_opportunity_too(full, objective):
    fitted = pruner(Influence(objective=objective)).fit(X, Y)
    positive = Y_TEST == 1
    before = rates(full, X_TEST[positive], GROUP_TEST[positive])
    assert before > 0.1
    assert abs(rates(fitted, X_TEST[positive], GROUP_TEST[positive])) < before / 2
    assert FLIPPED[~fitted.support_].mean() > 0.5
    assert (~fitted.support_)[FLIPPED].mean() > 0.8


def test_the_rounds_end_where_the_gap_is_closed(full, pruned):
    values = pruned.objective_values_["DemographicParity"]
    np.testing.assert_allclose(values[0], rates(full, X_VAL, GROUP_VAL, soft=True), rtol=1e-6)
    assert (np.diff(values) < 0).all()
    assert 0 < pruned.n_pruned_ < 0.2 * N
    final = rates(pruned, X_VAL, GROUP_VAL, soft=True)
    assert abs(final) < 0.02
    assert values[-1] < 0, "the groups have changed places"
    assert (values[:-1] > 0).all()
    kept = values[-1] if abs(values[-1]) <= abs(values[-2]) else values[-2]
    np.testing.assert_allclose(final, kept, atol=1e-6)
    rounds = pruned.to_frame()["round"]
    assert rounds.max() in (len(values) - 1, len(values) - 2)
    assert sorted(set(rounds)) == list(range(rounds.max() + 1))


def test_a_removal_that_overshoots_is_undone(monkeypatch):
    """With predictions that are far too small, a round takes all it may."""
    whole = LogisticRegression().fit(X, Y)
    scores = Influence._validation_scores
    monkeypatch.setattr(Influence, "_validation_scores", lambda *args: 1e-6 * scores(*args))
    fitted = pruner(prune_ratio=0.7, step=0.55).fit(X, Y)
    first, second = fitted.objective_values_["DemographicParity"]
    assert second < -first < 0, "further apart than before, the other way round"
    assert fitted.n_pruned_ == 0
    assert fitted.support_.all()
    np.testing.assert_allclose(fitted.estimator_.coef_, whole.coef_)
    frame = fitted.to_frame()
    assert frame["kept"].all()
    assert (frame["round"] == 0).all()
    assert frame.sort_values("rank")["score"].is_monotonic_increasing
    smaller = pruner(prune_ratio=0.4, step=0.08).fit(X, Y)
    values = smaller.objective_values_["DemographicParity"]
    assert values[-1] < 0
    assert smaller.n_pruned_ == 48 * (len(values) - (2 if -values[-1] > values[-2] else 1))
    np.testing.assert_allclose(abs(rates(smaller, X_VAL, GROUP_VAL, soft=True)), np.abs(values).min(), atol=1e-6)


def test_at_once_no_more_rows_go_than_are_predicted_to_close_the_gap():
    X, Y, *_ = planted(N, 0.15, 0)
    fitted = pruner(step=None, prune_ratio=0.3).fit(X, Y)
    gap, scores = fitted.objective_values_["DemographicParity"], fitted.scores_
    assert gap.shape == (1,)
    assert 20 < fitted.n_pruned_ < 0.3 * N
    removed = np.sort(scores[~fitted.support_])
    assert gap[0] + removed.sum() <= 0 < gap[0] + removed[:-1].sum()
    assert removed.max() <= scores[fitted.support_].min()
    assert pruner(step=None, prune_ratio=0.01).fit(X, Y).n_pruned_ == 6, "nor more than the ratio"


def test_rows_that_would_widen_the_gap_stay():
    fitted = pruner(step=None, prune_ratio=0.7).fit(X, Y)
    assert fitted.objective_values_["DemographicParity"] + fitted.scores_[fitted.scores_ < 0].sum() > 0
    np.testing.assert_array_equal(~fitted.support_, fitted.scores_ < 0)


def test_a_gap_that_few_rows_do_not_close_takes_them_all():
    fitted = pruner(prune_ratio=0.03, step=0.01).fit(X, Y)
    assert fitted.n_pruned_ == 18
    assert (fitted.objective_values_["DemographicParity"] > 0).all()


@pytest.mark.parametrize("objective", [ValidationLoss(), ClassLoss(1), SliceLoss(0), AdversarialLoss()], ids=str)
def test_what_is_no_gap_has_no_end(objective):
    fitted = pruner(Influence(objective=objective), prune_ratio=0.1, step=0.05).fit(X, Y)
    assert fitted.n_pruned_ == 60
    assert len(fitted.objective_values_[type(objective).__name__]) == 2
    assert [name for name in fitted.to_frame() if name.startswith("score")] == ["score"]


def test_classes_keep_their_floor_and_shares():
    fitted = pruner(stratify=True, step=None, prune_ratio=0.1).fit(X, Y)
    counts = np.bincount(Y)
    np.testing.assert_array_equal(np.bincount(Y[~fitted.support_]), removal_quota(counts, 60, 1))
    floor = pruner(prune_ratio=0.3, step=0.1, min_samples_per_class=int(counts[1]) - 5).fit(X, Y)
    assert floor.n_pruned_ > 20
    assert Y[~floor.support_].sum() <= 5


def test_five_groups():
    """Group 0 of five is denied: its rows go, and the largest gap gets smaller."""
    rng = np.random.default_rng(3)
    group = rng.permutation(np.arange(1000) % 5)
    signal = np.empty(1000)
    signal[np.argsort(group, kind="stable")] = np.tile(rng.normal(size=200), 5)  # no gap but the planted one
    y = (signal + 0.3 * rng.normal(size=1000) > 0).astype(int)
    flipped = (group == 0) & (y == 1) & (rng.random(1000) < 0.6)
    one_hot = np.column_stack([signal, np.eye(5)[group]])
    given, val = np.where(flipped, 0, y), slice(700, None)
    holdout = Holdout(one_hot[val], y[val], sensitive_features=group[val])
    fitted = pruner(prune_ratio=0.06, step=0.01, validation=holdout).fit(one_hot[:700], given[:700])
    values = fitted.objective_values_["DemographicParity"]
    assert flipped[:700][~fitted.support_].mean() > 0.5 > 4 * flipped.mean()
    assert values[-1] < 0.75 * values[0]
    assert fitted.attributor_.objectives_["DemographicParity"].groups[1] == "0"


# ---- where the metadata come from ------------------------------------------------------------------------------------


def texts(group):
    return np.array(["f", "m"])[group]


@pytest.mark.parametrize(
    ("validation", "form"),
    [
        (None, np.asarray),
        (3, texts),
        (0.3, list),
        (KFold(4, shuffle=True, random_state=0), list),
    ],
)
def test_features_of_the_training_rows(full, validation, form):
    fitted = pruner(validation=validation, **SEED).fit(X, Y, sensitive_features=form(GROUP))
    assert FLIPPED[~fitted.support_].mean() > 4 * FLIPPED.mean()
    assert abs(rates(fitted)) < rates(full) / 2
    values = fitted.objective_values_["DemographicParity"]
    assert values[0] > 0.05
    if validation != 0.3:
        assert abs(values[-1]) < 0.01, "rows that are gone still count as rows of their group"
        assert abs(rates(fitted)) < 0.03
    assert abs(values[-1]) < values[0]
    assert np.isnan(fitted.scores_).sum() == (180 if validation == 0.3 else 0)
    assert fitted.support_[np.isnan(fitted.scores_)].all()


def test_folds_by_hand():
    fitted = pruner(validation=KFold(3), step=None, prune_ratio=0.05).fit(X, Y, sensitive_features=GROUP)
    total, times, values = np.zeros(N), np.zeros(N), []
    for train, val in KFold(3).split(X):
        part = clone(PARITY).set_params(estimator=LogisticRegression())
        part.fit(X[train], Y[train], X_val=X[val], y_val=Y[val], metadata_val={"sensitive_features": GROUP[val]})
        total[train] += part.scores_
        times[train] += 1
        values.append(part.objectives_["DemographicParity"].value)
    np.testing.assert_allclose(fitted.scores_, total / times)
    np.testing.assert_allclose(fitted.objective_values_["DemographicParity"], [np.mean(values)])


def test_the_order_of_rows_with_their_features_changes_nothing(pruned):
    order = np.random.default_rng(0).permutation(N)
    mixed = pruner().fit(X[order], Y[order])
    np.testing.assert_array_equal(mixed.support_, pruned.support_[order])
    np.testing.assert_allclose(
        mixed.objective_values_["DemographicParity"], pruned.objective_values_["DemographicParity"]
    )
    val = np.random.default_rng(1).permutation(len(X_VAL))
    held = Holdout(X_VAL[val], Y_VAL[val], sensitive_features=GROUP_VAL[val])
    np.testing.assert_array_equal(pruner(validation=held).fit(X, Y).support_, pruned.support_)


def test_frames_with_an_index_of_their_own():
    index = [f"row {k}" for k in range(N)]
    frame, y = pd.DataFrame(X, index=index, columns=list("abc")), pd.Series(Y, index=index)
    group = pd.Series(GROUP, index=index[::-1], name="sex").astype("category")
    cleaner = pruner(validation=3, step=0.1)
    plain = clone(cleaner).fit(X, Y, sensitive_features=GROUP)
    fitted = clone(cleaner).fit(frame, y, sensitive_features=group)
    np.testing.assert_array_equal(fitted.support_, plain.support_)
    assert sorted(fitted.to_frame().index) == sorted(index)
    both = clone(cleaner).fit(frame, y, sensitive_features=pd.DataFrame({"sex": GROUP, "one": 1}, index=index))
    np.testing.assert_array_equal(both.support_, plain.support_)


def test_features_that_did_not_come():
    for validation in (None, 3, Holdout(X_VAL, Y_VAL)):
        with pytest.raises(ValueError, match=r"sensitive_features; give .*Holdout\(X_val, y_val, sensitive_features="):
            pruner(validation=validation).fit(X, Y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        pruner(validation=3).fit(X, Y, sensitive_features=GROUP[:-1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        Holdout(X_VAL, Y_VAL, sensitive_features=GROUP_VAL[:-1])
    with pytest.raises(ValueError, match="all validation rows have sensitive_features=1"):
        pruner(validation=3).fit(X, Y, sensitive_features=np.ones(N, dtype=int))


def test_a_search_cuts_the_features_with_its_folds():
    with sklearn.config_context(enable_metadata_routing=True):
        cleaner = pruner(validation=3, step=0.05).set_fit_request(sensitive_features=True)
        search = GridSearchCV(cleaner, {"prune_ratio": [0.0, 0.1]}, cv=3, error_score="raise", refit=lambda results: 1)
        best = search.fit(X, Y, sensitive_features=GROUP).best_estimator_
    assert FLIPPED[~best.support_].mean() > 0.5
    np.testing.assert_array_equal(
        best.support_, pruner(validation=3, step=0.05, prune_ratio=0.1).fit(X, Y, sensitive_features=GROUP).support_
    )


def test_a_method_without_validation_rows_says_that_they_have_no_effect():
    with pytest.warns(UserWarning, match="ComplexityGap scores rows without validation rows"):
        fitted = pruner(ComplexityGap(), validation=3).fit(X, Y, sensitive_features=GROUP)
    assert fitted.objective_values_ == {}
    assert fitted.n_pruned_ == 120


# ---- guard -----------------------------------------------------------------------------------------------------------


def test_a_guard_on_accuracy():
    """Labels of the validation rows are as unfair as those of training, so that parity costs accuracy."""
    X_val, y_val, group_val, _ = planted(400, 1.0, 5)
    X_train, y_train, _, _ = planted(N, 1.0, 6)
    held = Holdout(X_val, y_val, sensitive_features=group_val)
    free = pruner(validation=held, prune_ratio=0.3).fit(X_train, y_train)
    whole = LogisticRegression().fit(X_train, y_train)
    drop = whole.score(X_val, y_val) - free.score(X_val, y_val)
    assert drop > 0.02
    with pytest.warns(PruningWarning, match="all rows are kept: .* accuracy would go from .* a drop of more than 0.01"):
        fitted = pruner(validation=held, prune_ratio=0.3, guard={"accuracy": 0.01}).fit(X_train, y_train)
    assert fitted.support_.all()
    assert fitted.n_pruned_ == 0
    np.testing.assert_allclose(np.subtract(*fitted.guard_scores_["accuracy"]), drop)
    allowed = pruner(validation=held, prune_ratio=0.3, guard={"accuracy": drop + 0.01}).fit(X_train, y_train)
    np.testing.assert_array_equal(allowed.support_, free.support_)


def test_a_guard_by_folds_takes_the_features_along():
    fitted = pruner(validation=3, guard={"accuracy": 0.5}, step=0.05).fit(X, Y, sensitive_features=GROUP)
    assert 0 < fitted.n_pruned_ <= 120
    whole, cleaned = fitted.guard_scores_["accuracy"]
    assert 0.5 < cleaned <= 1
    assert 0.5 < whole <= 1


# ---- several objectives, ensembles, cache ----------------------------------------------------------------------------


def test_scores_and_values_of_several_objectives_are_shown():
    objective = Weighted({"gap": DemographicParity(), "loss": ValidationLoss()}, [1.0, 0.1])
    fitted = pruner(Influence(objective=objective), prune_ratio=0.04).fit(X, Y)
    assert fitted.n_pruned_ == 24
    assert {name: len(values) for name, values in fitted.objective_values_.items()} == {"gap": 2, "loss": 2}
    frame = fitted.to_frame().sort_index()
    assert list(frame.columns) == ["given_label", "score", "rank", "kept", "round", "score gap", "score loss"]
    np.testing.assert_allclose(frame["score"], frame["score gap"] + 0.1 * frame["score loss"])
    assert np.isfinite(frame).all(axis=None)
    alone = pruner(prune_ratio=0.02).fit(X, Y)
    first = frame["round"] == 1
    np.testing.assert_allclose(frame.loc[first, "score gap"], alone.scores_[first], rtol=1e-6)
    again = fitted.set_params(attributor=PARITY).fit(X, Y)
    assert "score gap" not in again.to_frame()
    assert list(again.objective_values_) == ["DemographicParity"]


def test_columns_of_held_out_rows_are_empty():
    objective = Weighted([DemographicParity(), ValidationLoss()])
    fitted = pruner(Influence(objective=objective), validation=0.25, **SEED).fit(X, Y, sensitive_features=GROUP)
    frame = fitted.to_frame()
    for name in ("score DemographicParity", "score ValidationLoss"):
        np.testing.assert_array_equal(np.isnan(frame[name]), frame["held_out"])


def test_a_weight_alone_changes_nothing(pruned):
    fitted = pruner(Influence(objective=Weighted([DemographicParity()], [3.0]))).fit(X, Y)
    np.testing.assert_array_equal(fitted.support_, pruned.support_)


def test_an_ensemble(full):
    ensemble = ModelEnsemble(PARITY, n_members=3, random_state=0)
    fitted = pruner(ensemble, step=0.05).fit(X, Y)
    assert 0 < fitted.n_pruned_ < 120
    assert FLIPPED[~fitted.support_].mean() > 0.5
    assert abs(rates(fitted)) < rates(full) / 2
    assert fitted.objective_values_["DemographicParity"][0] > 0.05


def test_memory_keeps_scores_and_knows_other_features(tmp_path, monkeypatch):
    calls, scores = [], Influence._validation_scores
    monkeypatch.setattr(Influence, "_validation_scores", lambda *args: calls.append(1) or scores(*args))
    cached = pruner(memory=str(tmp_path), validation=3, step=None, prune_ratio=0.05)
    first = cached.fit(X, Y, sensitive_features=GROUP)
    support, values = first.support_, first.objective_values_["DemographicParity"]
    assert len(calls) == 3
    again = clone(cached).fit(X, Y, sensitive_features=GROUP)
    assert len(calls) == 3
    np.testing.assert_array_equal(again.support_, support)
    np.testing.assert_array_equal(again.objective_values_["DemographicParity"], values)
    clone(cached).set_params(prune_ratio=0.1).fit(X, Y, sensitive_features=GROUP)
    assert len(calls) == 3
    clone(cached).fit(X, Y, sensitive_features=np.roll(GROUP, 1))
    assert len(calls) == 6
    clone(cached).set_params(attributor__objective=EqualOpportunity()).fit(X, Y, sensitive_features=GROUP)
    assert len(calls) == 9


def test_random_rows_do_not_close_the_gap(full, pruned):
    """What the removal owes to the choice of rows."""
    rest = train_test_split(np.arange(N), test_size=pruned.n_pruned_, random_state=0)[0]
    assert abs(rates(LogisticRegression().fit(X[rest], Y[rest]))) > rates(full) / 2


# ---- the bookkeeping -------------------------------------------------------------------------------------------------


def one(value, groups=None, scores=(1.0, 2.0)):
    return SimpleNamespace(value=value, groups=groups, scores=np.array(scores))


AB, BA, BC = ("a", "b"), ("b", "a"), ("b", "c")


def test_folds_that_disagree_about_who_is_ahead():
    rows = [np.array([0, 1]), np.array([1, 2]), np.array([0, 2])]
    parts = [one(0.1, BA), one(0.5, AB, (10.0, 20.0)), one(0.2, AB, (100.0, 200.0))]
    found = Found(list(zip(rows, parts, strict=True)), 4)
    assert found.groups == AB
    assert found.signs == [-1, 1, 1]
    assert found.value == pytest.approx((0.5 + 0.2 - 0.1) / 3)
    np.testing.assert_allclose(found.scores, [(100 - 1) / 2, (10 - 2) / 2, (20 + 200) / 2, 0])
    plain = Found([(rows[0], one(0.3)), (rows[1], one(-0.1))], 3)
    assert (plain.value, plain.groups, plain.signs) == (pytest.approx(0.1), None, [1, 1])


def followed(*found):
    gap = Gap()
    for each in found:
        gap.see(Found([(np.arange(2), each)], 2))
    return gap


def test_when_a_gap_is_closed():
    assert not followed(one(0.3, AB)).closed
    assert not followed(one(0.3, AB), one(0.1, AB)).closed
    assert followed(one(0.0, AB)).closed
    near, far = followed(one(0.3, AB), one(0.1, BA)), followed(one(0.3, AB), one(0.4, BA))
    assert near.closed
    assert far.closed
    assert not near.went_too_far
    assert far.went_too_far
    assert near.values == [0.3, -0.1]
    assert not followed(one(0.3), one(-0.1)).closed
    others = followed(one(0.3, AB), one(0.2, BC))
    assert not others.closed, "two other groups of three are the furthest apart now"
    others.see(Found([(np.arange(2), one(0.1, ("c", "b")))], 2))
    assert others.closed


def test_how_many_rows_are_enough():
    gap = Gap()
    gap.see(Found([(np.arange(5), one(0.5, AB, [-0.1, -0.4, 0.2, -0.2, -0.3]))], 5))
    np.testing.assert_array_equal(gap.enough(np.array([0, 1, 3, 4])), [1, 4])
    np.testing.assert_array_equal(gap.enough(np.array([0, 2, 3])), [3, 0])
    loss = Gap()
    loss.see(Found([(np.arange(2), one(0.5, None, [-1.0, -1.0]))], 2))
    np.testing.assert_array_equal(loss.enough(np.array([0, 1])), [0, 1])
