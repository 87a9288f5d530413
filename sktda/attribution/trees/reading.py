"""Which reader takes a fitted model: one file per library, which imports none that is not there anyway."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sktda.attribution.trees.steps import Trees

READERS = {  # by the class of the model, in its own module or below
    ("sklearn", "GradientBoostingClassifier"): "gradient_boosting.GradientBoosting",
    ("sklearn", "GradientBoostingRegressor"): "gradient_boosting.GradientBoosting",
    ("sklearn", "HistGradientBoostingClassifier"): "hist_boosting.HistBoosting",
    ("sklearn", "HistGradientBoostingRegressor"): "hist_boosting.HistBoosting",
    ("xgboost", "XGBClassifier"): "xgboost_trees.XGBoostTrees",
    ("xgboost", "XGBRegressor"): "xgboost_trees.XGBoostTrees",
    ("lightgbm", "LGBMClassifier"): "lightgbm_trees.LightGBMTrees",
    ("lightgbm", "LGBMRegressor"): "lightgbm_trees.LightGBMTrees",
    ("catboost", "CatBoostClassifier"): "catboost_trees.CatBoostTrees",
    ("catboost", "CatBoostRegressor"): "catboost_trees.CatBoostTrees",
}
FORESTS = {"RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor"}


def reader_of(model: Any) -> str | None:
    """The reader of a boosted model, fitted or not; None for other models."""
    for cls in type(model).__mro__:
        if found := READERS.get((cls.__module__.split(".")[0], cls.__name__)):
            return found
    return None


def attribution_of(model: Any) -> str | None:
    """Name of the method that attributes to a model's own trees; None for other models."""
    if reader_of(model) is not None:
        return "BoostIn"
    names = {cls.__name__ for cls in type(model).__mro__ if cls.__module__.split(".")[0] == "sklearn"}
    return "TreeKernel" if names & FORESTS else None


def check_boosted(model: Any, method: str, others: str = "") -> str:
    """The reader; TypeError for a model that is not boosted trees (nor one of the others that the method takes)."""
    reader = reader_of(model)
    if reader is None:
        names = ", ".join([*([others] if others else []), *sorted({name for _, name in READERS})])
        what = "ensembles of trees" if others else "boosted trees"
        hint = " For forests there is TreeKernel." if not others else ""
        raise TypeError(
            f"{method} reads {what}, and {type(model).__name__} is none that it knows; allowed are {names}, and a "
            f"Pipeline or FrozenEstimator of one. Give one as estimator (the final model may be another).{hint}"
        )
    return reader


def read_boosted(model: Any, method: str) -> Trees:
    """A fitted model as Trees. TypeError for a model that is not boosted trees, ValueError for an option not read."""
    module, name = check_boosted(model, method).split(".")
    return getattr(import_module(f"sktda.attribution.trees.{module}"), name)(model)
