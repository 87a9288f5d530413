"""
Refit in a pipeline, and search
===============================

A cleaner is an estimator, so ``Pipeline`` and ``GridSearchCV`` take it as any other. Rows are dropped inside ``fit``,
within each training fold: test folds are predicted whole, and nothing leaks.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktda import InfluencePruner, NoisyLabelDetector, ResampledEstimator
from sktda.attribution import ComplexityGap

# %%
# The data
# --------
#
# 600 digits, a fifth of whose labels is wrong. One nearest neighbour learns them all by heart.

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X, y, train_size=600, stratify=y, random_state=0)
rng = np.random.default_rng(0)
wrong = rng.choice(len(y), 120, replace=False)
y[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10

# %%
# The search
# ----------
#
# The share to drop and the number of neighbours are searched together.

pruner = InfluencePruner(KNeighborsClassifier(), ComplexityGap(), random_state=0)
pipeline = make_pipeline(StandardScaler(), pruner)
shares, neighbours = [0, 0.1, 0.2, 0.3], [1, 3, 7, 15]
grid = {"influencepruner__estimator__n_neighbors": neighbours, "influencepruner__prune_ratio": shares}
search = GridSearchCV(pipeline, grid, cv=3).fit(X, y)
print("best by the folds:", search.best_params_)

# %%
# What it found
# -------------
#
# Folds have wrong labels, too: all accuracies are too low, and their order is what counts. Many neighbours outvote a
# wrong label. Without some of the wrong labels fewer neighbours are enough.

scores = search.cv_results_["mean_test_score"].reshape(len(neighbours), len(shares))
figure, ax = plt.subplots(figsize=(5.6, 4), layout="constrained")
ax.imshow(scores, cmap="Blues", vmin=scores.min() - 0.05)
for (line, column), score in np.ndenumerate(scores):
    bold = "bold" if score == scores.max() else None
    color = "white" if score > (scores.min() + scores.max()) / 2 else "black"
    ax.text(column, line, f"{score:.3f}", ha="center", va="center", weight=bold, color=color)
ax.set_xticks(range(len(shares)), [f"{share:.0%}" for share in shares])
ax.set_yticks(range(len(neighbours)), map(str, neighbours))
ax.set(xlabel="share dropped", ylabel="neighbours", title="Accuracy on folds, by labels as given")

# %%
# On right labels
# ---------------
#
# ``ResampledEstimator`` needs no share: a detector in front of the model says how many rows go.

detected = ResampledEstimator(KNeighborsClassifier(n_neighbors=1), NoisyLabelDetector())
for name, model in {
    "1 neighbour, all rows": make_pipeline(StandardScaler(), KNeighborsClassifier(n_neighbors=1)),
    "15 neighbours, all rows": make_pipeline(StandardScaler(), KNeighborsClassifier(n_neighbors=15)),
    "best of the search": search.best_estimator_,
    "1 neighbour, rows by the detector": make_pipeline(StandardScaler(), detected),
}.items():
    fitted = model if model is search.best_estimator_ else model.fit(X, y)
    print(f"{name:36s}{fitted.score(X_test, y_test):.3f}")
plt.show()

# %%
# **The decision**: the pipeline that the search found, which goes to where it is used as any other. A search over many
# shares on few wrong labels can be right by luck; what to do then is in :doc:`../refit`.
