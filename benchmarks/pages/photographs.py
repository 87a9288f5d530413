"""The tables of photographs.py."""

from __future__ import annotations

import numpy as np
from pages.common import chosen, distinct, found, over_seeds, table, where

HEADS = ("all", "detector", "worst ones out", "oracle")


def photographs() -> str:
    """The section of docs/benchmarks.md; nothing where it was not run."""
    environment, rows = found("photographs")
    rows = [row for row in rows if row["data"] != "textures"]
    if not rows:
        return ""
    body, accuracy = [], []
    for data, noise in distinct(rows, "data", "noise"):
        cells = {kind: chosen(rows, data=data, noise=noise, features=kind) for kind in ("pixels", "patches")}
        taken = [row["features"] for row in chosen(rows, data=data, noise=noise) if row["chosen"]]
        patches = cells["patches"]
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
    said = (
        "`python benchmarks/photographs.py` says what is measured: how well `NoisyLabelDetector()` ranks wrong labels "
        "on pixels and on `PatchFeatures()`, which of the two the shell takes, and the seconds of the processor that "
        "patches cost, on one thread. cifar is CIFAR-10N, with the mistakes that people made (images as JPEG); labels "
        "of the others were flipped. Mean ± standard deviation of three seeds of the rows; of 50,000 rows one."
    )
    parts = ["## Photographs", said, where(environment), table(head, body)]
    if accuracy:
        parts += [
            "Test accuracy of a linear head on patch features, trained on all rows, without those that the detector "
            "calls wrong, without as many of the worst as are wrong, and without the truly wrong ones:",
            table(["rows, labels", *HEADS], accuracy),
        ]
    return "\n\n".join(parts)
