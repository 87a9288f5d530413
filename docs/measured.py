"""The tables of duration.md and faq.md from the JSON files in benchmarks/results: python docs/measured.py

A page says `<!-- measured: name -->` and `<!-- end -->`; what a function of that name here returns is put between them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
PAGES = (DOCS / "duration.md", DOCS / "faq.md")
PLACE = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
RIGHT = ("mushrooms", "penguins", "iris", "wisc", "letters")  # labels known to be right
KINDS = {
    "u0": "none",
    "u5": "5 % at random",
    "u15": "15 % at random",
    "u30": "30 % at random",
    "c30": "30 % of the largest class",
}
MODELS = {"1-NN": "1-NN", "logistic": "logistic regression", "forest": "random forest", "boosting": "boosting"}
SETS = {"digits": "1,797 × 64", "segment": "2,310 × 19", "phoneme": "5,404 × 5", "fashion-10k": "10,000 × 784"}
PASSES = ("aggregated", "TracIn self, one checkpoint", "EK-FAC fit", "EK-FAC self")

Rows = list[dict]


def read(name: str) -> Rows:
    """Rows of benchmarks/results/NAME.json; none where it was not run."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []


def table(head: list[str], body: list[list[str]]) -> str:
    """In Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))


def mean(rows: Rows, name: str) -> float:
    """Of what is there."""
    return float(np.mean([row[name] for row in rows if row.get(name) is not None]))


def percent(part: float, whole: float) -> str:
    """Share, a digit behind the point below ten."""
    share = 100 * part / whole if whole else 0.0
    return f"{share:.1f} %" if share < 10 else f"{share:.0f} %"


def detector() -> str:
    """`NoisyLabelDetector()` by rows and columns."""
    found = [row for row in read("tables_battery") if row["part"] == "detect"]
    body = []
    for low, high in ((0, 500), (500, 2_000), (2_000, 3_000)):
        own = [row for row in found if low < row["n"] <= high]
        sizes = [row["n"] for row in own]
        about = f"{len({row['table'] for row in own})} ordinary tables of {min(sizes):,} to {max(sizes):,} rows"
        body.append([about, f"{np.median([row['cpu'] for row in own]):.1f}", "–"])
    titles = {"million": "{rows:,} × {columns} numbers", "sms 10%": "{rows:,} short messages, one column of text"}
    titles |= {"classes": "{rows:,} × {columns}, a file in the shell", "wide": "{rows:,} × {columns:,} numbers"}
    body += [
        [titles[row["what"]].format(**row), f"{row['cpu']:.0f}", f"{row['peak_gib']:.1f}"]
        for row in read("front_door")
        if row["what"] in titles
    ]
    return table(["data", "processor seconds", "peak, GiB"], body)


def complexity_gap() -> str:
    """Alone, by rows; and all of scale.json that names it."""
    found = read("cost")
    body = []
    for n in sorted({row["n"] for row in found if row["data"] == "fashion"}):
        own = [row for row in found if row["data"] == "fashion" and row["n"] == n]
        body.append(
            [f"{n:,} × 784 pixels", f"{np.median([row['seconds'] for row in own]):.1f}", f"{mean(own, 'peak_gib'):.1f}"]
        )
    body += [
        [f"{row['n']:,} × {row['columns']} numbers", f"{row['seconds']:.1f}", f"{row['anonymous_gib']:.1f}"]
        for row in read("scale_rows")
        if row["method"] == "ComplexityGap" and row["limit_gib"] is None
    ]
    return table(["rows × columns", "seconds", "peak, GiB"], body)


def many_rows() -> str:
    """Rows of a memory map, by method, on one thread and without a limit of memory."""
    body = [
        [f"`{row['method']}`", f"{row['n']:,} × {row['columns']}", f"{row['seconds']:.1f}"]
        + [f"{1e6 * row['seconds'] / row['n']:.1f}", f"{row['anonymous_gib']:.2f}"]
        for row in read("scale_rows")
        if row["limit_gib"] is None and row["threads"] == 1
    ]
    return table(["method", "rows × columns", "seconds", "µs per row", "peak without mapped files, GiB"], body)


def passes() -> str:
    """What gradient methods cost in units of a plain pass over the rows."""
    nets = {"engine_mlp": "MLP 784-512-512-10", "engine_cnn": "ResNet-9 of width 32"}
    found = {net: {row["what"]: row for row in read(net)} for net in nets}
    body = [[name, *(f"{found[net][name]['ratio']:.1f}" for net in nets)] for name in PASSES]
    return table(["in plain passes over the rows", *nets.values()], body)


def methods() -> str:
    """Every method on four data sets, training included."""
    found = {data: read(f"which_{data}") for data in SETS}
    names = [row["method"] for row in found["digits"] if row["method"] != "bounds" and "cleanlab" not in row["method"]]
    body = []
    for name in dict.fromkeys(names):
        cells, peaks = [], []
        for rows in found.values():
            own = [row for row in rows if row["method"] == name and "auroc" in row]
            cells.append(f"{np.median([row['seconds'] for row in own]):.1f}" if own else "–")
            peaks += [row["peak_gib"] for row in own]
        body.append([f"`{name}`", *cells, f"{max(peaks):.1f}"])
    return table(["seconds", *(f"{data}, {size}" for data, size in SETS.items()), "largest peak, GiB"], body)


def others() -> str:
    """Trees, stored gradients, many nets."""
    trees = read("trees_speed")[0]
    fit, *_ = read("store_size")
    asked = [row for row in read("store_size") if row["part"] == "top_k"]
    nets = read("distributional_speed")
    side, one = ([row["seconds"] for row in nets if row["way"] == way] for way in ("side by side", "skorch"))
    body = [
        [f"`BoostIn`, {trees['n']:,} rows, {trees['trees']} trees: own loss", f"{trees['self']:.0f}"],
        [f"the same: {trees['queries']:,} queries × all rows", f"{trees['attribute']:.0f}"],
        [
            f"`LoGra`, {asked[0]['queries']} queries to {fit['stored']:,} stored rows",
            f"{np.median([row['busy'] for row in asked]):.0f}",
        ],
        [f"{nets[0]['nets']} small nets trained side by side", f"{np.median(side):.1f}"],
        ["the same, one after the other", f"{np.median(one):.1f}"],
    ]
    return table(["what", "seconds"], body)


def rare() -> str:
    """Flags in tables with a rare class: counts of all tables and seeds together."""
    found = [row for row in read("faq") if row["part"] == "rare"]
    titles = {
        "none": "none",
        "swapped": "a tenth of the rare rows changes places with others",
        "any": "10 % of all rows, at random",
    }
    body = []
    for share in sorted({row["share"] for row in found}):
        for noise, title in titles.items():
            own = [row for row in found if (row["share"], row["noise"]) == (share, noise)]
            cells = [f"{100 * share:.0f} %", title]
            for kind in ("rare label", "other labels"):
                n = {name: sum(row[kind][name] for row in own) for name in own[0][kind]}
                cells.append(percent(n["flagged"] - n["both"], n["rows"] - n["wrong"]))
                cells.append(percent(n["both"], n["wrong"]) if n["wrong"] else "–")
            body.append(cells)
    head = ["rare class", "wrong labels", "rare label: right ones flagged", "wrong ones found"]
    return table([*head, "other labels: right ones flagged", "wrong ones found"], body)


def shuffled() -> str:
    """Labels that the features do not predict."""
    found = [row for row in read("faq") if row["part"] == "shuffled"]
    body = []
    for part in sorted({row["of the rows"] for row in found}):
        own = [row for row in found if row["of the rows"] == part]
        n = {name: sum(row[name] for row in own) for name in ("rows", "flagged", "wrong", "both")}
        told = sum(not row["can_tell"] for row in own)
        body.append(
            [f"{100 * part:.0f} %", percent(n["wrong"], n["rows"]), percent(n["flagged"], n["rows"])]
            + [percent(n["both"], n["flagged"]), f"{told} of {len(own)}"]
        )
    return table(["labels dealt out anew", "wrong", "flagged", "of these wrong", "tables that it cannot tell of"], body)


def significance() -> str:
    """Flags without planted labels, and how often the interval holds the planted share."""
    found = [row for row in read("tables_battery") if row["part"] == "detect"]
    body = []
    for title, names in (("labels known to be right", RIGHT), ("all", {row["table"] for row in found})):
        for kind, noise in KINDS.items():
            own = [row for row in found if row["setting"] == kind and row["table"] in names]
            inside = [row["noise_rate_interval"][0] <= row["true_rate"] <= row["noise_rate_interval"][1] for row in own]
            flagged, true = (100 * mean(own, name) for name in ("flagged", "true_rate"))
            body.append([title, noise, f"{true:.1f} %", f"{flagged:.1f} %", f"{sum(inside)} of {len(own)}"])
    return table(["tables", "planted", "wrong", "flagged", "interval holds the planted share"], body)


def helps() -> str:
    """Accuracy on held-out rows with right labels: cleaned minus all, over tables."""
    ours = [row for row in read("tables_battery") if row["part"] == "train"]
    rows = {
        (row["table"], row["setting"], row["seed"], row["method"], row["rows"]): row["accuracy"]
        for row in [*ours, *read("tables_battery_cleanlab")]
        if row["part"] == "train"
    }
    random = np.random.default_rng(0)
    body = []
    for model, title in MODELS.items():
        cells = [title]
        for kind in KINDS:
            gains: dict[str, list[float]] = {}
            for table_, setting, seed, method, which in rows:
                if (setting, method, which) == (kind, model, "cleaned"):
                    gain = rows[table_, setting, seed, method, which] - rows[table_, setting, seed, method, "all"]
                    gains.setdefault(table_, []).append(100 * gain)
            each = np.array([np.mean(values) for values in gains.values()])
            drawn = each[random.integers(len(each), size=(2_000, len(each)))].mean(axis=1)
            low, high = np.percentile(drawn, [2.5, 97.5])
            cells.append(f"{each.mean():+.1f} ({low:+.1f} to {high:+.1f}), {(each < -0.5).sum()}")
        body.append(cells)
    return table(["points of accuracy, by cleaning", *KINDS.values()], body)


MAKERS = (detector, complexity_gap, many_rows, passes, methods, others, rare, shuffled, significance, helps)


def filled(text: str) -> str:
    """A page with its tables."""
    makers = {make.__name__: make for make in MAKERS}
    return PLACE.sub(lambda place: f"{place[1]}\n{makers[place[2]]()}\n\n{place[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
