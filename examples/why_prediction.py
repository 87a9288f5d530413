"""
Why did the model say that? The images for and against
======================================================

A digit is read wrongly. Which training images made the model say so, and which ones spoke against? ``Influence`` says
how the loss of a prediction would change without each training row, and ``top_k`` names the strongest.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from sktda.attribution import Influence
from sktda.displays import InfluenceDisplay

# %%
# A model with a lesson learnt wrongly
# ------------------------------------
#
# scikit-learn's digits. Twenty of the sevens among 1,000 training images are labelled as ones.

digits = load_digits()
train, test = train_test_split(np.arange(len(digits.target)), train_size=1000, stratify=digits.target, random_state=0)
X, y = digits.data / 16, digits.target.copy()
mislabelled = np.random.default_rng(0).choice(train[y[train] == 7], 20, replace=False)
y[mislabelled] = 1
model = LogisticRegression(max_iter=1000).fit(X[train], y[train])
predicted = model.predict(X[test])
mistakes = test[predicted != digits.target[test]]
sevens = mistakes[(digits.target[mistakes] == 7) & (model.predict(X[mistakes]) == 1)]
print(f"{len(mistakes)} of {len(test)} test images are read wrongly, {len(sevens)} of them sevens as ones")

# %%
# Ask about one of them
# ---------------------
#
# The query is one of these sevens, with the label that the model gave it: which rows made it say "one"? A positive
# value is a row that speaks for it: without the row the loss of "one" would rise.

influence = Influence(model, objective=None).fit(X[train], y[train])
query, answer = sevens[:1], np.array([1])
rows, values = influence.top_k(X[query], answer, k=8)
print("for it:     ", ", ".join(f"{y[train[row]]} (in fact {digits.target[train[row]]})" for row in rows[0]))
against, _ = influence.top_k(X[query], answer, k=8, harmful=True)
print("against it: ", ", ".join(f"{y[train[row]]} (in fact {digits.target[train[row]]})" for row in against[0]))
found = np.isin(train[rows[0]], mislabelled).sum()
print(f"{found} of the {len(rows[0])} strongest rows for it are sevens with a wrong label")

# %%

display = InfluenceDisplay.from_attributor(
    influence, X[query], answer, k=6, labels=y[train], images=digits.images[train], query_image=digits.images[query[0]]
)
display.figure_.suptitle("Images for (above) and against (below) the answer 1")

# %%
# Correct what spoke for it
# -------------------------
#
# For every such mistake, the eight strongest rows are looked at, and their labels corrected where they are wrong.

strongest, _ = influence.top_k(X[sevens], np.ones(len(sevens), dtype=int), k=8)
seen = train[np.unique(strongest)]
corrected = y.copy()
corrected[seen] = digits.target[seen]
again = LogisticRegression(max_iter=1000).fit(X[train], corrected[train])
print(f"{len(seen)} rows looked at, {(corrected != y).sum()} labels corrected")
for name, each in (("before", model), ("after", again)):
    as_ones = (each.predict(X[test]) == 1) & (digits.target[test] == 7)
    print(f"{name:8s}{as_ones.sum()} of {(digits.target[test] == 7).sum()} sevens are read as ones")
plt.show()

# %%
# **The decision**: look at the rows behind a mistake before looking at all rows. Whether a wrong label is a rule, such
# as sevens without a bar that somebody takes for ones, shows in the pictures.
