"""Image-text pre-training: what image_text.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import band, chosen, distinct, found, mean, middle, over_seeds, table
from pages.page import Page, Picture
from pages.plots import dots


def image_text() -> Page | None:
    """Mismatched pairs found, and retrieval after training without them; nothing where it was not run."""
    environment, rows = found("image_text")
    compared = {row["seed"] for row in rows if row["choice"] == "random"}  # of a run that was cut
    rows = [row for row in rows if row["seed"] in compared]
    if not rows:
        return None
    first = rows[0]
    body = []
    for (choice,) in distinct(rows, "choice"):
        own = chosen(rows, choice=choice)
        cells = [over_seeds(own, "auroc"), over_seeds(own, "ap"), f"{np.mean([row['wrong'] for row in own]):.1%}"]
        for name in ("to_texts", "to_images"):
            gain = np.mean([row[name] - chosen(rows, choice="random", seed=row["seed"])[0][name] for row in own])
            cells.append(over_seeds(own, name) + ("" if choice == "random" else f" ({100 * gain:+.1f})"))
        seconds = f"{middle(own, 'seconds'):.1f}" if "seconds" in own[0] else "–"
        body.append([choice, *cells, seconds])
    columns = ["kept by", "AUROC", "AP", "mismatched among the kept", "captions of a picture", "pictures of a caption"]
    choices = {choice: chosen(rows, choice=choice) for (choice,) in distinct(rows, "choice")}
    ranked = {choice: mean(own, "auroc") for choice, own in choices.items() if "auroc" in own[0]}
    best = max(ranked, key=lambda choice: ranked[choice])
    panels = {
        title: {"mean and standard deviation": {choice: band(own, name) for choice, own in choices.items()}}
        for name, title in (("to_texts", "captions of a picture"), ("to_images", "pictures of a caption"))
    }
    gain = mean(choices[best], "to_texts") - mean(choices["random"], "to_texts")
    return Page(
        name="image-text",
        question="Which method finds mismatched pairs of images and texts, and does removing them help?",
        answer=f"AUROC of the mismatched pairs is {ranked[best]:.3f} by {best}; trained without its worst "
        f"{first['rate']:.0%} the right class of captions among the nearest is {100 * gain:+.1f} points over removing "
        "as many at random.",
        picture=Picture(
            "Share of the right class among the nearest captions and pictures, by who chose the pairs",
            partial(dots, panels, f"share of the right class among {first['k']} nearest"),
        ),
        about=f"{first['n']:,} pictures of Fashion-MNIST with captions made of eight "
        f"templates and four names for each class, {first['rate']:.0%} of them of another class. Two small towers, "
        "trained with `ContrastiveLoss` in batches of 128. Methods score the pairs in the batches that they stood in, "
        f"for the loss of {first['validation']:,} matched pairs; the one with fixed negatives scores each pair against "
        "the same 127 pairs of these. AUROC and AP rank the mismatched pairs. `InfluencePruner` removes the worst "
        f"{first['rate']:.0%}, and a net trained with as many steps on the rest is asked for the {first['k']} nearest "
        f"among {first['test']:,} test pairs: shares of the right class, and in brackets the difference to removing as "
        "many at random, in points. Mean ± standard deviation over seeds of pairs, captions and training; "
        "seconds are medians on one thread of a busy machine.",
        command="python benchmarks/image_text.py",
        measured=[(environment, rows)],
        tables={"Every choice": table([*columns, "seconds"], body)},
    )
