"""Are the rows that attribution names those that boosted trees need, and does it find wrong labels?

    python benchmarks/trees.py                 # all three questions; a quarter of an hour on two cores
    python benchmarks/trees.py removal         # one of removal, noise, speed
    python benchmarks/trees.py --quick         # few rows, nothing written: does it run?

removal: the protocol of Brophy, Hammoudeh & Lowd 2023. For each of some test rows the training rows that help it most
are removed, 1 to 5 % of them, HistGradientBoosting (50 steps) is fitted again, and its loss on that row is compared
with what it was. Leave-one-out is too dear for all rows: its own and BoostIn's choice among the same 60 rows drawn at
random are compared. The net is the one that Influence trains where a model has no gradients.
noise: 15 % of the labels changed at random; AUROC and AP of low scores, by the rows themselves and with cross-fitted
validation rows, beside those of NoisyLabelDetector as it comes.
speed: 100,000 rows of 20 columns, 300 trees, 1,000 queries; on one thread, as the others.

Writes benchmarks/results/trees_removal.json, trees_noise.json and trees_speed.json.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from shared.battery import plant, split, table_data
from shared.common import begin, data_folder, measured, quick, save

REMOVAL = ("hr", "telco", "titanic", "sonar", "penguins", "wisc", "breast_cancer", "diabetes")
NOISE = ("credit", "hr", "letters", "mushrooms", "penguins", "sonar", "telco", "titanic", "winered", "wisc")
BUNDLED = ("breast_cancer", "wine")  # with --quick, and where there is no folder of tables
SHARES = (0.01, 0.02, 0.05)
ROWS, QUERIES, CANDIDATES, STEPS = 500, 24, 60, 50


def problem(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(X, y, X_test, y_test)."""
    if name == "diabetes":
        from sklearn.datasets import load_diabetes

        X, y = load_diabetes(return_X_y=True)
        y = (y - y.mean()) / y.std()
        order = np.random.default_rng(0).permutation(len(y))
        train, test = order[: round(0.6 * len(y))], order[round(0.6 * len(y)) :]
    else:
        X, y = table_data(name, 150 if quick() else round(ROWS / 0.6))
        train, test = split(y, 0)
    return X[train], y[train], X[test], y[test]


def boosting(y: np.ndarray):
    """What is fitted."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if y.dtype.kind == "f" else HistGradientBoostingClassifier
    return kind(max_iter=5 if quick() else STEPS, early_stopping=False, random_state=0)


def losses(model, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of every row; a class that the model no longer knows has probability 1e-6."""
    if y.dtype.kind == "f":
        return 0.5 * (model.predict(X) - y) ** 2
    own = model.classes_ == y[:, None]
    return -np.log((model.predict_proba(X) * own).sum(axis=1).clip(1e-6, None))


def removal(name: str) -> list[dict]:
    """Rise of the loss of each query, by method and share removed."""
    from sktda.attribution import BoostIn, Influence, LeafInfluence, TreeKernel

    X, y, X_test, y_test = problem(name)
    rng = np.random.default_rng(0)
    asked = rng.choice(len(y_test), min(3 if quick() else QUERIES, len(y_test)), replace=False)
    Q, labels = X_test[asked], y_test[asked]
    model = boosting(y)
    before = losses(model.fit(X, y), Q, labels)
    values, seconds = {}, {}
    scaled = (X - X.mean(axis=0)) / X.std(axis=0).clip(1e-9), (Q - X.mean(axis=0)) / X.std(axis=0).clip(1e-9)
    for method, attributor in {
        "BoostIn": BoostIn(model, objective=None),
        "LeafInfluence": LeafInfluence(model, objective=None),
        "TreeKernel": TreeKernel(model, objective=None),
        "Influence (net)": Influence(objective=None),
    }.items():
        start = time.perf_counter()
        rows, queries = scaled if "net" in method else (X, Q)
        values[method] = attributor.fit(rows, y).attribute(queries, labels)
        seconds[method] = time.perf_counter() - start
    values["random"] = rng.random((len(asked), len(y)))
    seconds["random"] = 0.0
    few = rng.choice(len(y), min(10 if quick() else CANDIDATES, len(y)), replace=False)
    start = time.perf_counter()
    left_out = np.full((len(asked), len(y)), -np.inf)
    for row in few:
        left_out[:, row] = losses(boosting(y).fit(np.delete(X, row, 0), np.delete(y, row)), Q, labels) - before
    among = f"of {len(few)} rows"
    values[f"leave-one-out, {among}"], seconds[f"leave-one-out, {among}"] = left_out, time.perf_counter() - start
    ours = np.full_like(left_out, -np.inf)
    ours[:, few] = values["BoostIn"][:, few]
    values[f"BoostIn, {among}"], seconds[f"BoostIn, {among}"] = ours, seconds["BoostIn"]
    found = []
    for method, value in values.items():
        for share in SHARES[-1:] if quick() else SHARES:
            k = max(1, round(share * len(y)))
            if among in method and k > len(few) / 2:
                continue
            rises = []
            for query, row in enumerate(value):
                kept = np.sort(np.argsort(-row, kind="stable")[k:])
                after = losses(boosting(y).fit(X[kept], y[kept]), Q[query : query + 1], labels[query : query + 1])
                rises.append(float(after[0] - before[query]))
            about = {"table": name, "n": len(y), "method": method, "share": share, "seed": 0}
            found.append({**about, "rises": rises, "seconds": seconds[method]})
    return found


