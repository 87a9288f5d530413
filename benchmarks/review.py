"""Does it pay to order the rest of a review anew, by what was decided so far?

    python benchmarks/review.py [--quick] [--data fashion-10k ...] [--settings u5 u15] [--seeds 0 1 2] [--decisions 100]

Wrong labels are planted. A reviewer who is always right looks at the rows that NoisyLabelDetector puts first, and gives
each its true label. Found are the wrong labels among the rows that were looked at: "fixed" stays with the first order;
"refit" fits the detector again after every 20 decisions, on the labels as corrected; "pairs" also counts how often a
given and a suggested class were really confused, in the decisions so far, and puts their rows forward or back.
"best" is what a perfect order would find.
Writes benchmarks/results/review.json (--quick: one table of scikit-learn, nothing).
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from shared.common import begin, load, save, set_threads

set_threads(1)

from pages.review import found as page  # noqa: E402
from shared.battery import plant, table_data  # noqa: E402

from sktda import NoisyLabelDetector  # noqa: E402

DATA = ("fashion-10k", "letters", "telco", "winered")
QUICK = ("iris (scikit-learn)",)
WAYS = ("fixed", "refit", "pairs")
STEP = 20


def rows_of(name: str, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(X, y as 0..C-1)."""
    if name.startswith("fashion"):
        X, y = load(name)
        return X.reshape(len(X), -1).astype(np.float32) / 255, y
    return table_data(name, n_rows)


def pair_odds(given: np.ndarray, suggested: np.ndarray, was_wrong: dict[int, bool]) -> np.ndarray:
    """Log odds (n,) that rows of the same pair of classes were wrong, one of each assumed before the first is seen."""
    counts: dict[tuple, list[int]] = {}
    for row, wrong in was_wrong.items():
        counts.setdefault((given[row], suggested[row]), [1, 1])[wrong] += 1
    odds = {pair: np.log(wrong / right) for pair, (right, wrong) in counts.items()}
    return np.array([odds.get(pair, 0.0) for pair in zip(given.tolist(), suggested.tolist(), strict=True)])


def reviewed(X: np.ndarray, given: np.ndarray, true: np.ndarray, way: str, budget: int, first, seed: int) -> list[int]:
    """How many wrong labels were found after each STEP decisions."""
    detector, labels = first, given.copy()
    was_wrong: dict[int, bool] = {}
    found = []
    while len(was_wrong) < budget:
        if was_wrong and way != "fixed":
            detector = NoisyLabelDetector(random_state=seed).fit(X, labels)
        scores = detector.scores_.copy()
        if way == "pairs":
            spread = np.median(np.abs(scores - np.median(scores))) or 1.0
            scores -= spread * pair_odds(given, detector.suggested_labels_, was_wrong)
        scores[list(was_wrong)] = np.inf
        for row in np.argsort(scores, kind="stable")[: min(STEP, budget - len(was_wrong))].tolist():
            was_wrong[row] = bool(given[row] != true[row])
            labels[row] = true[row]
        found.append(sum(was_wrong.values()))
    return found


def cell(name: str, setting: str, seed: int, n_rows: int, budget: int) -> dict:
    """One data set, noise and seed: what each way found, step by step."""
    X, true = rows_of(name, n_rows)
    given, wrong = plant(true, setting, seed)
    budget = min(budget, len(true) // 2)
    first = NoisyLabelDetector(random_state=seed).fit(X, given)
    row = {"data": name, "setting": setting, "seed": seed, "n": len(true), "wrong": int(wrong.sum()), "step": STEP}
    row |= {"decisions": budget, "found": {}, "seconds": {}}
    for way in WAYS:
        start = time.perf_counter()
        row["found"][way] = reviewed(X, given, true, way, budget, first, seed)
        row["seconds"][way] = time.perf_counter() - start
    return row


def main(arguments: list[str] | None = None) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(DATA))
    parser.add_argument("--settings", nargs="+", default=["u5", "u15"], help="of tables_battery.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=2_000, help="at most, per table; 0 = all")
    parser.add_argument("--decisions", type=int, default=100)
    chosen = begin(parser, arguments, threads=1)
    if chosen.quick:
        chosen.data, chosen.settings, chosen.seeds, chosen.rows, chosen.decisions = QUICK, ["u15"], [0], 90, 40
    warnings.simplefilter("ignore")  # what the detector says of odd data
    rows: list[dict] = []
    for name in chosen.data:
        for setting in chosen.settings:
            for seed in chosen.seeds:
                rows.append(cell(name, setting, seed, chosen.rows, chosen.decisions))
                save("review", rows)
                print(
                    name, setting, seed, *(f"{way} {found[-1]}" for way, found in rows[-1]["found"].items()), flush=True
                )
    print(page(rows))


if __name__ == "__main__":
    main()
