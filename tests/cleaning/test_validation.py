"""Validation rows of every form reach the attributor and the guard, and slips are called out."""

import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, ShuffleSplit, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sktda import Holdout, InfluencePruner, InfluencePrunerCV, InfluenceReweighter
from sktda.attribution import ComplexityGap, Influence
from sktda.attribution.base import Needs
from sktda.cleaning.validation import warn_if_unlike
from tests.spies import ModelScores, RecordingClassifier, ValidationScores, noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees")

X, Y, _ = noisy_blobs(60)
X_VAL, Y_VAL, _ = noisy_blobs(20, 0)


def pruner(**params):
    return InfluencePruner(RecordingClassifier(), ValidationScores(), **params)


@pytest.mark.parametrize("convert", [list, lambda y: y.astype(object), lambda y: pd.Series(y).astype("category")])
def test_labels_of_validation_rows_in_any_container_judge_alike(convert):
    model = LogisticRegression()
    plain, other = (
        InfluencePruner(model, Influence(damping=0.1), guard=1.0, validation=Holdout(X_VAL, y)).fit(X, Y)
        for y in (Y_VAL, convert(Y_VAL))
    )
    assert other.guard_scores_ == plain.guard_scores_
    np.testing.assert_allclose(other.scores_, plain.scores_)


# ---- cross-fitting --------------------------------------------------------------------------------------------------


def averaged(folds):
    """What ValidationScores gives under cross-fitting, row by row: mean over the folds that a row trains in."""
    seen = [[X[i, 0] + X[val, 0].sum() for train, val in folds if i in train] for i in range(len(X))]
    return np.array([np.mean(values) for values in seen])


@pytest.mark.parametrize(
    ("validation", "folds", "n_jobs"),
    [
        (4, list(StratifiedKFold(4).split(X, Y)), None),
        (KFold(5, shuffle=True, random_state=1), list(KFold(5, shuffle=True, random_state=1).split(X)), 2),
        (
            ShuffleSplit(12, test_size=0.3, random_state=2),
            list(ShuffleSplit(12, test_size=0.3, random_state=2).split(X)),
            None,
        ),
    ],
    ids=["int", "KFold, two jobs", "ShuffleSplit"],
)
def test_cross_fitting_averages_over_the_folds_that_a_row_trains_in(validation, folds, n_jobs):
    fitted = pruner(validation=validation, n_jobs=n_jobs).fit(X, Y)
    np.testing.assert_allclose(fitted.scores_, averaged(folds), rtol=1e-12)
    assert fitted.n_pruned_ == 6


def test_cross_fitting_is_stratified_for_classifiers_only():
    order = np.argsort(Y, kind="stable")  # sorted labels: unshuffled KFold would hold out whole classes
    received = pruner(validation=3).fit(X[order], Y[order]).attributor_.received_
    assert set(received["y_val"]) == {0, 1, 2}
    regression = InfluencePruner(Ridge(), ValidationScores(), validation=3).fit(X, np.sort(X[:, 0]))
    np.testing.assert_array_equal(regression.attributor_.received_["y_val"], np.sort(X[:, 0])[40:])


def test_a_row_that_never_trains_is_an_error():
    with pytest.raises(ValueError, match=r"12 rows are in no training part of validation=.*so they have no score"):
        pruner(validation=ShuffleSplit(1, test_size=0.2, random_state=0)).fit(X, Y)


CLEANERS = [InfluencePruner, partial(InfluencePrunerCV, prune_ratios=(0, 0.1), cv=2), InfluenceReweighter]


@pytest.mark.parametrize("cleaner", CLEANERS, ids=["pruner", "tuned", "reweighter"])
@pytest.mark.parametrize(
    "validation", [3, 0.25, KFold(3), Holdout(X_VAL, Y_VAL)], ids=["int", "float", "KFold", "rows"]
)
def test_every_cleaner_takes_the_same_kinds(cleaner, validation):
    fitted = cleaner(LogisticRegression(), ValidationScores(), validation=validation).fit(X, Y)
    assert "X_val" in fitted.attributor_.received_
    assert "held_out" in fitted.to_frame() if validation == 0.25 else "held_out" not in fitted.to_frame()


