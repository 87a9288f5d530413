"""The review page: the doubtful rows with all that is needed to judge them, in one file that asks nothing of anywhere.

What is decided there stays in the browser, and comes back as a file `decisions.csv` (see `decisions`).
"""

from __future__ import annotations

import html
import json
import os
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sktda.cards.cells import Cells
from sktda.cards.pairs import encode, label_text
from sktda.cards.pictures import data_uri
from sktda.cards.rendering import render
from sktda.cards.suspects import given_text, rows_beside, suggested_text, suspects_of, worst_first
from sktda.containers import is_table, read_target
from sktda.data import row_index, sliceable
from sktda.files import staged
from sktda.review.decisions import index_column, positions_and_decisions

if TYPE_CHECKING:
    import pandas as pd

TEMPLATE = "page.html.j2"
MAX_ROWS = 5_000  # on one page: nobody reviews more before the next order
N_DOUBTFUL = 50  # shown where nothing is flagged
MAX_TEXT = 1_000  # characters of a cell
SIDES = ((500, 384), (2_000, 192))  # up to so many rows on the page, pixels of a picture; else 96: at most some 100 MB
BESIDE = 2  # pictures of neighbours are smaller by this


@dataclass(frozen=True, eq=False, kw_only=True)
class Review:
    """The rows to review, as a page.

    In a notebook the object shows itself. `save` writes the page, and `decisions` reads what was exported from it.

    Parameters
    ----------
    name : str
        For the title.
    frame : DataFrame
        One row per data row in file order, with the user's index and the columns given_label, suggested_label,
        label_quality, score and noisy, as in a `sktda.report.ReportInput`.
    task : {"classification", "regression"}
    features : ndarray or sparse matrix of shape (n, ...), default=None
        By which the nearest rows are found; without it rows stand alone.
    rows : DataFrame, default=None
        Cells for display, without the label column.
    image : callable, default=None
        Position of a row -> its picture, as PIL image or array.
    written : sequence of str, default=None
        The given labels as they stand in the file, where frame has them as numbers.
    scale : str, default=None
        How the kernel took the features, by which neighbours are found.
    decided : DataFrame, default=None
        Earlier decisions, with the columns row (or that of the index), decision and new_label: they are on the page and
        come back with the others.
    """

    name: str
    frame: pd.DataFrame
    task: str
    features: Any = None
    rows: pd.DataFrame | None = None
    image: Callable[[int], Any] | None = None
    written: Sequence[str] | None = None
    scale: str | None = None
    decided: pd.DataFrame | None = None

    @classmethod
    def of(cls, detector: Any, X: Any, y: Any, decisions: str | os.PathLike | None = None) -> Review:
        """Of a NoisyLabelDetector that was fitted on X and y, which are shown as they are: see its method `review`."""
        import pandas as pd

        from sktda.review.items import read_decisions
        from sktda.tables.frames import as_frame

        X = sliceable(X)
        given = pd.Series(read_target(y).ravel(), index=row_index(X, y))
        if len(given) != len(detector.labels_):
            raise ValueError(f"y has {len(given)} labels but the detector was fitted on {len(detector.labels_)} rows")
        frame = pd.DataFrame(
            {
                "given_label": given,
                "suggested_label": pd.Series(detector.suggested_labels_, given.index, given.dtype),
                "label_quality": detector.label_quality_,
                "score": detector.scores_,
                "noisy": detector.labels_ == -1,
            },
            index=given.index,
        )
        encoder = getattr(detector, "encoder_", None)
        features = X if encoder is None else encoder.transform(X)
        features = features if sparse.issparse(features) else np.asarray(features)
        cells = features if not is_table(X) else X if hasattr(X, "iloc") else as_frame(X)
        in_columns = is_table(X) or (cells.ndim <= 2 and not sparse.issparse(cells))
        return cls(
            name="Labels",
            frame=frame,
            task=detector.task_,
            features=features if features.dtype.kind in "biuf" else None,
            rows=pd.DataFrame(cells) if in_columns else None,
            image=None if in_columns or sparse.issparse(cells) else cells.__getitem__,
            scale=getattr(detector, "scale_", None),
            decided=None if decisions is None else read_decisions(decisions),
        )

    def save(self, path: str | os.PathLike) -> dict:
        """Write the page; returns how many rows are on it (n_shown) and how many are flagged (n_noisy).

        Raises ModuleNotFoundError if jinja2 is not installed.
        """
        return write_review(path, self)

    def decisions(self, path: str | os.PathLike = "decisions.csv") -> pd.DataFrame:
        """What was decided, from the file that the page exported: by the user's index, the columns row (position),
        given_label, decision ("keep", "drop" or "relabel") and new_label, in the types of the labels.

        path may also be an export of Label Studio or Argilla, as JSON, of what `label_studio` or `argilla` returned.
        Raises ValueError naming the row where the file does not fit the data.
        """
        import pandas as pd

        from sktda.review.items import read_decisions

        read = read_decisions(path)
        positions, fates, labels = positions_and_decisions(self.frame, self.task, read, Path(path).name)
        made = np.flatnonzero([fate != "" for fate in fates])
        at = positions[made]
        return pd.DataFrame(
            {
                "row": at,
                "given_label": self.frame["given_label"].to_numpy()[at],
                "decision": [fates[i] for i in made],
                "new_label": [labels[i] if fates[i] == "relabel" else None for i in made],
            },
            index=self.frame.index[at],
        )

    def label_studio(self) -> tuple[str, list[dict]]:
        """(labeling configuration, tasks) for Label Studio: the rows to decide about, with suggestions as predictions.

        The configuration is XML, the tasks are imported as JSON. What was chosen there comes back by `decisions`.
        """
        from sktda.review import label_studio

        return label_studio.configuration(self), label_studio.tasks(self)

    def argilla(self) -> tuple[dict, list[dict]]:
        """(settings, records) for Argilla: the rows to decide about, with suggestions.

        Written as JSON they are read by ``rg.Settings.from_json`` and ``dataset.records.from_json``. What was chosen
        there comes back by `decisions`.
        """
        from sktda.review import argilla

        return argilla.settings(self), argilla.records(self)

    def _repr_html_(self) -> str:
        page = html.escape(_page(self)[0])
        return (
            f'<iframe title="Review of {html.escape(self.name)}" srcdoc="{page}" '
            'style="width: 100%; height: 48rem; border: 1px solid #8888"></iframe>'
        )


