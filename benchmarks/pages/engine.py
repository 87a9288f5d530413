"""Sections of docs/benchmarks.md about what the gradient engine costs, and a million rows."""

from __future__ import annotations

from engine import PARTS
from pages.common import found, read, table, where
from shared.common import RESULTS

ENGINE_NAMES = {
    "mlp": "Fashion-MNIST, MLP 784-512-512-10",
    "cnn": "ResNet-9 of width 32 on random 32×32×3 images",
    "source": "Source over six checkpoints of an MLP 784-512-512-10",
}
PEERS_INSTALLED = """The peers would replace torch or NumPy if pip resolved what they ask for, so they go in without it:

```shell
pip install --no-deps captum==0.9.0 kronfluence==1.0.1 dattri==0.3.0 pydvl==0.10.0 traker==0.3.2
pip install --no-deps lazy-importer more-itertools 'pydeprecate<0.4' einops einconv opt-einsum accelerate \\
    psutil requests tqdm dask distributed 'zarr>=3,<4'
```

A package that these miss in turn is named by the error of the import."""


def engine() -> str:
    """Passes of the engine, and the peers beside it; parts that were not run are left out."""
    found = {part: read(f"engine_{part}") for part in PARTS if (RESULTS / f"engine_{part}.json").exists()}
    if not found:
        return ""
    parts = [
        "## What the gradient engine costs",
        "",
        "`python benchmarks/engine.py`. Every ratio is between two times of one process, taken in turns on the same "
        "rows. A plain pass is one forward and backward pass over all rows at the best of several batch sizes. "
        "Where a target stands, it was set before the measurement.",
        "",
        PEERS_INSTALLED,
    ]
    for part, (environment, rows) in found.items():
        parts += ["", f"### {ENGINE_NAMES.get(part) or 'Beside ' + rows[0]['peer']}", "", where(environment)]
        parts += ["", engine_table(rows)]
        parts += [f"\n{row['what']}: {row['value']:.4f} (target {row['limit']:g})." for row in rows if "value" in row]
    return "\n".join(parts)


def engine_table(rows: list[dict]) -> str:
    """One of two tables, by what the rows hold."""
    target = lambda row, sign: f"{sign} {row['limit']:g}" if row.get("limit") else "–"  # noqa: E731
    rows = [row for row in rows if "value" not in row]
    if "peer_seconds" in rows[0]:
        head = ["what", "rows", "queries", "r", "rank r", "relative error", "ours, s", "theirs, s", "faster", "target"]
        body = [
            [row["what"], f"{row['n']:,}", f"{row['queries']:,}", f"{row['pearson']:.5f}", f"{row['spearman']:.5f}"]
            + [f"{row['relative_error']:.2g}", f"{row['seconds']:.3g}", f"{row['peer_seconds']:.3g}"]
            + [f"{row['ratio']:.1f}×", target(row, "≥")]
            for row in rows
        ]
        chance = [f"{row['what']} {row['own_seeds']:.3f}" for row in rows if "own_seeds" in row]
        note = f"\n\nLabels are drawn, so two seeds of ours correlate with: {'; '.join(chance)}." if chance else ""
        return table(head, body) + note + "".join(f"\n\n{row['what']}: {row['note']}" for row in rows if "note" in row)
    body = [
        [row["what"], f"{row['n']:,}", f"{row['seconds']:.3g}", f"{row['ratio']:.2f}", target(row, "≤")] for row in rows
    ]
    return table(["what", "rows", "seconds", rows[0].get("unit", "plain passes"), "target"], body)


def scale() -> str:
    """A million rows from a memory map; nothing where it was not run."""
    if not (RESULTS / "scale.json").exists():
        return ""
    environment, rows = read("scale")
    runs = [row for row in rows if "beyond_gib" in row]
    body = [
        [row["method"], f"{row['n']:,}", f"{row['seconds']:.1f}", f"{1e6 * row['seconds'] / row['n']:.1f}"]
        + [f"{row['beyond_gib']:.2f}"]
        + [f"{row['anonymous_beyond_gib']:.2f}" if "anonymous_beyond_gib" in row else "–"]
        for row in runs
    ]
    killed = [
        f"- {row['method']}, {row['n']:,} rows: killed with {row['shards_kept']} of {row['shards']} shards of values "
        f"on disk. The second run {'took them up' if row['taken_up'] else 'did not take them up'}; its scores are "
        f"{'identical' if row['identical'] else 'not identical'} to those of an undisturbed one "
        f"({row['seconds_again']:.1f} s against {row['seconds']:.1f} s)."
        for row in rows
        if "identical" in row
    ]
    head = ["method", "rows", "seconds", "µs per row", "GiB beyond 10,000 rows", "the same without pages of the map"]
    return "\n".join(
        [
            "## A million rows from a memory map",
            "",
            "`python benchmarks/scale.py`: 100 float32 columns, MLP 128-128, values for the loss of 1,000 validation "
            "rows. Memory is the peak of the process.",
            "",
            where(environment),
            "",
            table(head, body),
            "",
            *killed,
        ]
    )


MILLION = 1_000_000


def scale_pairs() -> str:
    """A million image-text pairs; nothing where it was not run."""
    environment, rows = found("scale_pairs")
    if not rows:
        return ""
    body = [
        [f"{row['n']:,}"]
        + [f"{row[name]:.0f}" for name in ("train_processor_seconds", "train_seconds", "processor_seconds", "seconds")]
        + [f"{1e6 * row['processor_seconds'] / row['n']:.0f}", f"{row['peak_gib']:.2f}", f"{row['auroc']:.3f}"]
        for row in rows
    ]
    columns = ["pairs", "training, processor seconds", "the same, on the clock", "DiffIn, processor seconds"]
    columns += ["the same, on the clock", "µs of the processor per pair", "peak of the process, GiB", "AUROC"]
    text = (
        f"`python benchmarks/scale.py --pairs`: two towers of {rows[0]['parameters']:,} parameters, one epoch in "
        f"batches of {rows[0]['batch']}, 64 numbers and 4 words a pair, made as they are read; 30 % mismatched. "
        "`DiffIn` for the loss of 1,000 matched pairs at the last checkpoint, in the batches that the pairs stood in. "
        "All rows of the table are measured, on one thread of a busy machine, where the clock says little."
    )
    if (most := rows[-1])["n"] < MILLION:
        whole = {name: most[name] * MILLION / most["n"] for name in ("processor_seconds", "train_processor_seconds")}
        text += (
            f" A million was not run: both grow with the pairs, to {whole['processor_seconds']:.0f} s of "
            f"the processor and {whole['train_processor_seconds']:.0f} s for the training; this is extrapolated."
        )
    return "\n\n".join(["## A million image-text pairs", text, where(environment), table(columns, body)])
