"""The damping of influence and of Source: what damping.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import found, table
from pages.page import Page, Picture
from pages.plots import dots


def damping() -> Page | None:
    """LDS of all settings on all truths; None where it was not run."""
    environment, rows = found("lds_damping")
    if not rows:
        return None
    truths = list(dict.fromkeys(row["truth"] for row in rows))
    cells = {(row["method"], row["setting"], row["truth"]): row for row in rows}
    body = []
    for method, setting in dict.fromkeys((row["method"], row["setting"]) for row in rows):
        own = [cells.get((method, setting, name)) for name in truths]
        scores = ["–" if row is None else f"{row['single']:.3f}" for row in own]
        times = [
            row["seconds"] / cells["EK-FAC", "default", row["truth"]]["seconds"]
            for row in own
            if row is not None and setting == "default"
        ]
        body.append([method, setting, *scores, f"{min(times):.1f} to {max(times):.1f}" if times else "–"])
    models = ", ".join(f"{name} {next(r['n_models'] for r in rows if r['truth'] == name)}" for name in truths)
    settings = dict.fromkeys((row["method"], row["setting"]) for row in rows)
    series, behind = {}, []
    for name in truths:
        scores = {key: cells[(*key, name)]["single"] for key in settings if (*key, name) in cells}
        series[name] = {f"{method}, {setting}": score for (method, setting), score in scores.items()}
        own = {setting: score for (method, setting), score in scores.items() if method == "EK-FAC"}
        behind.append(max(own.values()) - own["default"])
    return Page(
        name="damping",
        question="Which damping should influence have?",
        answer=f"The default of EK-FAC is behind the setting that was best after the fact by {np.mean(behind):.3f} LDS "
        f"on average over {len(truths)} truths, by {max(behind):.3f} at most.",
        picture=Picture(
            "LDS of each method and damping on each truth", partial(dots, {"": series}, "LDS, mean over the models")
        ),
        about="LDS of one model (mean over the models) for every damping, on the truths "
        "of `truth.py`; how they are made is said there. Shares and constants are added to the eigenvalues of the "
        "loss without the penalty. `digits_noise`, `digits_wide`, `mnist_decay` and `mnist_mlp`, where they are there, "
        "were looked at only after the default of EK-FAC had been chosen. What CG takes less at the end of training "
        "was chosen on `digits`, `mnist_decay` and `mnist_mlp`; `mnist` and `digits_wide` were looked at after that. "
        "Time is that of fit and attribute, in times that of EK-FAC with its default. "
        f"Models: {models}.",
        command="python benchmarks/damping.py",
        measured=[(environment, rows)],
        tables={"LDS of every setting": table(["method", "damping", *truths, "time"], body)},
    )