def write_review(path: str | os.PathLike, review: Review) -> dict:
    """Write the page, whole or not at all, and return the counts n_shown, n_noisy and n_decided."""
    text, numbers = _page(review)
    with staged([Path(path)], force=True) as temporary:
        temporary[0].write_text(text, encoding="utf-8")
    return numbers


def _page(review: Review) -> tuple[str, dict]:
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        message = 'a review page needs jinja2, which is missing: pip install "sktda[report]"'
        raise ModuleNotFoundError(message, name="jinja2") from error
    from markupsafe import Markup

    content, numbers = _content(review)
    # in a script element of data only < can end it; & and > for readers that take it for XML
    data = json.dumps(content, allow_nan=False)
    for sign in "<>&":
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    digest = b64encode(sha256(f"\n{script}".encode()).digest()).decode("ascii")
    page = render(
        Path(__file__).parent,
        TEMPLATE,
        {},
        name=review.name,
        regression=review.task == "regression",
        numbers=numbers,
        data=Markup(data),
        script=Markup(script),
        digest=digest,
    )
    return page, numbers


def _content(review: Review) -> tuple[dict, dict]:
    """(what the page is made from, counts)."""
    frame, noisy = review.frame, review.frame["noisy"].to_numpy(dtype=bool)
    shown, decided = rows_shown(review)
    labels = None if review.task == "regression" else encode(frame)
    beside = rows_beside(review, labels, shown)
    cells = None
    if review.rows is not None and len(shown):
        cells = Cells(review.rows, np.concatenate([shown, *beside]).astype(int), MAX_TEXT)
    side = picture_side(len(shown))
    pictures: dict[int, str] = {}
    cards = [_card(review, row, near, cells, pictures, side) for row, near in zip(shown, beside, strict=True)]
    numbers = {
        "n_rows": len(frame),
        "n_noisy": int(noisy.sum()),
        "n_shown": len(shown),
        "n_decided": len(decided),
        "n_left_out": int(np.delete(noisy, np.union1d(shown, list(decided)).astype(int)).sum()),
    }
    content = {
        "name": review.name,
        "key": fingerprint(review),
        "task": review.task,
        "index": index_column(frame.index),
        "classes": [] if labels is None else [[str(c), label_text(c)] for c in labels.classes],
        "rows": cards,
        "pictures": pictures,
        "decided": decided,
    }
    return content, numbers