def noise(name: str) -> list[dict]:
    """How well low scores find wrong labels."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    from sktda import NoisyLabelDetector
    from sktda.attribution import BoostIn, LeafInfluence, TreeKernel

    X, y = table_data(name, 150 if quick() else 2 * ROWS)
    given, wrong = plant(y, "u15", 0)
    model = boosting(given)
    found = []
    for method, attributor in {
        "NoisyLabelDetector()": None,
        "BoostIn, self": BoostIn(model),
        "BoostIn, validation": BoostIn(model, objective="validation"),
        "LeafInfluence, self": LeafInfluence(model),
        "LeafInfluence, validation": LeafInfluence(model, objective="validation"),
        "TreeKernel, self": TreeKernel(model),
        "TreeKernel, validation": TreeKernel(model, objective="validation"),
        "TreeKernel of a forest, self": TreeKernel(),
    }.items():
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tables that nothing can be learned from
            scores = NoisyLabelDetector(attributor, random_state=0).fit(X, given).scores_
        about = {"table": name, "n": len(y), "seed": 0, "method": method, "seconds": time.perf_counter() - start}
        ranked = {"auroc": roc_auc_score(wrong, -scores), "ap": average_precision_score(wrong, -scores)}
        found.append({**about, **ranked})
    return found


def speed(n: int, steps: int, n_queries: int) -> dict:
    """Seconds of a fit, of self scores and of all values of queries, each on one thread."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.frozen import FrozenEstimator
    from threadpoolctl import threadpool_limits

    from sktda.attribution import BoostIn

    rng = np.random.default_rng(0)
    X = rng.normal(size=(n + n_queries, 20))
    y = (X[:, 0] + X[:, 1] ** 2 + rng.normal(size=len(X)) > 1).astype(int)
    with threadpool_limits(1):
        clock = [time.perf_counter()]
        model = HistGradientBoostingClassifier(max_iter=steps, early_stopping=False, random_state=0).fit(X[:n], y[:n])
        clock.append(time.perf_counter())
        boostin = BoostIn(FrozenEstimator(model), objective="self").fit(X[:n], y[:n])
        clock.append(time.perf_counter())
        values = boostin.attribute(X[n:], y[n:])
        clock.append(time.perf_counter())
    fit, own, pairs = np.diff(clock).tolist()
    about = {"n": n, "trees": steps, "queries": n_queries, "values": values.size}
    return {**about, "fit": fit, "self": own, "attribute": pairs, "seed": 0}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("questions", nargs="*", choices=["removal", "noise", "speed", []])
    options = begin(parser, arguments, threads=1)
    from pages.trees import noise_table, removal_table, speed_table

    small = quick() or data_folder() is None
    for question in options.questions or ("removal", "noise", "speed"):
        if question == "speed":
            rows = [measured(speed, 300, 5, 10) if quick() else measured(speed, 100_000, 300, 1_000)]
            print(speed_table(rows))
        else:
            names = BUNDLED[:1] if quick() else BUNDLED if small else REMOVAL if question == "removal" else NOISE
            rows = []
            for name in names:
                rows += (removal if question == "removal" else noise)(name)
                if not quick():
                    print(name, flush=True)
            print(removal_table(rows) if question == "removal" else noise_table(rows))
        save(f"trees_{question}", rows)


if __name__ == "__main__":
    main()
