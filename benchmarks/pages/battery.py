"""The tables of tables_battery.py, and which of its targets are met."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from pages.common import read, table, where
from shared.battery import BUNDLED, FIELD, FILES, MODELS, PEERS, RIGHT, SETTINGS
from shared.common import RESULTS

Rows = list[dict]
OURS = "sktda"
NOISY = [setting for setting in SETTINGS if setting != "u0"]
AP_TARGETS = {"u15": 0.815, "c30": 0.75}  # mean over the classification tables of data/tables
BELOW, RATE_ERROR, RATE_ABOVE, FLAGGED = 0.03, 0.04, 0.12, 0.02
MEAN_LOSS, WORST_LOSS, LEAST_GAP = 0.005, 0.02, 0.005
WAYS = ("all", "cleaned", "right")
GAP_CLOSED = {"forest": 0.7, "boosting": 0.7, "logistic": 1 / 3}
TITLES = {"logistic": "logistic regression", "trees": "ExtraTrees", "boosting": "boosting", "forest": "random forest"}


def battery() -> str:
    """The section of docs/benchmarks.md; nothing where it was not run."""
    if not (RESULTS / "tables_battery.json").exists():
        return ""
    here, ours = read("tables_battery")
    there, others = read("tables_battery_cleanlab")
    parts = ["## Ordinary tables", "`python benchmarks/tables_battery.py` says what is measured.", where(here)]
    if here != there:
        parts.append(f"What does not depend on sktda: {where(there)}")
    rows = ours, others
    return "\n\n".join([*parts, detect_page(*rows), train_page(*rows), field_page(*rows)])


def detect_page(ours: Rows, others: Rows) -> str:
    """Ranking, rate, flags and seconds of the default beside cleanlab, and what was to be reached."""
    rows = [{**row, "method": OURS} for row in ours if row["part"] == "detect"]
    rows += [row for row in others if row["part"] == "detect"]
    shown = Figures(rows, (OURS, *PEERS))
    if not shown.tables:
        return "No table was measured by every method."
    parts = [
        "### Wrong labels in tables",
        f"{shown.about()} Best: cleanlab's model with the highest average precision, chosen after the fact for every "
        "table and noise. Means over tables; in brackets those of data/tables alone.",
        means(shown, "ap", "average precision"),
        means(shown, "auroc", "AUROC"),
        "Average precision on each table, and in brackets its difference to cleanlab's best model:",
        by_table(shown),
        "Estimated minus true share of wrong labels (the default), and the mean absolute error over all cells:",
        rate_table(shown),
        "Share of the rows that is flagged where no label was changed, precision / recall of the flags elsewhere:",
        flag_table(shown),
        "Seconds of the processor, mean over noise and seeds:",
        seconds_table(shown),
    ]
    if OURS in shown.methods:
        parts += ["Targets:", "\n".join(detect_targets(shown))]
    return "\n\n".join(parts)


class Figures:
    """Means over the seeds that every method has, of every figure, by table and setting."""

    def __init__(self, rows: Rows, methods: Iterable[str]):
        self.methods = [method for method in methods if any(row["method"] == method for row in rows)]
        cells: dict[tuple, dict[str, dict]] = {}
        for row in rows:
            cells.setdefault((row["table"], row["setting"], row["seed"]), {})[row["method"]] = row
        self.cells = {key: own for key, own in cells.items() if all(method in own for method in self.methods)}
        self.tables = [name for name in (*FILES, "adult", "phoneme", "segment", *BUNDLED) if self.has(name)]
        self.settings = [name for name in SETTINGS if any(key[1] == name for key in self.cells)]

    def has(self, table: str, setting: str | None = None) -> bool:
        """Whether every method measured it."""
        return any(key[0] == table and setting in (None, key[1]) for key in self.cells)

    def about(self) -> str:
        """How much there is."""
        seeds, sizes = {key[2] for key in self.cells}, {key[0]: 0 for key in self.cells}
        for key, own in self.cells.items():
            sizes[key[0]] = own[self.methods[0]]["n"]
        rows = f"{min(sizes.values()):,} to {max(sizes.values()):,} rows"
        return f"{len(self.tables)} tables of {rows}, seeds {', '.join(map(str, sorted(seeds)))}."

    def of(self, method: str, name: str, table: str, setting: str | None = None) -> float | None:
        """Mean of a figure over seeds (and settings, if none is named)."""
        values = [
            own[method][name]
            for key, own in self.cells.items()
            if key[0] == table and setting in (None, key[1]) and own[method][name] is not None
        ]
        return float(np.mean(values)) if values else None

    def best(self, table: str, setting: str) -> tuple[str, float]:
        """(cleanlab's best model there, its average precision)."""
        peers = [method for method in self.methods if method != OURS]
        scores = {method: self.of(method, "ap", table, setting) or 0.0 for method in peers}
        name = max(scores, key=lambda method: scores[method])
        return name, scores[name]

    def mean(self, value: Callable[[str], float | None], tables: Iterable[str]) -> float | None:
        """Over the tables that have a value."""
        values = [found for found in map(value, tables) if found is not None]
        return float(np.mean(values)) if values else None


def means(shown: Figures, name: str, title: str) -> str:
    """One row for each method: means over all tables, and over those of data/tables."""
    settings = [setting for setting in shown.settings if setting != "u0"]
    body = []
    for method in shown.methods:
        label = "`NoisyLabelDetector()`" if method == OURS else f"cleanlab, {TITLES[method]}"
        body.append([label, *(pair(shown, lambda t, m=method, s=s: shown.of(m, name, t, s), s) for s in settings)])
    if any(method != OURS for method in shown.methods):
        best = lambda t, s: shown.of(shown.best(t, s)[0], name, t, s)  # noqa: E731
        body.append(["cleanlab, best", *(pair(shown, lambda t, s=s: best(t, s), s) for s in settings)])
    return table([title, *(SETTINGS[setting] for setting in settings)], body)


def pair(shown: Figures, value: Callable[[str], float | None], setting: str) -> str:
    """Mean over all tables (over those of data/tables)."""
    here = [name for name in shown.tables if shown.has(name, setting)]
    every, some = shown.mean(value, here), shown.mean(value, [name for name in here if name in FILES])
    return number(every) + (f" ({number(some)})" if some is not None else "")


def by_table(shown: Figures) -> str:
    """Average precision of the default, beside the best of cleanlab."""
    settings = [setting for setting in shown.settings if setting != "u0"]
    body = []
    for name in shown.tables:
        cells = []
        for setting in settings:
            peer, best = shown.best(name, setting) if len(shown.methods) > 1 else ("", None)
            own = shown.of(OURS, "ap", name, setting) if OURS in shown.methods else best
            gap = f" ({own - best:+.3f}, {peer})" if own is not None and best is not None else ""
            cells.append(number(own) + gap)
        body.append([name, *cells])
    return table(["table", *(SETTINGS[setting] for setting in settings)], body)


def rate_table(shown: Figures) -> str:
    """Error of the estimated rate on each table, and of each method."""
    first = shown.methods[0]
    body = [
        [name, *(number(error(shown, first, name, setting), "+") for setting in shown.settings)]
        for name in shown.tables
    ]
    for method in shown.methods:
        errors = {s: rate_errors(shown, method, s) for s in shown.settings}
        body.append(
            [f"**mean absolute error, {'default' if method == OURS else TITLES[method]}**"]
            + [number(float(np.mean(np.abs(list(errors[s].values()))))) for s in shown.settings]
        )
    return table(["table", *(SETTINGS[setting] for setting in shown.settings)], body)


def error(shown: Figures, method: str, name: str, setting: str) -> float | None:
    """Estimated minus true rate."""
    estimate, true = (shown.of(method, figure, name, setting) for figure in ("rate", "true_rate"))
    return None if estimate is None or true is None else estimate - true


def rate_errors(shown: Figures, method: str, setting: str | None = None) -> dict[tuple, float]:
    """Of every cell."""
    return {
        key: own[method]["rate"] - own[method]["true_rate"]
        for key, own in shown.cells.items()
        if setting in (None, key[1])
    }


def flag_table(shown: Figures) -> str:
    """Share flagged of unchanged labels by table; precision and recall of the flags, means over the tables."""
    body = []
    for method in shown.methods:
        cells = []
        for setting in shown.settings:
            names = ("flagged",) if setting == "u0" else ("precision", "recall")
            values = [shown.mean(lambda t, o=(method, f), s=setting: shown.of(*o, t, s), shown.tables) for f in names]
            cells.append(" / ".join(map(number, values)))
        body.append(["default" if method == OURS else TITLES[method], *cells])
    return table(["flags", *(SETTINGS[setting] for setting in shown.settings)], body)


def seconds_table(shown: Figures) -> str:
    """Of each method on each table."""
    body = [[name, *(f"{shown.of(m, 'cpu', name):.2f}" for m in shown.methods)] for name in shown.tables]
    body.append(
        ["**mean**", *(f"{shown.mean(lambda t, m=m: shown.of(m, 'cpu', t), shown.tables):.2f}" for m in shown.methods)]
    )
    return table(["table", *("default" if m == OURS else TITLES[m] for m in shown.methods)], body)


def detect_targets(shown: Figures) -> list[str]:
    """One line for each target."""
    lines, peers = [], len(shown.methods) > 1
    ours = lambda t, s: shown.of(OURS, "ap", t, s)  # noqa: E731
    files = [name for name in shown.tables if name in FILES]
    for setting, target in AP_TARGETS.items():
        if files and setting in shown.settings:
            value = shown.mean(lambda t, s=setting: ours(t, s), files)
            lines.append(
                line(value >= target, f"AP, data/tables, {SETTINGS[setting]}: {value:.3f} (at least {target})")
            )
    gaps = {}
    for setting in [s for s in NOISY if s in shown.settings] if peers else ():
        here = [name for name in shown.tables if shown.has(name, setting)]
        mine = shown.mean(lambda t, s=setting: ours(t, s), here)
        best = shown.mean(lambda t, s=setting: shown.best(t, s)[1], here)
        lines.append(
            line(mine >= best, f"AP, all tables, {SETTINGS[setting]}: {mine:.3f} (cleanlab's best {best:.3f})")
        )
        gaps |= {(name, setting): ours(name, setting) - shown.best(name, setting)[1] for name in here}
    if gaps:
        low = {key: gap for key, gap in gaps.items() if gap < -BELOW}
        said = named(low) if low else f"lowest {named(dict([min(gaps.items(), key=lambda item: item[1])]))}"
        lines.append(line(not low, f"AP on no table more than {BELOW} below cleanlab's best: {len(low)} are; {said}"))
    if "trees" in shown.methods:
        ratios = {t: shown.of(OURS, "cpu", t) / shown.of("trees", "cpu", t) for t in shown.tables}
        slow = max(ratios, key=lambda t: ratios[t])
        mine, theirs = (shown.mean(lambda t, m=m: shown.of(m, "cpu", t), shown.tables) for m in (OURS, "trees"))
        text = f"seconds: mean {mine:.2f} (ExtraTrees {theirs:.2f}); at most {ratios[slow]:.2f} times theirs, {slow}"
        lines.append(line(ratios[slow] <= 1, text))
    errors = rate_errors(shown, OURS)
    value, worst = float(np.mean(np.abs(list(errors.values())))), max(errors, key=lambda key: errors[key])
    lines.append(line(value <= RATE_ERROR, f"rate, mean absolute error: {value:.3f} (at most {RATE_ERROR})"))
    high = {key: gap for key, gap in errors.items() if gap > RATE_ABOVE}
    text = f"rate, highest overestimate: {errors[worst]:+.3f}, {'/'.join(map(str, worst))} (at most {RATE_ABOVE})"
    lines.append(line(not high, f"{text}; {len(high)} of {len(errors)} above"))
    if "u0" in shown.settings:
        for name in [name for name in RIGHT if shown.has(name, "u0")]:
            value = shown.of(OURS, "flagged", name, "u0")
            lines.append(
                line(value <= FLAGGED, f"flagged of right labels, {name}: {value:.2%} (at most {FLAGGED:.0%})")
            )
    return lines


def train_page(ours: Rows, others: Rows) -> str:
    """Accuracy on right test rows before and after cleaning, and with right rows only."""
    cells: dict[tuple, dict[str, float]] = {}
    for row in ours + others:
        if row["part"] == "train":
            key = (row["method"], row["setting"], row["table"], row["seed"])
            cells.setdefault(key, {})[row["rows"]] = row["accuracy"]
    cells = {key: own for key, own in cells.items() if set(WAYS) <= set(own)}
    if not cells:
        return "No table was trained on in all three ways."
    body, lines = [], []
    for name in MODELS:
        gains: dict[str, dict[str, float]] = {}  # of every table, by noise
        shares: dict[str, float | None] = {}
        for setting in SETTINGS:
            by_table: dict[str, list[dict[str, float]]] = {}
            for (method, noise, table_name, _), own in cells.items():
                if (method, noise) == (name, setting):
                    by_table.setdefault(table_name, []).append(own)
            if not by_table:
                continue
            means = {t: {way: np.mean([own[way] for own in seeds]) for way in WAYS} for t, seeds in by_table.items()}
            every = {way: float(np.mean([mean[way] for mean in means.values()])) for way in WAYS}
            own = gains[setting] = {t: float(mean["cleaned"] - mean["all"]) for t, mean in means.items()}
            gap, worst = every["right"] - every["all"], min(own, key=lambda t, own=own: own[t])
            shares[setting] = (every["cleaned"] - every["all"]) / gap if gap > LEAST_GAP else None
            share = "–" if shares[setting] is None else f"{shares[setting]:.0%}"
            body.append([TITLES.get(name, name), SETTINGS[setting], *(f"{every[way]:.3f}" for way in WAYS)])
            body[-1] += [f"{every['cleaned'] - every['all']:+.3f}", share, f"{own[worst]:+.3f}, {worst}"]
        if gains:
            lines += train_targets(name, gains, shares)
    seeds = ", ".join(map(str, sorted({key[3] for key in cells})))
    head = ["model", "noise", "all rows", "cleaned", "right rows only", "gain", "gap closed", "worst table"]
    return "\n\n".join(
        [
            "### What cleaning does to models",
            f"Accuracy on test rows with right labels, {len({key[2] for key in cells})} tables, seeds {seeds}; the gap "
            "is that from all rows to right rows only. Worst: the table with the lowest gain, mean over the seeds.",
            table(head, body),
            "Targets:",
            "\n".join(lines),
        ]
    )


def train_targets(name: str, gains: dict[str, dict[str, float]], shares: dict[str, float | None]) -> list[str]:
    """Of one model, from the gains of every table and the shares of the gap, by noise."""
    title = TITLES.get(name, name)
    mean = {setting: float(np.mean(list(own.values()))) for setting, own in gains.items()}
    least = min(mean, key=lambda setting: mean[setting])
    text = f"{title}, mean at every noise: lowest {mean[least]:+.4f}, {SETTINGS[least]} (at least -{MEAN_LOSS})"
    lines = [line(mean[least] >= -MEAN_LOSS, text)]
    every = {(t, setting): gain for setting, own in gains.items() for t, gain in own.items()}
    low = {key: gain for key, gain in every.items() if gain < -WORST_LOSS}
    said = f"; {named(low)}" if low else ""
    lines.append(line(not low, f"{title}, no table below -{WORST_LOSS}: {len(low)} of {len(every)} are{said}"))
    share = shares.get("u15")
    if name in GAP_CLOSED and share is not None:
        text = f"{title}, {SETTINGS['u15']}: {share:.0%} of the gap closed (at least {GAP_CLOSED[name]:.0%})"
        lines.append(line(share >= GAP_CLOSED[name], text))
    return lines


def field_page(ours: Rows, others: Rows) -> str:
    """Rows flagged in the field files."""
    rows = sorted((row for row in ours if row["part"] == "field"), key=lambda row: list(FIELD).index(row["table"]))
    if not rows:
        return "No field file was measured."
    body = [
        [row["table"], f"{row['n']}", f"{row['wrong']}", f"{row['flagged']}", f"{row['flagged'] / row['n']:.1%}"]
        + ["yes" if row["flagged"] <= max(FLAGGED * row["n"], 2 * row["wrong"]) else "**no**"]
        + ["–" if row["can_tell"] is None else ("yes" if row["can_tell"] else "no")]
        + [", ".join(row["warnings"]) or "–", f"{len(row['findings'])}"]
        for row in rows
    ]
    head = ["file", "rows", "wrong labels", "flagged", "share", "few", "can tell", "warnings", "findings"]
    return "\n\n".join(["### Files from the field", "Few: at most 2 %, or twice the wrong labels.", table(head, body)])


def line(reached: bool, text: str) -> str:
    """Of a list."""
    return f"- {'pass' if reached else '**MISS**'}: {text}"


def named(values: dict[tuple, float]) -> str:
    """Lowest first."""
    ordered = sorted(values.items(), key=lambda item: item[1])
    return ", ".join(f"{'/'.join(map(str, key))} {value:+.3f}" for key, value in ordered)


def number(value: float | None, sign: str = "") -> str:
    """Three digits, a dash where there is none."""
    return "–" if value is None else f"{value:{sign}.3f}"
