"""The sections of docs/benchmarks.md on all methods side by side, coreset strategies, and boosting on Adult."""

from __future__ import annotations

import numpy as np
from pages.common import chosen, found, read, table, where
from which import DATA, NEEDS

from sktda import attribution
from sktda.attribution.base import needs_of

KINDS = {"uniform": "at random", "class": "to the next class"}
Rows = list[dict]


def which() -> str:
    """Every attributor and cleanlab, per data set."""
    names = [name for name in DATA if found(f"which_{name}")[1]]
    if not names:
        return ""
    head = (
        "`python benchmarks/which.py`: a part of the labels is replaced, by any other class at random or by the next "
        "class. Every method scores the rows with its defaults; none is given validation rows, and none needs any. In "
        "each cell AUROC / AP "
        "of low scores for wrong labels, then the accuracy on test rows with right labels of "
        "`ExtraTreesClassifier(100)` after `NoisyLabelDetector` dropped the lowest scores (cleanlab: after its own "
        "issues were dropped). Seconds of `fit` and peak memory of the process, libraries included, are medians over "
        "the columns. *Trains* says what a method needs: classifiers out of sample (folds), a net, or a net and the "
        "record of its run. Of cleanlab's two ways to rank the better one is shown. Seed 0."
    )
    parts = ["## Which method when", head]
    for name in names:
        environment, rows = read(f"which_{name}")
        parts += [f"### {name}: every method", where(environment), *method_table(rows)]
    return "\n\n".join(parts)


def method_table(rows: Rows) -> list[str]:
    """The table, and the sentences below it."""
    settings = list(dict.fromkeys((row["noise"], row["rate"]) for row in rows))
    bounds = {(row["noise"], row["rate"]): row for row in rows if row["method"] == "bounds"}
    by_method: dict[str, dict[tuple, dict]] = {}
    for row in rows:
        if row["method"] != "bounds":
            by_method.setdefault(row["method"], {})[row["noise"], row["rate"]] = row
    body = []
    for method, own in by_method.items():
        cells = [
            f"{own[s]['auroc']:.4f} / {own[s]['ap']:.4f}, {own[s]['accuracy']:.3f}" if s in own else "–"
            for s in settings
        ]
        seconds = np.median([row["seconds"] for row in own.values()])
        memory = max(row["peak_gib"] for row in own.values())
        needs = NEEDS.get(method, "folds" if method.startswith("cleanlab") else "–")
        body.append([method, needs, validation(method), *cells, f"{seconds:.1f}", f"{memory:.2f}"])
    titles = [f"{rate:.0%} {KINDS[kind]}" for kind, rate in settings]
    limits = "; ".join(
        f"{title} {bounds[s]['nothing']:.3f} and {bounds[s]['all right rows']:.3f}"
        for title, s in zip(titles, settings, strict=True)
    )
    return [
        table(["method", "trains", "validation rows", *titles, "seconds", "GiB"], body),
        f"Accuracy without cleaning and with the right rows only: {limits}.",
        comparison(by_method, settings, titles),
    ]


def validation(method: str) -> str:
    """Whether it can use validation rows; no method needs any."""
    known = getattr(attribution, method, None)
    return "used if given" if known is not None and needs_of(known()).validation else "–"


def comparison(by_method: dict[str, dict[tuple, dict]], settings: list[tuple], titles: list[str]) -> str:
    """How far the default is from the best of ours, and both from the best of cleanlab."""
    lines = []
    for setting, title in zip(settings, titles, strict=True):
        here = {method: own[setting] for method, own in by_method.items() if setting in own}
        peers = [row for method, row in here.items() if method.startswith("cleanlab")]
        ours = {method: row for method, row in here.items() if not method.startswith("cleanlab")}
        best = max(ours, key=lambda method: ours[method]["auroc"])
        default, ensemble = ours["LabelPosterior"], ours["Ensemble"]
        lines.append(
            f"- {title}: the best AUROC is that of {best}, {ours[best]['auroc']:.4f}; the default detector is "
            f"{ours[best]['auroc'] - default['auroc']:.4f} below it, Ensemble "
            f"{ensemble['auroc'] - default['auroc']:+.4f} from the default; cleanlab's best AUROC is "
            f"{max(row['auroc'] for row in peers):.4f}, its best AP {max(row['ap'] for row in peers):.4f} (default "
            f"{default['ap']:.4f}, Ensemble {ensemble['ap']:.4f})."
        )
    return "\n".join(lines)


