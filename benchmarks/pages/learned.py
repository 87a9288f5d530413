"""The tables of texts.py and backbones.py."""

from __future__ import annotations

from pages.common import Rows, chosen, distinct, found, over_seeds, table, where


def learned() -> str:
    """The section of docs/benchmarks.md; nothing where it was not run."""
    parts = [
        "## Learned features",
        "`python benchmarks/texts.py` and `python benchmarks/backbones.py` say what is measured, and where their "
        "models come from: the wrong labels that the default finds by the features of a pretrained net, and by those "
        "that need none. Mean ± standard deviation over seeds, where there are several.",
    ]
    environment, rows = found("texts")
    if rows:
        parts += [
            "Sentences of SST-2, a share of the labels flipped: topics of their words, and all-MiniLM-L6-v2.",
            _table(rows, ("rate", "features", "method"), ["flipped", "features", "method"]),
            where(environment),
        ]
    environment, rows = found("backbones")
    if rows:
        parts += [
            f"{rows[0]['n']:,} images of each set, Fashion-MNIST with flipped labels and CIFAR-10N with those that "
            "people gave: pixels, and EfficientNet-Lite0 (ImageNet, 128 × 128).",
            _table(rows, ("data", "noise", "features", "method"), ["images", "labels", "features", "method"]),
            where(environment),
        ]
    return "\n\n".join(parts) if len(parts) > 2 else ""


def _table(rows: Rows, names: tuple[str, ...], head: list[str]) -> str:
    body = []
    for values in distinct(rows, *names):
        cells = chosen(rows, **dict(zip(names, values, strict=True)))
        figures = [over_seeds(cells, name) for name in ("auroc", "ap", "true_rate", "estimated_rate")]
        body.append([*map(str, values), *figures])
    return table([*head, "AUROC", "AP", "wrong", "estimated"], body)
