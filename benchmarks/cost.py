"""What the default detector costs: against scikit-learn's Nystroem + RidgeClassifier, and as rows grow.

    python benchmarks/cost.py
    python benchmarks/cost.py --quick   # few rows, once, nothing written: does it run?

Both take the rows of Fashion-MNIST and 2,000 landmarks (as unsigned bytes; for scikit-learn, which would compute in
float64, as float32), one after the other in one run, three times; the ratio is taken run by run. Each in a process of
its own, threads fixed.
Also AUROC and AP on all 60,000 rows at 20 and 40 % uniform flips, and Adult at 20 %.
Writes benchmarks/results/cost.json.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from shared.common import begin, flip, load, measured, save

SEED, REPEATS, LANDMARKS, ROWS = 0, 3, 2000, (15_000, 30_000, 60_000)


def gap(name: str, n: int | None, rate: float, n_landmarks: int) -> dict:
    from sklearn.metrics import average_precision_score, roc_auc_score

    from sktda.attribution import ComplexityGap

    X, y = load(name)
    X, y = X[:n], y[:n]
    given, wrong = flip(y, "uniform", rate, SEED)
    start = time.perf_counter()
    scores = ComplexityGap(mode="nystrom", n_landmarks=n_landmarks, random_state=SEED).fit(X, given).scores_
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "auroc": roc_auc_score(wrong, -scores),
        "ap": average_precision_score(wrong, -scores),
    }


def ridge(name: str, n: int | None, rate: float, n_landmarks: int) -> dict:
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline

    X, y = load(name)
    X = X[:n].reshape(n, -1).astype(np.float32) / 255
    given, _ = flip(y[:n], "uniform", rate, SEED)
    model = make_pipeline(Nystroem(n_components=n_landmarks, random_state=SEED), RidgeClassifier(0.1))
    start = time.perf_counter()
    model.fit(X, given)
    return {"seconds": time.perf_counter() - start}


def main(arguments: list[str] | None = None) -> None:
    quick = begin(argparse.ArgumentParser(description=__doc__.splitlines()[0]), arguments).quick
    sizes, repeats, n_landmarks = ((200,), 1, 50) if quick else (ROWS, REPEATS, LANDMARKS)
    rows = []
    for n in sizes:
        for repeat in range(repeats):
            ours, theirs = (measured(which, "fashion-60k", n, 0.2, n_landmarks) for which in (gap, ridge))
            ratio = ours["seconds"] / theirs["seconds"]
            rows.append({"data": "fashion", "n": n, "rate": 0.2, "repeat": repeat, "ratio": ratio, **ours})
            rows[-1] |= {"ridge_seconds": theirs["seconds"], "ridge_peak_gib": theirs["peak_gib"]}
            print(
                f"{n:6d} rows: ComplexityGap {ours['seconds']:6.2f} s {ours['peak_gib']:.2f} GiB "
                f"AUROC {ours['auroc']:.4f} AP {ours['ap']:.4f} | Nystroem + ridge {theirs['seconds']:6.2f} s "
                f"{theirs['peak_gib']:.2f} GiB | ratio {ratio:.2f}",
                flush=True,
            )
    for name, n, rate in (("fashion-60k", sizes[-1], 0.4), ("adult", None, 0.2)):
        rows.append({"data": name, "n": n, "rate": rate, **measured(gap, name, n, rate, n_landmarks)})
        print(rows[-1], flush=True)
    save("cost", rows)


if __name__ == "__main__":
    main()
