"""The plot of the LDS benchmark: what averaging models gains, as SVG. No pyplot; needs matplotlib."""

from __future__ import annotations

from pathlib import Path

# Readable without colour: every method has a marker and dashes of its own. Colours of Okabe and Ito.
LOOKS = {
    "Source": ("#D55E00", "o", "-"),
    "Source, fast": ("#E69F00", "D", (0, (6, 2))),
    "Source, blockwise": ("#CC79A7", "P", (0, (3, 1))),
    "Influence": ("#0072B2", "s", (0, (4, 1, 1, 1))),
    "TracIn": ("#009E73", "^", (0, (2, 2))),
    "InnerProduct": ("#595959", "v", (0, (1, 1.5))),
}
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "grid.color": "#D0D0D0",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "svg.hashsalt": "lds",  # the same numbers make the same file
}
COLUMNS = 2


def draw(results: dict[str, list[dict]], file: Path) -> None:
    """One panel per truth: LDS over its ceiling against the number of averaged models, one line per method.

    results: title of a panel -> rows of benchmarks/results/lds_NAME.json.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    n_columns = min(COLUMNS, len(results))
    n_rows = -(-len(results) // n_columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(max(5.0, 3.6 * n_columns), 0.5 + 2.7 * n_rows), layout="constrained")
        FigureCanvasSVG(figure)
        panels = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).ravel()
        for unused in panels[len(results) :]:
            unused.remove()
        for axes, (title, rows) in zip(panels, results.items(), strict=False):
            curves = {row["method"]: (row["curve"], row["ceiling"]) for row in rows if "curve" in row}
            for method, (color, marker, dashes) in LOOKS.items():
                if method not in curves:
                    continue
                curve, ceiling = curves[method]
                counts, scores = [int(count) for count in curve], [score / ceiling for score in curve.values()]
                axes.plot(counts, scores, color=color, marker=marker, markersize=5, linestyle=dashes, label=method)
            axes.set_xticks(counts)
            axes.set(title=title, xlabel="models averaged", xlim=(0.5, counts[-1] + 0.5))
            axes.tick_params(labelleft=True)
        for first in panels[: len(results) : n_columns]:
            first.set_ylabel("LDS / ceiling")
        panels[0].set_ylim(bottom=0)
        shown = {line.get_label(): line for axes in panels[: len(results)] for line in axes.get_lines()}
        labels = [method for method in LOOKS if method in shown]
        columns = min(len(labels), 2 * n_columns + 1)
        figure.legend([shown[label] for label in labels], labels, loc="outside upper center", ncols=columns)
        figure.savefig(file, format="svg", metadata={"Date": None})
