"""The table of tables_encoders.py."""

from __future__ import annotations

import numpy as np
from pages.common import chosen, distinct, found, table, where


def encoders() -> str:
    """The section of docs/benchmarks.md; nothing where it was not run."""
    environment, rows = found("tables_encoders")
    if not rows:
        return ""
    methods = [method for (method,) in distinct(rows, "method")]
    body = []
    for (name,) in distinct(rows, "table"):
        cells = {row["method"]: row for row in chosen(rows, table=name)}
        best = max(np.mean(row["ap"]) for row in cells.values())
        shown = [_cell(cells[method]["ap"], best) for method in methods]
        features = " / ".join(str(cells[method]["features"]) for method in methods)
        body.append([name, str(cells[methods[0]]["n"]), *shown, features])
    means = [np.mean([np.mean(row["ap"]) for row in chosen(rows, method=method)]) for method in methods]
    body.append(["mean", "", *(f"{mean:.3f}" for mean in means), ""])
    return "\n\n".join(
        [
            "## Preparing tables",
            "`python benchmarks/tables_encoders.py` says what is measured, beside skrub 0.11.0: average precision of "
            "planted wrong labels (15 %, three seeds: mean ± standard deviation), ranked by `LabelPosterior()` on what "
            "each encoder makes of the same frame. Bold: the highest mean, and what is within 0.01 of it.",
            where(environment),
            table(["table", "rows", *methods, "features"], body),
        ]
    )


def _cell(values: list[float], best: float) -> str:
    mean = np.mean(values)
    text = f"{mean:.3f} ± {np.std(values, ddof=1):.3f}"
    return f"**{text}**" if mean >= best - 0.01 else text
