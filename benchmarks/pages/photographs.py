"""Photographs: what photographs.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import band, chosen, distinct, found, over_seeds, table
from pages.page import Page, Picture
from pages.plots import dots

HEADS = ("all", "detector", "worst ones out", "oracle")


def photographs() -> Page | None:
    """Nothing where it was not run."""
    environment, rows = found("photographs")
    rows = [row for row in rows if row["data"] != "textures"]
    if not rows:
        return None
    body, accuracy = [], []
    shown: dict[str, dict] = {"pixels": {}, "patches": {}}
    for data, noise in distinct(rows, "data", "noise"):
        cells = {kind: chosen(rows, data=data, noise=noise, features=kind) for kind in ("pixels", "patches")}
        taken = [row["features"] for row in chosen(rows, data=data, noise=noise) if row["chosen"]]
        patches = cells["patches"]
        for kind, own in cells.items():
            shown[kind][f"{data}, {noise}"] = band(own, "ap") if own else None
        body.append(
            [
                f"{data}, {noise}",
                f"{np.mean([row['true_rate'] for row in patches]):.1%}",
                *(over_seeds(cells[kind], name) for name in ("auroc", "ap") for kind in cells),
                ", ".join(dict.fromkeys(taken)),
                f"{np.mean([row['seconds'] for row in patches]):.1f} s",
            ]
        )
        with_head = [row["head"] | {"data": data} for row in patches if "head" in row]
        if with_head:
            accuracy.append([f"{data}, {noise}", *(over_seeds(with_head, name) for name in HEADS)])
    head = ["rows, labels", "wrong", "AUROC pixels", "patches", "AP pixels", "patches", "the shell takes", "seconds"]
    pairs = [(middle(shown["pixels"][name]), middle(shown["patches"][name])) for name in shown["patches"]]
    better = sum(patches > pixels for pixels, patches in pairs if pixels is not None)
    human = [pair for name, pair in zip(shown["patches"], pairs, strict=True) if name.startswith("cifar")]
    means = [float(np.mean([value for value in own if value is not None])) for own in zip(*human, strict=True)]
    said = f"; where people made the mistakes {means[1]:.3f} against {means[0]:.3f} by pixels" if human else ""
    tables = {"Wrong labels found, mean ± standard deviation": table(head, body)}
    if accuracy:
        tables["Test accuracy of a linear head on patch features, by what it was trained on"] = table(
            ["rows, labels", *HEADS], accuracy
        )
    return Page(
        name="photographs",
        question="Are wrong labels of photographs found by pixels or by patches?",
        answer=f"Patches have the higher average precision in {better} of {len(pairs)} sets of rows and labels{said}.",
        picture=Picture(
            "Average precision on pixels and on patches for each set of images",
            partial(dots, {"": shown}, "average precision, mean and standard deviation", joined=True),
        ),
        about="How well `NoisyLabelDetector()` ranks wrong labels on pixels and on `PatchFeatures()`, which of the two "
        "the shell takes, and the seconds of the processor that patches cost, on one thread. cifar is CIFAR-10N, with "
        "the mistakes that people made (images as JPEG); labels of the others were flipped. The second table trains a "
        "linear head on all rows, without those that the detector calls wrong, without as many of the worst as are "
        "wrong, and without the truly wrong ones: whether cleaning helps it is to be read there, not to be taken for "
        "granted.",
        command="python benchmarks/photographs.py",
        measured=[(environment, rows)],
        tables=tables,
    )


def middle(value: float | tuple[float, float, float] | None) -> float | None:
    """Of a dot."""
    return value[0] if isinstance(value, tuple) else value
