"""The plots of docs/benchmarks/: dots or bars with intervals, and lines. One column of panels, so that a phone can show
them. No pyplot; needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

Value = float | tuple[float, float, float] | None  # of a dot: alone, or with both ends of its interval
Dots = dict[str, dict[str, dict[str, Value]]]  # title of a panel -> series -> row -> value
Lines = dict[str, dict[str, Sequence[tuple[float, Value]]]]  # title of a panel -> series -> points

# Readable without colour: every series has a marker and dashes of its own. Colours of Okabe and Ito.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#595959", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p")  # one more than colours: no two series look alike
DASHES = ("-", (0, (4, 1, 1, 1)), (0, (6, 2)), (0, (2, 2)), (0, (3, 1)), (0, (1, 1.5)), (0, (5, 1)), (0, (1, 1)))
WIDTH, ROW, LINES_HEIGHT = 5.0, 0.2, 2.6  # inches
TITLE = 28  # letters in a line above a panel of rows
LEGEND = 56  # letters in a line of the legend, markers as eight
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 10,
    "grid.color": "#D0D0D0",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "svg.fonttype": "none",  # letters as letters: small files
    "svg.hashsalt": "sktda",  # the same numbers make the same file
}


def save(figure: Figure, file: Path) -> None:
    """As SVG without a date, on white, which both themes show."""
    with rc_context(STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None}, facecolor="white")


def dots(
    panels: Dots, xlabel: str, *, mark: float | None = None, joined: bool = False, log: bool = False, same: bool = True
) -> Figure:
    """One line for each row of a panel, a dot for each series; mark is a line at a value, joined pairs the series.

    same: all panels have one scale.
    """
    return _rows(panels, xlabel, mark=mark, joined=joined, log=log, same=same, bars=False)


def bars(panels: Dots, xlabel: str, *, mark: float | None = None, same: bool = True) -> Figure:
    """As `dots`, with bars that begin at zero."""
    return _rows(panels, xlabel, mark=mark, joined=False, log=False, same=same, bars=True)


def lines(
    panels: Lines,
    xlabel: str,
    ylabel: str,
    *,
    log: str = "",
    mark: float | None = None,
    zero: bool = False,
    percent: bool = False,
) -> Figure:
    """One line for each series; log names the logarithmic axes ("x", "y", "xy"); zero: the y axes begin there."""
    with rc_context(STYLE):
        height = LINES_HEIGHT * len(panels) + 0.3 * _legend_lines(panels)
        figure, panels_axes = _figure(len(panels), height, [1.0] * len(panels))
        names = _series(panels)
        for axes, (title, series) in zip(panels_axes, panels.items(), strict=True):
            for name, points in series.items():
                _line(axes, points, name, names.index(name))
            axes.set(title=fill(title, 48), xlabel=xlabel, ylabel=ylabel)
            if "x" in log:
                axes.set_xscale("log")
            if "y" in log:
                axes.set_yscale("log")
            elif zero:
                axes.set_ylim(bottom=0)
            _plain_numbers(axes, log)
            if percent:
                axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0%}"))
            if mark is not None:
                axes.axhline(mark, color="#808080", linewidth=1)
        _legend(figure, panels_axes, names)
    return figure


def _line(axes: Axes, points: Sequence[tuple[float, Value]], name: str, number: int) -> None:
    own = [(x, value) for x, value in points if value is not None]
    middle = [value[0] if isinstance(value, tuple) else value for _, value in own]
    where = [x for x, _ in own]
    color, marker, dashes = (each[number % len(each)] for each in (COLORS, MARKERS, DASHES))
    axes.plot(where, middle, color=color, marker=marker, linestyle=dashes, markersize=5, label=name)
    if any(isinstance(value, tuple) for _, value in own):
        ends = [value[1:] if isinstance(value, tuple) else (value, value) for _, value in own]
        axes.vlines(where, [low for low, _ in ends], [high for _, high in ends], color=color, linewidth=1)


def _rows(panels: Dots, xlabel: str, *, mark: float | None, joined: bool, log: bool, same: bool, bars: bool) -> Figure:
    """Dots or bars."""
    with rc_context(STYLE):
        names = _series(panels)
        counts = [len(_row_names(series)) for series in panels.values()]
        deep = ROW * max(1.0, 0.7 * len(names)) if bars else ROW
        long = sum(len(fill(title, TITLE).splitlines()) - 1 for title in panels if title)
        below = 0.17 * len(fill(xlabel, TITLE).splitlines())
        height = (
            sum(deep * count + 0.55 for count in counts)
            + below * (1 if same else len(counts))
            + 0.17 * long
            + 0.3 * _legend_lines(panels)
            + 0.2
        )
        figure, panels_axes = _figure(len(panels), height, [deep * count + 0.3 for count in counts])
        for axes, (title, series) in zip(panels_axes, panels.items(), strict=True):
            rows = _row_names(series)
            for name, values in series.items():
                _row_series(axes, rows, values, name, names, bars=bars)
            if joined:
                _join(axes, rows, list(series.values()))
            axes.set_yticks(range(len(rows)), rows, fontsize=9)
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.set(title=fill(title, TITLE))
            if not same or axes is panels_axes[-1]:
                axes.set_xlabel(fill(xlabel, TITLE), fontsize=9)
            if log:
                axes.set_xscale("log")
                _plain_numbers(axes, "x")
            if mark is not None:
                axes.axvline(mark, color="#808080", linewidth=1)
        if same:
            ends = [axes.get_xlim() for axes in panels_axes]
            for axes in panels_axes:
                axes.set_xlim(min(low for low, _ in ends), max(high for _, high in ends))
        _legend(figure, panels_axes, names)
    return figure


def _row_series(axes: Axes, rows: list[str], values: dict, name: str, names: list[str], *, bars: bool) -> None:
    number = names.index(name)
    color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
    # Dots that may lie on one another stand a little apart, as bars do.
    room = 0.8 / len(names)
    shift = (number - (len(names) - 1) / 2) * room if bars else 0.0
    known = [(rows.index(row) + shift, value) for row, value in values.items() if value is not None]
    where = [y for y, _ in known]
    middle = [value[0] if isinstance(value, tuple) else value for _, value in known]
    if bars:
        axes.barh(where, middle, height=0.9 * room, color=color, label=name)
    else:
        axes.plot(middle, where, color=color, marker=marker, linestyle="none", markersize=5.5, alpha=0.85, label=name)
    spans = [(y, value[1:]) for y, value in known if isinstance(value, tuple)]
    if spans:
        axes.hlines(
            [y for y, _ in spans],
            [ends[0] for _, ends in spans],
            [ends[1] for _, ends in spans],
            color="#202020" if bars else color,
            linewidth=1,
        )


def _join(axes: Axes, rows: list[str], series: list[dict]) -> None:
    for y, row in enumerate(rows):
        values = [value for own in series if (value := own.get(row)) is not None]
        middle = [value[0] if isinstance(value, tuple) else value for value in values]
        if len(middle) > 1:
            axes.plot([min(middle), max(middle)], [y, y], color="#B0B0B0", linewidth=1.5, zorder=1)


def _figure(count: int, height: float, ratios: list[float]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, list(figure.subplots(count, 1, squeeze=False, height_ratios=ratios).ravel())


def _plain_numbers(axes: Axes, log: str) -> None:
    """10,000 and 0.1 on logarithmic axes."""
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if name in log:
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
            axis.set_minor_formatter(NullFormatter())


def _series(panels: dict) -> list[str]:
    return list(dict.fromkeys(name for series in panels.values() for name in series))


def _row_names(series: dict[str, dict]) -> list[str]:
    return list(dict.fromkeys(row for values in series.values() for row in values))


def _legend_lines(panels: dict) -> int:
    count = len(_series(panels))
    return -(-count // _legend_columns(_series(panels))) if count > 1 else 0


def _legend_columns(names: list[str]) -> int:
    """As many of the longest as have room."""
    return max(1, min(len(names), LEGEND // (max(map(len, names)) + 8)))


def _legend(figure: Figure, panels_axes: list[Axes], names: list[str]) -> None:
    if len(names) < 2:
        return
    shown: dict = {}
    for axes in panels_axes:
        handles, labels = axes.get_legend_handles_labels()
        shown |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in shown}
    handles = [shown[name] for name in names]
    figure.legend(handles, names, loc="outside upper center", ncols=_legend_columns(names), fontsize=9)
