"""Features and labels as they are judged: what was found about them is acted upon, and said."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sktda.findings import Finding, inspect, merge_spellings, without_leaks
from sktda.review.decisions import shared_values
from sktda.tables.columns import Column
from sktda.tables.prepare import prepare

if TYPE_CHECKING:
    from sktda.tables.encoder import TableEncoder

TOTAL = re.compile(
    r"(grand |sub-?)?totals?:?|sums?:?|(gesamt)?summe:?|gesamt:?|insgesamt:?|(sous-)?total général:?|somme:?|suma:?|"
    r"averages?:?|means?:?|durchschnitt:?|mittelwert:?|moyenne:?|media:?",
    re.IGNORECASE,
)
MANY = 1 / 3  # of the rows flagged, from where on the data are rather odd than dirty
FEW_KINDS = 20  # of rows, of which 2,000 are looked at
LEFT_OUT = "it was left out of the features"
ONLY_FEATURE = "it stays, as there is no other feature"


def of_table(
    cells: pd.DataFrame, given: pd.Series, task: str, kinds: dict[Any, str] | None = None, text: Any = None
) -> tuple[np.ndarray, list[Finding], list[str], list[Column]]:
    """(features (n, p), findings, notes, what was made of each column) of the columns beside the labels.

    text: transformer of texts in place of their topics. Raises ValueError if no column can be used.
    """
    rows = _labelled(given)
    X, encoder, _, findings = prepare(cells, given.dropna().to_numpy(), task, kinds, rows, text)
    if text is not None and not any(column.kind == "text" for column in encoder.columns_):
        raise ValueError(f"no column is taken for text, which {text.model} reads; name one with --text")
    return X, findings, notes_of(findings, encoder), encoder.columns_


def notes_of(findings: list[Finding], encoder: TableEncoder) -> list[str]:
    """What was found in a table and done about it, and what was made of its columns."""
    actions = {"leak": LEFT_OUT if encoder._left_out else ONLY_FEATURE, "sentinel": "it was taken as missing"}
    return _notes(findings, actions) + encoder.notes_


def without_values(cells: pd.DataFrame, values: tuple[str, ...] | None) -> pd.DataFrame:
    """The cells, those with one of these values as missing."""
    if not values:
        return cells
    return cells.mask(cells.astype(str).apply(lambda column: column.str.strip()).isin(values))


def of_arrays(X: Any, given: pd.Series, task: str) -> tuple[Any, list[Finding], list[str]]:
    """(features, findings, notes) of features that are numbers already: pixels, embeddings, arrays."""
    rows = _labelled(given)
    _, findings = inspect(X if rows is None else X[rows], given.dropna().to_numpy(), task, rows=rows)
    kept = without_leaks(X, findings)
    return kept, findings, _notes(findings, {"leak": ONLY_FEATURE if kept is X else LEFT_OUT})


def last_row_sums_up(frame: pd.DataFrame) -> list[str]:
    """A sentence if the last row is called a total, and no other is."""
    for position in range(frame.shape[1]):
        cell = frame.iat[-1, position]
        if isinstance(cell, str) and TOTAL.fullmatch(cell.strip()) and (frame.iloc[:, position] == cell).sum() == 1:
            return [f"the last row is called {cell.strip()!r}; take it out of the file if it sums up the others"]
    return []


def few_kinds(X: np.ndarray) -> list[str]:
    """A sentence if nearly all rows are equal to many others, so that what is rare looks wrong."""
    some = X[:: max(1, len(X) // 2000)]
    n_kinds = len(np.unique(some.reshape(len(some), -1), axis=0))
    if n_kinds > FEW_KINDS or len(X) < 10 * n_kinds:
        return []
    return [
        f"the features tell only {n_kinds} kinds of rows apart: where rows are equal the rarer label is called wrong, "
        "and it may just be rare"
    ]


def many_flagged(share: float) -> list[str]:
    """A sentence if so large a share of the labels is called wrong that something else may be."""
    if share <= MANY:
        return []
    return [
        f"{share:.0%} of the labels are called wrong, which is rarely so: is it the right column of labels, with its "
        "rows in order? Do the classes overlap in these features? Do the features come from different sources or "
        "units? Look at the worst rows before you drop any"
    ]


def one_spelling(given: pd.Series, features: Any = None) -> pd.Series:
    """The labels with one spelling per class, in their type; see `sktda.findings.merge_spellings`."""
    rows = _labelled(given)
    if features is not None and rows is not None:
        features = features[rows]
    known = given.dropna()
    values = shared_values(known) if isinstance(known.dtype, pd.StringDtype) else known.to_numpy()
    merged, findings = merge_spellings(values, features)
    if not findings:
        return given
    judged = given.copy()
    judged[given.notna().to_numpy()] = merged
    return judged


def _labelled(given: pd.Series) -> np.ndarray | None:
    """Positions of the rows that have a label; None for all."""
    return np.flatnonzero(given.notna()) if given.hasnans else None


def _notes(findings: list[Finding], actions: dict[str, str]) -> list[str]:
    done = [actions.get(f.kind) if f.positions else None for f in findings]  # nothing is done about labels
    return [f.message + (f"; {what}" if what else "") for f, what in zip(findings, done, strict=True)]
