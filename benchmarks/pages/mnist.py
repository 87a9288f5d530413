"""A published comparison of attributions, made again: what mnist.py found."""

from __future__ import annotations

from functools import partial

from pages.common import Rows, chosen, distinct, found, table
from pages.page import Page, Picture
from pages.plots import dots

TITLES = {"mnist_lr": "Logistic regression", "mnist_mlp": "MLP 784-128-64-10 with dropout"}
TRAK = "TRAK, 512, nets of halves"
EXACT = "Influence, exact"
# arXiv:2410.04555, figure of MNIST-10, read off to about 0.01: (method here, models) -> (name there, LDS)
PUBLISHED = {
    "mnist_lr": {
        (EXACT, 1): ("IF explicit", 0.80),
        ("Influence, CG", 1): ("IF CG", 0.80),
        ("InnerProduct", 1): ("Grad-Dot", 0.33),
        ("InnerProduct", 10): ("TracIn", 0.33),
        (TRAK, 1): ("TRAK-1", 0.42),
        (TRAK, 10): ("TRAK-10", 0.64),
        (TRAK, 50): ("TRAK-50", 0.68),
    },
    "mnist_mlp": {
        ("Influence, CG", 1): ("IF CG", 0.26),
        ("InnerProduct", 1): ("Grad-Dot", 0.10),
        ("InnerProduct", 10): ("TracIn", 0.15),
        (TRAK, 1): ("TRAK-1", 0.11),
        (TRAK, 10): ("TRAK-10", 0.33),
        (TRAK, 50): ("TRAK-50", 0.45),
    },
}
ALONE = {  # published, without a method like it here
    "IF LiSSA": {"mnist_lr": 0.79, "mnist_mlp": 0.14},
    "IF Arnoldi": {"mnist_lr": 0.31, "mnist_mlp": 0.09},
    "Grad-Cos": {"mnist_lr": 0.19, "mnist_mlp": 0.12},
    "RPS-L2": {"mnist_lr": 0.19, "mnist_mlp": 0.10},
}


def mnist() -> Page | None:
    """Of the truths that were run; None where none was."""
    environment, rows = found("mnist")
    if not rows:
        return None
    truths = [name for (name,) in distinct(rows, "truth")]
    panels, tables, said, about = {}, {}, [], []
    for name in truths:
        own = chosen(rows, truth=name)
        first = own[0]
        best = best_damping(own)
        shown = [row for row in own if row["method"] != EXACT or row is best]
        panels[TITLES[name]] = of_panel(name, shown)
        tables[f"{TITLES[name]}: LDS, and what was published"] = by_method(name, shown)
        if best is not None:
            tables[f"{TITLES[name]}: influence with the dense curvature, by damping"] = by_damping(own)
        said.append(f"{TITLES[name].split(' with')[0]} {sentence(name, shown)}")
        about.append(
            f"{TITLES[name]}: accuracy {first['accuracy']:.3f} on the queries, ceiling {first['ceiling']:.3f}, "
            f"of one training a half {one_run_ceiling(first):.3f}."
        )
    tables["Published, without a method like it here"] = table(
        ["method", *(TITLES[name] for name in truths)],
        [[method, *(f"{of[name]:.2f}" for name in truths)] for method, of in ALONE.items()],
    )
    first = rows[0]
    return Page(
        name="published-ranking",
        question="Does a published comparison of attributions hold here?",
        answer=f"LDS here (published): {'; '.join(said)}.",
        picture=Picture(
            "LDS of each method, of one model and of averages, beside the published figures",
            partial(dots, panels, "LDS against one training of each half"),
        ),
        about="The setting of Deng et al. 2024 (arXiv:2410.04555, `mnist_lr` and `mnist_mlp` of dattri): the first "
        f"{first['n_train']:,} training and {first['n_queries']} test pictures of MNIST; nets, rates, batches and "
        f"epochs as published; {first['n_subsets']} random halves of the rows, the default of the published script; "
        "the cross-entropy of each query is predicted. Here each half was trained on twice, and LDS is against the "
        "mean; against one training, as published, it has a column of its own. The published nets and halves could not "
        "be had: these are others, made in the same way. Methods have their defaults. The published influence has the "
        "best of seven dampings on the truth; here only the row of the dense curvature has that. Its "
        "7,850 parameters are more than the 5,000 that the library allows, and the limit was lifted for this row. "
        "Published TracIn is the inner product averaged over ten models; TRAK has 512 numbers per row, and nets of "
        f"halves of the rows. {' '.join(about)} In brackets: 95 % bootstrap intervals over the queries, which say "
        "nothing about other halves or nets. ±: standard deviation over the models. Seconds are of fit and attribute "
        "of one model, medians, beside other work: an order of magnitude.",
        command="python benchmarks/mnist.py",
        measured=[(environment, rows)],
        tables=tables,
    )


def best_damping(rows: Rows) -> dict | None:
    """The row of the dense curvature that is best on the truth."""
    return max(chosen(rows, method=EXACT), key=lambda row: row["lds"], default=None)


def one_run_ceiling(row: dict) -> float:
    """From the ceiling of the mean of two, by Spearman and Brown."""
    both = row["ceiling"] ** 2
    return (both / (2 - both)) ** 0.5


def of_panel(name: str, rows: Rows) -> dict:
    """Series by who measured and how many models, then by method."""
    series: dict[str, dict] = {}
    for (models,) in sorted(distinct(rows, "models")):
        ours = {row["method"]: row["one_run"] for row in chosen(rows, models=models)}
        theirs = {method: value for (method, count), (_, value) in PUBLISHED[name].items() if count == models}
        series |= {f"here, {spelt(models)}": ours, f"published, {spelt(models)}": theirs}
    return series


def spelt(models: int) -> str:
    return "one model" if models == 1 else f"{models} averaged"


def sentence(name: str, rows: Rows) -> str:
    """Those that were published as the best, against one training of each half."""
    pairs = []
    for (method, models), (title, value) in PUBLISHED[name].items():
        if title in {"IF explicit", "IF CG", "TRAK-50"}:
            own = chosen(rows, method=method, models=models)
            pairs += [f"{title} {row['one_run']:.2f} ({value:.2f})" for row in own]
    return ", ".join(pairs)


def by_method(name: str, rows: Rows) -> str:
    body = []
    for row in rows:
        title, value = PUBLISHED[name].get((row["method"], row["models"]), ("", None))
        damping = f", damping {row['damping']:g}, best on the truth" if "damping" in row else ""
        body.append(
            [
                f"{row['method']}{damping}",
                str(row["models"]),
                with_interval(row, "lds"),
                f"{row['lds'] / row['ceiling']:.3f}",
                with_interval(row, "one_run"),
                "–" if value is None else f"{value:.2f} ({title})",
                f"{row['seconds']:.1f}",
            ]
        )
    return table(["method", "models", "LDS", "÷ ceiling", "LDS, one training a half", "published", "seconds"], body)


def by_damping(rows: Rows) -> str:
    body = [[f"{row['damping']:g}", with_interval(row, "lds")] for row in chosen(rows, method=EXACT)]
    return table(["damping", "LDS"], body)


def with_interval(row: dict, name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    spread = f" ± {row['sd']:.3f}" if name == "lds" and "sd" in row else ""
    return f"{value:.3f}{spread} [{low:.3f}, {high:.3f}]"
