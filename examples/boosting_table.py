"""
Tables with text columns: who may score
=======================================

A table of numbers and categories, some values missing, with a fifth of the labels turned round.
``HistGradientBoostingClassifier`` takes the table as it is; the attributors that score its rows bring a preparation of
their own, which the boosting never sees. A cheaper model may score the rows, but it has to be able to say what is true
of them.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler

from sktda import InfluencePruner, InfluencePrunerCV
from sktda.attribution import ComplexityGap, PrecomputedScores, SelfConfidence
from sktda.displays import PruningCurveDisplay, ScoreDistributionDisplay

# %%
# A table after a census
# ----------------------
#
# 3,000 people with age, hours of work, education, occupation and region; the label is whether they earn more than a
# limit, which the columns tell in about nine cases of ten. Of 2,000 training labels 20 % are turned round; the other
# 1,000 rows test, and stay as they are.

EDUCATION = {"school": -1.0, "college": 0.0, "bachelor": 1.0, "master": 1.8}
OCCUPATION = {"farm": -1.2, "service": -0.8, "craft": 0.0, "office": 0.3, "sales": 0.5, "manager": 1.5}
REGION = {"north": 0.3, "south": -0.3, "east": 0.0, "west": 0.2}


def make_table(n: int, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.Series]:
    """(columns of numbers and of categories, label): effects that add up, and one that does not."""
    table = pd.DataFrame({"age": rng.integers(18, 75, n).astype(float), "hours": rng.normal(38, 9, n).round()})
    for name, levels in (("education", EDUCATION), ("occupation", OCCUPATION), ("region", REGION)):
        table[name] = pd.Categorical(rng.choice(list(levels), n), categories=list(levels))
    effect = sum(
        table[name].map(levels).astype(float)
        for name, levels in (("education", EDUCATION), ("occupation", OCCUPATION), ("region", REGION))
    )
    effect += 0.05 * (table["hours"] - 38) - ((table["age"] - 48) / 15) ** 2 + 1
    effect += 1.5 * ((table["occupation"] == "sales") & (table["region"] == "west"))
    label = pd.Series(np.where(effect + rng.logistic(0, 0.35, n) > 0, "more", "less"), name="income")
    table.loc[rng.random(n) < 0.05, "hours"] = np.nan
    return table, label


rng = np.random.default_rng(0)
X, y = make_table(3000, rng)
X, X_test, y, y_test = train_test_split(X, y, train_size=2000, stratify=y, random_state=0)
truth = y.copy()
wrong = rng.choice(len(y), size=400, replace=False)
y.iloc[wrong] = np.where(y.iloc[wrong] == "more", "less", "more")
X.head(4)

# %%
# Who scores the rows
# -------------------
#
# - ``SelfConfidence(pipeline)`` takes the out-of-sample probabilities of any classifier, here of a logistic regression
#   behind an encoder. With straight lines for the numbers it cannot know that people earn most in the middle of their
#   lives, and takes its own misfit for mistakes; with curves (``SplineTransformer``) it can.
# - ``PrecomputedScores(function)`` takes scores from a function of (X, y), here ``ComplexityGap`` on encoded columns.


def encoder(curves: bool = False) -> ColumnTransformer:
    """Numbers from the columns: imputed and standardised, or as splines; one column per category."""
    numbers = make_pipeline(SimpleImputer(), SplineTransformer() if curves else StandardScaler())
    return make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (OneHotEncoder(sparse_output=False), make_column_selector(dtype_include="category")),
    )


def complexity_gap(X: pd.DataFrame, y: pd.Series) -> np.ndarray:
    """Scores of `ComplexityGap` on encoded columns."""
    return ComplexityGap().fit(encoder().fit_transform(X), y).scores_


lines, curves = (
    SelfConfidence(make_pipeline(encoder(curved), LogisticRegression(max_iter=500))) for curved in (False, True)
)
gap = PrecomputedScores(complexity_gap)

# %%
# Scores that see the truth
# -------------------------
#
# Rows with a wrong label should lie on the left. By straight lines many right ones do.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for ax, name, scorer in ((axes[0], "lines", lines), (axes[1], "curves", curves)):
    fitted = clone(scorer).fit(X, y)
    ScoreDistributionDisplay.from_attributor(fitted, marked=y != truth, ax=ax)
    ax.set_xlabel(f"score of the logistic regression with {name}")
figure.suptitle("Scores of rows with a wrong label (marked) and of the others")

# %%
# Drop, and compare
# -----------------
#
# ``InfluencePruner`` drops a share that is given; ``InfluencePrunerCV`` chooses one by cross-validation.

boosting = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
models = {
    "all rows": clone(boosting),
    "logistic, lines: 20 % dropped": InfluencePruner(boosting, lines, prune_ratio=0.2, random_state=0),
    "logistic, curves: 20 % dropped": InfluencePruner(boosting, curves, prune_ratio=0.2, random_state=0),
    "complexity gap: 20 % dropped": InfluencePruner(boosting, gap, prune_ratio=0.2, random_state=0),
    "logistic, curves: share by CV": InfluencePrunerCV(boosting, curves, prune_ratios=(0, 0.1, 0.2, 0.3), cv=3),
}


def show(name: str, model: BaseEstimator, dropped: np.ndarray) -> None:
    accuracy, loss = model.score(X_test, y_test), log_loss(y_test, model.predict_proba(X_test))
    print(f"{name:34s}{dropped.sum():9d}{(y != truth)[dropped].sum():16d}{accuracy:10.3f}{loss:10.3f}")


print(f"{'trained on':34s}{'dropped':>9s}{'of which wrong':>16s}{'accuracy':>10s}{'log loss':>10s}")
for name, model in models.items():
    model.fit(X, y)
    show(name, model, ~getattr(model, "support_", np.ones(len(y), dtype=bool)))
show("right labels only, if known", clone(boosting).fit(X[y == truth], y[y == truth]), (y != truth).to_numpy())

# %%
# How many?
# ---------
#
# The curve is of labels as wrong as those that the model trains on: all accuracies are too low, and their order is what
# counts. It says that some rows should go, and hardly how many.

results = model.cv_results_
print("accuracy by share dropped, cross-validated on the labels as given")
for ratio, mean, std in zip(*(results[k] for k in ("prune_ratio", "mean_test_score", "std_test_score")), strict=True):
    print(f"  {ratio:4.2f}   {mean:.3f} ± {std:.3f}{'   chosen' if ratio == model.best_prune_ratio_ else ''}")
display = PruningCurveDisplay.from_cv_results(model)
display.figure_.suptitle("Accuracy on labels as given, by the share that is dropped")
plt.show()

# %%
# **The decision**: drop about a fifth by the model with curves. More is not for free: right rows that are dropped are
# mostly hard ones, and a boosting of nothing but sure labels is too sure of itself, which the log loss shows.