def strategies() -> str:
    """Coreset strategies beside random rows; nothing where they were not run."""
    environment, rows = found("coreset_strategies")
    if not rows:
        return ""
    shares = sorted({row["share"] for row in rows})
    seeds = sorted({row["seed"] for row in rows})
    ways = list(dict.fromkeys((row["strategy"], row["net"]) for row in rows))
    parts = [
        "## Coreset strategies",
        f"`python benchmarks/coreset_strategies.py`: {rows[0]['n']:,} rows of Fashion-MNIST to choose from, an MLP "
        "784-128-128-10 trained on what was kept, accuracy on the 10,000 test rows; in brackets the difference to "
        f"random rows of every class, in points, mean over {len(seeds)} seeds. *Chosen* is, for each size and seed, "
        "the strategy with the best accuracy on 5,000 validation rows, whose labels are as noisy as the others; random "
        'rows are among the candidates. Scores are those of ComplexityGap; "net": features (and gradients) of an MLP '
        "that was trained on all rows.",
        where(environment),
    ]
    for rate in sorted({row["rate"] for row in rows}):
        body = []
        for strategy, net in ways:
            cells = []
            for share in shares:
                own = chosen(rows, rate=rate, share=share, strategy=strategy, net=net)
                cells.append(cell(own, rows, f", {np.mean([row['wrong'] for row in own]):.0%} wrong" if rate else ""))
            body.append([f"{strategy}{' (net)' if net else ''}", *cells])
        picked = []
        for share in shares:
            best = [
                max(chosen(rows, rate=rate, share=share, seed=seed), key=lambda row: row["validation"])
                for seed in seeds
            ]
            picked.append(cell(best, rows, f": {names(best)}"))
        body.append(["**chosen**", *picked])
        noise = f"{rate:.0%} of the labels flipped" if rate else "Labels as published"
        parts += [f"{noise}:", table(["strategy", *(f"keep {share:.0%}" for share in shares)], body)]
    environment, alone = found("k_center")
    for row in alone:
        parts.append(
            f"Greedy k-center without classes, `--k-center`: {row['picks']:,} of {row['n']:,} × 784 in "
            f"{row['seconds']:.0f} s. {where(environment)}"
        )
    return "\n\n".join(parts)


def cell(own: Rows, rows: Rows, more: str) -> str:
    """Mean and spread of the accuracy, and the difference to random rows."""
    accuracy = [row["accuracy"] for row in own]
    plain = [
        chosen(rows, strategy="random", rate=row["rate"], seed=row["seed"], share=row["share"])[0]["accuracy"]
        for row in own
    ]
    gain = 100 * (np.mean(accuracy) - np.mean(plain))
    return f"{np.mean(accuracy):.4f} ± {np.std(accuracy):.4f} ({gain:+.1f}{more})"


def names(rows: Rows) -> str:
    """Which strategies, and how often where there are several."""
    every = [f"{row['strategy']}{' (net)' if row['net'] else ''}" for row in rows]
    return ", ".join(f"{every.count(name)}× {name}" if len(set(every)) > 1 else name for name in dict.fromkeys(every))


def adult() -> str:
    """Boosting on noisy labels; nothing where it was not run."""
    environment, rows = found("adult")
    if not rows:
        return ""
    body = [
        [row["attributor"], removed(row), str(row["seed"]), f"{row['ratio']:.0%}", f"{row['cv']['0']:.4f}"]
        + [f"{max(row['cv'].values()):.4f}", f"{row['before']:.4f}", f"{row['after']:.4f}", f"{row['oracle']:.4f}"]
        + [f"{row['seconds']:.0f}"]
        for row in rows
    ]
    head = ["attributor", "rows go", "seed", "share picked", "CV of all rows", "CV of the share picked"]
    head += ["test, all rows", "test, cleaned", "test, right rows only", "seconds"]
    ratios = list(rows[0]["test"])
    curve = [
        [
            row["attributor"],
            removed(row),
            str(row["seed"]),
            *(f"{100 * (row['test'][r] - row['test']['0']):+.2f}" for r in ratios),
        ]
        for row in rows
    ]
    nested = [
        f"Nested 3-fold cross-validation of the whole search, {row['attributor']}, {removed(row)}, seed {row['seed']}: "
        f"{row['nested']:.4f}, of the model on all rows {row['nested_plain']:.4f}."
        for row in rows
        if "nested" in row
    ]
    return "\n\n".join(
        [
            "## Boosting on a table with wrong labels",
            "`python benchmarks/adult.py`: Adult, 20 % of the labels of the training rows flipped, "
            "`InfluencePrunerCV(HistGradientBoostingClassifier())`. CV columns are accuracies on the labels as given, "
            "of which a fifth is wrong, within the search; test columns are on test rows with right labels.",
            where(environment),
            table(head, body),
            "Test accuracy at every share, in points over removing nothing, by the scores of all rows:",
            table(["attributor", "rows go", "seed", *(f"{float(r):.0%}" for r in ratios)], curve),
            *nested,
        ]
    )


def removed(row: dict) -> str:
    """Where the removed rows come from."""
    return "by class" if row["stratify"] else "anywhere"
