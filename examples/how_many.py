"""
How many rows to drop: the pruning curve
========================================

Scores put the rows in an order. How far down should one go? Drop more and more of the lowest ones, train each time, and
test: the curve rises while wrong rows go and falls when right ones do. A second curve drops as many random rows. One
that is not above it has found nothing.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from sktda import InfluencePrunerCV, NoisyLabelDetector
from sktda.attribution import ComplexityGap
from sktda.displays import PruningCurveDisplay

# %%
# Digits
# ------
#
# A fifth of 600 labels is wrong.

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X, y, train_size=600, stratify=y, random_state=0)
rng = np.random.default_rng(0)
wrong = rng.choice(len(y), 120, replace=False)
y[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10

# %%
# The curve that you can draw
# ---------------------------
#
# Test folds are taken from the same labels, so that their wrong ones are in the way. Rows of the test folds whose label
# is called wrong do not judge.

shares = (0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
model = KNeighborsClassifier(n_neighbors=1)
options = {"prune_ratios": shares, "n_random": 2, "random_state": 0}
display = PruningCurveDisplay.from_estimator(model, X, y, ComplexityGap(), **options)
display.figure_.suptitle("Cross-validated, on labels as given")
means = display.test_scores.mean(axis=1), display.random_scores.mean(axis=1)
print("dropped   lowest scores   random rows")
for share, *each in zip(shares, *means, strict=True):
    print("{:7.0%}{:16.3f}{:14.3f}".format(share, *each))

# %%
# The curve that you cannot draw
# ------------------------------
#
# With right labels to test on, which you rarely have, it is the same story.

everything = np.concatenate([X, X_test]), np.concatenate([y, y_test])
split = [(np.arange(len(y)), len(y) + np.arange(len(y_test)))]
display = PruningCurveDisplay.from_estimator(model, *everything, ComplexityGap(), cv=split, **options)
display.figure_.suptitle("On right labels")

# %%
# One number
# ----------
#
# ``InfluencePrunerCV`` walks the curve for you. It starts from the share that ``NoisyLabelDetector`` estimates, and
# leaves it only for one that is clearly better, as the best of several shares is often best by luck.

print(f"NoisyLabelDetector estimates {NoisyLabelDetector().fit(X, y).noise_rate_:.2f}")
pruner = InfluencePrunerCV(model, ComplexityGap(), prune_ratios=shares, random_state=0).fit(X, y)
print(f"InfluencePrunerCV drops {pruner.best_prune_ratio_:.2f}")
print(f"accuracy on right labels: {model.fit(X, y).score(X_test, y_test):.3f} with all rows, ", end="")
print(f"{pruner.score(X_test, y_test):.3f} without the dropped")
plt.show()

# %%
# **The decision**: drop a fifth. Where the curve is flat, as it is from there to 30 %, take the smaller share: a row
# that is not dropped can still be looked at.
