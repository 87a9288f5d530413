"""All methods side by side: what which.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import found, table
from pages.page import Page, Picture
from pages.plots import dots
from which import DATA, NEEDS

from sktda import attribution
from sktda.attribution.base import needs_of

KINDS = {"uniform": "at random", "class": "to the next class"}
Rows = list[dict]


def which() -> Page | None:
    """Every attributor and cleanlab, per data set."""
    measured = {name: found(f"which_{name}") for name in DATA}
    measured = {name: each for name, each in measured.items() if each[1]}
    if not measured:
        return None
    panels, said = {}, []
    for name, (_, rows) in measured.items():
        kind, rate = rows[0]["noise"], rows[0]["rate"]
        own = {row["method"]: row for row in rows if (row["noise"], row["rate"]) == (kind, rate) and "ap" in row}
        default, best = own["LabelPosterior"]["ap"], max(row["ap"] for row in own.values())
        peer = max(row["ap"] for method, row in own.items() if method.startswith("cleanlab"))
        said.append(f"{name} {default:.3f} ({best:.3f}, {peer:.3f})")
        ordered = sorted(own, key=lambda method: -own[method]["ap"])
        series: dict[str, dict] = {group: {} for group in ("default", "sktda", "cleanlab")}
        for method in ordered:
            group = "cleanlab" if method.startswith("cleanlab") else "sktda"
            series["default" if method == "LabelPosterior" else group][method] = own[method]["ap"]
        panels[f"{name}, {rate:.0%} {KINDS[kind]}"] = {
            group: {method: values.get(method) for method in ordered} for group, values in series.items()
        }
    return Page(
        name="every-method",
        question="Which method finds wrong labels best?",
        answer="Average precision of the default with a fifth of the labels wrong (the best of all methods, of "
        f"cleanlab): {'; '.join(said)}.",
        picture=Picture(
            "Average precision of every method on each data set", partial(dots, panels, "average precision")
        ),
        about="A part of the labels is replaced, by any other class at random or by the next class. Every method "
        "scores the rows with its defaults; none is given validation rows, and none needs any. In each cell AUROC / AP "
        "of low scores for wrong labels, then the accuracy on test rows with right labels of "
        "`ExtraTreesClassifier(100)` after `NoisyLabelDetector` dropped the lowest scores (cleanlab: after its own "
        "issues were dropped). Seconds of `fit` and peak memory of the process are medians over the columns. *Trains* "
        "says what a method needs: classifiers out of sample (folds), a net, or a net and the record of its run. Of "
        "cleanlab's two ways to rank the better one is shown. Below each table: how far the default is from the best.",
        command="python benchmarks/which.py",
        measured=list(measured.values()),
        tables={f"{name}: every method": method_table(rows) for name, (_, rows) in measured.items()},
    )


def method_table(rows: Rows) -> str:
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
    return "\n\n".join(
        [
            table(["method", "trains", "validation rows", *titles, "seconds", "GiB"], body),
            f"Accuracy without cleaning and with the right rows only: {limits}.",
            comparison(by_method, settings, titles),
        ]
    )


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
