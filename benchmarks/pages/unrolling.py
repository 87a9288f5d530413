"""The exact derivative of a run, and data value embeddings beside it: what unrolling.py found."""

from __future__ import annotations

from functools import partial

from pages.common import Rows, band, chosen, distinct, found, middle, over_seeds, table
from pages.page import Page, Picture
from pages.plots import dots


def unrolling() -> Page | None:
    """Nothing where it was not run."""
    environment, rows = found("unrolling")
    if not rows:
        return None
    methods = [row for row in rows if "seconds" in row]
    tables, panels, exact = {}, {}, {}
    for net, optimizer in distinct(rows, "net", "optimizer"):
        own = chosen(rows, net=net, optimizer=optimizer)
        truth = over_seeds(chosen(own, method="leave-one-out itself"), "auroc")
        tables[
            f"{net}, {optimizer}: accuracy {middle(own, 'train_accuracy'):.3f} on the given labels; the true rises "
            f"themselves find the wrong ones with AUROC {truth}"
        ] = by_method(chosen(methods, net=net, optimizer=optimizer))
        timed = chosen(methods, net=net, optimizer=optimizer)
        panels[f"{net}, {optimizer}"] = {
            "mean and standard deviation": {
                method: band(chosen(timed, method=method), "loo_spearman") for (method,) in distinct(timed, "method")
            }
        }
        exact[f"{net}, {optimizer}"] = middle(chosen(timed, method="SGDInfluence"), "loo_spearman")
    low, high = (end(exact, key=lambda run: exact[run]) for end in (min, max))
    return Page(
        name="exact-derivative",
        question="How near is the exact derivative of a training run to leaving rows out?",
        answer=f"The rank correlation of SGDInfluence with the true rises of the loss is {exact[low]:.3f} at the least "
        f"({low}) and {exact[high]:.3f} at the most ({high}).",
        picture=Picture(
            "Rank correlation with leave-one-out of each method, net and optimizer",
            partial(dots, panels, "rank correlation with leave-one-out", mark=0),
        ),
        about=f"{rows[0]['n']} digits, 20 % of the labels flipped, softmax regression "
        f"(64-10) and an MLP (64-32-10, tanh), {rows[0]['steps']} steps in batches of 20; defaults otherwise, AdamW at "
        "the rate 0.003 (epsilon 1e-8) and 0.03 (0.1). Every row was left out once, from the same start in the same "
        "batches: ρ is the rank correlation with the true rises of the validation loss, the slope that of the line of "
        "true on predicted rises (1 = right size), and agreement the rank correlation with the derivative. Mean ± "
        "standard deviation over the seeds; seconds of the processor are medians, of `fit` on the trained net, and of "
        f"asking about 100 queries one by one afterwards.\n\n{embeddings(methods)}",
        command="python benchmarks/unrolling.py",
        measured=[(environment, rows)],
        tables=tables,
    )


def by_method(rows: Rows) -> str:
    body = []
    for (method,) in distinct(rows, "method"):
        own = chosen(rows, method=method)
        asked = f"{middle(own, 'query_seconds'):.2f}" if own[0]["query_seconds"] is not None else "–"
        size = f"{own[0]['mib']:.1f}" if own[0]["mib"] is not None else "–"
        body.append([method, over_seeds(own, "loo_spearman"), f"{middle(own, 'slope'):.2g}"])
        body[-1] += [over_seeds(own, "exact_spearman"), over_seeds(own, "auroc"), f"{middle(own, 'seconds'):.2f}"]
        body[-1] += [asked, size]
    head = ["method", "ρ with leave-one-out", "slope", "agreement", "AUROC", "seconds", "100 queries", "MiB"]
    return table(head, body)


def embeddings(rows: Rows) -> str:
    """How data value embeddings did, in words."""
    sentences = []
    for (net,) in distinct(rows, "net"):
        own = chosen(rows, net=net, optimizer="SGD")
        exact, whole, flow = (chosen(own, method=name) for name in ("SGDInfluence", "DVEmb, all coordinates", "Source"))
        sentences.append(
            f"{net}: ρ {middle(whole, 'loo_spearman'):.3f} against {middle(exact, 'loo_spearman'):.3f} of the "
            f"derivative and {middle(flow, 'loo_spearman'):.3f} of Source, which takes {middle(flow, 'seconds'):.2f} "
            f"seconds; AUROC {middle(whole, 'auroc'):.3f} against {middle(exact, 'auroc'):.3f}, "
            f"{middle(whole, 'seconds'):.2f} against {middle(exact, 'seconds'):.2f} seconds to prepare and "
            f"{middle(whole, 'query_seconds'):.2f} against {middle(exact, 'query_seconds'):.2f} for 100 queries"
        )
    return (
        "Data value embeddings ([arXiv:2412.09538](https://arxiv.org/abs/2412.09538); DVEmb, here for SGD without "
        "momentum, for which they are defined) are not in the package. With all coordinates, "
        + "; ".join(sentences)
        + ". They keep a matrix of parameters by parameters (MiB), or project gradients at the cost of more of the "
        "agreement. What they have before the derivative is the speed of later queries."
    )
