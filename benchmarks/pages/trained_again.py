"""Nets trained again and many at once: what vit.py and distributional.py found."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
from pages.common import Rows, chosen, distinct, table
from pages.distributional import page
from pages.page import Page, Picture
from pages.plots import bars, dots


def vision_transformer() -> Page | None:
    """Nothing where it was not run."""
    question = "Is a vision transformer better without the rows that influence holds harmful?"
    return page("vit", "vision-transformer", question, vit, show_vit, "python benchmarks/vit.py", more="")


def many_nets() -> Page | None:
    """Nothing where it was not run."""
    question = "How fast are many small nets trained?"
    return page("distributional_speed", "many-nets-at-once", question, speed, show_speed, more="")


def show_speed(rows: Rows) -> tuple[str, Picture]:
    seconds = {
        way: float(np.median([row["seconds"] for row in chosen(rows, way=way)]))
        for (way,) in distinct(rows, "way")
        if way != "side by side again"
    }
    answer = (
        f"{rows[0]['nets']} nets side by side take {seconds['side by side']:.1f} s, skorch one after the other "
        f"{seconds['skorch']:.1f} s."
    )
    return answer, Picture("Seconds of each way", partial(bars, {"": {"seconds": seconds}}, "seconds, median"))


def show_vit(rows: Rows) -> tuple[str, Picture]:
    compared = chosen(rows, part="compared")
    panels = {
        f"{rate:.0%} flipped": {
            "mean and standard error, paired": {
                row["way"]: tuple(
                    100 * (row["accuracy_to_all_rows"] + k * row["accuracy_to_all_rows_error"]) for k in (0, -1, 1)
                )
                for row in chosen(compared, rate=rate)
                if "accuracy_to_all_rows" in row
            }
        }
        for (rate,) in distinct(compared, "rate")
    }
    ways = {title: next(iter(series.values())) for title, series in panels.items()}
    several = next(way for own in ways.values() for way in own if way not in {"random", "one run"})
    said = "; ".join(
        f"{own[several][0]:+.1f} with {title} (one run {own['one run'][0]:+.1f}, random {own['random'][0]:+.1f})"
        for title, own in ways.items()
    )
    picture = Picture(
        "Points of accuracy over training on all rows, by who chose the removed rows",
        partial(dots, panels, "points of accuracy over all rows", mark=0),
    )
    return f"Without the rows that {several} name, accuracy changes in points by {said}.", picture


SHORT = {"wasserstein": "Wasserstein", "wasserstein_gaussian": "W. of normals"}


def speed(rows: Rows) -> Iterable[str]:
    first = rows[0]
    same = "were" if first["identical"] else "were not"
    yield (
        f"`sktda.retrain`: {first['nets']} nets 64-64-64-10 on 1,797 digits, {first['epochs']} epochs of batches of "
        f"64, device {first['device']}, beside as many fits of skorch one after the other; medians of "
        f"{len(distinct(rows, 'repeat'))} runs in turns. Repeated, all parameters {same} the same bit by bit."
    )
    seconds = {way: np.median([row["seconds"] for row in chosen(rows, way=way)]) for (way,) in distinct(rows, "way")}
    body = [
        [way, f"{value:.2f}", f"{seconds['skorch'] / value:.1f}", f"{chosen(rows, way=way)[0]['accuracy']:.4f}"]
        for way, value in seconds.items()
        if way != "side by side again"
    ]
    yield "Seconds"
    yield table(["", "seconds", "times as fast", "accuracy on their rows"], body)


def vit(rows: Rows) -> Iterable[str]:
    scores = chosen(rows, part="scores")
    first = scores[0]
    yield (
        f"A ViT of {first['parameters']:,} parameters on {first['n']:,} rows of "
        f"Fashion-MNIST ({first['device']}). By one run or {first['n_runs']}: the 10 % of every class with the lowest "
        "EK-FAC influence on the loss of validation rows with right labels; any class: 10 % of all rows, the recipe of "
        "arXiv:2506.12965. Nets trained again from five seeds, the same for all ways and other than those of the "
        "runs; accuracy and loss on 10,000 test rows, mean ± standard deviation over the nets, and differences paired "
        "by seed with their standard error, in points of accuracy."
    )
    body = []
    for row in chosen(rows, part="compared"):
        cells = [f"{row[name]:.3f} ± {row[name + '_sd']:.3f}" for name in ("accuracy", "loss")]
        for other in ("all_rows", "one_run"):
            name = f"accuracy_to_{other}"
            cells.append(f"{100 * row[name]:+.1f} ± {100 * row[name + '_error']:.1f}" if name in row else "–")
        body.append([f"{row['rate']:.0%}", row["way"], *cells])
    yield "Accuracy and loss after training again"
    yield table(["flipped", "removed by", "accuracy", "loss", "against all rows", "against one run"], body)
    body = []
    for row in scores:
        auroc = [f"{np.mean(row['auroc_one']):.3f}", f"{row['auroc_mean']:.3f}"] if "auroc_mean" in row else ["–", "–"]
        agreement = [f"{row[name]:.2f}" for name in ("spearman_one", "spearman_half", "common_one", "common_half")]
        body.append([f"{row['rate']:.0%}", *agreement, *auroc])
    half = first["n_runs"] // 2
    yield (
        f"How far runs agree (one with another, the mean of {half} with that of {half} others: rank correlation of "
        "scores, share of the removed rows in common), and AUROC of the wrong labels:"
    )
    names = [f"{what}, {of}" for what in ("Spearman", "in common") for of in ("one run", f"mean of {half}")]
    yield table(["flipped", *names, "AUROC, one run", f"AUROC, mean of {first['n_runs']}"], body)
