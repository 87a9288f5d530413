"""Models after cleaning ordinary tables, and files from the field: what tables_battery.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.battery import FLAGGED, TITLES, Rows, line, measured, named
from pages.common import table
from pages.page import Page, Picture
from pages.plots import dots
from shared.battery import FIELD, MODELS, SETTINGS

MEAN_LOSS, WORST_LOSS, LEAST_GAP = 0.005, 0.02, 0.005
WAYS = {"all": "all rows", "cleaned": "cleaned", "right": "right rows only"}
GAP_CLOSED = {"forest": 0.7, "boosting": 0.7, "logistic": 1 / 3}
Means = dict[str, dict[str, float]]  # table -> way -> accuracy


def accuracies(ours: Rows, others: Rows) -> tuple[dict[tuple[str, str], Means], list[int]]:
    """((model, noise) -> means over the seeds that have all three ways, by table; the seeds)."""
    cells: dict[tuple, dict[str, float]] = {}
    for row in ours + others:
        if row["part"] == "train":
            key = (row["method"], row["setting"], row["table"], row["seed"])
            cells.setdefault(key, {})[row["rows"]] = row["accuracy"]
    by_key: dict[tuple[str, str], dict[str, list[dict[str, float]]]] = {}
    for (method, noise, name, _), own in cells.items():
        if set(WAYS) <= set(own):
            by_key.setdefault((method, noise), {}).setdefault(name, []).append(own)
    means = {
        key: {t: {way: float(np.mean([own[way] for own in each])) for way in WAYS} for t, each in tables.items()}
        for key, tables in by_key.items()
    }
    return means, sorted({key[3] for key, own in cells.items() if set(WAYS) <= set(own)})


def over_tables(means: Means) -> dict[str, float]:
    """Accuracy by way."""
    return {way: float(np.mean([mean[way] for mean in means.values()])) for way in WAYS}


def closed(means: Means) -> float | None:
    """Share of the gap from all rows to right rows; None where there is hardly one."""
    every = over_tables(means)
    gap = every["right"] - every["all"]
    return (every["cleaned"] - every["all"]) / gap if gap > LEAST_GAP else None


def tables_and_targets(means: dict[tuple[str, str], Means]) -> tuple[str, list[str]]:
    """One row for each model and noise; one line for each target."""
    body, lines = [], []
    for name in MODELS:
        gains: dict[str, dict[str, float]] = {}  # of every table, by noise
        shares: dict[str, float | None] = {}
        for setting in SETTINGS:
            if (name, setting) not in means:
                continue
            every, shares[setting] = over_tables(means[name, setting]), closed(means[name, setting])
            own = gains[setting] = {t: mean["cleaned"] - mean["all"] for t, mean in means[name, setting].items()}
            worst = min(own, key=lambda t, own=own: own[t])
            share = "–" if shares[setting] is None else f"{shares[setting]:.0%}"
            body.append([TITLES.get(name, name), SETTINGS[setting], *(f"{every[way]:.3f}" for way in WAYS)])
            body[-1] += [f"{every['cleaned'] - every['all']:+.3f}", share, f"{own[worst]:+.3f}, {worst}"]
        if gains:
            lines += train_targets(name, gains, shares)
    head = ["model", "noise", *WAYS.values(), "gain", "gap closed", "worst table"]
    return table(head, body), lines


def train_page(ours: Rows, others: Rows) -> str:
    """What the script prints: accuracy on right test rows before and after cleaning, and with right rows only."""
    means, seeds = accuracies(ours, others)
    if not means:
        return "No table was trained on in all three ways."
    shown, lines = tables_and_targets(means)
    tables = {name for own in means.values() for name in own}
    about = f"Accuracy on test rows with right labels, {len(tables)} tables, seeds {', '.join(map(str, seeds))}."
    return "\n\n".join([about, shown, "Targets:", "\n".join(lines)])


def cleaned_tables() -> Page | None:
    """Accuracy before and after cleaning; nothing where it was not run."""
    sources, ours, others = measured()
    means, _ = accuracies(ours, others)
    if not means:
        return None
    shown, lines = tables_and_targets(means)
    shares = {name: closed(means[name, "u15"]) for name in MODELS if (name, "u15") in means}
    said = ", ".join(f"{share:.0%} ({TITLES.get(name, name)})" for name, share in shares.items() if share is not None)
    right = [
        over["cleaned"] - over["all"]
        for name in MODELS
        if (name, "u0") in means
        for over in [over_tables(means[name, "u0"])]
    ]
    panels = {
        SETTINGS[setting]: {
            title: {
                TITLES.get(name, name): over_tables(means[name, setting])[way]
                for name in MODELS
                if (name, setting) in means
            }
            for way, title in WAYS.items()
        }
        for setting in SETTINGS
    }
    return Page(
        name="cleaned-tables",
        question="Does cleaning a table help the model that is trained on it?",
        answer=f"With 15 % wrong labels cleaning closes {said} of the gap in test accuracy to right labels; where no "
        f"label was changed it moves mean accuracy by {100 * min(right):+.1f} to {100 * max(right):+.1f} points.",
        picture=Picture(
            "Test accuracy of four models on all rows, after cleaning, and on the right rows only, by noise",
            partial(dots, panels, "accuracy on right test rows, mean over tables", joined=True),
        ),
        about=f"{len({name for own in means.values() for name in own})} tables; 60 % of the rows train, with planted "
        "wrong labels, the others test and keep theirs. Cleaned: `ResampledEstimator(model, NoisyLabelDetector())`. "
        "The gap is that from all rows to right rows only, which nobody has. Worst: the table with the lowest gain, "
        "mean over the seeds. The last column and the targets say where cleaning costs accuracy.",
        command="python benchmarks/tables_battery.py --part train",
        measured=sources,
        tables={"Accuracy by model and noise": shown, "Targets, set before the measurement": "\n".join(lines)},
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


def field_rows(ours: Rows) -> Rows:
    """In the order of the files."""
    return sorted((row for row in ours if row["part"] == "field"), key=lambda row: list(FIELD).index(row["table"]))


def few(row: dict) -> bool:
    """At most 2 % are flagged, or twice the wrong labels."""
    return row["flagged"] <= max(FLAGGED * row["n"], 2 * row["wrong"])


def field_page(ours: Rows, others: Rows) -> str:
    """Rows flagged in the field files."""
    rows = field_rows(ours)
    if not rows:
        return "No field file was measured."
    body = [
        [row["table"], f"{row['n']}", f"{row['wrong']}", f"{row['flagged']}", f"{row['flagged'] / row['n']:.1%}"]
        + ["yes" if few(row) else "**no**"]
        + ["–" if row["can_tell"] is None else ("yes" if row["can_tell"] else "no")]
        + [", ".join(row["warnings"]) or "–", f"{len(row['findings'])}"]
        for row in rows
    ]
    head = ["file", "rows", "wrong labels", "flagged", "share", "few", "can tell", "warnings", "findings"]
    return "Few: at most 2 %, or twice the wrong labels.\n\n" + table(head, body)


def field() -> Page | None:
    """Awkward files; nothing where they were not run."""
    sources, ours, _ = measured()
    rows = field_rows(ours)
    if not rows:
        return None
    many = [row for row in rows if not few(row)]
    failed = "; ".join(f"{row['table']}: {row['flagged']} of {row['n']}, {row['wrong']} wrong" for row in many)
    panels = {
        "": {
            "flagged": {row["table"]: 100 * row["flagged"] / row["n"] for row in rows},
            "wrong": {row["table"]: 100 * row["wrong"] / row["n"] for row in rows},
        }
    }
    return Page(
        name="field-files",
        question="What is flagged in awkward files whose labels are right?",
        answer=f"In {len(rows) - len(many)} of {len(rows)} files at most 2 % of the rows or twice the wrong "
        f"labels are flagged "
        f"({'too many in ' + failed if many else 'in no file more'}).",
        picture=Picture(
            "Share of the rows flagged and share of wrong labels in each file",
            partial(dots, panels, "% of the rows", joined=True),
        ),
        about="Made files as people have them: marks, sums of money, one absurd number, spellings of one answer, pure "
        "noise, equal rows with different labels, a column that tells the label, a number that stands for missing. "
        "Can tell: whether the detector holds the labels predictable at all.",
        command="python benchmarks/tables_battery.py --part field",
        measured=sources[:1],
        tables={"Every file": field_page(ours, [])},
    )
