"""
A table: find its wrong labels
==============================

The first thing to try: no model is chosen, nothing is trained by you, and the share of wrong labels is not given.
``NoisyLabelDetector`` says how many labels are wrong, which ones, and what they should be.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split

from sktda import NoisyLabelDetector
from sktda.displays import ScoreDistributionDisplay, SuspectGalleryDisplay

# %%
# A table
# -------
#
# 569 tumours, benign or malignant, by 30 measurements of their cells. A third is kept apart to test; of the other
# labels every eighth is turned round.

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
y = y.map({0: "malignant", 1: "benign"})
X, X_test, y, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=0)
truth = y.copy()
wrong = np.arange(len(y)) % 8 == 0
y[wrong] = y[wrong].map({"malignant": "benign", "benign": "malignant"})
print(f"{len(y)} rows, {wrong.sum()} of them with a wrong label ({wrong.mean():.1%})")

# %%
# How many are wrong?
# -------------------

detector = NoisyLabelDetector().fit(X, y)
low, high = detector.noise_rate_interval_
print(f"estimated share of wrong labels: {detector.noise_rate_:.1%} ({low:.1%} to {high:.1%})")

# %%
# Look at the picture before you believe it: two hills with a valley at the cut are easy to tell apart, one slope across
# the cut is not.

display = ScoreDistributionDisplay.from_cleaner(detector)
display.figure_.suptitle("Scores of the rows, and the cut")

# %%
# Which ones?
# -----------
#
# Worst first, by the index of the table.

frame = detector.to_frame()
frame.head(5).round(2)

# %%

display = SuspectGalleryDisplay.from_detector(detector, n_rows=15)
display.figure_.suptitle("The fifteen worst rows")

# %%
# Is it true?
# -----------
#
# Here the truth is known.

noisy = detector.labels_ == -1
print(f"called noisy {noisy.sum()}, of which wrong {(noisy & wrong).sum()} of all {wrong.sum()} wrong ones")
accuracies = {}
for name, rows in (
    ("all rows", np.ones(len(y), dtype=bool)),
    ("rows not called noisy", ~noisy),
    ("right rows", ~wrong),
):
    model = HistGradientBoostingClassifier(max_iter=50, random_state=0).fit(X[rows], y[rows])
    accuracies[name] = model.score(X_test, y_test)
    print(f"trained on {name:22s} {accuracies[name]:.3f} of the test rows right")
plt.show()

# %%
# **The decision**: leave out the noisy rows; ``X_clean, y_clean = detector.fit_resample(X, y)`` does it. Labels that
# cost a life are looked at by somebody first: :doc:`../review`.
