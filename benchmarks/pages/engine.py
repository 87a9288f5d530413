"""What the gradient engine costs, alone and beside other libraries: what engine.py measured."""

from __future__ import annotations

from functools import partial

from engine import PARTS
from pages.common import Rows, found, table
from pages.page import Page, Picture
from pages.plots import dots

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


def engine() -> Page | None:
    """Passes of the engine; nothing where none was counted."""
    measured = {part: found(f"engine_{part}") for part in PARTS if part in ENGINE_NAMES}
    measured = {part: each for part, each in measured.items() if each[1]}
    if not measured:
        return None
    panels, over, limits = {}, [], 0
    for part, (_, rows) in measured.items():
        timed = [row for row in rows if "value" not in row]
        unit = timed[0].get("unit", "plain passes")
        panels[f"{ENGINE_NAMES[part]}: in {unit}"] = {
            "measured": {row["what"]: row["ratio"] for row in timed},
            "target, at most": {row["what"]: row["limit"] for row in timed if row.get("limit")},
        }
        limits += sum(bool(row.get("limit")) for row in timed)
        over += [row["what"] for row in timed if row.get("limit") and row["ratio"] > row["limit"]]
    return Page(
        name="gradient-engine",
        question="What do influence and its kin cost beside a plain pass over the rows?",
        answer=f"By the net, {ekfac(measured)}{limits - len(over)} of {limits} targets are met "
        f"({'over: ' + ', '.join(over) if over else 'all'}).",
        picture=Picture(
            "Cost of each step in plain passes, and the target where there is one",
            partial(dots, panels, "times the unit", same=False),
        ),
        about="Every ratio is between two times of one process, taken in turns on the same rows. A plain pass is one "
        "forward and backward pass over all rows at the best of several batch sizes. Where a target stands, it was set "
        "before the measurement.",
        command="python benchmarks/engine.py",
        measured=list(measured.values()),
        tables={ENGINE_NAMES[part]: part_table(rows) for part, (_, rows) in measured.items()},
    )


def ekfac(measured: dict[str, tuple[dict, Rows]]) -> str:
    """Passes of the fit, over the nets that it was timed on."""
    fits = [row["ratio"] for _, rows in measured.values() for row in rows if row["what"] == "EK-FAC fit"]
    return f"a fit of EK-FAC takes {min(fits):.1f} to {max(fits):.1f} plain passes, and " if fits else ""


def part_table(rows: Rows) -> str:
    """With what stands below it."""
    values = [f"{row['what']}: {row['value']:.4f} (target {row['limit']:g})." for row in rows if "value" in row]
    return "\n\n".join([engine_table(rows), *values])


def engine_peers() -> Page | None:
    """The same computation by other libraries; parts that were not run are left out."""
    measured = {part: found(f"engine_{part}") for part in PARTS if part not in ENGINE_NAMES}
    measured = {part: each for part, each in measured.items() if each[1]}
    if not measured:
        return None
    timed = [row for _, rows in measured.values() for row in rows if "peer_seconds" in row]
    slower = sum(row["ratio"] < 1 for row in timed)
    panels = {
        "": {"our speed over theirs": {f"{row['what']} ({row['peer'].split()[0]})": row["ratio"] for row in timed}}
    }
    return Page(
        name="other-libraries",
        question="Are the numbers those of other libraries, and how fast are they?",
        answer=f"In {len(timed)} comparisons ours is {min(row['ratio'] for row in timed):.2f} to "
        f"{max(row['ratio'] for row in timed):.0f} times as fast as captum, dattri, kronfluence or pydvl, slower in "
        f"{slower}; the values correlate with theirs at {min(row['pearson'] for row in timed):.2f} to "
        f"{max(row['pearson'] for row in timed):.2f}.",
        picture=Picture(
            "How many times as fast as each other library, logarithmic, a line at one",
            partial(dots, panels, "times as fast (1 = the same)", mark=1, log=True),
        ),
        about="The same rows and the same net, ours and theirs in turns in one process. r is the correlation of the "
        "values, rank r that of their ranks; where they differ, the note below the table says why. " + PEERS_INSTALLED,
        command="python benchmarks/engine.py",
        measured=list(measured.values()),
        tables={f"Beside {rows[0]['peer']}": part_table(rows) for _, rows in measured.values()},
    )


def engine_table(rows: Rows) -> str:
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
