"""Numbers with a wrong decimal point in a regression target: find them, drop them, or count them less.

The rows are scikit-learn's `make_friedman1`: ten columns, of which five matter, and a target of about 5 to 30. In 5 %
of 800 training rows the point is one place too far to the right or to the left. Other 800 rows, without mistakes, test.

`NoisyLabelDetector` needs neither a model nor the share of wrong numbers, and says what the other rows suggest instead.
Large mistakes do not spoil the predictions by which rows are judged: the grossest are set aside before.
`InfluencePruner` drops a share that is given, `InfluenceReweighter` keeps all rows and lets them count by their
scores; both refit a model of your choice: a linear one, which a few such numbers ruin, and gradient boosting.

Run with `python examples/regression_outliers.py`. About 10 seconds on one thread.
"""

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.datasets import make_friedman1
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split

from sktda import InfluencePruner, InfluenceReweighter, NoisyLabelDetector, ResampledEstimator
from sktda.attribution import ComplexityGap

SEED = 0
SHARE = 0.05
MODELS = {"Ridge": Ridge(), "boosting": HistGradientBoostingRegressor(random_state=SEED)}


def make_rows() -> tuple[pd.DataFrame, pd.DataFrame, pd.Series, pd.Series, pd.Series]:
    """(X, X_test, y with wrong numbers, y_test, true y), rows by name."""
    X, y = make_friedman1(1600, noise=1.0, random_state=SEED)
    names = pd.Index([f"row-{k:04d}" for k in range(len(y))])
    X, y = pd.DataFrame(X, index=names).add_prefix("x"), pd.Series(y, index=names).round(2)
    X, X_test, truth, y_test = train_test_split(X, y, train_size=800, random_state=SEED)
    rng = np.random.default_rng(SEED)
    wrong = rng.choice(len(truth), size=round(SHARE * len(truth)), replace=False)
    y = truth.copy()
    y.iloc[wrong] *= rng.choice([0.1, 10], len(wrong))
    return X, X_test, y.round(2), y_test, truth


def show(name: str, scores: list[float]) -> None:
    """One line of the table."""
    print(f"  {name:36s}" + "".join(f"{score:10.3f}" for score in scores))


def main() -> None:
    """Spoil, detect, refit."""
    X, X_test, y, y_test, truth = make_rows()
    wrong = (y != truth).to_numpy()
    detector = NoisyLabelDetector().fit(X, y)
    noisy = detector.labels_ == -1
    print(f"{len(y)} rows to train on, {wrong.sum()} with a wrong decimal point; {len(y_test)} clean ones to test on")
    print(f"called noisy {noisy.sum()}, of which wrong {(noisy & wrong).sum()}\n")

    frame = detector.to_frame().head(6)
    print("the worst rows")
    print(frame.drop(columns=["score", "noisy"]).assign(in_fact=truth[frame.index]).round(2).to_string())

    print(f"\nR2 on the test rows{'':19s}" + "".join(f"{name:>10s}" for name in MODELS))
    ways = {
        "all rows": clone,
        "noisy rows dropped": lambda model: ResampledEstimator(model),
        "worst 5 % dropped": lambda model: InfluencePruner(model, ComplexityGap(), prune_ratio=0.05),
        "worst 10 % dropped": lambda model: InfluencePruner(model, ComplexityGap(), prune_ratio=0.1),
        "weighted by rank": lambda model: InfluenceReweighter(model, ComplexityGap(), weighting="rank"),
        "weighted by probability": lambda model: InfluenceReweighter(model),
        "weighted by sigmoid": lambda model: InfluenceReweighter(model, ComplexityGap(), weighting="sigmoid"),
    }
    for name, way in ways.items():
        show(name, [way(model).fit(X, y).score(X_test, y_test) for model in MODELS.values()])
    rest = [clone(model).fit(X[~wrong], y[~wrong]).score(X_test, y_test) for model in MODELS.values()]
    show("wrong rows dropped, if known", rest)


if __name__ == "__main__":
    main()
