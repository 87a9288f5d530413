"""Small pictures of the pages beside this file: python docs/methods/pictures.py writes docs/_static/methods_*.svg.

Grey letters and lines on no ground, so that they can be read in light and in dark mode.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits, make_moons
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression

from sktda import CoresetSelector
from sktda.attribution import AUM, BoostIn, ComplexityGap, Influence, LabelPosterior, SelfConfidence
from sktda.cleaning import KCenter, RandomRows, Stratified

STATIC = Path(__file__).parents[1] / "_static"
GREY, BLUE, RED = "#808890", "#3b82c4", "#d1495b"
PLAIN = {"angles": "xy", "scale_units": "xy", "scale": 1}  # arrows as long as they are
STYLE = {
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "svg.hashsalt": "sktda",
    "svg.fonttype": "none",
    "legend.frameon": False,
}


def digits(n: int = 900, share: float = 0.2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X, given labels, mask of the wrong ones)."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    wrong = rng.random(n) < share
    return X[:n] / 16, np.where(wrong, (y[:n] + rng.integers(1, 10, n)) % 10, y[:n]), wrong


def moons() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X, given labels, mask of the wrong ones) in two dimensions."""
    X, y = make_moons(300, noise=0.15, random_state=0)
    wrong = np.random.default_rng(1).random(300) < 0.08
    return X, np.where(wrong, 1 - y, y), wrong


def features(axes: np.ndarray) -> None:
    """Where the lowest scores are."""
    X, y, wrong = moons()
    worst = np.argsort(ComplexityGap().fit(X, y).scores_)[: wrong.sum()]
    for k, color in enumerate((GREY, BLUE)):
        axes[0].plot(*X[y == k].T, ".", color=color, label=f"given label {k}")
    axes[0].plot(*X[worst].T, "o", color=RED, mfc="none", ms=9, label="lowest scores")
    axes[0].legend(loc="upper right", fontsize=7)
    axes[0].set(xticks=[], yticks=[])


def predictions(axes: np.ndarray) -> None:
    """Probability of the given label for right and wrong ones, by a model that did not see the row."""
    X, y, wrong = digits()
    scores = SelfConfidence(ExtraTreesClassifier(100, random_state=0)).fit(X, y).scores_
    bins = np.linspace(0, 1, 21)
    axes[0].hist([scores[~wrong], scores[wrong]], bins, color=[BLUE, RED], label=["right label", "wrong label"])
    axes[0].set(xlabel="SelfConfidence", ylabel="rows")
    axes[0].legend(fontsize=7)


def noise(axes: np.ndarray) -> None:
    """Confusion of labels as planted and as estimated."""
    X, y = load_digits(return_X_y=True)
    moved = np.random.default_rng(0).random(len(y)) < 1 / 3
    given = np.where(moved & (y % 2 == 0), (y + 1) % 10, y)
    planted = np.array([[np.mean(given[y == k] == j) for j in range(10)] for k in range(10)])
    estimated = LabelPosterior().fit(X, given).noise_matrix_
    for ax, matrix, title in zip(axes, (planted, estimated), ("as planted", "as estimated"), strict=True):
        ax.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
        ax.set(title=title, xlabel="given label", ylabel="true label", xticks=range(10), yticks=range(10))


def dynamics(axes: np.ndarray) -> None:
    """Margins along a run."""
    X, y, wrong = digits()
    attributor = AUM(random_state=0).fit(X, y)
    axes[0].hist(
        [attributor.scores_[~wrong], attributor.scores_[wrong]],
        30,
        color=[BLUE, RED],
        label=["right label", "wrong label"],
    )
    axes[0].set(xlabel="AUM: mean margin over the run", ylabel="rows")
    axes[0].legend(fontsize=7)


def influence(axes: np.ndarray) -> None:
    """Which rows help and harm one query."""
    X, y, _ = moons()
    query = np.array([[0.5, 0.25]])
    values = Influence(LogisticRegression()).fit(X, y).attribute(query, [1])[0]
    size = 300 * np.abs(values) / np.abs(values).max()
    for sign, color, label in ((1, BLUE, "helps"), (-1, RED, "harms")):
        rows = np.sign(values) == sign
        axes[0].scatter(*X[rows].T, size[rows], color=color, alpha=0.5, lw=0, label=label)
    axes[0].plot(*query.T, "*", color=GREY, ms=14, label="query")
    axes[0].legend(loc="upper right", fontsize=7, markerscale=0.6)
    axes[0].set(xticks=[], yticks=[])


