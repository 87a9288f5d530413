"""Section of docs/benchmarks.md about image-text pre-training."""

from __future__ import annotations

import numpy as np
from pages.common import chosen, distinct, found, middle, n_seeds, over_seeds, table, where


def image_text() -> str:
    """Mismatched pairs found, and retrieval after training without them; nothing where it was not run."""
    environment, rows = found("image_text")
    compared = {row["seed"] for row in rows if row["choice"] == "random"}  # of a run that was cut
    rows = [row for row in rows if row["seed"] in compared]
    if not rows:
        return ""
    first = rows[0]
    head = (
        f"`python benchmarks/image_text.py`: {first['n']:,} pictures of Fashion-MNIST with captions made of eight "
        f"templates and four names for each class, {first['rate']:.0%} of them of another class. Two small towers, "
        "trained with `ContrastiveLoss` in batches of 128. Methods score the pairs in the batches that they stood in, "
        f"for the loss of {first['validation']:,} matched pairs; the one with fixed negatives scores each pair against "
        "the same 127 pairs of these. AUROC and AP rank the mismatched pairs. `InfluencePruner` removes the worst "
        f"{first['rate']:.0%}, and a net trained with as many steps on the rest is asked for the {first['k']} nearest "
        f"among {first['test']:,} test pairs: shares of the right class, and in brackets the difference to removing as "
        f"many at random, in points. {n_seeds(rows)} seeds of pairs, captions and training, mean ± standard deviation; "
        "seconds are medians on one thread of a busy machine."
    )
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
    return "\n\n".join(["## Image-text pre-training", head, where(environment), table([*columns, "seconds"], body)])
