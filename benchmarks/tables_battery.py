"""Is the default to be trusted on any table? Many ordinary tables with planted wrong labels, beside cleanlab.

    SKTDA_DATA=folder python benchmarks/tables_battery.py                  # everything that is not in the files yet
    python benchmarks/tables_battery.py --quick                            # one small table, nothing is written
    python benchmarks/tables_battery.py --part detect --only-ours --again  # ours anew, after a change of sktda

Classification tables of SKTDA_DATA/data/tables, Adult, phoneme, segment, and scikit-learn's wine, breast_cancer, digits
and iris (without SKTDA_DATA these alone), at most 3,000 rows each (--rows), which are drawn once. Numbers get their
median where they are missing, other columns are one-hot encoded; every method sees the same rows. Labels stay as they
are, 5, 15 or 30 % become another class at random, or 30 % of the largest class become one other class; three seeds of
noise and method. One thread; seconds are those of the processor, so that other work beside does not count.

detect  `NoisyLabelDetector()` beside cleanlab with 5-fold out-of-sample probabilities of LogisticRegression on
        standardised columns, ExtraTreesClassifier(300, min_samples_leaf=3) and HistGradientBoostingClassifier():
        `get_label_quality_scores` ranks, `find_label_issues` flags, and the rate is one minus the trace of
        `estimate_joint`.
train   60 % of the rows train, with planted wrong labels, the others test and keep theirs: accuracy of 1-NN and
        LogisticRegression on standardised columns, RandomForestClassifier() and HistGradientBoostingClassifier() on all
        rows, after `ResampledEstimator(model, NoisyLabelDetector())`, and on the rows with right labels alone. The
        detector does not depend on the model, so its rows are found once for the four.
field   rows that are flagged in the files of SKTDA_DATA/field.

Writes benchmarks/results/tables_battery.json (ours) and tables_battery_cleanlab.json (cleanlab, and models on all or
right rows, which do not change with sktda), cell by cell, and goes on where it was stopped. Cells of ours keep a digest
of the sources that they were measured with; --again measures those of other sources anew.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from pages.battery import detect_page
from pages.battery_models import field_page, train_page
from shared import battery
from shared.battery import FIELD, MODELS, PEERS, ROWS, SEEDS, SETTINGS, Cells
from shared.common import RESULTS, begin, has

PARTS = ("detect", "train", "field")
QUICK = {"rows": 90, "seeds": [0], "settings": ["u15"], "tables": ["wine"]}


def detect(chosen: argparse.Namespace, ours: Cells, others: Cells) -> None:
    """Ranking, rate and flags, of ours and of cleanlab."""
    for seed in chosen.seeds:
        for table in chosen.tables:
            X, y = chosen.data[table]
            for setting in chosen.settings:
                given, wrong = battery.plant(y, setting, seed)
                key = {"part": "detect", "table": table, "n": len(y), "setting": setting, "seed": seed}
                if not chosen.only_cleanlab and wanted(ours, key, chosen):
                    found = battery.detector_cell(X, given, wrong, seed)
                    report(ours.add(key, {**found, "source": chosen.source}))
                for name in () if chosen.only_ours else PEERS:
                    key["method"] = name
                    if others.get(key) is None:
                        report(others.add(key, battery.cleanlab_cell(X, given, wrong, name, seed)))


def train(chosen: argparse.Namespace, ours: Cells, others: Cells) -> None:
    """Accuracy on right test rows of models trained on all, cleaned and right rows."""
    for seed in chosen.seeds:
        for table in chosen.tables:
            X, y = chosen.data[table]
            fit, test = battery.split(y, seed)
            held = X[test], y[test]
            for setting in chosen.settings:
                given, wrong = battery.plant(y[fit], setting, seed)
                key = {"part": "train", "table": table, "n": len(y), "setting": setting, "seed": seed}
                for name in () if chosen.only_ours else MODELS:
                    for which, rows in (("all", slice(None)), ("right", ~wrong)):
                        named = {**key, "method": name, "rows": which}
                        if others.get(named) is not None:
                            continue
                        known = others.get({**named, "rows": "all"}) if not wrong.any() else None
                        score = (
                            known["accuracy"]
                            if known
                            else battery.accuracy(name, seed, (X[fit][rows], given[rows]), held)
                        )
                        report(others.add(named, {"accuracy": score}))
                key["rows"] = "cleaned"
                if chosen.only_cleanlab or not wanted(ours, {**key, "method": MODELS[-1]}, chosen):
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    kept = battery.fitted_detector(X[fit], given, seed).sample_indices_
                rows = X[fit][kept], given[kept]
                removed = {"removed": 1 - len(kept) / len(fit), "true_rate": float(wrong.mean())}
                for name in MODELS:
                    found = {"accuracy": battery.accuracy(name, seed, rows, held), **removed}
                    report(ours.add({**key, "method": name}, {**found, "source": chosen.source}))


def field(chosen: argparse.Namespace, ours: Cells) -> None:
    """Rows flagged in small files as people have them."""
    import pandas as pd

    from sktda import NoisyLabelDetector

    for name, (target, n_wrong) in FIELD.items():
        frame = pd.read_csv(battery.field_folder() / f"{name}.csv")
        y = frame.pop(target).to_numpy()
        key = {"part": "field", "table": name, "n": len(y), "seed": 0}
        if not wanted(ours, key, chosen):
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            detector = NoisyLabelDetector(random_state=0).fit(battery.encode(frame), y)
        found = {
            "wrong": n_wrong,
            "flagged": int((detector.labels_ == -1).sum()),
            "rate": float(detector.noise_rate_),
            "findings": [str(finding) for finding in getattr(detector, "findings_", ())],
            **battery.told(detector, caught),
        }
        report(ours.add(key, {**found, "source": chosen.source}))


def wanted(ours: Cells, key: dict, chosen: argparse.Namespace) -> bool:
    """Whether a cell of ours is to be measured."""
    row = ours.get(key)
    return row is None or (chosen.again and row["source"] != chosen.source)


def report(row: dict) -> None:
    """One line."""
    values = [f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items() if v not in (None, [])]
    print("  ".join(values), flush=True)


def arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tables", nargs="+", metavar="NAME", help=f"some of {', '.join(battery.table_names())}")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, help=f"default: {' '.join(map(str, SEEDS))}")
    parser.add_argument("--rows", type=int, help=f"at most so many of a table, 0 = all; default: {ROWS}")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--only-ours", action="store_true", help="measure nothing that does not depend on sktda")
    only.add_argument("--only-cleanlab", action="store_true", help="measure nothing that depends on sktda")
    only.add_argument("--only-print", action="store_true", help="measure nothing")
    parser.add_argument("--again", action="store_true", help="ours anew where other sources were measured")
    parser.add_argument("--out", type=Path, help="folder of the JSON files; default: benchmarks/results")
    chosen = begin(parser, arguments, threads=1)
    defaults = {"rows": ROWS, "seeds": list(SEEDS), "settings": list(SETTINGS), "tables": battery.table_names()}
    for name, value in (QUICK if chosen.quick else defaults).items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    if unknown := sorted(set(chosen.tables) - set(battery.table_names())):
        parser.error(f"{', '.join(unknown)}: not among {', '.join(battery.table_names())} (more with SKTDA_DATA)")
    if chosen.out is None and not chosen.quick:
        chosen.out = RESULTS
    return chosen


def main(given: list[str] | None = None) -> None:
    chosen = arguments(given)
    if not chosen.only_ours and not has("cleanlab"):
        chosen.only_ours = True
    chosen.source = battery.source_digest()
    chosen.data = {name: battery.table_data(name, chosen.rows) for name in chosen.tables}
    folder = chosen.out
    ours = Cells(folder and folder / "tables_battery.json")
    others = Cells(folder and folder / "tables_battery_cleanlab.json")
    battery.warm_up(
        ours=not (chosen.only_cleanlab or chosen.only_print),
        cleanlab="detect" in chosen.part and not (chosen.only_ours or chosen.only_print),
    )
    if not chosen.only_print:
        if "detect" in chosen.part:
            detect(chosen, ours, others)
        if "train" in chosen.part:
            train(chosen, ours, others)
        if "field" in chosen.part and battery.has_field() and not chosen.only_cleanlab:
            field(chosen, ours)
    pages = {"detect": detect_page, "train": train_page, "field": field_page}
    for part in chosen.part:
        print(pages[part](shown(ours, chosen), shown(others, chosen)), end="\n\n", flush=True)


def shown(cells: Cells, chosen: argparse.Namespace) -> list[dict]:
    """The cells of the chosen tables, rows, settings and seeds."""
    sizes = {name: len(y) for name, (_, y) in chosen.data.items()}
    return [
        row
        for row in cells.rows.values()
        if row["part"] == "field"
        or (row["n"] == sizes.get(row["table"]) and row["seed"] in chosen.seeds and row["setting"] in chosen.settings)
    ]


if __name__ == "__main__":
    main()
