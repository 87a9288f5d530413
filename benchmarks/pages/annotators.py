"""Labels of several people: what annotators.py found."""

from __future__ import annotations

from functools import partial

from pages.common import found, table
from pages.page import Page, Picture
from pages.plots import dots


def annotators() -> Page | None:
    """Nothing where it was not run."""
    environment, rows = found("annotators")
    if not rows:
        return None
    names = {"majority": "majority", "consensus": "consensus_labels", "quality": "as it says itself"}
    panels = {"": {title: {row["collection"]: row[name] for row in rows} for name, title in names.items()}}
    ahead = sum(row["consensus"] > row["majority"] for row in rows)
    told = ", ".join(f"{row['consensus']:.3f} against {row['majority']:.3f} ({row['collection']})" for row in rows)
    body = [
        [row["collection"], f"{row['rows']:,}", f"{row['annotators']}", f"{row['labels']:,}", f"{row['classes']}"]
        + [f"{row[name]:.3f}" for name in (*names, "auroc", "rank")]
        for row in rows
    ]
    head = ["collection", "rows", "annotators", "labels", "classes", *names.values()]
    head += ["AUROC of the quality", "rank correlation of accuracies"]
    return Page(
        name="annotators",
        question="Is the consensus of several annotators better than their majority?",
        answer=f"In {ahead} of {len(rows)} collections; share of right labels {told}. The quality "
        f"that it states, {min(row['quality'] for row in rows):.3f} or more on average, is too high in "
        f"{sum(row['quality'] > row['consensus'] for row in rows)}.",
        picture=Picture(
            "Share of right labels by majority and by the consensus, and as the consensus says itself",
            partial(dots, panels, "share of right labels", joined=True),
        ),
        about="The model of Dawid and Skene takes annotators to err independently; people err on the same rows. AUROC: "
        "of the quality for labels that are right. The last column compares the accuracy that the model gives "
        "annotators with at least ten labels with their real one.",
        command="python benchmarks/annotators.py",
        measured=[(environment, rows)],
        tables={"Every collection": table(head, body)},
    )
