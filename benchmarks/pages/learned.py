"""Features of a pretrained net, for sentences and for images: what texts.py and backbones.py found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pages.common import Rows, band, chosen, distinct, found, mean, over_seeds, table
from pages.page import Page, Picture
from pages.plots import dots

DEFAULT = "NoisyLabelDetector"
TOLD_RATE = 0.2
Title = Callable[..., str]
HEADS = ("all", "detector", "worst ones out", "oracle")


def texts() -> Page | None:
    """Nothing where it was not run."""
    return _page(
        "texts",
        ("data", "rate"),
        lambda data, rate: f"{data}, {rate:.0%} flipped",
        told=lambda data, rate: data if rate == TOLD_RATE else "",
        where=f" with {TOLD_RATE:.0%} flipped",
        question="Does a pretrained model of sentences help to find wrong labels of texts?",
        name="sentences",
        about="6,920 sentences of SST-2 and 10,000 of subj (subjective or not), a share of the labels flipped: by "
        "the topics of their words, which is what the shell makes of a column of text, and by all-MiniLM-L6-v2. Beside "
        "the default, on the same features, cleanlab's label quality of a logistic regression in five folds. Mean ± "
        "standard deviation over seeds, where there are several. The estimated rate is to be held against the true "
        "share beside it.",
        command="python benchmarks/texts.py MODEL",
    )


def backbones() -> Page | None:
    """Nothing where it was not run."""
    return _page(
        "backbones",
        ("data", "n", "noise"),
        lambda data, n, noise: f"{data} ({n:,}), {noise}",
        question="Does a net trained on other images help to find wrong labels of images?",
        name="learned-features",
        about="Images of Fashion-MNIST with flipped labels and of CIFAR-10N with those that people gave: by pixels, "
        "by EfficientNet-Lite0 (ImageNet, 128 × 128), and by it with `PatchFeatures()`, each standardised and brought "
        "to length 1 (of CIFAR-10N with filters of all 50,000 images). Beside the default, on the features of the net, "
        "cleanlab's label quality of a logistic regression in five folds. Mean ± standard deviation over seeds, where "
        "there are several. Accuracy is that on the 10,000 test images of a linear head trained on all rows, without "
        "those that the detector calls wrong, without as many of the worst as are wrong, and without the truly wrong "
        "ones.",
        command="python benchmarks/backbones.py MODEL",
    )


def _page(
    result: str, keys: tuple[str, ...], title: Title, *, told: Title | None = None, where: str = "", **said: str
) -> Page | None:
    """title: what a cell is called; told: in the answer, "" leaves it out."""
    environment, rows = found(result)
    if not rows:
        return None
    features = [kind for (kind,) in distinct(rows, "features")]
    groups = distinct(rows, *keys)
    panels: dict[str, dict] = {"": {}}
    for kind, method in distinct(rows, "features", "method"):
        own = chosen(rows, features=kind, method=method)
        name = f"{method}, {kind}" if method == DEFAULT else f"{method} ({kind})"
        panels[""][name] = {
            title(*values): band(cells, "ap")
            for values in groups
            if (cells := chosen(own, **dict(zip(keys, values, strict=True))))
        }
    sentences = []
    for values in groups:
        cells = chosen(rows, method=DEFAULT, **dict(zip(keys, values, strict=True)))
        figures = [f"{mean(own, 'ap'):.3f}" for kind in features if (own := chosen(cells, features=kind))]
        if name := (told or title)(*values):
            sentences.append(f"{name} {' / '.join(figures)}")
    tables = {"All figures by features and method": _table(rows, (*keys, "features", "method"))}
    if with_head := [row | row["head"] for row in rows if "head" in row]:
        names, body = (*keys, "features"), []
        for values in distinct(with_head, *names):
            own = chosen(with_head, **dict(zip(names, values, strict=True)))
            body.append([*map(str, values), *(over_seeds(own, name) for name in HEADS)])
        tables["Test accuracy of a linear head, by what it was trained on"] = table([*names, *HEADS], body)
    return Page(
        name=said["name"],
        question=said["question"],
        answer=f"Average precision of the default{where} by {' / '.join(features)}: {'; '.join(sentences)}.",
        picture=Picture(
            "Average precision of the default and of cleanlab by features",
            partial(dots, panels, "average precision, mean and standard deviation", joined=True),
        ),
        about=said["about"],
        command=said["command"],
        measured=[(environment, rows)],
        tables=tables,
    )


def _table(rows: Rows, names: tuple[str, ...]) -> str:
    body = []
    for values in distinct(rows, *names):
        cells = chosen(rows, **dict(zip(names, values, strict=True)))
        figures = [over_seeds(cells, name) for name in ("auroc", "ap", "true_rate", "estimated_rate")]
        body.append([*map(str, values), *figures])
    return table([*names, "AUROC", "AP", "wrong", "estimated"], body)
