"""Adversarial defence, and the cost of several objectives: adversarial.py and objectives_cost.py."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import Rows, chosen, distinct, found, over_seeds, table
from pages.page import Page, Picture
from pages.plots import dots, lines


def adversarial() -> Page | None:
    """Accuracy under attack after training without some rows; nothing where it was not run."""
    environment, rows = found("adversarial")
    if not rows:
        return None
    first = rows[0]
    eps = sorted(int(name.removeprefix("pgd_")) for name in first if name.startswith("pgd_"))
    columns = ["clean", *(f"pgd_{value}" for value in eps)]
    head = ["clean", *(f"PGD {value}/255" for value in eps)]
    scored = f"{first['scored_eps']}/255"
    body = [["all rows", "", "–", *(over_seeds(chosen(rows, method="all rows"), name) for name in columns)]]
    behind, shown = [], {}
    for way, share in distinct([row for row in rows if row["way"]], "way", "share"):
        for method, objective in distinct(chosen(rows, way=way, share=share), "method", "objective"):
            own = chosen(rows, method=method, objective=objective, way=way, share=share)
            use = f"{100 * share:g} % removed" if way == "removed" else "weighted"
            gains = {name: gains_over_random(rows, own, name) for name in columns}
            cells = [over_seeds(own, name) for name in columns]
            if method != "random":
                shown[f"{method}, {objective}, {use}"] = gains[f"pgd_{first['scored_eps']}"]
                cells = [f"{cell} ({spread(gains[name])})" for cell, name in zip(cells, columns, strict=True)]
                if np.mean(gains[f"pgd_{first['scored_eps']}"]) < 0:
                    behind.append(f"{method}, {objective} ({use})")
            body.append([method, objective, use, *cells])
    best = max(shown, key=lambda way: np.mean(shown[way]))
    panels = {"": {"mean and standard deviation, paired": {way: with_spread(values) for way, values in shown.items()}}}
    return Page(
        name="adversarial",
        question="Does removing or weighting rows defend a model against adversarial inputs?",
        answer=f"The best way against PGD {scored}, {best}, gains {np.mean(shown[best]):+.1f} ± "
        f"{np.std(shown[best], ddof=1):.1f} points of accuracy over random rows; {len(behind)} of {len(shown)} ways "
        "are behind random rows.",
        picture=Picture(
            "Points of accuracy under attack over random rows, by score, objective and use",
            partial(dots, panels, f"points over random rows under PGD {scored}", mark=0),
        ),
        about=f"Fashion-MNIST, {first['n']:,} rows with the labels as published, MLP "
        "784-256-256-10, 20 epochs of SGD with momentum 0.9. Rows are scored on the net trained on all of them, for "
        f"its loss on 1,000 validation rows after PGD with eps {scored} (adversarial), for the sum of that and the "
        "loss on them as they are (both), or for their own loss (self). Those with the lowest scores are removed, or "
        "all rows are weighted by the rank of their score, and a net is trained again from the same start for as many "
        "steps. Accuracy on the 10,000 test rows as they are (clean), and on the first "
        f"{first['attacked']:,} after PGD against the new net, ten steps, pixels kept in [0, 1]. Mean ± standard "
        "deviation over seeds of training; in brackets the difference to random scores used in the same way, in "
        "points, paired by seed.",
        command="python benchmarks/adversarial.py",
        measured=[(environment, rows)],
        tables={
            "Accuracy by score, objective and use": table(["score", "for", "use", *head], body)
            + f"\n\nBehind random rows on average under PGD {scored}: {'; '.join(behind) or 'none'}."
        },
    )


def with_spread(values: list[float]) -> tuple[float, float, float]:
    """Mean, and both ends of a standard deviation around it."""
    middle, deviation = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return middle, middle - deviation, middle + deviation


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


def objectives_cost() -> Page | None:
    """Seconds of k objectives over those of one; nothing where it was not run."""
    environment, rows = found("objectives_cost")
    if not rows:
        return None
    first = rows[0]
    counts = sorted(k for (k,) in distinct(rows, "k"))
    body = []
    for (method,) in distinct(rows, "method"):
        own = [chosen(rows, method=method, k=k)[0] for k in counts]
        cells = [f"{row['ratio']:.2f} ({row['seconds']:.2f} s)" for row in own]
        body.append([method, *cells, f"{own[0]['preparation']:.2f} s"])
    body.append(["target", *(f"≤ {chosen(rows, k=k)[0]['limit']:g}" for k in counts), "–"])
    over = [f"{row['method']} with {row['k']}" for row in rows if row["ratio"] > row["limit"]]
    points = {m: [(k, chosen(rows, method=m, k=k)[0]["ratio"]) for k in counts] for (m,) in distinct(rows, "method")}
    points["target, at most"] = [(k, chosen(rows, k=k)[0]["limit"]) for k in counts]
    most = {method: own[-1][1] for method, own in points.items() if not method.startswith("target")}
    return Page(
        name="several-objectives",
        question="What do several objectives cost over one?",
        answer=f"A fit for {counts[-1]} objectives takes {min(most.values()):.1f} to {max(most.values()):.1f} "
        f"times one "
        f"for a single one; over the target: {', '.join(over) or 'none'}.",
        picture=Picture(
            "Seconds over those of one objective against the number of objectives, and the target",
            partial(lines, {"": points}, "objectives", "times a fit for one", zero=True),
        ),
        about=f"Seconds of a fit for k objectives (the validation loss, and the "
        f"losses of k − 1 classes) over those of a fit for one. Fashion-MNIST, {first['n']:,} rows, "
        f"{first['n_val']:,} validation rows, MLP 784-256-256-10 with six checkpoints; the shortest of three runs "
        "each, in turns. The last column is a fit without any objective: the curvature, for Influence and Source. "
        "The target was set before the measurement.",
        command="python benchmarks/objectives_cost.py",
        measured=[(environment, rows)],
        tables={"Seconds by method": table(["method", *(f"k = {k}" for k in counts), "before any"], body)},
    )
