"""Influence without the Hessian: what hessian_free.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import Rows, band, chosen, distinct, found, mean, middle, over_seeds, table
from pages.page import Page, Picture
from pages.plots import lines


def hessian_free() -> Page | None:
    """The inner product beside influence, by length of training; nothing where it was not run."""
    environment, rows = found("hessian_free")
    if not rows:
        return None
    first = rows[0]
    tables, panels, said = {}, {}, []
    for (rate,) in sorted(distinct(rows, "rate")):
        own = chosen(rows, rate=rate)
        flipped = f"{rate:.0%} of the labels flipped"
        tables |= {f"{flipped}: {title}": shown for title, shown in of_rate(own).items()}
        asked = chosen(own, form="validation")
        lengths = sorted(epochs for (epochs,) in distinct(asked, "epochs"))
        panels[flipped] = {
            method: [(epochs, band(chosen(asked, method=method, epochs=epochs), "auroc")) for epochs in lengths]
            for (method,) in distinct(asked, "method")
        }
        last = chosen(asked, epochs=lengths[-1])
        figures = {method: mean(chosen(last, method=method), "auroc") for (method,) in distinct(last, "method")}
        said.append(f"{figures['InnerProduct']:.3f} against {figures['Influence']:.3f} with {flipped}")
    return Page(
        name="without-the-hessian",
        question="Does an inner product of gradients find wrong labels as well as influence with the curvature?",
        answer=f"AUROC after the longest training, InnerProduct against Influence: {'; '.join(said)}.",
        picture=Picture(
            "AUROC against epochs of training for each method, with validation rows",
            partial(lines, panels, "epochs", "AUROC", mark=0.5),
        ),
        about="arXiv:2405.17490 says so, and that an ensemble of "
        f"{first['members']} nets with up to 1 % of the parameters at zero finds more. Fashion-MNIST, {first['n']:,} "
        "rows, MLP 784-256-256-10, SGD with momentum 0.9, batches of 64, weight decay 0.0005; 1,000 validation rows "
        "with right labels. All methods get the same net with the same six checkpoints. AUROC and AP rank the wrong "
        "labels; mean ± standard deviation over the seeds of flips and training. Seconds are medians of "
        "`fit` on the longest trained nets, beside other work: an order of magnitude.",
        command="python benchmarks/hessian_free.py",
        measured=[(environment, rows)],
        tables=tables,
    )


def of_rate(rows: Rows) -> dict[str, str]:
    """AUROC, AP, and differences of AUROC in points, each by epochs."""
    lengths = sorted(epochs for (epochs,) in distinct(rows, "epochs"))
    methods = distinct(rows, "method", "form")
    head = [f"{epochs} epoch{'s' if epochs > 1 else ''}" for epochs in lengths]

    def by_length(name: str, method: str, form: str) -> list[str]:
        own = chosen(rows, method=method, form=form)
        return [over_seeds(chosen(own, epochs=epochs), name) for epochs in lengths]

    body = []
    for method, form in methods:
        seconds = middle(chosen(rows, method=method, form=form, epochs=lengths[-1]), "seconds")
        body.append([method, form, *by_length("auroc", method, form), f"{seconds:.1f}"])
    for title, name in (("net on validation rows", "accuracy"), ("net on given labels", "train_accuracy")):
        body.append([f"accuracy of the {title}", "", *by_length(name, *methods[0]), "–"])
    tables = {"AUROC by epochs of training": table(["method", "form", *head, "seconds"], body)}
    body = [[method, form, *by_length("ap", method, form)] for method, form in methods]
    tables["AP"] = table(["method", "form", *head], body)
    pairs = [
        ("InnerProduct", "Influence"),
        ("ModelEnsemble of InnerProduct", "InnerProduct"),
        ("TracIn", "Influence"),
    ]
    body = [[f"{one} − {other}", *(difference(rows, one, other, epochs) for epochs in lengths)] for one, other in pairs]
    tables["Difference of AUROC in points, validation forms, paired by seed"] = table(["methods", *head], body)
    return tables


def difference(rows: Rows, one: str, other: str, epochs: int) -> str:
    """Mean ± standard deviation over the seeds of 100 times the difference of AUROC."""
    own = chosen(rows, form="validation", epochs=epochs)
    gaps = []
    for (seed,) in distinct(own, "seed"):
        values = [chosen(own, method=method, seed=seed)[0]["auroc"] for method in (one, other)]
        gaps.append(100 * (values[0] - values[1]))
    spread = f" ± {np.std(gaps, ddof=1):.2f}" if len(gaps) > 1 else ""
    return f"{np.mean(gaps):+.2f}{spread}"
