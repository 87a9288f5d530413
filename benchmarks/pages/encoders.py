"""Preparing tables: what tables_encoders.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import chosen, distinct, found, table
from pages.page import Page, Picture
from pages.plots import dots

OURS = "TableEncoder"


def encoders() -> Page | None:
    """Beside skrub; nothing where it was not run."""
    environment, rows = found("tables_encoders")
    if not rows:
        return None
    methods = [method for (method,) in distinct(rows, "method")]
    tables = [name for (name,) in distinct(rows, "table")]
    ap = {(row["table"], row["method"]): float(np.mean(row["ap"])) for row in rows}
    body = []
    for name in tables:
        cells = {row["method"]: row for row in chosen(rows, table=name)}
        best = max(np.mean(row["ap"]) for row in cells.values())
        shown = [_cell(cells[method]["ap"], best) for method in methods]
        features = " / ".join(str(cells[method]["features"]) for method in methods)
        body.append([name, str(cells[methods[0]]["n"]), *shown, features])
    means = {method: float(np.mean([ap[name, method] for name in tables])) for method in methods}
    body.append(["mean", "", *(f"{means[method]:.3f}" for method in methods), ""])
    others = [method for method in methods if method != OURS]
    behind = [name for name in tables if ap[name, OURS] < max(ap[name, method] for method in others)]
    said = ", ".join(f"{means[method]:.3f} on {method}" for method in others)
    return Page(
        name="table-encoders",
        question="Is a table prepared better by TableEncoder or by skrub?",
        answer=f"Wrong labels are ranked with a mean average precision of {means[OURS]:.3f} on what TableEncoder makes "
        f"of {len(tables)} tables, {said}; on {len(behind)} of the tables one of these is ahead.",
        picture=Picture(
            "Average precision on each table by encoder",
            partial(dots, {"": {m: {t: ap[t, m] for t in tables} for m in methods}}, "average precision", joined=True),
        ),
        about="15 % of the labels become another class (of numbers: swap places), three seeds. `LabelPosterior()` "
        "ranks the rows on what each encoder makes of the same frame; beside it stands skrub 0.11.0, with the median "
        "for missing cells, and with its scaler. Bold: the highest mean, and what is within 0.01 of it.",
        command="python benchmarks/tables_encoders.py",
        measured=[(environment, rows)],
        tables={
            "Average precision on each table, mean ± standard deviation": table(
                ["table", "rows", *methods, "features"], body
            )
        },
    )


def _cell(values: list[float], best: float) -> str:
    mean = np.mean(values)
    text = f"{mean:.3f} ± {np.std(values, ddof=1):.3f}"
    return f"**{text}**" if mean >= best - 0.01 else text
