"""Selection for fine-tuning: what finetuning.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import Rows, band, chosen, distinct, found, mean, middle, over_seeds, table
from pages.page import Page, Picture
from pages.plots import dots

WAYS = {
    "lora": "Head and LoRA adapters",
    "full": "All parameters",
    "scratch": "All parameters, from random weights",
}


def finetuning() -> Page | None:
    """Wrong labels found and accuracy after training again; nothing where it was not run."""
    environment, rows = found("finetuning")
    if not rows:
        return None
    first = rows[0]
    panels, said = {}, []
    for (way,) in distinct(rows, "way"):
        own = chosen(rows, way=way)
        panels[WAYS[way]] = {
            "mean and standard deviation": {
                m: band(chosen(own, method=m), "accuracy") for (m,) in distinct(own, "method")
            }
        }
        means = {m: mean(chosen(own, method=m), "accuracy") for (m,) in distinct(own, "method") if m != "all rows"}
        best = max(means, key=lambda method: means[method])
        said.append(f"{means[best]:.3f} / {means['random']:.3f} ({WAYS[way]}; {best})")
    return Page(
        name="fine-tuning",
        question="Which score selects sentences for fine-tuning when labels are wrong?",
        answer=f"Test accuracy on {first['kept']:.0%} by the best score / random ones: {'; '.join(said)}.",
        picture=Picture(
            "Test accuracy after training again on the rows that each score keeps, by way of training",
            partial(dots, panels, "test accuracy"),
        ),
        about="SST-2, a BERT of two layers and width 64 on whole words, classifier on the "
        f"mean of the words. The encoder was trained on {first['before']:,} sentences with right labels, then "
        f"fine-tuned on the other {first['n']:,}, {first['rate']:.0%} of their labels flipped. Objective: the loss on "
        "436 validation sentences with right labels. AUROC and AP rank the wrong labels; accuracy is that on the 1,821 "
        f"test sentences after training again on the best {first['kept']:.0%} of the rows, from the same start, and in "
        "brackets its difference to random rows, in points. Mean ± standard deviation over seeds of split, flips and "
        "training; seconds are medians, on one thread. Where embeddings and norms are trained, Influence and Source "
        "are those of the linear layers alone.",
        command="python benchmarks/finetuning.py",
        measured=[(environment, rows)],
        tables={WAYS[way]: section(chosen(rows, way=way)) for (way,) in distinct(rows, "way")},
    )


def section(rows: Rows) -> str:
    """One way of training."""
    first = rows[0]
    about = (
        f"{WAYS[first['way']]}: {first['trainable']:,} of {first['parameters']:,} parameters trained, learning rate "
        f"{first['lr']:g}, {first['epochs']:g} epochs of AdamW, {middle(rows, 'train_seconds'):.0f} s."
    )
    body, behind = [], []
    for (method,) in distinct(rows, "method"):
        own = chosen(rows, method=method)
        gain = np.mean(
            [row["accuracy"] - chosen(rows, method="random", seed=row["seed"])[0]["accuracy"] for row in own]
        )
        ranks = [over_seeds(own, "auroc"), over_seeds(own, "ap")]
        seconds = f"{middle(own, 'seconds'):.1f}" if "seconds" in own[0] and method != "random" else "–"
        accuracy = over_seeds(own, "accuracy", 4) + ("" if method == "random" else f" ({100 * gain:+.1f})")
        body.append([method, *ranks, f"{np.mean([row['wrong'] for row in own]):.1%}", accuracy, seconds])
        if method not in {"random", "all rows", "loss"}:
            loss = chosen(rows, method="loss")
            if np.mean([row["accuracy"] for row in own]) < np.mean([row["accuracy"] for row in loss]):
                behind.append(method)
    head = ["score", "AUROC", "AP", "wrong among the kept", "accuracy", "seconds"]
    return "\n\n".join(
        [about, table(head, body), f"Less accurate than the choice by loss: {', '.join(behind) or 'none'}."]
    )
