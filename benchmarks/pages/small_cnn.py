"""A small CNN without the rows that are called wrong, and without the easy ones: what small_cnn.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import Rows, chosen, distinct, found, middle, over_seeds, table
from pages.page import Page, Picture
from pages.plots import dots

SAID = {"aggregate": "CIFAR-10N, aggregate", "worst": "CIFAR-10N, worst", "planted": "planted"}
WAYS = {"hardest": "hard rows kept", "top": "easy rows kept"}
Dot = float | tuple[float, float, float]


def small_cnn() -> Page | None:
    """Nothing where it was not run."""
    environment, rows = found("small_cnn")
    removed, kept = chosen(rows, part="cleaning"), chosen(rows, part="pruning")
    if not removed or not kept:
        return None
    tables, panels, said = {}, {}, []
    for (labels,) in distinct(removed, "labels"):
        own = chosen(removed, labels=labels)
        title = f"{SAID[labels]}: {np.mean([row['true_rate'] for row in own]):.0%} wrong"
        tables[f"{title}, as many removed"] = of_cleaning(own)
        gains = {named(*way): points(chosen(own, method=way[0], sees=way[1]), whole(own)) for way in ways(own)}
        panels[title] = {"lowest scores removed": {name: dot(values) for name, values in gains.items()}}
        tried = [name for name in gains if name not in ("random", "oracle")]
        best = max(tried, key=lambda name: np.mean(gains[name]))
        said.append(f"{np.mean(gains[best]):+.1f} / {np.mean(gains['oracle']):+.1f} ({SAID[labels]})")
    every = over_seeds(chosen(kept, kept="all"), "accuracy")
    tables[f"Labels right, a part of each class kept; all rows {every}"] = of_pruning(kept)
    panels["labels right, over random rows"] = over_random = {
        name: {
            f"{share:.0%}, {method}": dot(points(chosen(kept, method=method, kept=way, share=share), at_random))
            for method, share in distinct(chosen(kept, kept=way), "method", "share")
            if (at_random := chosen(kept, kept="random", share=share))
        }
        for way, name in WAYS.items()
    }
    better = {}
    for way, name in WAYS.items():
        means = [value[0] if isinstance(value, tuple) else value for value in over_random[name].values()]
        better[way] = f"{sum(value > 0 for value in means)} of {len(means)}"
    return Page(
        name="small-cnn",
        question="Is a small CNN better without photographs called wrong, and which does it need?",
        answer=f"Points of accuracy by the best way to remove as many / by the oracle: {', '.join(said)}. "
        f"With right labels hard rows beat random ones in {better['hardest']} cells, easy ones in {better['top']}.",
        picture=Picture(
            "Points of accuracy by what was removed, and by which rows were kept",
            partial(dots, panels, "points of accuracy, mean and standard deviation", mark=0, same=False),
        ),
        about=f"{rows[0]['n']:,} images of CIFAR-10, a CNN of three convolutions with batch normalisation and mirrored "
        "images, six epochs of SGD on all rows and as many steps on fewer; accuracy on the 10,000 test images, mean ± "
        "standard deviation over seeds of rows, flips and training, and points over all rows, or over random ones. "
        "Labels are people's (CIFAR-10N) or planted. InnerProduct, its ensemble of ten nets and Influence (EK-FAC) "
        "look into the CNN that was trained on all rows, and are given 1,000 further images with right labels "
        "(arXiv:2405.17490); ComplexityGap (arXiv:2301.00930) sees pixels, the default, LabelPosterior, patches, or a "
        'net trained on other images (EfficientNet-Lite0). Where labels are right, "hardest" keeps the lowest scores '
        'of each class and "top" the highest. Seconds are the processor\'s, median.',
        command="python benchmarks/small_cnn.py MODEL",
        measured=[(environment, rows)],
        tables=tables,
    )


def of_cleaning(rows: Rows) -> str:
    """Of one kind of labels."""
    body = [["all rows", "–", "–", over_seeds(whole(rows), "accuracy"), "", "", ""]]
    for method, sees in ways(rows):
        own = chosen(rows, method=method, sees=sees)
        ranked = (
            [over_seeds(own, name) for name in ("auroc", "ap")] if method not in ("random", "oracle") else ["–", "–"]
        )
        seconds = f"{middle(own, 'seconds'):.1f}" if sees else "–"
        gain = f"{np.mean(points(own, whole(rows))):+.1f}"
        body.append(
            [named(method, sees), *ranked, over_seeds(own, "accuracy"), gain, over_seeds(own, "wrong"), seconds]
        )
    return table(["removed by", "AUROC", "AP", "accuracy", "points", "still wrong", "seconds"], body)


def of_pruning(rows: Rows) -> str:
    """By score, which rows were kept, and how many of them."""
    shares = sorted((share for (share,) in distinct(rows, "share") if share < 1), reverse=True)
    body = []
    for method, sees, way in distinct([row for row in rows if row["kept"] != "all"], "method", "sees", "kept"):
        cells = []
        for share in shares:
            own, at_random = (chosen(rows, share=share, kept=kind) for kind in (way, "random"))
            own = chosen(own, method=method)
            gain = f" ({np.mean(points(own, at_random)):+.1f})" if method else ""
            cells.append(f"{over_seeds(own, 'accuracy')}{gain}")
        body.append([named(method, sees) or "–", way, *cells])
    return table(["score", "kept", *(f"{share:.0%}" for share in shares)], body)


def ways(rows: Rows) -> list[tuple]:
    """(method, what it sees) of everything that removes rows."""
    return [way for way in distinct(rows, "method", "sees") if way[0] != "all rows"]


def named(method: str, sees: str) -> str:
    """As tables and the picture say it."""
    short = method.replace("ModelEnsemble of InnerProduct", "InnerProduct, ensemble")
    return f"{short}, {sees}" if sees and sees != "the CNN" else short


def whole(rows: Rows) -> Rows:
    """Those of the CNN that was trained on all rows."""
    return chosen(rows, method="all rows")


def points(rows: Rows, base: Rows) -> list[float]:
    """Differences of accuracy, paired by seed."""
    return [100 * (row["accuracy"] - chosen(base, seed=row["seed"])[0]["accuracy"]) for row in rows]


def dot(values: list[float]) -> Dot:
    """With both ends of the standard deviation, where there are several."""
    center = float(np.mean(values))
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return center if spread is None else (center, center - spread, center + spread)
