"""Groups of rows stay together wherever folds are made, or the fit refuses: a split group tells its label twice."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold

from sktda import CoresetSelector, Grouped, InfluencePruner, InfluencePrunerCV, InfluenceReweighter, NoisyLabelDetector
from sktda.attribution import ComplexityGap, ConfidentLearning, LabelPosterior, NormalizedMargin, SelfConfidence
from sktda.cleaning import GLISTER
from tests.spies import ValidationScores, noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees")

X, Y, _ = noisy_blobs(60, centers=2)
GROUPS = np.arange(60) // 6
FRAME = pd.DataFrame(X, index=[f"row {i}" for i in range(60)]).add_prefix("f")
BY_INDEX = pd.Series(GROUPS, FRAME.index)[::-1]
SCORED = [InfluencePruner, InfluencePrunerCV, InfluenceReweighter]
MODEL = LogisticRegression()


class Whole(GroupKFold):
    """Says where groups are lost on the way, and where they do not fit the rows."""

    def split(self, X, y=None, groups=None):
        assert groups is not None
        if hasattr(X, "index"):
            np.testing.assert_array_equal(groups, BY_INDEX[X.index])
        return super().split(X, y, groups)


def cleaner(kind, attributor=None, **settings):
    settings = {"prune_ratios": (0, 0.1), "cv": Whole(3), **settings} if kind is InfluencePrunerCV else settings
    return kind(MODEL, ComplexityGap() if attributor is None else attributor, **settings)


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("kind", SCORED)
def test_validation_keeps_groups_together(kind, routing):
    with sklearn.config_context(enable_metadata_routing=routing):
        settings = {"guard": 1.0} if kind is InfluencePruner else {}
        cleaner(kind, ValidationScores(), validation=Whole(3), **settings).fit(FRAME, Y, groups=GROUPS)


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("settings", [{}, {"validation": Whole(3)}])
def test_the_folds_of_the_search_alone_may_use_groups(settings, routing):
    attributor = ValidationScores() if settings else ComplexityGap()
    with sklearn.config_context(enable_metadata_routing=routing):
        fitted = cleaner(InfluencePrunerCV, attributor, **settings).fit(FRAME, Y, groups=GROUPS)
    brought = cleaner(InfluencePrunerCV, attributor, cv=Grouped(Whole(3), BY_INDEX), validation=None).fit(FRAME, Y)
    assert settings or fitted.cv_results_["mean_test_score"].tolist() == brought.cv_results_["mean_test_score"].tolist()


@pytest.mark.parametrize("kind", [SelfConfidence, NormalizedMargin, ConfidentLearning])
def test_attributors_that_make_folds_keep_groups_together(kind):
    fitted = kind(MODEL, cv=Whole(3)).fit(FRAME, Y, groups=GROUPS)
    for train, test in GroupKFold(3).split(X, Y, GROUPS):
        expected = clone(MODEL).fit(X[train], Y[train]).predict_proba(X[test])
        np.testing.assert_allclose(fitted.pred_probs_[test], expected)
    by_array = kind(MODEL, cv=Whole(3)).fit(X, Y, groups=GROUPS)
    np.testing.assert_allclose(by_array.scores_, fitted.scores_)
    with pytest.raises(ValueError, match="was given groups, which its folds would take apart"):
        kind(MODEL).fit(X, Y, groups=GROUPS)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        kind(MODEL, cv=Whole(3)).fit(X, Y, groups=GROUPS[1:])


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("kind", SCORED)
def test_groups_reach_the_folds_of_the_attributor(kind, routing):
    with sklearn.config_context(enable_metadata_routing=routing):
        fitted = cleaner(kind, SelfConfidence(cv=Whole(3))).fit(FRAME, Y, groups=GROUPS)
    expected = SelfConfidence(MODEL, cv=Whole(3)).fit(FRAME, Y, groups=GROUPS).scores_
    np.testing.assert_array_equal(fitted.scores_, expected)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (InfluencePruner, {}, "given groups that nothing uses"),
        (InfluencePruner, {"validation": 3}, "the folds of validation=3 would take them apart"),
        (InfluenceReweighter, {"validation": 0.2}, r"the folds of validation=0\.2 would take them apart"),
        (InfluencePruner, {"guard": True, "attributor": SelfConfidence(cv=Whole(3))}, "the folds of validation=None"),
        (InfluenceReweighter, {"attributor": SelfConfidence()}, r"SelfConfidence\(cv=5\) was given groups"),
        (InfluencePrunerCV, {"cv": None, "validation": Whole(3)}, "the folds of cv=None would take them apart"),
        (InfluencePrunerCV, {"cv": 3, "validation": Whole(3)}, "the folds of cv=3 would take them apart"),
    ],
)
def test_folds_that_would_take_groups_apart_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        cleaner(kind, **settings).fit(X, Y, groups=GROUPS)


@pytest.mark.parametrize(
    "model",
    [
        *(cleaner(kind, SelfConfidence(cv=Grouped(Whole(2), BY_INDEX))) for kind in SCORED[::2]),
        cleaner(InfluencePruner, ValidationScores(), validation=Grouped(Whole(2), BY_INDEX), guard=1.0),
        cleaner(InfluencePrunerCV, cv=Grouped(Whole(2), BY_INDEX)),
        NoisyLabelDetector(LabelPosterior(SelfConfidence(MODEL, cv=Grouped(Whole(2), BY_INDEX)))),
        CoresetSelector(strategy=GLISTER(MODEL, validation=Grouped(Whole(2), BY_INDEX)), random_state=0),
    ],
    ids=str,
)
def test_groups_that_come_with_the_splitter(model):
    clone(model).fit(FRAME, Y)
    with pytest.raises(ValueError, match="X has none; give a DataFrame"):
        clone(model).fit(X, Y)
    if hasattr(model, "predict"):
        GridSearchCV(model, {"random_state": [0]}, cv=2, error_score="raise").fit(FRAME, Y)


def test_groups_that_do_not_fit_the_rows():
    with pytest.raises(TypeError, match="must be a pandas Series"):
        Grouped(GroupKFold(), GROUPS)
    with pytest.raises(ValueError, match="several entries for 1"):
        Grouped(GroupKFold(), pd.Series([1, 2], index=[1, 1]))
    with pytest.raises(ValueError, match="no entry for 59 rows of X, such as 'row 1'"):
        list(Grouped(GroupKFold(), BY_INDEX[-1:]).split(FRAME))
    with pytest.raises(ValueError, match="groups came twice"):
        list(Grouped(GroupKFold(), BY_INDEX).split(FRAME, None, GROUPS))
    assert Grouped(GroupKFold(4), BY_INDEX).get_n_splits() == 4
