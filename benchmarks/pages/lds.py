"""Which attribution predicts retraining: what lds.py found."""

from __future__ import annotations

from functools import partial

from pages.common import Rows, found, table
from pages.page import Page, Picture
from pages.plots import lines

TRUTHS = {
    "fmnist": "Fashion-MNIST, MLP 784-512-256-128-10",
    "fmnist_n": "Fashion-MNIST, 30 % noise, 3 epochs",
    "concrete": "Concrete strength, MLP 8-128-128-128-1",
    "digits": "Digits, MLP 64-64-64-10",
    "digits_adamw": "Digits, the same net by AdamW",
}
LDS_PEERS = (
    "The other libraries see the same models. kronfluence leaves weight decay out of its curvature and draws labels of "
    "its own; captum gets our checkpoints and sums of learning rates; TRAK projects to 2,048 dimensions, with the "
    "ridge that served it best on these truths (one mean eigenvalue). How they are installed is "
    "[said there](other-libraries.md)."
)


def lds() -> Page | None:
    """Truths that were not run are left out."""
    measured = {name: found(f"lds_{name}") for name in TRUTHS}
    measured = {name: each for name, each in measured.items() if each[1]}
    if not measured:
        return None
    panels, tables, said, ahead = {}, {}, [], 0
    for name, (_, rows) in measured.items():
        ours, peers = ([row for row in rows if key in row] for key in ("method", "peer"))
        first, best = ours[0], max(ours, key=lambda row: row["single"])
        source = max((row for row in ours if row["method"].startswith("Source")), key=lambda row: row["single"])
        influence = next(row for row in ours if row["method"] == "Influence")
        ahead += source is best
        said.append(f"{source['single']:.2f} and {influence['single']:.2f}")
        panels[TRUTHS[name]] = {
            row["method"]: [(int(count), score / row["ceiling"]) for count, score in row["curve"].items()]
            for row in ours
            if "curve" in row
        }
        about = f"{first['n_train']:,} rows, {first['n_queries']} queries, ceiling {first['ceiling']:.3f}"
        tables[f"{TRUTHS[name]}: {about}"] = lds_table(ours)
        if peers:
            tables[f"{TRUTHS[name]}: beside other libraries, on the same models"] = lds_peers(ours, peers)
    return Page(
        name="predicts-retraining",
        question="Which attribution predicts what retraining without rows would do?",
        answer=f"Source or one of its forms has the best LDS of one model on {ahead} of {len(measured)} truths; its "
        f"best form and Influence have {'; '.join(said)}.",
        picture=Picture(
            "LDS divided by its ceiling against the number of averaged models, by truth and method",
            partial(lines, panels, "models averaged", "LDS / ceiling", zero=True),
        ),
        about="The linear datamodeling score (LDS). Nets were retrained on random halves of the "
        "rows; a method predicts, for every query, what each half leaves out, and its LDS is the rank correlation over "
        "the halves of the prediction with the mean of the retrained nets, averaged over the queries. Predicted is "
        "minus the margin of the right class or, for numbers, the squared error. Retraining is random itself: even a "
        "perfect prediction would only reach the ceiling, the square root of the truth's reliability. All methods get "
        "the same nets, trained on all rows from other seeds; noise is labels redrawn uniformly. One model: mean over "
        "the scored ones ± standard deviation; averaged: the LDS of the mean of the values of all models. In brackets: "
        "95 % bootstrap intervals over the queries, for differences those of the paired scores; they say nothing about "
        f"other halves or other models. Seconds are of fit and attribute, medians over the models.\n\n{LDS_PEERS}",
        command="python benchmarks/lds.py",
        measured=list(measured.values()),
        tables=tables,
    )


def lds_table(rows: Rows) -> str:
    body = []
    for row in rows:
        cells = [row["method"]]
        for name in ("single", "averaged"):
            spread = row.get(f"{name}_sd")
            cells += [with_interval(row, name, spread=spread), f"{row[name] / row['ceiling']:.3f}"]
            gain = f"{name}_gain"
            cells += [with_interval(row, gain, sign="+") if gain in row else "–"]
        body.append([*cells, f"{row['seconds']:.1f}", f"{row['ratio']:.1f}"])
    models = f"one model, {rows[0]['n_scored']} scored", f"{rows[0]['n_models']} averaged"
    head = [cell for name in models for cell in (name, "÷ ceiling", "minus Influence")]
    return table(["method", *head, "seconds", "÷ Influence's"], body)


def with_interval(row: dict, name: str, *, sign: str = "", spread: float | None = None) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    deviation = "" if spread is None else f" ± {spread:.3f}"
    return f"{value:{sign}.3f}{deviation} [{low:{sign}.3f}, {high:{sign}.3f}]"


def lds_peers(ours: Rows, peers: Rows) -> str:
    """LDS of the peers and of ours on as many of the first models."""
    counts = sorted({row["models"] for row in peers})
    body = [[row["method"], *(f"{row['first'][str(count)]:.3f}" for count in counts)] for row in ours]
    body = [[*cells, f"{row['seconds']:.1f}"] for cells, row in zip(body, ours, strict=True)]
    for row in peers:
        cells = [with_interval(row, "lds") if row["models"] == count else "–" for count in counts]
        body.append([row["peer"], *cells, f"{row['seconds'] / row['models']:.1f}"])
    heads = ["first model" if count == 1 else f"first {count} models" for count in counts]
    return table(["method", *heads, "seconds per model"], body)
