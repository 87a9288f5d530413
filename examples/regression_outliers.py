"""
Numbers: a wrong decimal point
==============================

In 5 % of the rows the number to predict is ten times too large or too small. ``NoisyLabelDetector`` needs neither a
model nor the share of wrong numbers, and says what the other rows suggest instead. ``InfluencePruner`` drops a share
that is given, ``InfluenceReweighter`` keeps all rows and lets them count by their scores; both refit a model of your
choice: a linear one, which a few such numbers ruin, and gradient boosting.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.datasets import make_friedman1
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split

from sktda import InfluencePruner, InfluenceReweighter, NoisyLabelDetector, ResampledEstimator
from sktda.attribution import ComplexityGap

# %%
# The rows
# --------
#
# scikit-learn's ``make_friedman1``: ten columns, of which five matter, and a target of about 5 to 30. Of 800 training
# rows 40 have the point one place too far to the right or to the left. Other 800 rows, without mistakes, test.

X, y = make_friedman1(1600, noise=1.0, random_state=0)
names = pd.Index([f"row-{k:04d}" for k in range(len(y))])
X, y = pd.DataFrame(X, index=names).add_prefix("x"), pd.Series(y, index=names).round(2)
X, X_test, truth, y_test = train_test_split(X, y, train_size=800, random_state=0)
rng = np.random.default_rng(0)
moved = rng.choice(len(truth), size=40, replace=False)
y = truth.copy()
y.iloc[moved] *= rng.choice([0.1, 10], len(moved))
y = y.round(2)
wrong = (y != truth).to_numpy()
print(f"{len(y)} rows to train on, {wrong.sum()} with a wrong decimal point; {len(y_test)} clean ones to test on")

# %%
# Find them
# ---------
#
# Large mistakes do not spoil the predictions by which rows are judged: the grossest numbers are set aside before the
# others are predicted, so that numbers that became too small are found, too.

detector = NoisyLabelDetector().fit(X, y)
noisy = detector.labels_ == -1
print(f"called noisy {noisy.sum()}, of which wrong {(noisy & wrong).sum()}")

frame = detector.to_frame().head(6)
print(frame.drop(columns=["score", "noisy"]).assign(in_fact=truth[frame.index]).round(2).to_string())

# %%

suggested = detector.suggested_labels_
figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
ax.scatter(suggested[~noisy], y[~noisy], s=8, color="#0072b2", label="not called noisy")
ax.scatter(suggested[noisy], y[noisy], s=24, marker="x", color="#d55e00", label="called noisy")
ax.axline((10, 10), slope=1, color="#444444", linestyle="--", linewidth=1)
ax.set(yscale="log", xlabel="number that the other rows suggest", ylabel="number as given", title="A tenth, or tenfold")
ax.legend(loc="upper left", bbox_to_anchor=(0, 0.85))

# %%
# Drop them, or count them less
# -----------------------------

MODELS = {"Ridge": Ridge(), "boosting": HistGradientBoostingRegressor(max_iter=60, random_state=0)}
ways = {
    "all rows": clone,
    "noisy rows dropped": lambda model: ResampledEstimator(model),
    "worst 5 % dropped": lambda model: InfluencePruner(model, ComplexityGap(), prune_ratio=0.05),
    "worst 10 % dropped": lambda model: InfluencePruner(model, ComplexityGap(), prune_ratio=0.1),
    "weighted by rank": lambda model: InfluenceReweighter(model, ComplexityGap(), weighting="rank"),
    "weighted by probability": lambda model: InfluenceReweighter(model),
    "weighted by sigmoid": lambda model: InfluenceReweighter(model, ComplexityGap(), weighting="sigmoid"),
}
scores = {name: [way(model).fit(X, y).score(X_test, y_test) for model in MODELS.values()] for name, way in ways.items()}
scores["wrong rows dropped, if known"] = [
    clone(model).fit(X[~wrong], y[~wrong]).score(X_test, y_test) for model in MODELS.values()
]
print(f"R2 on the test rows{'':19s}" + "".join(f"{name:>10s}" for name in MODELS))
for name, values in scores.items():
    print(f"  {name:36s}" + "".join(f"{value:10.3f}" for value in values))
plt.show()

# %%
# **The decision**: drop what is called noisy, or weigh by probability, where a wrong number counts for nothing. Weights
# need no share and lose no row; by rank or sigmoid a wrong number keeps a little of its weight, which costs.
