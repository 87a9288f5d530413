"""Probabilities that are given, ours beside cleanlab's scores: what given_probabilities.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from given_probabilities import SCORES, SETS, best
from pages.common import Rows, chosen, distinct, found, table
from pages.page import Page, Picture
from pages.plots import dots

OURS = "sktda"


RATES = OURS, "confident_joint", "cleanlab"
NOISE = {"u5": "5 % uniform", "u15": "15 %", "u30": "30 %", "c30": "30 % of the largest class"}


def given_probabilities() -> Page | None:
    """The published cells one by one, tables by their noise; nothing where it was not run."""
    environment, rows = found("given_probabilities")
    if not rows:
        return None
    nets, checked, tables = (chosen(rows, part=part) for part in ("published", "checked", "tables"))
    gaps = {"of published nets": nets, f"of {len(distinct(tables, 'set'))} tables": tables}
    said = " and ".join(f"in {_won(own, 'ap')} of {len(own)} cells {name}" for name, own in gaps.items() if own)
    folded = {}
    if nets:
        folded["Published probabilities, cell by cell"] = table(
            ["", "net", "AUROC", "best", "AP", "best", "true rate", "rate", "confident_joint", "cleanlab"],
            [[row["set"], row["model"], *_figures(row), *_rates(row)] for row in nets],
        )
        folded["Published probabilities, mean AP of each score and error of the rate"] = _means(
            nets, distinct(nets, "set"), "set", SETS
        )
    if checked:
        folded["Test sets that people checked"] = _checked(checked)
    if tables:
        folded["Tables with planted noise, mean AP of each score and error of the rate"] = _means(
            tables, distinct(tables, "noise"), "noise", NOISE
        )
    panels = {}
    for (name,) in distinct(nets, "set"):
        own = chosen(nets, set=name)
        panels[name] = {
            "sktda": {row["model"]: row["ap"][OURS] for row in own},
            "cleanlab, best": {row["model"]: best(row, "ap") for row in own},
        }
    if tables:
        panels["Tables, mean"] = {
            "sktda": {NOISE[n]: _mean_ap(chosen(tables, noise=n), OURS) for (n,) in distinct(tables, "noise")},
            "cleanlab, best": {
                NOISE[n]: float(np.mean([best(row, "ap") for row in chosen(tables, noise=n)]))
                for (n,) in distinct(tables, "noise")
            },
        }
    return Page(
        name="given-probabilities",
        question="With the probabilities of a model that is there already, which score ranks wrong labels best?",
        answer="By average precision PrecomputedProbabilities is at or above the best of cleanlab's five "
        "scores, chosen "
        f"after the fact, {said}.",
        picture=Picture(
            "Average precision on each set of published probabilities, ours beside the best of cleanlab's scores",
            partial(dots, panels, "average precision", joined=True),
        ),
        about="The same out-of-sample probabilities go into `PrecomputedProbabilities` and into cleanlab's scores: "
        "published ones of five nets (Kuan and Mueller 2022), and those of logistic regression, ExtraTrees and 15 "
        "neighbours on tables of up to 600 rows with planted noise, three seeds. Rate: estimated share of wrong "
        f"labels; that of cleanlab is its calibrated joint's.{_alone(nets)} About a third of the wrong roman numerals "
        "are predicted as they are labelled; self-confidence finds more of these than any margin, and fewer of the "
        "worst labels of CIFAR-10N, where two classes are taken for each other both ways. Log odds in place of the "
        "margin, with or without a temperature that fits the labels, and Bayes' rule with the rates of the confident "
        "joint, or of the most confident rows, were tried on the tables and two of the published cells: each loses "
        f"there or on CIFAR-10N.{_seen(checked)} People mistake what is hard to "
        "see, and the most confident rows, which the rate is taken from, show little of that: it is too low on human "
        'labels, where `NoisyLabelDetector(contamination="confident_joint")` and cleanlab are nearer. On tables, where '
        "classes overlap, these two are too high.",
        command="python benchmarks/given_probabilities.py",
        measured=[(environment, rows)],
        tables=folded,
    )


def _alone(nets: Rows) -> str:
    """What one score of cleanlab's, the same in every cell, would reach."""
    if not nets:
        return ""
    most = {
        metric: max(sum(row[metric][name] >= best(row, metric) for row in nets) for name in SCORES)
        for metric in ("auroc", "ap")
    }
    return (
        f" By AUROC ours is at or above the best in {_won(nets, 'auroc')} of the {len(nets)} published cells. No one "
        f"of the five is the best in more than {most['auroc']} by AUROC and {most['ap']} by average precision."
    )


def _seen(checked: Rows) -> str:
    """Where the checked test sets stand."""
    if not checked:
        return ""
    rows = sum(row["n_checked"] for row in checked)
    highest = max(np.mean([row["auroc"][name] for row in checked]) for name in (OURS, *SCORES))
    return (
        f" Among the {rows:,} rows of {len(checked)} test sets that confident learning doubted and five people looked "
        f"at (Northcutt, Athalye and Mueller 2021), ours is at or above the best in {_won(checked, 'ap')} of "
        f"{len(checked)} by average precision; the highest mean AUROC of any score there is {highest:.2f}."
    )


def _checked(rows: Rows) -> str:
    """AUROC and AP among the rows that were checked."""
    head = ["", "rows", "checked", "wrong", *("sktda" if name == OURS else name for name in (OURS, *SCORES))]
    body = [
        [row["set"], f"{row['n']:,}", f"{row['n_checked']:,}", str(row["n_wrong"])]
        + [f"{row['auroc'][name]:.3f} / {row['ap'][name]:.3f}" for name in (OURS, *SCORES)]
        for row in rows
    ]
    return f"{table(head, body)}\n\nAUROC / average precision among the checked rows; all rows are ranked."


def _mean_ap(rows: Rows, name: str) -> float:
    return float(np.mean([row["ap"][name] for row in rows]))


def _won(rows: Rows, metric: str) -> int:
    return sum(row[metric][OURS] >= best(row, metric) for row in rows)


def _figures(row: dict) -> list[str]:
    return [f"{value:.4f}" for metric in ("auroc", "ap") for value in (row[metric][OURS], best(row, metric))]


def _rates(row: dict) -> list[str]:
    return [f"{row['true_rate']:.3f}", *(f"{row['rate'][name]:.3f}" for name in RATES)]


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
    for name in RATES:
        errors = (np.mean([row["error"][name] for row in group]) for group in groups)
        body.append([f"error of the rate, {name}", *(f"{error:.3f}" for error in errors)])
    return table(head, body)