def tracing(axes: np.ndarray) -> None:
    """Steps of a model with two weights, and which of them point where the query's does."""
    X, y, _ = moons()
    X = X - X.mean(axis=0)
    model = LogisticRegression(fit_intercept=False).fit(X, y)
    steps = (y - model.predict_proba(X)[:, 1])[:, None] * X  # minus the gradients of the log loss
    query = steps[np.argmax(np.linalg.norm(steps, axis=1))]
    for sign, color, label in ((1, BLUE, "same way"), (-1, RED, "against it")):
        rows = np.sign(steps @ query) == sign
        origin = np.zeros(rows.sum())
        axes[0].quiver(origin, origin, *steps[rows].T, color=color, alpha=0.6, width=0.005, **PLAIN, label=label)
    axes[0].quiver(0, 0, *query, color=GREY, width=0.015, **PLAIN, label="query")
    low, high = 1.1 * steps.min(axis=0), 1.1 * steps.max(axis=0)
    axes[0].set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xticks=[], yticks=[])
    axes[0].set(xlabel="weight 1", ylabel="weight 2")
    axes[0].legend(loc="upper right", fontsize=7)


def unrolling(axes: np.ndarray) -> None:
    """What a segment makes of a gradient, by curvature."""
    sigma, x = np.logspace(-3, 2, 200), 10.0
    axes[0].loglog(sigma, -np.expm1(-x * sigma) / sigma, color=BLUE, lw=2.5, label="Source: (1 − exp(−xσ))/σ")
    axes[0].loglog(sigma, 1 / sigma, "--", color=RED, label="influence: 1/σ")
    axes[0].loglog(sigma, np.full(200, x), ":", color=GREY, label="TracIn: x")
    axes[0].set(xlabel="curvature σ", ylabel="factor, x = 10", ylim=(5e-3, 2e3))
    axes[0].legend(fontsize=7)


def trees(axes: np.ndarray) -> None:
    """Which rows a query shares leaves with."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    rng = np.random.default_rng(0)
    X = np.sort(rng.uniform(0, 10, (120, 1)), axis=0)
    y = np.sin(X[:, 0]) + 0.3 * rng.normal(size=120)
    model = HistGradientBoostingRegressor(max_iter=20, random_state=0)
    query = np.array([[4.0]])
    values = BoostIn(model).fit(X, y).attribute(query, np.sin(query[:, 0]))[0]
    axes[0].step(X[:, 0], model.fit(X, y).predict(X), color=GREY, where="mid", label="20 steps")
    axes[0].scatter(X[:, 0], y, 4 + 150 * np.abs(values) / np.abs(values).max(), np.where(values > 0, BLUE, RED), lw=0)
    axes[0].axvline(query[0, 0], color=GREY, ls=":", label="query")
    axes[0].legend(fontsize=7)
    axes[0].set(xticks=[], yticks=[])


def coresets(axes: np.ndarray) -> None:
    """Which rows strategies keep."""
    X, y, wrong = moons()
    for ax, strategy in zip(axes, (RandomRows(), Stratified(), KCenter()), strict=True):
        kept = CoresetSelector(n_samples=45, strategy=strategy, random_state=0).fit(X, y).sample_indices_
        ax.plot(*X.T, ".", color=GREY, alpha=0.35)
        ax.plot(*X[kept].T, "o", color=BLUE, ms=4)
        ax.plot(*X[kept[wrong[kept]]].T, "o", color=RED, ms=5)
        ax.set(title=type(strategy).__name__, xticks=[], yticks=[])


PICTURES = {
    features: 1,
    predictions: 1,
    noise: 2,
    dynamics: 1,
    influence: 1,
    tracing: 1,
    unrolling: 1,
    trees: 1,
    coresets: 3,
}

if __name__ == "__main__":
    with plt.rc_context(STYLE):
        for draw, columns in PICTURES.items():
            figure, axes = plt.subplots(1, columns, figsize=(2.4 + 2.0 * columns, 2.8), squeeze=False)
            draw(axes[0])
            figure.tight_layout()
            figure.savefig(STATIC / f"methods_{draw.__name__}.svg", transparent=True, metadata={"Date": None})