@pytest.mark.parametrize("cleaner", CLEANERS, ids=["pruner", "tuned", "reweighter"])
@pytest.mark.parametrize("form", ["list", "generator"])
def test_explicit_splits_are_refused_by_every_cleaner(form, cleaner):
    """Splits are positions in the rows of the first round: later rounds and folds have other rows."""
    splits = list(KFold(3).split(X)) if form == "list" else KFold(3).split(X)
    with pytest.raises(ValueError, match=r"validation is a list of splits.* give a splitter such as KFold"):
        cleaner(LogisticRegression(), ValidationScores(), validation=splits).fit(X, Y)


@pytest.mark.parametrize(
    ("validation", "message"),
    [(1, "validation"), (0, "validation"), (1.0, "validation"), (-0.1, "validation"), ("all", "validation")],
)
def test_a_validation_out_of_range_is_an_error(validation, message):
    with pytest.raises(ValueError, match=message):
        pruner(validation=validation).fit(X, Y)


# ---- a share held out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.25, np.float64(0.25), np.float32(0.25)], ids=["float", "float64", "float32"])
def test_rows_held_out_have_no_score_and_stay(share):
    fitted = pruner(validation=share, prune_ratio=0.2, random_state=0).fit(X, Y)
    held_out = np.isnan(fitted.scores_)
    assert held_out.sum() == 15
    assert fitted.support_[held_out].all()
    assert fitted.n_pruned_ == round(0.2 * 45) == (~fitted.support_).sum()
    assert len(fitted.estimator_.y_) == 60 - 9
    received = fitted.attributor_.received_
    np.testing.assert_array_equal(np.sort(received["X_val"], axis=0), np.sort(X[held_out], axis=0))
    np.testing.assert_array_equal(received["X"], X[~held_out])
    np.testing.assert_allclose(np.bincount(received["y_val"]), 0.25 * np.bincount(Y), atol=1)  # stratified
    frame = fitted.to_frame().sort_index()
    np.testing.assert_array_equal(frame["held_out"], held_out)
    np.testing.assert_array_equal(frame["score"].isna(), held_out)
    assert frame["rank"][~held_out].max() < frame["rank"][held_out].min()


def test_the_rows_held_out_follow_the_seed():
    masks = [np.isnan(pruner(validation=0.25, random_state=seed).fit(X, Y).scores_) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).any()


def test_without_rows_held_out_the_table_has_no_such_column():
    assert "held_out" not in pruner(validation=3).fit(X, Y).to_frame()


# ---- Holdout --------------------------------------------------------------------------------------------------------


def test_holdout_reaches_the_attributor_whole_with_its_metadata():
    group = np.arange(20)
    fitted = pruner(validation=Holdout(X_VAL, Y_VAL, group=group)).fit(X, Y)
    received = fitted.attributor_.received_
    np.testing.assert_array_equal(received["X_val"], X_VAL)
    np.testing.assert_array_equal(received["y_val"], Y_VAL)
    np.testing.assert_array_equal(received["metadata_val"]["group"], group)
    np.testing.assert_allclose(fitted.scores_, X[:, 0] + X_VAL[:, 0].sum())


def test_holdout_is_not_sliced_by_a_search():
    holdout = Holdout(X, Y)  # as many rows as the data: an array of that length would be sliced
    search = GridSearchCV(
        pruner(validation=holdout), {"prune_ratio": [0.1, 0.2]}, cv=3, error_score="raise", refit=True
    )
    best = search.fit(X, Y).best_estimator_
    assert len(best.attributor_.received_["X_val"]) == 60
    assert best.validation is holdout


def test_holdout_clones_as_itself_and_can_be_pickled():
    holdout = Holdout(X_VAL, Y_VAL, group=np.arange(20))
    assert clone(holdout) is holdout
    assert clone(pruner(validation=holdout)).validation is holdout
    restored = pickle.loads(pickle.dumps(holdout))
    np.testing.assert_array_equal(restored.X, X_VAL)
    assert list(restored.metadata) == ["group"]
    assert repr(holdout) == "Holdout(20 rows)"


