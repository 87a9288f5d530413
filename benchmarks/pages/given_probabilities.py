"""Section of docs/benchmarks.md: probabilities that are given, ours beside cleanlab's scores."""

from __future__ import annotations

import numpy as np
from given_probabilities import SCORES, SETS, best
from pages.common import Rows, chosen, distinct, found, table, where

OURS = "sktda"


def given_probabilities() -> str:
    """The published cells one by one, tables by their noise; nothing where it was not run."""
    measured, rows = found("given_probabilities")
    if not rows:
        return ""
    nets, tables = chosen(rows, part="published"), chosen(rows, part="tables")
    parts = [
        "## Given probabilities",
        f"{where(measured)} `python benchmarks/given_probabilities.py`: `PrecomputedProbabilities` and "
        "cleanlab's scores on the same out-of-sample probabilities. Best: of cleanlab's five scores, chosen after the "
        "fact for every cell and figure. Rate: estimated share of wrong labels; that of cleanlab is its calibrated "
        "joint's.",
    ]
    if nets:
        parts += [
            "Published probabilities of five nets (Kuan and Mueller 2022): at or above the best in "
            f"{_won(nets, 'auroc')} of {len(nets)} cells by AUROC and {_won(nets, 'ap')} by average precision (AP). "
            "About a third of the wrong roman numerals are predicted as they are labelled; self-confidence finds more "
            "of these than any margin. People mistake what is hard to see, and the most confident rows, which the rate "
            "is taken from, show little of that: it is too low on human labels, where that of cleanlab is nearer. On "
            "tables, where classes overlap, cleanlab's is too high.",
            table(
                ["", "net", "AUROC", "best", "AP", "best", "true rate", "rate", "cleanlab"],
                [[row["set"], row["model"], *_figures(row), *_rates(row)] for row in nets],
            ),
            _means(nets, distinct(nets, "set"), "set", SETS),
        ]
    if tables:
        names = {"u5": "5 % uniform", "u15": "15 %", "u30": "30 %", "c30": "30 % of the largest class"}
        parts += [
            f"Logistic regression, ExtraTrees and 15 neighbours on {len(distinct(tables, 'set'))} tables of up to 600 "
            "rows with planted noise, 3 seeds:",
            _means(tables, distinct(tables, "noise"), "noise", names),
        ]
    return "\n\n".join(parts)


def _won(rows: Rows, metric: str) -> int:
    return sum(row[metric][OURS] >= best(row, metric) for row in rows)


def _figures(row: dict) -> list[str]:
    return [f"{value:.4f}" for metric in ("auroc", "ap") for value in (row[metric][OURS], best(row, metric))]


def _rates(row: dict) -> list[str]:
    return [f"{value:.3f}" for value in (row["true_rate"], row["rate"][OURS], row["rate"]["cleanlab"])]


def _means(rows: Rows, values: list[tuple], key: str, names: dict) -> str:
    """Mean AP of each score over the cells of each value of the key, and the mean error of the rate."""
    head = ["mean AP", *(names[value] if key == "noise" else value for (value,) in values), "all"]
    groups = [chosen(rows, **{key: value}) for (value,) in values] + [rows]
    body = [
        [
            name if name == OURS else f"cleanlab, {name}",
            *(f"{np.mean([row['ap'][name] for row in group]):.4f}" for group in groups),
        ]
        for name in (OURS, *SCORES)
    ]
    for name in (OURS, "cleanlab"):
        errors = (np.mean([row["error"][name] for row in group]) for group in groups)
        body.append([f"error of the rate, {name}", *(f"{error:.3f}" for error in errors)])
    return table(head, body)
