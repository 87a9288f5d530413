"""The cleaners around trees, by the trees' own scores."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sktda import Holdout, InfluencePruner, InfluencePrunerCV, InfluenceReweighter, NoisyLabelDetector
from sktda.attribution import AUM, BoostIn, Ensemble, Influence, InnerProduct, LeafInfluence, TreeKernel
from sktda.model import proxy
from sktda.objectives import DemographicParity

TREES = HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5, early_stopping=False, random_state=0)
FOREST = RandomForestClassifier(15, random_state=0)


def rows(n=160, wrong=12):
    """A table with missing cells and texts, labels of which the first few are wrong, and those that are right."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(n, 2)), columns=["a", "b"])
    frame.loc[::9, "b"] = np.nan
    frame["town"] = pd.Categorical(rng.choice(["x", "y", "z"], n))
    right = ((frame["a"] + (frame["town"] == "x")) > 0.3).to_numpy().astype(int)
    y = right.copy()
    y[:wrong] = 1 - y[:wrong]
    return frame, y, right


@pytest.mark.parametrize("method", [BoostIn, LeafInfluence, TreeKernel])
@pytest.mark.parametrize("validation", [None, 3, 0.25])
def test_a_pruner_removes_what_the_trees_say(method, validation):
    frame, y, _ = rows()
    pruner = InfluencePruner(TREES, method(), validation=validation, prune_ratio=0.1).fit(frame, y)
    assert isinstance(pruner.attributor_.estimator_, HistGradientBoostingClassifier)
    assert (~pruner.get_support()[:12]).sum() >= 4  # of the 12 wrong ones among 16 that go
    assert pruner.predict(frame).shape == (160,)


def test_numbers_are_pruned_as_well():
    frame, _, _ = rows()
    y = frame["a"].to_numpy().copy()
    y[:5] += 9
    model = HistGradientBoostingRegressor(max_iter=10, min_samples_leaf=5, random_state=0)
    pruner = InfluencePruner(model, BoostIn(), prune_ratio=0.05).fit(frame, y)
    assert (~pruner.get_support()[:5]).sum() >= 4


def test_a_search_a_guard_and_several_rounds():
    frame, y, right = rows()
    search = InfluencePrunerCV(TREES, BoostIn(), prune_ratios=(0, 0.1), cv=2).fit(frame, y)
    assert search.best_prune_ratio_ in (0, 0.1)
    kept = Holdout(frame, right)
    guarded = InfluencePruner(TREES, BoostIn(), validation=kept, step=0.05, guard=0.5).fit(frame, y)
    assert guarded.n_pruned_ == 16
    assert (~guarded.get_support()[:12]).sum() >= 8


def test_fairness_by_the_trees():
    frame, y, _ = rows()
    group = (frame["town"] == "x").to_numpy()
    pruner = InfluencePruner(TREES, BoostIn(objective=DemographicParity()), validation=3, prune_ratio=0.1)
    pruner.fit(frame, y, sensitive_features=group)
    assert "DemographicParity" in pruner.objective_values_


def test_weights_follow_the_trees_scores():
    frame, y, _ = rows()
    weigher = InfluenceReweighter(TREES, BoostIn()).fit(frame, y)
    assert weigher.sample_weight_[:12].mean() < weigher.sample_weight_[12:].mean()


@pytest.mark.parametrize("attributor", [BoostIn(TREES), TreeKernel(FOREST), Ensemble([BoostIn(TREES), AUM()])])
def test_a_detector_by_trees(attributor, monkeypatch):
    monkeypatch.setattr(proxy, "EPOCHS", (2, 2))
    frame, y, _ = rows()
    found = NoisyLabelDetector(attributor, contamination=0.1).fit(frame[["a"]], y)
    assert (found.labels_[:12] == -1).mean() > (found.labels_[12:] == -1).mean()


def test_the_transformers_of_a_pipeline_come_first():
    frame, y, _ = rows()
    encode = make_column_transformer((OneHotEncoder(), ["town"]), remainder="passthrough")
    pruner = InfluencePruner(make_pipeline(encode, FOREST), TreeKernel(), validation=2).fit(frame.fillna(0), y)
    assert pruner.n_pruned_ == 16


# ---- what is said of the wrong method -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "named"), [(TREES, "BoostIn"), (FOREST, "TreeKernel"), (make_pipeline(FOREST), "Tree")]
)
@pytest.mark.parametrize("attributor", [Influence(), InnerProduct()], ids=["influence", "inner product"])
def test_a_net_that_stands_in_for_trees_says_so(model, named, attributor, monkeypatch):
    monkeypatch.setattr(proxy, "EPOCHS", (2, 2))
    frame, y, _ = rows()
    with pytest.warns(UserWarning, match=rf"a small net that stands in for it; {named}"):
        InfluencePruner(model, attributor).fit(frame[["a"]], y)


def test_nothing_is_said_of_a_model_that_was_named_nor_of_methods_about_nets(monkeypatch):
    monkeypatch.setattr(proxy, "EPOCHS", (2, 2))
    frame, y, _ = rows()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        InfluencePruner(TREES, Influence(LogisticRegression())).fit(frame[["a"]], y)
        InfluencePruner(TREES, AUM()).fit(frame[["a"]], y)
        InfluencePruner(TREES).fit(frame[["a"]], y)


def test_boostin_around_what_is_no_boosting_says_what_to_give():
    frame, y, _ = rows()
    with pytest.raises(TypeError, match=r"LogisticRegression is none that it knows.*the final model may be another"):
        InfluencePruner(LogisticRegression(), BoostIn()).fit(frame[["a"]], y)
    with pytest.raises(
        TypeError, match=r"RandomForestClassifier is none that it knows.*For forests there is TreeKernel"
    ):
        InfluencePruner(FOREST, BoostIn()).fit(frame[["a"]], y)
    with pytest.raises(TypeError, match="for trees there are BoostIn and TreeKernel"):
        Influence(TREES).fit(frame[["a"]], y)