@pytest.mark.parametrize(("y", "metadata"), [(Y_VAL[:-1], {}), (Y_VAL, {"group": [1, 2]})])
def test_holdout_parts_must_have_equal_lengths(y, metadata):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        Holdout(X_VAL, y, **metadata)


def test_holdout_rows_pass_through_the_transformers_of_a_pipeline():
    raw = pd.DataFrame({"colour": np.array(["red", "green", "blue"])[Y], "x": X[:, 0]})

    class Numeric(ValidationScores):
        needs = Needs(features=True, validation=True)

        def fit(self, X, y, **params):
            return super().fit(X, y, **{name: value for name, value in params.items() if value is not None})

    cleaner = InfluencePruner(make_pipeline(StandardScaler(), LogisticRegression()), Numeric())
    validation = Holdout(X[:10] * 100 + 7, Y[:10])
    received = cleaner.set_params(validation=validation).fit(X * 100 + 7, Y).attributor_.received_
    scaler = StandardScaler().fit(X * 100 + 7)
    np.testing.assert_allclose(received["X"], scaler.transform(X * 100 + 7))
    np.testing.assert_allclose(received["X_val"], scaler.transform(X[:10] * 100 + 7))
    encoded = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    assert InfluencePruner(encoded, ComplexityGap(), guard=1.0).fit(raw, Y).n_pruned_ == 6
    assert InfluencePruner(encoded, ModelScoresOnText()).fit(raw, Y).n_pruned_ == 6, "the others get the raw rows"


class ModelScoresOnText(ModelScores):
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        assert X["colour"].iloc[0] in {"red", "green", "blue"}
        self.scores_ = X["x"].to_numpy()
        return self


# ---- rows given to fit ----------------------------------------------------------------------------------------------


def test_rows_given_to_fit_reach_the_attributor():
    received = pruner().fit(X, Y, X_val=X_VAL, y_val=Y_VAL).attributor_.received_
    np.testing.assert_array_equal(received["X_val"], X_VAL)
    np.testing.assert_array_equal(received["y_val"], Y_VAL)


@pytest.mark.parametrize(
    ("given", "validation", "message"),
    [
        ({"X_val": X_VAL}, None, "X_val came without y_val; validation needs both"),
        ({"y_val": Y_VAL}, None, "y_val came without X_val; validation needs both"),
        ({"X_val": X_VAL, "y_val": Y_VAL}, 3, "came twice: as X_val, y_val and as validation=3; give one"),
        ({"X_val": X_VAL, "y_val": Y_VAL}, Holdout(X_VAL, Y_VAL), r"came twice.*validation=Holdout\(20 rows\)"),
        ({"X_val": X_VAL, "y_val": Y_VAL[:-1]}, None, "inconsistent numbers of samples"),
    ],
    ids=["no y_val", "no X_val", "and an int", "and a Holdout", "lengths"],
)
def test_half_or_twice_given_rows_are_errors(given, validation, message):
    with pytest.raises(ValueError, match=message):
        pruner(validation=validation).fit(X, Y, **given)


def test_as_many_validation_rows_as_rows_is_called_out():
    with pytest.warns(UserWarning, match=r"X_val has as many rows as X \(60\): .*Holdout\(X_val, y_val\)") as caught:
        pruner().fit(X, Y, X_val=X + 0.1, y_val=Y)
    assert len(caught) == 1


def test_validation_that_nothing_uses_is_called_out():
    message = "LabelPosterior scores rows without validation rows, and guard=False does not use them"
    with pytest.warns(UserWarning, match=message) as caught:
        InfluencePruner(RecordingClassifier(), validation=3).fit(X, Y)
    assert len(caught) == 1
    InfluencePruner(RecordingClassifier(), validation=3, guard=1.0).fit(X, Y)  # the guard does: no warning


# ---- rows that missed the preprocessing -----------------------------------------------------------------------------

RNG = np.random.default_rng(0)
TRAIN = RNG.normal(size=(200, 3))


