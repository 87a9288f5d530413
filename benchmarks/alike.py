"""Are copies and strange rows found, and only these? Planted ones among the rows of many tables and of pictures.

    python benchmarks/alike.py [--quick] [--cost]

Into each data set (the tables of tables_battery.py, up to 3,000 rows, and Fashion-MNIST) 20 rows are planted at a time:
"equal" to others; "near" ones, with noise of 1 % of each column's standard deviation; "shuffled" ones, each cell from
another row; "far" ones, 3 standard deviations up or down in every column. Shown are the share of them that
`compare_rows` names, and what it names of the data as they are. --cost measures its seconds of the processor on 10,000
rows beside those of the whole `sktda score`. Writes benchmarks/results/alike.json (--quick: one table, nothing).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator

import numpy as np
from shared.battery import table_data, table_names
from shared.common import begin, fashion_mnist, load, quick, save

PLANTED, ROWS, COST_ROWS, WIDEST_TABLE, SEEDS = 20, 3_000, 10_000, 500, (0, 1, 2)
KINDS = ("equal", "near", "shuffled", "far")


def data() -> Iterator[tuple[str, np.ndarray]]:
    """Names and rows."""
    for name in ["wine"] if quick() else table_names():
        yield name, table_data(name, ROWS)[0]
    if not quick():
        yield "fashion", fashion_mnist()[0][:ROWS].reshape(ROWS, -1).astype(np.float32)


def planted(X: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """Rows to put behind those of X."""
    rng = np.random.default_rng(seed)
    copies, spread = X[rng.choice(len(X), PLANTED, replace=False)].astype(float), X.std(axis=0)
    if kind == "near":
        return copies + 0.01 * spread * rng.normal(size=copies.shape)
    if kind == "far":
        return copies + 3 * spread * rng.choice([-1, 1], copies.shape)
    if kind == "shuffled":
        return np.column_stack([rng.choice(column, PLANTED) for column in X.T])
    return copies


def cell(name: str, X: np.ndarray) -> dict:
    """Shares of rows that are named as they are, and of planted ones, mean over the seeds."""
    from sktda.alike import compare_rows

    plain = compare_rows(X)
    shares = {}
    for kind in KINDS:
        found = [compare_rows(np.vstack([X, planted(X, kind, seed)])) for seed in (SEEDS[:1] if quick() else SEEDS)]
        named = {
            "equal": lambda each: each.duplicate_of >= 0,
            "near": lambda each: (each.near_duplicate_of >= 0) | (each.duplicate_of >= 0),
        }.get(kind, lambda each: each.is_outlier)
        shares[kind] = float(np.mean([named(each)[len(X) :].mean() for each in found]))
    counts = {
        "duplicates": int((plain.duplicate_of >= 0).sum()),
        "near_duplicates": int((plain.near_duplicate_of >= 0).sum()),
        "outliers": int(plain.is_outlier.sum()),
    }
    return {"part": "planted", "data": name, "n": len(X), "by_nature": plain.by_nature, **counts, "named": shares}


def cost(name: str) -> dict:
    """Seconds of the processor on 10,000 rows: alone, and of the whole command `sktda score`."""
    import pandas as pd

    from sktda.alike import compare_rows

    X, y = load(name)
    X, y = X[:COST_ROWS].reshape(len(X[:COST_ROWS]), -1).astype(np.float32), y[:COST_ROWS]
    start = time.process_time()
    compare_rows(X)
    seconds = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        if X.shape[1] > WIDEST_TABLE:
            path, options = f"{folder}/data.npz", []
            np.savez(path, X=X, y=y)
        else:
            path, options = f"{folder}/data.csv", ["--target", "label"]
            pd.DataFrame(X).add_prefix("x").assign(label=y).to_csv(path, index=False)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "sktda", "score", path, *options, "--out", f"{folder}/s.csv", "-q"], check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"part": "cost", "data": name, "n": len(X), "compare_rows": seconds, "score": whole}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cost", action="store_true", help="also the seconds, beside those of the detector")
    chosen = begin(parser, arguments, threads=1)
    warnings.simplefilter("ignore")  # of the detector, about what it finds
    rows = []
    for name, X in data():
        rows.append(cell(name, np.ascontiguousarray(X)))
        print(rows[-1], flush=True)
    for name in ("adult", "fashion-10k") if chosen.cost else ():
        rows.append(cost(name))
        print(rows[-1], flush=True)
    save("alike", rows)


if __name__ == "__main__":
    main()
