"""The report page: what came in is put into numbers, plots and cards, which the template lays out."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sktda.cards.pairs import MAX_PAIRS, Labels, encode, flagged_pairs, heat_map
from sktda.cards.rendering import render
from sktda.cards.suspects import given_text, suspect_cards
from sktda.displays.drawing import short
from sktda.displays.plotting import comparison_plot, prediction_scatter, score_histogram
from sktda.files import staged
from sktda.report.comparison import N_REPEATS, compare, visible_gain
from sktda.report.judgement import Judgement
from sktda.tables.columns import LEFT_OUT

if TYPE_CHECKING:
    import pandas as pd

    from sktda import NoisyLabelDetector
    from sktda.findings import Finding
    from sktda.tables.columns import Column

COLUMNS = ("given_label", "suggested_label", "label_quality", "score", "noisy")
TEMPLATE = "page.html.j2"
MAX_GROUPS = 12  # of equal rows shown, and rows of each


@dataclass(frozen=True, eq=False, kw_only=True)
class ReportInput:
    """All that a report page is made from.

    Parameters
    ----------
    name : str
        The data file's or folder's name, for the title.
    frame : DataFrame
        One row per data row in file order, with the user's index and the columns given_label, suggested_label,
        label_quality (in [0, 1], 0.5 at the cut), score (higher = keep) and noisy (bool). For regression
        suggested_label is the prediction made without the row.
    noise_rate : float
        Estimated share of wrong labels.
    task : {"classification", "regression"}
    detector : NoisyLabelDetector
        Unfitted, with the settings used; refitted inside every fold of the comparison before and after.
    features : ndarray or sparse matrix of shape (n, ...), default=None
        What the scores came from. Without it there are no neighbours and no comparison, and the page says so.
    rows : DataFrame, default=None
        Cells for display, without the label column.
    image : callable, default=None
        Position of a row -> its picture, as PIL image or array (height, width[, channels]).
    reproduce : str, default=""
        The command that made this.
    notes : tuple of str, default=()
        Remarks for the summary, e.g. which columns were skipped.
    findings : tuple of Finding, default=()
        What `sktda.findings.inspect` found; groups of equal rows with different labels get a section of their own.
    columns : sequence of Column, default=()
        What was made of each column of a table, as `TableEncoder.columns_` says it.
    written : sequence of str, default=None
        The given labels as they stand in the file, where frame has them as numbers.
    judgement : Judgement, default=None
        What the detector says of all labels together. Without it the folds of the comparison say whether the features
        predict the labels.
    """

    name: str
    frame: pd.DataFrame
    noise_rate: float
    task: str
    detector: NoisyLabelDetector
    features: Any = None
    rows: pd.DataFrame | None = None
    image: Callable[[int], Any] | None = None
    reproduce: str = ""
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    columns: Sequence[Column] = ()
    written: Sequence[str] | None = None
    judgement: Judgement | None = None

    @property
    def scale(self) -> str | None:
        """How the kernel took the features, by which neighbours are found."""
        return self.judgement.scale if self.judgement else None

    def check(self) -> None:
        """Raise ValueError if the parts do not fit together."""
        missing = [column for column in COLUMNS if column not in self.frame.columns]
        if missing:
            raise ValueError(f"frame lacks the columns {missing}; it needs {list(COLUMNS)}")
        if not len(self.frame):
            raise ValueError("frame has no rows; a report needs at least one")
        if self.task not in {"classification", "regression"}:
            raise ValueError(f"task={self.task!r} is not one of 'classification', 'regression'")
        for name in ("features", "rows"):
            part = getattr(self, name)
            if part is not None and part.shape[0] != len(self.frame):
                raise ValueError(f"{name} has {part.shape[0]} rows but frame has {len(self.frame)}; they must match")


def write_report(
    path: str | os.PathLike,
    data: ReportInput,
    *,
    n_suspects: int = 24,
    comparison: bool = True,
    cv: int = 5,
    random_state: int = 0,
) -> dict:
    """Write one self-contained HTML page and return the numbers printed on it.

    Parameters
    ----------
    path : path-like
        Where the page goes; replaced atomically, so that it is never half a page.
    data : ReportInput
    n_suspects : int, default=24
        How many of the flagged rows are shown, worst first; where none is flagged, of the most doubtful ones.
    comparison : bool, default=True
        Whether models are compared before and after the cleaning, which takes a few seconds.
    cv : int, default=5
        Folds of the comparison before and after.
    random_state : int, default=0
        Draws the folds, the random removals and, for large data, the rows compared.

    Returns
    -------
    numbers : dict
        JSON-able: n_rows, n_noisy, noise_rate, n_wrong, task, metric and, where they apply, n_classes, pairs, models
        and accuracy_before, accuracy_after, accuracy_random with their standard errors `*_se` (r2_* for regression),
        which are those of the first model; verdict of the comparison ("better", "worse", "unclear" or "unchanged");
        can_tell, whether the features predict the labels; left_out says why a section is missing.

    Raises
    ------
    ImportError
        If jinja2, matplotlib, pandas or pillow is not installed.
    ValueError
        If the parts of data do not fit together.
    """
    _check_installed()
    data.check()
    labels = None if data.task == "regression" else encode(data.frame)
    numbers = _summary(data)
    page: dict = {"plots": {}, "map": None}
    _add_contradictions(numbers, page, data)
    _add_alike(numbers, page, data)
    _add_labels(numbers, page, data, labels)
    _add_scores(numbers, page, data)
    page["suspects"] = suspect_cards(data, labels, n_suspects)
    if comparison:
        _add_comparison(numbers, page, data, labels, cv, random_state)
    else:
        numbers["left_out"]["comparison"] = "it was not asked for"
    judgement = data.judgement or Judgement(data.noise_rate)
    untold = 2 * numbers.get("n_untold_folds", 0) > numbers.get("n_folds", 0)
    numbers["can_tell"] = not untold if judgement.can_tell is None else judgement.can_tell
    page["evidence"] = judgement.evidence(labels is None)
    text = _render(data, numbers, page, random_state)
    with staged([Path(path)], force=True) as temporary:
        temporary[0].write_text(text, encoding="utf-8", errors="replace")
    return numbers


def _summary(data: ReportInput) -> dict:
    return {
        "task": data.task,
        "n_rows": len(data.frame),
        "n_noisy": int(_noisy(data).sum()),
        "noise_rate": float(data.noise_rate),
        "n_wrong": round(float(data.noise_rate) * len(data.frame)),
        "left_out": {},
    }


def _noisy(data: ReportInput) -> np.ndarray:
    return data.frame["noisy"].to_numpy(dtype=bool)


def _add_contradictions(numbers: dict, page: dict, data: ReportInput) -> None:
    """Equal rows with different labels, the first MAX_GROUPS groups."""
    groups = [group for f in data.findings if f.kind == "contradiction" for group in f.detail["groups"]]
    numbers["n_contradictions"] = len(groups)
    page["contradictions"] = [[_named(data, row) for row in group[:MAX_GROUPS]] for group in groups[:MAX_GROUPS]]


def _add_alike(numbers: dict, page: dict, data: ReportInput) -> None:
    """Copies beside the first of their kind and rows unlike all others, the first MAX_GROUPS of each."""
    kinds = {"duplicate": "equal", "near_duplicate": "nearly equal", "outlier": "unlike all others"}
    page["alike"] = []
    for finding in data.findings:
        if finding.kind not in kinds or not len(finding.rows):
            continue
        numbers[f"n_{finding.kind}s"] = len(finding.rows)
        of = finding.detail.get("of", [None] * len(finding.rows))
        order = (
            np.argsort(-finding.detail["isolation"], kind="stable") if "isolation" in finding.detail else range(len(of))
        )
        shown = [(finding.rows[i], of[i]) for i in order][:MAX_GROUPS]
        pairs = [[_named(data, row) for row in pair if row is not None] for pair in shown]
        page["alike"].append({"what": kinds[finding.kind], "message": finding.message, "rows": pairs, "n": len(of)})


def _named(data: ReportInput, row: int) -> dict:
    return {"index": str(data.frame.index[row]), "given": given_text(data, row)}


def _add_labels(numbers: dict, page: dict, data: ReportInput, labels: Labels | None) -> None:
    """Given against suggested: a map or list of class pairs, or a scatter plot of values."""
    noisy = _noisy(data)
    if labels is None:
        given, suggested = (data.frame[name].to_numpy(dtype=float) for name in ("given_label", "suggested_label"))
        caption = "Given values against the values that the other rows suggest"
        page["plots"]["pairs"] = prediction_scatter(given, suggested, noisy, label=caption)
        return
    page["names"], page["map"] = labels.names, heat_map(labels, noisy)
    numbers["n_classes"] = len(labels.classes)
    numbers["pairs"] = [
        {**pair, "given": labels.names[pair["given"]], "suggested": labels.names[pair["suggested"]]}
        for pair in flagged_pairs(labels, noisy)[:MAX_PAIRS]
    ]


def _add_scores(numbers: dict, page: dict, data: ReportInput) -> None:
    caption = f"Histogram of label quality of {numbers['n_rows']} rows, {numbers['n_noisy']} of them flagged"
    quality = data.frame["label_quality"].to_numpy(dtype=float)
    page["plots"]["scores"] = score_histogram(quality, _noisy(data), label=caption)


def _add_comparison(
    numbers: dict, page: dict, data: ReportInput, labels: Labels | None, cv: int, random_state: int
) -> None:
    """Before and after; where it cannot be had, the page is worth having without it and says why."""
    if data.features is None:
        numbers["left_out"]["comparison"] = "the features that the scores came from are not at hand"
        return
    regression = labels is None
    target = data.frame["given_label"].to_numpy(dtype=float) if labels is None else labels.given
    try:
        comparison = compare(
            data.features, target, data.detector, regression=regression, cv=cv, random_state=random_state
        )
    except ValueError as error:
        numbers["left_out"]["comparison"] = str(error).rstrip(".")
        return
    numbers |= comparison.numbers("r2" if regression else "accuracy")
    page["plots"]["comparison"] = comparison_plot(
        comparison.models,
        None if regression else 1 - data.noise_rate,
        metric="R² on held-out rows" if regression else "accuracy on held-out rows",
        label="Score of each model trained as given, after random removal and after cleaning, with standard errors",
    )
    page["n_components"] = comparison.n_components
    page["is_sampled"] = comparison.is_sampled
    page["visible_gain"] = None if regression else visible_gain(data.noise_rate, numbers["n_classes"])


def _render(data: ReportInput, numbers: dict, page: dict, random_state: int) -> str:
    from markupsafe import Markup

    page["plots"] = {name: Markup(svg) for name, svg in page["plots"].items()}
    return render(
        Path(__file__).parent,
        TEMPLATE,
        {"short": short},
        data=data,
        detector=repr(data.detector),
        numbers=numbers,
        left_out=LEFT_OUT,
        estimated=isinstance(getattr(data.detector, "contamination", "auto"), str),
        page=page,
        n_repeats=N_REPEATS,
        random_state=random_state,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    from sktda import __version__

    packages = {name: metadata.version(name) for name in ("scikit-learn", "torch", "numpy")}
    return {"sktda": __version__, **packages, "Python": platform.python_version()}


def _check_installed() -> None:
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
        import pandas  # noqa: F401
        import PIL  # noqa: F401
    except ImportError as error:
        message = f'a report needs {error.name}, which is missing: pip install "sktda[report]"'
        raise ModuleNotFoundError(message, name=error.name) from error