@pytest.mark.parametrize(
    "change",
    [lambda A: A * [1, 20, 1], lambda A: A * [1, 0.05, 1], lambda A: A + [0, 15, 0]],
    ids=["wider", "narrower", "moved"],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_column_tenfold_off_is_called_out_by_name(change, named):
    train, val = TRAIN, change(RNG.normal(size=(50, 3)))
    if named:
        train, val = pd.DataFrame(train, columns=["a", "b", "c"]), pd.DataFrame(val, columns=["a", "b", "c"])
    name = "b" if named else "1"
    with pytest.warns(
        UserWarning, match=rf"tenfold from X .* in 1 columns \(such as {name}\).* put the Pipeline inside"
    ):
        warn_if_unlike(train, val)


@pytest.mark.parametrize(
    "val",
    [
        RNG.normal(size=(50, 3)),
        RNG.normal(size=(50, 3)) * 8,
        RNG.normal(size=(50, 3)) + 8,
        RNG.normal(size=(50, 2)) * 100,
        RNG.normal(size=(50, 3, 3)) * 100,
        np.array([["a", "b", "c"]]),
        sp.csr_matrix(RNG.normal(size=(50, 3)) * 100),
    ],
    ids=["alike", "eightfold", "eight away", "other columns", "images", "text", "sparse"],
)
def test_what_is_alike_or_cannot_be_compared_passes_in_silence(val):
    warn_if_unlike(TRAIN, val)


def test_a_constant_column_says_nothing():
    constant = TRAIN * [1, 0, 1]
    warn_if_unlike(constant, TRAIN)
    warn_if_unlike(TRAIN, RNG.normal(size=(50, 3)) * [1, 0, 1])


@pytest.mark.parametrize("form", ["constructor", "fit"])
def test_a_cleaner_calls_out_unscaled_validation_rows(form):
    """The usual slip: the cleaner sits behind a scaler, the Holdout was made before it."""
    raw = X * 100 + 1000
    cleaner = InfluencePruner(LogisticRegression(), ValidationScores())
    given = {"X_val": raw[:20], "y_val": Y[:20]} if form == "fit" else {}
    if form == "constructor":
        cleaner.set_params(validation=Holdout(raw[:20], Y[:20]))
    with pytest.warns(UserWarning, match="validation rows differ tenfold from X"):
        cleaner.fit(StandardScaler().fit_transform(raw), Y, **given)


# ---- in a Pipeline ---------------------------------------------------------------------------------------------------

WIDE = X * [1, 100, 1, 1] + [0, 5_000, 0, 0]
WIDE_VAL = X_VAL * [1, 100, 1, 1] + [0, 5_000, 0, 0]


@pytest.mark.parametrize("kind", CLEANERS, ids=["pruner", "over shares", "reweighter"])
def test_a_pipeline_transforms_routed_validation_rows_where_it_is_told_to(kind):
    with sklearn.config_context(enable_metadata_routing=True):
        cleaner = kind(LogisticRegression(), Influence()).set_fit_request(X_val=True, y_val=True)
        pipe = make_pipeline(StandardScaler(), cleaner, transform_input=["X_val"])
        scores = pipe.fit(WIDE, Y, X_val=WIDE_VAL, y_val=Y_VAL)[-1].scores_
        search = GridSearchCV(pipe, {f"{pipe.steps[1][0]}__attributor__damping": [0.0, 0.1]}, cv=2)
        search.set_params(error_score="raise").fit(WIDE, Y, X_val=WIDE_VAL, y_val=Y_VAL)
        with pytest.warns(UserWarning, match="differ tenfold"):
            make_pipeline(StandardScaler(), cleaner).fit(WIDE, Y, X_val=WIDE_VAL, y_val=Y_VAL)
    scaler = StandardScaler().fit(WIDE)
    alone = kind(LogisticRegression(), Influence())
    alone.fit(scaler.transform(WIDE), Y, X_val=scaler.transform(WIDE_VAL), y_val=Y_VAL)
    np.testing.assert_allclose(scores, alone.scores_, rtol=1e-6, atol=1e-9)
