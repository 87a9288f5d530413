"""Sections of docs/benchmarks.md about methods along the training run, data deletion and coresets."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from pages.common import Rows, chosen, distinct, found, middle, n_seeds, over_seeds, read, table, where
from shared.common import RESULTS

# ---- along the training run ----------------------------------------------------------------------------------------


def trajectory() -> str:
    """The parts of trajectory.py that were run."""
    sections = [
        section(name, make)
        for name, make in (("digits", digits), ("fashion", fashion), ("cost", cost))
        if (RESULTS / f"trajectory_{name}.json").exists()
    ]
    if not sections:
        return ""
    head = (
        "`python benchmarks/trajectory.py`. All methods get the same trained net with the same six evenly spaced "
        "checkpoints, and their defaults otherwise. Validation rows have right labels; self forms, MoSo, ComplexityGap "
        "(which trains nothing) and the loss of the trained net need none. AUROC and AP rank the wrong labels. Mean ± "
        "standard deviation over seeds of split, flips and training; seconds are medians, of `fit` on the trained net, "
        "on one core and beside other work: an order of magnitude."
    )
    return "\n\n".join(["## Influence along the training run", head, *sections])


def section(name: str, make: Callable[[Rows], Iterable[str]]) -> str:
    environment, rows = read(f"trajectory_{name}")
    title, about, *parts = make(rows)
    return "\n\n".join([f"### {title}", f"{about} {where(environment)}", *parts])


def digits(rows: Rows) -> Iterable[str]:
    first = rows[0]
    yield "Digits, softmax regression"
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
    yield "Fashion-MNIST, MLP 784-256-256-10"
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
    yield "What they cost"
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
    yield table(["what", *head], body)


# ---- deletion ------------------------------------------------------------------------------------------------------


def deletion() -> str:
    """Distances to the retrained model before and after the update; nothing where it was not run."""
    environment, rows = found("deletion")
    if not rows:
        return ""
    body: list[list[str]] = []
    worse: dict[tuple[str, str], list[str]] = {}
    for model, kind, removed, method in distinct(rows, "model", "kind", "removed", "method"):
        own = chosen(rows, model=model, kind=kind, removed=removed, method=method)
        cells, lost = [], []
        for what in ("parameters", "predictions"):
            before, after = (np.array([row[f"{what}_{when}"] for row in own]) for when in ("before", "after"))
            cells += [f"{before.mean():.5f}", f"{after.mean():.5f}", f"{(after > before).sum()} of {len(own)}"]
            if after.mean() > before.mean():
                lost.append(what)
        body.append([model, f"{removed} {kind}", method, *cells])
        if lost:
            worse.setdefault((method, model), []).append(f"{removed} {kind} ({' and '.join(lost)})")
    head = [f"{what}{when}" for what in ("parameters", "predictions") for when in (", before", ", after", " worse in")]
    return "\n\n".join(
        [
            "## Data deletion",
            "`python benchmarks/deletion.py`: relative distance to the model that was trained without the rows (the "
            "nets from the same start in the same batches), before the update and after it, over all parameters and "
            f"over the raw outputs for all rows. Digits, {rows[0]['n']:,} rows with 20 % of the labels flipped; means "
            f"over {len(distinct(rows, 'draw'))} draws for each of {n_seeds(rows)} seeds. Softmax regression: 200 "
            "steps of SGD; MLP 64-64-64-10: 20 epochs of SGD with momentum 0.9.",
            where(environment),
            table(["model", "removed", "method", *head], body),
            "Farther from the retrained model after the update than before it, on average:\n\n"
            + "\n".join(f"- {method}, {model}: {', '.join(removals)}." for (method, model), removals in worse.items())
            if worse
            else "On average every update led nearer to the retrained model.",
        ]
    )


# ---- coresets ------------------------------------------------------------------------------------------------------


def coreset() -> str:
    """Accuracy on what was kept; nothing where it was not run."""
    sections = [coreset_section(name) for name in ("coreset", "coreset_60000") if found(name)[1]]
    if not sections:
        return ""
    head = (
        "`python benchmarks/coreset.py`: accuracy on the 10,000 test rows of Fashion-MNIST of an MLP 784-256-256-10 "
        "trained on the rows that `CoresetSelector` kept, for as many steps as 20 epochs of all rows take; in brackets "
        'the difference to random rows, in points, mean over the seeds. "top" keeps the highest scores, "stratified" '
        "drops the lowest 30 % and spreads over the rest, both within each class. EL2N is taken after two epochs, the "
        "mean of three nets; easy rows have a low one. DiffIn (validation) is given 1,000 more rows with right labels."
    )
    return "\n\n".join(["## Coresets", head, *sections])


def coreset_section(name: str) -> str:
    environment, rows = read(name)
    rates = sorted(rate for (rate,) in distinct(rows, "rate"))
    whole = [row for row in rows if row["method"].startswith("all")]
    ways = distinct([row for row in rows if row not in whole], "method", "form", "strategy")
    shares = sorted(share for (share,) in distinct([row for row in rows if row not in whole], "share"))
    parts = [f"### {rows[0]['n']:,} rows", where(environment)]
    for rate in rates:
        body, loses = [], []
        for method, form, strategy in ways:
            name = f"{method}{f' ({form})' if form else ''}"
            cells, gains = [], []
            for share in shares:
                own = chosen(rows, rate=rate, method=method, form=form, strategy=strategy, share=share)
                gain = np.mean([row["accuracy"] - random_of(rows, row)["accuracy"] for row in own])
                wrong = f", {np.mean([row['wrong'] for row in own]):.1%} wrong" if rate else ""
                cells.append(f"{over_seeds(own, 'accuracy', 4)} ({100 * gain:+.1f}{wrong})")
                gains.append((share, gain))
            body.append([name, strategy if method != "random" else "–", *cells])
            if behind := [f"{share:.0%}" for share, gain in gains if gain < 0]:
                loses.append(f"{name}, {strategy} (at {', '.join(behind)})")
        limits = [
            f"{method} {over_seeds(chosen(rows, rate=rate, method=method), 'accuracy', 4)}"
            for (method,) in distinct(chosen(whole, rate=rate), "method")
        ]
        noise = f"{rate:.0%} of the labels flipped" if rate else "Labels as published"
        parts.append(f"{noise}, {n_seeds(rows)} seeds; {'; '.join(limits)}:")
        parts.append(table(["score", "strategy", *(f"keep {share:.0%}" for share in shares)], body))
        parts.append(f"Behind random rows on average: {'; '.join(loses) or 'none'}.")
    return "\n\n".join(parts)


def random_of(rows: Rows, row: dict) -> dict:
    """The random choice of the same size on the same draw."""
    return chosen(rows, method="random", rate=row["rate"], seed=row["seed"], share=row["share"])[0]
