"""What a fitted cleaner says of itself: numbers for a log, and below scikit-learn's diagram in a notebook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

N_ROWS = 5
N_BINS = 24
MAX_TEXT = 40  # characters of a label or of the name of a row
WIDTH, HEIGHT = 360, 80  # of the histogram
WRONG = "#d1495b"  # is told from the text's colour on white and on black


@dataclass(frozen=True)
class Shown:
    """What is below the diagram.

    values (n,): what the histogram is of, called `axis`; marked (n,) bool: in colour. rows: cells of the first rows,
    under the names `head` and the caption.
    """

    sentence: str
    values: np.ndarray
    marked: np.ndarray
    axis: str
    caption: str
    head: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def below(diagram: str, found: Any, shown: Callable[[Any], Shown]) -> str:
    """HTML of an estimator with what it found below it, from what `fit` left behind: nothing is computed again."""
    try:
        check_is_fitted(found)
        return diagram + _html(shown(found))
    except Exception:  # what is shown must never stand in the way of a notebook, whatever it was fitted on
        return diagram


def detector_summary(found: Any) -> dict[str, float]:
    """Numbers for a log, of a NoisyLabelDetector."""
    check_is_fitted(found)
    low, high = found.noise_rate_interval_
    return {
        "n_rows": len(found.labels_),
        "n_labelled": int((found.labels_ != 0).sum()),
        "n_noisy": int((found.labels_ == -1).sum()),
        "noise_rate": float(found.noise_rate_),
        "noise_rate_low": float(low),
        "noise_rate_high": float(high),
        "predictability": float(found.predictability_),
        "predictability_error": float(found.predictability_error_),
        "chance": float(found.chance_),
        "can_tell": int(found.can_tell_),
    }


def detector_shown(found: Any) -> Shown:
    """What is below the diagram of a NoisyLabelDetector."""
    told, regression = detector_summary(found), found.task_ == "regression"
    what, noisy = "value" if regression else "label", found.labels_ == -1
    metric = "R²" if regression else "Balanced accuracy"
    evidence = f"{metric} is {told['predictability']:.2f} out of sample, {told['chance']:.2f} by chance."
    sentence = (
        f"{told['n_noisy']:,} of {told['n_labelled']:,} {what}s probably wrong ({told['noise_rate']:.1%}; by "
        f"sampling {told['noise_rate_low']:.1%} to {told['noise_rate_high']:.1%}). {evidence}"
    )
    if not told["can_tell"]:
        sentence = f"The features do not predict the {what}s, so which are wrong cannot be told. {evidence}"
    return Shown(
        sentence,
        found.label_quality_,
        noisy,
        f"{what} quality",
        "Worst rows" if noisy.any() else "Most doubtful rows",
        ("row", "given", "suggested", "quality"),
        [
            (
                _name(found, row),
                np.asarray(found._given)[row],
                found.suggested_labels_[row],
                found.label_quality_[row],
            )
            for row in _first(found.scores_)
        ],
    )


def pruner_summary(pruner: Any) -> dict[str, float]:
    """What a fitted InfluencePruner did, as its method `summary` returns it."""
    n, n_pruned = len(pruner.support_), int((~pruner.support_).sum())
    numbers = {"n_rows": n, "n_pruned": n_pruned, "pruned_share": n_pruned / n}
    for name, (whole, pruned) in getattr(pruner, "guard_scores_", {}).items():
        numbers |= {f"guard_all_{name}": float(whole), f"guard_pruned_{name}": float(pruned)}
    return numbers


def pruner_shown(pruner: Any) -> Shown:
    """What a fitted InfluencePruner removed."""
    told, removed = pruner_summary(pruner), ~pruner.support_
    sentence = f"{told['n_pruned']:,} of {told['n_rows']:,} rows removed ({told['pruned_share']:.1%})."
    given, scores = np.asarray(pruner._given), pruner.scores_
    rows = [(_name(pruner, row), given[row], scores[row], "no" if removed[row] else "yes") for row in _first(scores)]
    head = ("row", "given", "score", "kept")
    return Shown(sentence, scores, removed, "score, higher = keep", "Worst rows", head, rows)


def _first(scores: np.ndarray) -> list[int]:
    """Positions of the worst rows that have a score."""
    order = np.argsort(scores, kind="stable")[:N_ROWS]
    return order[np.isfinite(scores[order])].tolist()


def _name(found: Any, row: int) -> Any:
    return row if found._index is None else found._index[row]


def _html(shown: Shown) -> str:
    cell = 'style="padding:1px 10px 1px 0;text-align:left"'
    head = "".join(f"<th {cell}>{escape(name)}</th>" for name in shown.head)
    rows = "".join(
        "<tr>" + "".join(f"<td {cell}>{escape(_text(value))}</td>" for value in row) + "</tr>" for row in shown.rows
    )
    return (
        '<div class="sktda-fitted" style="font:13px/1.5 system-ui,sans-serif;margin:.5em 0;overflow-x:auto">'
        f"<p style='margin:.3em 0'>{escape(shown.sentence)}</p>{_histogram(shown)}"
        f"<p style='margin:.5em 0 0'><b>{escape(shown.caption)}</b></p>"
        f'<table style="border-collapse:collapse;margin:0"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _histogram(shown: Shown) -> str:
    """Bars of the values, those that are marked in colour and below; extreme values are in the first and last bar."""
    known = np.isfinite(shown.values)
    values, marked = shown.values[known], shown.marked[known]
    if not len(values):
        return ""
    low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else np.quantile(values, [0.01, 0.99])
    high = high if high > low else low + 1
    place = np.clip((values - low) / (high - low) * N_BINS, 0, N_BINS - 1).astype(int)
    counts = [np.bincount(place[which], minlength=N_BINS) for which in (marked, ~marked)]
    tall, wide = HEIGHT / (counts[0] + counts[1]).max(), WIDTH / N_BINS
    bars = []
    for i, (n_marked, n_others) in enumerate(zip(*counts, strict=True)):
        base = float(HEIGHT)
        for n, paint in ((n_marked, f'fill="{WRONG}"'), (n_others, 'fill="currentColor" fill-opacity=".45"')):
            if n:
                height = max(1.0, n * tall)
                base -= height
                bars.append(
                    f'<rect x="{i * wide:g}" y="{base:.1f}" width="{wide - 1:g}" height="{height:.1f}" {paint}/>'
                )
    text = 'fill="currentColor" font-size="11"'
    label = escape(f"Histogram of {shown.axis} of {len(values):,} rows, {int(marked.sum()):,} of them marked")
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 -3 {WIDTH} {HEIGHT + 20}" width="{WIDTH}" '
        f'style="display:block;max-width:100%;height:auto">{"".join(bars)}'
        f'<line x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}" stroke="currentColor" stroke-width=".5"/>'
        f'<text x="0" y="{HEIGHT + 13}" {text}>{low:.3g}</text>'
        f'<text x="{WIDTH / 2:g}" y="{HEIGHT + 13}" text-anchor="middle" {text}>{escape(shown.axis)}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 13}" text-anchor="end" {text}>{high:.3g}</text></svg>'
    )


def _text(value: Any) -> str:
    """A cell, short: long numbers rounded, long texts cut, a text of spaces with its quotes."""
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    text = str(value)
    text = text if text.strip() else repr(text)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
