"""Rare classes, and labels that the features do not predict: what does the default flag there?

    SKTDA_DATA=folder python benchmarks/faq.py    # some minutes
    python benchmarks/faq.py --quick              # one small table, nothing is written

rare      Tables of which the smallest class is made 2, 5 or 20 % of at most 1,500 rows. Labels stay as they are; or a
          tenth of the rare rows change places with as many others ("swapped": the rare label is as often missing as
          it is wrongly given); or 10 % of all rows get another label at random ("any": of those with the rare label
          most may then be wrong).
shuffled  Labels of half of the rows, or of all, dealt out anew among them.

Tables as in tables_battery.py (without SKTDA_DATA only those that scikit-learn brings along), three seeds, one thread.
Writes benchmarks/results/faq.json; `python docs/measured.py` puts it on docs/faq.md.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from shared import battery
from shared.common import begin, save

TABLES = ("adult", "telco", "hr", "phoneme", "mushrooms", "letters", "breast_cancer", "digits")
SHARES, KINDS, SEEDS, ROWS = (0.02, 0.05, 0.2), ("none", "swapped", "any"), (0, 1, 2), 1_500
LEAST_RARE, NOISE = 10, 0.1


def thinned(y: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(rows of which the smallest class is that share, which of them are of it); None if these are too few."""
    rng = np.random.default_rng(seed)
    rare = np.bincount(y).argmin()
    few, many = rng.permutation(np.flatnonzero(y == rare)), rng.permutation(np.flatnonzero(y != rare))
    n = int(min(ROWS, len(few) / share, len(many) / (1 - share)))
    n_rare = round(share * n)
    if n_rare < LEAST_RARE:
        return None
    rows = np.sort(np.concatenate([few[:n_rare], many[: n - n_rare]]))
    return rows, y[rows] == rare


def spoiled(y: np.ndarray, is_rare: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """The labels as they are given."""
    rng = np.random.default_rng(100 + seed)
    if kind == "any":
        return battery.plant(y, f"u{NOISE * 100:.0f}", seed)[0]
    given = y.copy()
    if kind == "swapped":
        k = max(1, round(NOISE * is_rare.sum()))
        here, there = (rng.permutation(np.flatnonzero(mask))[:k] for mask in (is_rare, ~is_rare))
        given[here], given[there] = y[there], y[here]
    return given


def flags(X: np.ndarray, given: np.ndarray, seed: int) -> tuple[np.ndarray, dict]:
    """(rows that the default flags, what it says of all of them)."""
    from sktda import NoisyLabelDetector

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it cannot tell, or flags more than a third, is a result here
        detector = NoisyLabelDetector(random_state=seed).fit(X, given)
    said = {"can_tell": bool(detector.can_tell_), "rate": float(detector.noise_rate_)}
    return detector.labels_ == -1, said


def counts(flagged: np.ndarray, wrong: np.ndarray) -> dict:
    """Numbers of rows."""
    names = {"rows": np.ones_like(wrong), "flagged": flagged, "wrong": wrong, "both": flagged & wrong}
    return {name: int(mask.sum()) for name, mask in names.items()}


def rare(tables: dict, seeds: tuple, shares: tuple, kinds: tuple) -> list[dict]:
    """Part one: counts over the rows with the rare label and the others, and of right rows that are rare."""
    rows = []
    for table, (X, y) in tables.items():
        for share in shares:
            for seed in seeds:
                drawn = thinned(y, share, seed)
                for kind in kinds if drawn else ():
                    at, is_rare = drawn
                    given = spoiled(y[at], is_rare, kind, seed)
                    flagged, said = flags(X[at], given, seed)
                    wrong, as_rare = given != y[at], given == y[at][is_rare][0]
                    row = {"part": "rare", "table": table, "share": share, "noise": kind, "seed": seed, **said}
                    row["rare label"] = counts(flagged[as_rare], wrong[as_rare])
                    row["other labels"] = counts(flagged[~as_rare], wrong[~as_rare])
                    rows.append(row)
                    print(row, flush=True)
    return rows


def shuffled(tables: dict, seeds: tuple, parts: tuple) -> list[dict]:
    """Part two."""
    rows = []
    for table, (X, y) in tables.items():
        X, y = X[:ROWS], y[:ROWS]
        for part in parts:
            for seed in seeds:
                rng = np.random.default_rng(seed)
                at = rng.permutation(len(y))[: round(part * len(y))]
                given = y.copy()
                given[at] = y[rng.permutation(at)]
                flagged, said = flags(X, given, seed)
                row = {"part": "shuffled", "table": table, "of the rows": part, "seed": seed, **said}
                rows.append({**row, **counts(flagged, given != y)})
                print(rows[-1], flush=True)
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = begin(parser, arguments, threads=1)
    names = [name for name in TABLES if name in battery.table_names()]
    tables = {name: battery.table_data(name) for name in (["breast_cancer"] if options.quick else names)}
    if options.quick:
        rows = rare(tables, (0,), (0.2,), ("swapped",)) + shuffled(tables, (0,), (1.0,))
    else:
        rows = rare(tables, SEEDS, SHARES, KINDS) + shuffled(tables, SEEDS, (0.5, 1.0))
    save("faq", rows)


if __name__ == "__main__":
    main()
