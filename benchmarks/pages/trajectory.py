"""Methods along the training run: what trajectory.py found."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from pages.common import Rows, band, chosen, distinct, found, mean, middle, n_seeds, over_seeds, table
from pages.page import Page, Picture
from pages.plots import dots

SAME = (
    "All methods get the same trained net with the same six evenly spaced checkpoints, and their defaults otherwise. "
    "Validation rows have right labels; self forms, MoSo, ComplexityGap (which trains nothing) and the loss of the "
    "trained net need none. AUROC and AP rank the wrong labels. Mean ± standard deviation over seeds of split, flips "
    "and training; seconds are medians, of `fit` on the trained net, on one core and beside other work: an order of "
    "magnitude."
)


def trajectory_digits() -> Page | None:
    """Held against leaving every row out; nothing where it was not run."""
    environment, rows = found("trajectory_digits")
    if not rows:
        return None
    about, tables = split(digits(rows))
    panels = {}
    for batches in ("full", "64"):
        own = [row for row in chosen(rows, batches=batches, lr=rows[0]["lr"]) if "spearman" in row]
        panels["full batches" if batches == "full" else f"batches of {batches}"] = {
            "mean and standard deviation": {
                method: band(chosen(own, method=method, form=form), "spearman")
                for method, form in distinct(own, "method", "form")
            }
        }
    said = panels["batches of 64"]["mean and standard deviation"]
    order = sorted(said, key=lambda method: -said[method][0])
    return Page(
        name="along-the-run",
        question="Which method along a training run predicts what leaving a row out does?",
        answer="In batches of 64 the rank correlation with leave-one-out is "
        f"{', '.join(f'{said[method][0]:.3f} ({method})' for method in order[:3])}, of the others "
        f"{said[order[-1]][0]:.2f} to {said[order[3]][0]:.2f}.",
        picture=Picture(
            "Rank correlation of each method with leaving every row out, in full batches and in batches of 64",
            partial(dots, panels, "rank correlation with leave-one-out", mark=0),
        ),
        about=f"Digits, softmax regression. {about} {SAME}",
        command="python benchmarks/trajectory.py",
        measured=[(environment, rows)],
        tables=tables,
    )


def trajectory_fashion() -> Page | None:
    """Wrong labels that they find; nothing where it was not run."""
    environment, rows = found("trajectory_fashion")
    if not rows:
        return None
    about, tables = split(fashion(rows))
    methods = [row for row in rows if "method" in row]
    panels = {
        f"{rate:.0%} of the labels flipped": {
            form or "no form": {
                method: band(own, "ap")
                for (method,) in distinct(methods, "method")
                if (own := chosen(methods, rate=rate, method=method, form=form))
            }
            for (form,) in distinct(methods, "form")
        }
        for rate in sorted(rate for (rate,) in distinct(rows, "rate"))
    }
    first = chosen(methods, rate=min(row["rate"] for row in methods))
    means = {
        f"{m} {f}".strip(): mean(chosen(first, method=m, form=f), "ap") for m, f in distinct(first, "method", "form")
    }
    best = max(means, key=lambda way: means[way])
    return Page(
        name="along-the-run-noise",
        question="Do methods along a training run find wrong labels?",
        answer=f"With {first[0]['rate']:.0%} of the labels flipped the best average precision is {means[best]:.3f} "
        f"({best}); SGDInfluence has {means['SGDInfluence validation']:.3f}, TracIn "
        f"{means['TracIn validation']:.3f}, both with validation rows.",
        picture=Picture(
            "Average precision of each method and form, by share of flipped labels",
            partial(dots, panels, "average precision, mean and standard deviation"),
        ),
        about=f"Fashion-MNIST, MLP 784-256-256-10. {about} {SAME}",
        command="python benchmarks/trajectory.py",
        measured=[(environment, rows)],
        tables=tables,
    )


def trajectory_cost() -> Page | None:
    """Nothing where it was not run."""
    environment, rows = found("trajectory_cost")
    if not rows:
        return None
    about, tables = split(cost(rows))
    together = chosen(rows, what=rows[0]["what"])
    panels = {
        "": {
            f"{net if net == 'cnn' else 'MLP ' + net}{', decay' if decay else ''}": {
                row["what"]: row["ratio"] for row in chosen(rows, net=net, weight_decay=decay)
            }
            for net, decay in distinct(rows, "net", "weight_decay")
        }
    }
    return Page(
        name="along-the-run-cost",
        question="What do the methods along a training run cost?",
        answer=f"All five together take {min(row['ratio'] for row in together):.1f} to "
        f"{max(row['ratio'] for row in together):.1f} times plain passes over the same rows at every checkpoint; the "
        f"target was at most {rows[0]['limit']:g}.",
        picture=Picture(
            "Seconds of each method over those of plain passes, a line at the target",
            partial(dots, panels, "times the plain passes", mark=rows[0]["limit"]),
        ),
        about=about,
        command="python benchmarks/trajectory.py",
        measured=[(environment, rows)],
        tables=tables,
    )


def split(parts: Iterable[str]) -> tuple[str, dict[str, str]]:
    """(what was measured, tables by the sentence before each)."""
    about, *rest = parts
    return about, {title.rstrip(":"): shown for title, shown in zip(rest[::2], rest[1::2], strict=True)}


def digits(rows: Rows) -> Iterable[str]:
    first = rows[0]
    yield (
        f"{first['n']:,} rows, {first['rate']:.0%} of the labels flipped, 200 steps of SGD without momentum, weight "
        f"decay 0.001, {n_seeds(rows)} seeds. Every row was left out once, in the same batches: ρ is the rank "
        "correlation of a method's values with the true rises of the validation loss, the slope that of the line "
        "of true on predicted rises (1 = right size)."
    )
    main = [(batches, lr) for batches, lr in distinct(rows, "batches", "lr") if lr == first["lr"]]
    for batches, lr in main:
        runs = chosen(rows, batches=batches, lr=lr)
        name = "Full batches" if batches == "full" else f"Batches of {batches}"
        accuracy = over_seeds(chosen(runs, method="loss"), "accuracy")
        body = []
        for method, form in distinct(runs, "method", "form"):
            own = chosen(runs, method=method, form=form)
            slope = f"{middle(own, 'slope'):.2g}" if "slope" in own[0] else "–"
            body.append([method, form, over_seeds(own, "spearman"), slope, over_seeds(own, "auroc")])
            body[-1] += [over_seeds(own, "ap"), f"{middle(own, 'seconds'):.2f}"]
        yield f"{name}, learning rate {lr:g} (validation accuracy {accuracy}):"
        yield table(["method", "form", "ρ with leave-one-out", "slope", "AUROC", "AP", "seconds"], body)
    swept = chosen(rows, batches="64")
    rates = sorted(lr for (lr,) in distinct(swept, "lr"))
    body = [
        [method, *(over_seeds(chosen(swept, method=method, form="validation", lr=lr), "spearman") for lr in rates)]
        for (method,) in distinct(chosen(swept, form="validation"), "method")
    ]
    yield "ρ with leave-one-out at other learning rates, batches of 64:"
    yield table(["method", *(f"{lr:g}" for lr in rates)], body)
    body = [
        [
            f"{method} {form}".strip(),
            *(over_seeds(chosen(swept, method=method, form=form, lr=lr), "auroc") for lr in rates),
        ]
        for method, form in distinct(swept, "method", "form")
        if (method, form) != ("SGDInfluence", "self")
    ]
    yield "AUROC in the same runs:"
    yield table(["method", *(f"{lr:g}" for lr in rates)], body)


def fashion(rows: Rows) -> Iterable[str]:
    methods = [row for row in rows if "method" in row]
    rates = sorted(rate for (rate,) in distinct(rows, "rate"))
    words = []
    for rate in rates:
        runs = chosen(methods, rate=rate, method="loss")
        words.append(f"{middle(runs, 'accuracy'):.3f} on validation and {middle(runs, 'train_accuracy'):.3f} on given")
    yield (
        f"{rows[0]['n']:,} rows, 20 epochs of SGD with momentum 0.9, batches of 64, weight decay 0.0005, "
        f"{n_seeds(rows)} seeds. The nets agree with {' and '.join(words)} labels at "
        f"{' and '.join(f'{rate:.0%}' for rate in rates)} flips."
    )
    body = []
    for method, form in distinct(methods, "method", "form"):
        own = chosen(methods, method=method, form=form)
        cells = [over_seeds(chosen(own, rate=rate), name) for rate in rates for name in ("auroc", "ap")]
        body.append([method, form, *cells, f"{middle(own, 'seconds'):.1f}"])
    head = [f"{name}, {rate:.0%}" for rate in rates for name in ("AUROC", "AP")]
    yield "Wrong labels found"
    yield table(["method", "form", *head, "seconds"], body)
    agreements = [row for row in rows if "what" in row]
    body = []
    for (what,) in distinct(agreements, "what"):
        for rate in rates:
            own = chosen(agreements, what=what, rate=rate)
            body.append(
                [what, f"{rate:.0%}", f"{own[0]['rows']:,}", *(over_seeds(own, r, 5) for r in ("pearson", "spearman"))]
            )
            body[-1].append(f"{middle(own, 'seconds'):.1f}" if "seconds" in own[0] else "–")
    yield "How the forms of DiffIn agree there (seconds of the exact self form are for these rows alone):"
    yield table(["forms", "flips", "rows", "r", "rank r", "seconds"], body)


def cost(rows: Rows) -> Iterable[str]:
    first = rows[0]
    yield (
        f"Seconds over those of {first['checkpoints']} plain forward and backward passes over the same rows in the "
        f"engine's batches, one per checkpoint; the shortest of five runs each, in turns. Target of all five together, "
        f"set before the measurement: at most {first['limit']:g}. Validation rows: a tenth as many."
    )
    nets = distinct(rows, "net", "n", "weight_decay")
    body = [
        [what, *(f"{chosen(rows, what=what, net=net, weight_decay=decay)[0]['ratio']:.2f}" for net, _, decay in nets)]
        for (what,) in distinct(rows, "what")
    ]
    together = [chosen(rows, what=first["what"], net=net, weight_decay=decay)[0] for net, _, decay in nets]
    body.append(["seconds of all five", *(f"{row['seconds']:.2f}" for row in together)])
    body.append(["seconds of the plain passes", *(f"{row['plain_seconds']:.2f}" for row in together)])
    head = [
        f"{'CNN' if net == 'cnn' else f'MLP {net}'}, {n:,} rows{', weight decay' if decay else ''}"
        for net, n, decay in nets
    ]
    yield "Seconds over those of plain passes"
    yield table(["what", *head], body)
