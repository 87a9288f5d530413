"""Attributors beside OpenDataVal's evaluators in OpenDataVal's tasks: what opendataval_tasks.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from opendataval_tasks import OURS
from pages.common import Rows, chosen, distinct, found, mean, table
from pages.page import Page, Picture
from pages.plots import dots

US, THEM, DEFAULT = "sktda", "OpenDataVal", "LabelPosterior"
TASKS = {"labels": "Wrong labels", "features": "Noisy features"}
METRICS = {"f1": "F1", "auroc": "AUROC"}
ASKED = ("InnerProduct", "Influence")  # about validation rows
ALIKE = {  # theirs: ours
    "KNNShapley, 10": "KNNShapley, validation",
    "DataOob, trees": "DataOOB",
}


def opendataval() -> Page | None:
    """Every cell, lost ones too; nothing where it was not run."""
    environment, rows = found("opendataval_tasks")
    if not rows:
        return None
    curves = [row for row in rows if "lowest" in row]
    folded = {"Means over the sets and both rates": _means(rows, curves)}
    for task, title in TASKS.items():
        for metric, name in METRICS.items():
            folded[f"{title}, {name}, every cell"] = _cells(chosen(rows, task=task), metric)
    folded["Wrong labels, 20 %: accuracy without the rows of the lowest and of the highest values"] = _curves(curves)
    panels = {
        f"{title}, {name}": {
            by: {method: mean(own, metric) for method, own in _methods(chosen(rows, task=task, by=by)).items()}
            for by in (US, THEM)
        }
        for task, title in TASKS.items()
        for metric, name in METRICS.items()
    }
    peers = len(distinct(chosen(rows, by=THEM), "method"))
    settings = distinct(rows, "data", "n")
    return Page(
        name="opendataval",
        question="Who finds the noisy rows in OpenDataVal's tasks?",
        answer=f"{DEFAULT} meets the best of OpenDataVal's {peers} evaluators at wrong labels in "
        f"{_won(chosen(rows, task='labels'))}, at noisy features in {_won(chosen(rows, task='features'))}.",
        picture=Picture(
            "Mean F1 and AUROC of each method in both tasks, ours and OpenDataVal's",
            partial(dots, panels, "mean over sets and rates"),
        ),
        about="OpenDataVal (version 1.3.0, commit 5c2856b) splits the rows, makes 10 or 20 % of them noisy (labels of "
        "another class, or features plus normal noise of standard deviation 1, whatever the columns' scale), and "
        "judges: F1 of the lower of two groups of values, accuracy after removal; AUROC needs no threshold. As large a "
        "share of the validation rows is noisy. Its evaluators have their defaults, KNNShapley also as many neighbours "
        "as there are validation rows, as in its notebooks; for the time there are 100 models in place of 1,000, which "
        "is little for DataBanzhaf and InfluenceSubsample. Where they take a model it is a logistic regression, for "
        "DataOob trees as well; that of InfluenceFunction is trained for 5 epochs, LossVal for 20, which in a first "
        "look served it better than 5. Ours have their defaults and no validation rows, but for those named "
        "validation, margin or logistic. Its InfluenceFunction is a product of gradients; our InnerProduct and "
        "Influence without validation rows rank a row by what it does to itself. "
        f"{_asked(chosen(rows, task='labels'))} The two Gaussian sets draw labels by chance, so that no method can "
        "reach an AUROC of 1. The best evaluator is chosen after the fact for every cell. Wrong labels: "
        f"{_ranked(chosen(rows, task='labels'))}; noisy features: {_ranked(chosen(rows, task='features'))}. "
        f"{_removal(curves)} Training rows: {', '.join(f'{data} {n:,}' for data, n in settings)}.",
        command="python benchmarks/opendataval_tasks.py",
        measured=[(environment, rows)],
        tables=folded,
    )


def _methods(rows: Rows) -> dict[str, Rows]:
    return {method: chosen(rows, method=method) for (method,) in distinct(rows, "method")}


def _label(by: str, method: str) -> str:
    return f"`{method}`" if by == US else method


def _best(rows: Rows, metric: str) -> float:
    return max((row[metric] for row in rows if metric in row), default=float("nan"))


def _won(rows: Rows, **ours: str) -> str:
    """In how many cells the default, or the best of the rows with these values, is at or above the best of theirs."""
    cells = [chosen(rows, data=data, rate=rate) for data, rate in distinct(rows, "data", "rate")]
    counts = {
        name: sum(
            _best(chosen(own, **(ours or {"method": DEFAULT})), metric) >= _best(chosen(own, by=THEM), metric)
            for own in cells
        )
        for metric, name in METRICS.items()
    }
    return f"{' and '.join(f'{count} by {name}' for name, count in counts.items())} of {len(cells)}"


def _asked(rows: Rows) -> str:
    """What the validation rows are asked about decides."""

    def figures(*names: str) -> str:
        said = []
        for method in ASKED:
            net, logistic = (mean(chosen(rows, method=f"{method}, {name}"), "auroc") for name in names)
            said.append(f"{method} {net:.2f} ({logistic:.2f} for a logistic regression)")
        return ", ".join(said)

    return (
        "Asked about the loss of validation rows, both go by the wrong ones among these: a model that fits its rows "
        "has the steepest loss where a label contradicts it, and the training rows that are wrong in the same way "
        "lower it. A plain sum of products of gradients of the same model gives the same ranks. The margin "
        "(`objective=Margin()`) is about as steep at every row, so that the majority decides. Mean AUROC on wrong "
        f"labels by the loss: {figures('validation', 'logistic')}; by the margin: "
        f"{figures('margin', 'margin, logistic')}."
    )


def _ranked(rows: Rows) -> str:
    """The highest mean of each side."""
    return "highest mean " + ", ".join(f"{name} {_tops(rows, metric)}" for metric, name in METRICS.items())


def _tops(rows: Rows, name: str) -> str:
    """The method of the highest mean, ours and theirs."""
    tops = []
    for by in (US, THEM):
        means = {method: mean(own, name) for method, own in _methods(chosen(rows, by=by)).items() if _done(own)}
        top = max(means, key=lambda method: means[method])
        tops.append(f"{means[top]:.3f} (our {top})" if by == US else f"{means[top]:.3f} (its {top})")
    return " against ".join(tops)


def _done(rows: Rows) -> bool:
    return any("auroc" in row for row in rows)


def _removal(curves: Rows) -> str:
    """The highest mean accuracy of each side once the lowest values are gone."""
    whole = np.mean([chosen(curves, data=data)[0]["lowest_0%"] for (data,) in distinct(curves, "data")])
    return (
        f"Test accuracy with 20 % wrong labels: {whole:.3f} with all rows, without the lowest 20 % at best "
        f"{_tops(curves, 'lowest_20%')}."
    )


def _means(rows: Rows, curves: Rows) -> str:
    """One line for each method."""
    body = []
    for by, method in distinct(rows, "by", "method"):
        own, curve = chosen(rows, by=by, method=method), chosen(curves, by=by, method=method)
        cells = [chosen(own, task=task) for task in TASKS]
        body.append(
            [by, _label(by, method)]
            + [f"{mean(each, metric):.3f}" if _done(each) else "–" for each in cells for metric in METRICS]
            + [f"{mean(curve, name):.3f}" if curve else "–" for name in ("lowest_20%", "lowest", "highest")]
            + [f"{mean(own, 'seconds'):.2f}" if _done(own) else "–"]
        )
    head = ["", "method", *(f"{task} {name}" for task in TASKS for name in METRICS.values())]
    head += ["accuracy without the lowest 20 %", "20 to 80 %", "without the highest 20 to 80 %", "processor seconds"]
    pairs = "; ".join(f"{theirs} and `{ours}`" for theirs, ours in ALIKE.items())
    after = " and ".join(
        f"in {_won(chosen(rows, task=task), by=US)} ({title.lower()})" for task, title in TASKS.items()
    )
    return (
        f"{table(head, body)}\n\nMethods that are alike: {pairs}. Low accuracy without the highest values is good. "
        f"Seconds are those of one valuation. The best of our {len(OURS)}, chosen after the fact as well, is at or "
        f"above the best of OpenDataVal's {after}.{_failed(rows)}"
    )


def _failed(rows: Rows) -> str:
    """Which ended without values."""
    lost = [row for row in rows if "error" in row]
    if not lost:
        return ""
    named = ", ".join(
        f"{row['method']} ({row['data']}, {row['task']}, {row['rate']:.0%}: {row['error']})" for row in lost
    )
    return f" Without values: {named}."


def _cells(rows: Rows, metric: str) -> str:
    """Methods by sets and rates, the best of each column bold."""
    columns = distinct(rows, "data", "rate")
    best = {column: _best(chosen(rows, data=column[0], rate=column[1]), metric) for column in columns}
    body = []
    for by, method in distinct(rows, "by", "method"):
        line = [by, _label(by, method)]
        for data, rate in columns:
            own = chosen(rows, by=by, method=method, data=data, rate=rate)
            value = own[0].get(metric) if own else None
            shown = "–" if value is None else f"{value:.3f}"
            line.append(f"**{shown}**" if value == best[data, rate] else shown)
        body.append(line)
    return table(["", "method", *(f"{data} {rate:.0%}" for data, rate in columns)], body)


def _curves(curves: Rows) -> str:
    """Mean accuracy without the lowest 20 to 80 %, and without the highest, by set."""
    sets = [data for (data,) in distinct(curves, "data")]
    body = []
    for by, method in distinct(curves, "by", "method"):
        line = [by, _label(by, method)]
        for data in sets:
            own = chosen(curves, by=by, method=method, data=data)
            line.append(f"{own[0]['lowest']:.3f} / {own[0]['highest']:.3f}" if own else "–")
        body.append(line)
    return table(["", "method", *sets], body)
