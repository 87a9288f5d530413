"""Sections of docs/benchmarks.md about adversarial defence, and the cost of several objectives."""

from __future__ import annotations

import numpy as np
from pages.common import Rows, chosen, distinct, found, n_seeds, over_seeds, table, where

# ---- defence -------------------------------------------------------------------------------------------------------


def adversarial() -> str:
    """Accuracy under attack after training without some rows; nothing where it was not run."""
    environment, rows = found("adversarial")
    if not rows:
        return ""
    first = rows[0]
    eps = sorted(int(name.removeprefix("pgd_")) for name in first if name.startswith("pgd_"))
    columns = ["clean", *(f"pgd_{value}" for value in eps)]
    head = ["clean", *(f"PGD {value}/255" for value in eps)]
    scored = f"{first['scored_eps']}/255"
    text = (
        f"`python benchmarks/adversarial.py`: Fashion-MNIST, {first['n']:,} rows with the labels as published, MLP "
        "784-256-256-10, 20 epochs of SGD with momentum 0.9. Rows are scored on the net trained on all of them, for "
        f"its loss on 1,000 validation rows after PGD with eps {scored} (adversarial), for the sum of that and the "
        "loss on them as they are (both), or for their own loss (self). Those with the lowest scores are removed, or "
        "all rows are weighted by the rank of their score, and a net is trained again from the same start for as many "
        "steps. Accuracy on the 10,000 test rows as they are (clean), and on the first "
        f"{first['attacked']:,} after PGD against the new net, ten steps, pixels kept in [0, 1]. Mean ± standard "
        f"deviation over {n_seeds(rows)} seeds of training; in brackets the difference to random scores used in the "
        "same way, in points, paired by seed."
    )
    body = [["all rows", "", "–", *(over_seeds(chosen(rows, method="all rows"), name) for name in columns)]]
    behind = []
    for way, share in distinct([row for row in rows if row["way"]], "way", "share"):
        for method, objective in distinct(chosen(rows, way=way, share=share), "method", "objective"):
            own = chosen(rows, method=method, objective=objective, way=way, share=share)
            use = f"{100 * share:g} % removed" if way == "removed" else "weighted"
            gains = {name: gains_over_random(rows, own, name) for name in columns}
            cells = [over_seeds(own, name) for name in columns]
            if method != "random":
                cells = [f"{cell} ({spread(gains[name])})" for cell, name in zip(cells, columns, strict=True)]
                if np.mean(gains[f"pgd_{first['scored_eps']}"]) < 0:
                    behind.append(f"{method}, {objective} ({use})")
            body.append([method, objective, use, *cells])
    return "\n\n".join(
        [
            "## Adversarial defence",
            text,
            where(environment),
            table(["score", "for", "use", *head], body),
            f"Behind random rows on average under PGD {scored}: {'; '.join(behind) or 'none'}.",
        ]
    )


def gains_over_random(rows: Rows, own: Rows, name: str) -> list[float]:
    """Differences in points, one per seed."""
    gains = []
    for row in own:
        beside = chosen(rows, method="random", way=row["way"], share=row["share"], seed=row["seed"])[0]
        gains.append(100 * (row[name] - beside[name]))
    return gains


def spread(values: list[float]) -> str:
    """Mean ± standard deviation."""
    return f"{np.mean(values):+.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


# ---- several objectives --------------------------------------------------------------------------------------------


def objectives_cost() -> str:
    """Seconds of k objectives over those of one; nothing where it was not run."""
    environment, rows = found("objectives_cost")
    if not rows:
        return ""
    first = rows[0]
    counts = sorted(k for (k,) in distinct(rows, "k"))
    body = []
    for (method,) in distinct(rows, "method"):
        own = [chosen(rows, method=method, k=k)[0] for k in counts]
        cells = [f"{row['ratio']:.2f} ({row['seconds']:.2f} s)" for row in own]
        body.append([method, *cells, f"{own[0]['preparation']:.2f} s"])
    body.append(["target", *(f"≤ {chosen(rows, k=k)[0]['limit']:g}" for k in counts), "–"])
    over = [f"{row['method']} with {row['k']}" for row in rows if row["ratio"] > row["limit"]]
    return "\n\n".join(
        [
            "## What several objectives cost",
            f"`python benchmarks/objectives_cost.py`: seconds of a fit for k objectives (the validation loss, and the "
            f"losses of k − 1 classes) over those of a fit for one. Fashion-MNIST, {first['n']:,} rows, "
            f"{first['n_val']:,} validation rows, MLP 784-256-256-10 with six checkpoints; the shortest of three runs "
            "each, in turns. The last column is a fit without any objective: the curvature, for Influence and Source. "
            "The target was set before the measurement.",
            where(environment),
            table(["method", *(f"k = {k}" for k in counts), "before any"], body),
            f"Over the target: {', '.join(over) or 'none'}.",
        ]
    )
