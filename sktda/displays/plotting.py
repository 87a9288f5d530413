"""Plots as SVG text for an HTML page: no pyplot, no global state, colours that follow the page's light or dark mode.

Needs matplotlib, imported on first use. Text in the plots is fixed and plain: labels from data never enter, so
that no font or mathematics parser has to read them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

# The page gives each of these a colour per mode; matplotlib only knows fixed ones, replaced when the SVG is written.
INK, FAINT, KEPT, FLAGGED = "#010101", "#020202", "#030303", "#040404"
VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", KEPT: "var(--kept)", FLAGGED: "var(--flagged)"}
STYLE: Any = {
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "legend.edgecolor": "none",
    "legend.facecolor": "none",
    "svg.fonttype": "none",  # text stays text: the reader's font, selectable, and small
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
MAX_POINTS = 1_000  # of each kind in a scatter plot, so that the page stays small


def score_histogram(quality: np.ndarray, noisy: np.ndarray, *, label: str) -> str:
    """Stacked histogram of label quality (n,) in [0, 1], flagged rows apart, with the cut at 0.5 marked."""
    with _style():
        figure, axes = _axes(5.6, 2.8)
        edges = np.linspace(0, 1, 41)
        parts = [quality[noisy], quality[~noisy]]
        axes.hist(parts, edges, stacked=True, color=[FLAGGED, KEPT], label=["flagged", "not flagged"])
        axes.axvline(0.5, color=INK, linestyle="--", linewidth=1, label="cut")
        axes.set(xlabel="label quality", ylabel="rows", xlim=(0, 1))
        axes.grid(visible=False, axis="x")
        figure.legend(loc="outside upper left", ncols=3)
        return _svg(figure, label)


def prediction_scatter(given: np.ndarray, predicted: np.ndarray, noisy: np.ndarray, *, label: str) -> str:
    """Given value against the value that the other rows suggest, flagged rows marked; at most MAX_POINTS of each."""
    with _style():
        figure, axes = _axes(5.6, 4.2)
        for rows, color, marker, name in (
            (np.flatnonzero(~noisy), KEPT, ".", "not flagged"),
            (np.flatnonzero(noisy), FLAGGED, "x", "flagged"),
        ):
            rows = np.random.default_rng(0).permutation(rows)[:MAX_POINTS]
            axes.plot(predicted[rows], given[rows], marker, color=color, markersize=4, label=name)
        axes.axline((given.mean(), given.mean()), slope=1, color=INK, linestyle="--", linewidth=1)
        axes.set(xlabel="value that the other rows suggest", ylabel="given value")
        figure.legend(loc="outside upper left", ncols=2)
        return _svg(figure, label)


def comparison_plot(models: Sequence[Any], ceiling: float | None, *, metric: str, label: str) -> str:
    """Mean and standard error of every arm of every model (`ModelScores`), and the ceiling as a dashed line."""
    with _style():
        figure, axes = _axes(5.6, 0.9 + 0.85 * len(models))
        arms = (
            ("before", "as given", KEPT, "o", -0.22),
            ("random", "as many removed at random", INK, "s", 0.0),
            ("after", "cleaned", FLAGGED, "D", 0.22),
        )
        for arm, name, color, marker, offset in arms:
            numbers = [scores.summary() for scores in models]
            axes.errorbar(
                [row[arm] for row in numbers],
                np.arange(len(models)) + offset,
                xerr=[row[arm + "_se"] for row in numbers],
                fmt=marker,
                color=color,
                capsize=3,
                label=name,
            )
        if ceiling is not None:
            axes.axvline(ceiling, color=INK, linestyle="--", linewidth=1, label="about the most possible")
        axes.set(yticks=range(len(models)), yticklabels=[scores.model for scores in models], xlabel=metric)
        axes.set_ylim(len(models) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        handles, names = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], names[::-1], loc="outside upper left", ncols=2)
        return _svg(figure, label)


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(STYLE)


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any, label: str) -> str:
    """The figure as an <svg> element with a text alternative; several can stand in one page."""
    import matplotlib
    from markupsafe import escape

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": label}):  # same input, same file; other figure, other ids
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)  # names of groups, which are the same in every figure
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # would apply to the whole page
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, variable)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