def rows_shown(review: Review) -> tuple[np.ndarray, dict[int, list[str]]]:
    """(positions of the rows on the page, {position: [decision, new label as text]} of the earlier decisions).

    First the rows to decide about, worst first, then those that are decided.
    """
    frame, decided = review.frame, _decided(review)
    is_decided = np.zeros(len(frame), dtype=bool)
    is_decided[list(decided)] = True
    order = worst_first(frame)
    left = order[~is_decided[order]]
    flagged = frame["noisy"].to_numpy(dtype=bool)[left].any()
    suspects = suspects_of(frame.iloc[left], MAX_ROWS if flagged else N_DOUBTFUL)
    return np.concatenate([left[suspects], order[is_decided[order]]]).astype(int), decided


def picture_side(n_shown: int) -> int:
    """Pixels of a picture where so many rows are shown."""
    return next((side for n, side in SIDES if n_shown <= n), 96)


def _decided(review: Review) -> dict[int, list[str]]:
    if review.decided is None:
        return {}
    positions, fates, labels = positions_and_decisions(review.frame, review.task, review.decided, "decisions")
    return {
        int(row): [fate, str(label) if fate == "relabel" else ""]
        for row, fate, label in zip(positions.tolist(), fates, labels, strict=True)
        if fate
    }


def _card(review: Review, row: int, beside: np.ndarray, cells: Cells | None, pictures: dict, side: int) -> dict:
    frame = review.frame
    given, suggested = (frame[name].iloc[row] for name in ("given_label", "suggested_label"))
    card = {
        "row": int(row),
        "index": str(frame.index[row]),
        "given": str(given),
        "givenText": given_text(review, row),
        "suggested": str(suggested),
        "suggestedText": suggested_text(review, row),
        "quality": round(float(frame["label_quality"].iloc[row]), 4),
        "noisy": bool(frame["noisy"].iloc[row]),
        "near": [{"row": int(i), "index": str(frame.index[i]), "given": given_text(review, i)} for i in beside],
    }
    if review.task == "regression":
        card["direction"] = "too high" if given > suggested else "too low"
    if cells is not None:
        card["columns"], card["leftOut"] = cells.compare(row, beside)
    if review.image is not None:
        card["picture"] = data_uri(review.image(int(row)), side)
        for i in beside.tolist():
            if i not in pictures:
                pictures[i] = data_uri(review.image(i), max(96, side // BESIDE))
    return card


def fingerprint(review: Review) -> str:
    """Of the rows, their names and their labels: under it the browser keeps the decisions."""
    from sktda.model.fingerprint import row_fingerprints  # loads torch

    rows = review.features if review.features is not None else review.rows
    labels = review.frame["given_label"].astype(str).to_numpy(dtype=object)
    codes = row_fingerprints(labels[:, None] if rows is None else rows, labels)
    digest = blake2b(np.ascontiguousarray(codes).tobytes(), digest_size=12)
    digest.update("\n".join(map(str, review.frame.index)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
