"""Is a table better prepared by TableEncoder or by skrub? Wrong labels found from what either makes of it.

    SKTDA_DATA=folder python benchmarks/tables_encoders.py            # tables and field files of the folder
    SKTDA_DATA=folder python benchmarks/tables_encoders.py --only titanic units
    python benchmarks/tables_encoders.py --quick                      # a made table, nothing is written

15 % of the labels become another class at random (of numbers: swap places among each other); three seeds. Both see the
same frames, at most 1,500 rows, as pandas reads them from CSV. skrub's TableVectorizer leaves missing cells, which
SimpleImputer(strategy="median", add_indicator=True) fills; "scaled" has its SquashingScaler behind. LabelPosterior()
ranks the rows; AP is that of its low scores for the wrong labels. Seconds are those of the encoder alone.
Writes benchmarks/results/tables_encoders.json.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from shared.common import begin, data_folder, has, save, set_threads

set_threads(1)

import pandas as pd  # noqa: E402
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.metrics import average_precision_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402

from sktda import TableEncoder  # noqa: E402
from sktda.attribution import LabelPosterior  # noqa: E402

ROWS = 1500
SEEDS = (0, 1, 2)
NUMBERS = {"insurance", "bengaluru", "houseprices"}  # whose target is one
FIELD = {"units": ("state", {}), "free_text": ("topic", {})}
FIELD["units_de"] = ("Status", {"sep": ";", "encoding": "latin-1"})


def tables(quick: bool):
    """(name, frame, labels, task) of every table."""
    if quick:
        rng = np.random.default_rng(0)
        x, kind = rng.uniform(1, 90, 80), rng.choice(["red", "blue"], 80)
        frame = pd.DataFrame({"weight": [f"{value:.1f} kg" for value in x], "kind": kind})
        yield "made", frame, np.where((x > 45) ^ (kind == "red"), "a", "b"), "classification"
        return
    folder = data_folder()
    if folder is None:
        raise SystemExit("set SKTDA_DATA to the folder that has data/tables and field")
    for path in sorted((folder / "tables").glob("*.csv.gz")):
        name = path.name.removesuffix(".csv.gz")
        frame = pd.read_csv(path)
        frame = frame.sample(min(ROWS, len(frame)), random_state=0).reset_index(drop=True)
        yield name, frame, frame.pop("target").to_numpy(), "regression" if name in NUMBERS else "classification"
    for name, (target, options) in FIELD.items():
        frame = pd.read_csv(folder.parent / "field" / f"{name}.csv", **options)
        yield name, frame, frame.pop(target).to_numpy(), "classification"


def planted(y: np.ndarray, task: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels, mask of the wrong ones)."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(y))[: round(0.15 * len(y))]
    wrong = np.isin(np.arange(len(y)), rows)
    if task == "regression":
        given = y.copy()
        given[rows] = rng.permutation(y)[rows]
        return given, wrong
    classes, codes = np.unique(y.astype(str), return_inverse=True)
    codes[rows] = (codes[rows] + rng.integers(1, len(classes), len(rows))) % len(classes)
    return classes[codes], wrong


def encoders(with_skrub: bool) -> dict:
    found = {"TableEncoder": TableEncoder()}
    if with_skrub:
        from skrub import SquashingScaler, TableVectorizer

        filled = make_pipeline(TableVectorizer(), SimpleImputer(strategy="median", add_indicator=True))
        found |= {"skrub": filled, "skrub, scaled": make_pipeline(filled, SquashingScaler())}
    return found


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="TABLE", help="some of the tables; nothing is written then")
    options = begin(parser, given, threads=1)
    with_skrub = has("skrub")
    rows = []
    for name, frame, y, task in tables(options.quick):
        if options.only and name not in options.only:
            continue
        for method, encoder in encoders(with_skrub).items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                start = time.process_time()
                X = np.asarray(encoder.fit_transform(frame), dtype=float)
                seconds = time.process_time() - start
                found = []
                for seed in SEEDS[:1] if options.quick else SEEDS:
                    labels, wrong = planted(y, task, seed)
                    scores = LabelPosterior(task=task, random_state=0).fit(X, labels).scores_
                    found.append(average_precision_score(wrong, -scores))
            p = X.shape[1]
            rows.append({"table": name, "n": len(y), "method": method, "features": p, "seconds": seconds, "ap": found})
            print(f"{name:<12} {method:<14} {p:>4} features {seconds:5.2f} s  AP {np.mean(found):.3f}", flush=True)
    if not options.only:
        save("tables_encoders", rows)


if __name__ == "__main__":
    main()
