"""Does cleaning help, and how close does it come to the truth?

    python benchmarks/cleaning.py
    python benchmarks/cleaning.py --quick   # few rows, one seed, nothing written: does it run?

Fashion-MNIST, 10,000 training rows with injected uniform noise; test rows are clean. Each model is trained on the rows
as given, on the rows that NoisyLabelDetector() leaves, and on the truly clean rows (the oracle: nobody could do better
by dropping rows). On rows without injected noise, InfluencePruner(guard=True) must not hurt.
Writes benchmarks/results/cleaning.json.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from shared.common import begin, fashion_mnist, flip, save, set_threads

set_threads()

from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402

from sktda import InfluencePruner, NoisyLabelDetector, PruningWarning  # noqa: E402

N, SEEDS, RATES, GUARDED_RATIO = 10_000, (0, 1), (0.2, 0.4), 0.1
MODELS = {
    "1-NN": lambda seed: KNeighborsClassifier(1),
    "MLP": lambda seed: MLPClassifier((256, 256), max_iter=10, random_state=seed),
    "forest": lambda seed: RandomForestClassifier(100, n_jobs=2, random_state=seed),
}


def cleaned(X, y, X_test, y_test, rate: float, seed: int) -> list[dict]:
    given, wrong = flip(y, "uniform", rate, seed)
    detector = NoisyLabelDetector(random_state=seed).fit(X, given)
    parts = {"given": np.full(len(y), True), "cleaned": detector.labels_ == 1, "oracle": ~wrong}
    rows = []
    for name, model in MODELS.items():
        scores = {part: model(seed).fit(X[mask], given[mask]).score(X_test, y_test) for part, mask in parts.items()}
        rows.append(
            {"rate": rate, "seed": seed, "noise_rate": detector.noise_rate_, "model": name, "guard": False, **scores}
        )
    return rows


def guarded(X, y, X_test, y_test, seed: int, models: dict = MODELS) -> list[dict]:
    """On the labels as published: nothing to find, so the guard should keep pruning from doing harm."""
    rows = []
    for name, model in models.items():
        pruner = InfluencePruner(model(seed), prune_ratio=GUARDED_RATIO, guard=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PruningWarning)
            pruner.fit(X, y)
        scores = {"given": model(seed).fit(X, y).score(X_test, y_test), "cleaned": pruner.score(X_test, y_test)}
        rows.append({"rate": 0.0, "seed": seed, "model": name, "guard": True, "n_pruned": pruner.n_pruned_, **scores})
    return rows


def main(arguments: list[str] | None = None) -> None:
    quick = begin(argparse.ArgumentParser(description=__doc__.splitlines()[0]), arguments).quick
    models = dict(list(MODELS.items())[:1]) if quick else MODELS
    n, seeds, rates = (150, SEEDS[:1], RATES[:1]) if quick else (N, SEEDS, RATES)
    warnings.simplefilter("ignore")  # 10 epochs do not converge, as stated
    X, y, X_test, y_test = fashion_mnist()
    X, X_test = (part.reshape(len(part), -1) / np.float32(255) for part in (X[:n], X_test))
    rows = []
    for seed in seeds:
        for rate in rates:
            rows += cleaned(X, y[:n], X_test, y_test, rate, seed)
        rows += guarded(X, y[:n], X_test, y_test, seed, models)
        save("cleaning", rows)
    for rate in (*rates, 0.0):
        for name in MODELS:
            chosen = [row for row in rows if row["rate"] == rate and row["model"] == name]
            if not chosen:
                continue
            mean = {
                key: np.mean([row[key] for row in chosen]) for key in ("given", "cleaned", "oracle") if key in chosen[0]
            }
            figures = "  ".join(f"{key} {value:.4f}" for key, value in mean.items())
            print(f"noise {rate:.1f}  {name:7s} {figures}")


if __name__ == "__main__":
    main()
