"""From the columns of a table to numeric features: what each column holds, and a ColumnTransformer for it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder

MISSING = {"", "na", "n/a", "nan", "<na>", "null", "none", "?", "-"}  # after stripping, in lower case
MAX_CATEGORIES = 50
MAX_CELLS = 1_000_000_000  # of float64 features: 8 GB
MAX_NUMBER = 1e100  # sums of squares stay finite
MOSTLY = 0.95  # of the known cells decide what a column holds
DATE = (
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ]\d.*)?$|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})( \d.*)?$"
    r"|\d{1,2}[- ][A-Za-z]{3,9}[- ]\d{2,4}$|[A-Za-z]{3,9} \d{1,2},? \d{4}$|\d{1,2}:\d{2}(:\d{2}.*)?$"
)
SKIPPED = {
    "constant": "one value only",
    "identifier": "identifiers",
    "date": "dates",
    "text": "free text",
    "other": "neither numbers nor text",
}


def read_columns(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """(usable, comparable, notes on what was left out) of the columns of a table.

    usable: numbers as float, then categories as text, NaN where they are missing. comparable: cells as text of the
    dates and free texts, which are no features but tell rows apart. Identifiers and constant columns are in neither.
    Raises ValueError if nothing is usable.
    """
    found: dict[str, list[pd.Series]] = {"numbers": [], "categories": [], "date": [], "text": []}
    skipped: dict[str, list[str]] = {}
    notes = []
    for name in frame:
        kind, column, note = read_column(frame[name])
        found.setdefault(kind, []).append(column)
        if kind in SKIPPED:
            skipped.setdefault(kind, []).append(str(name))
        if note:
            notes.append(note)
    notes += [f"columns not used as features ({SKIPPED[kind]}): {_listed(n)}" for kind, n in skipped.items()]
    if not found["numbers"] + found["categories"]:
        raise ValueError(
            f"no column can be used as a feature ({'; '.join(notes) or 'there is none beside the labels'}); "
            "name embeddings of the rows with --embeddings"
        )
    typed = pd.concat([*found["numbers"], *found["categories"]], axis=1)
    told = [*found["date"], *found["text"]]
    comparable = pd.concat([column.astype(str) for column in told], axis=1) if told else frame[[]]
    return typed, comparable, notes


def encode(typed: pd.DataFrame) -> np.ndarray:
    """Features (n, p) float64 of usable columns, as `read_columns` returns them.

    Numbers get their median where they are missing, and an indicator. Categories are one-hot encoded, missing as a
    category, rare ones (below 0.5 % of the rows, or beyond the 50 most frequent) together. Raises ValueError if that
    would not fit.
    """
    numbers = [name for name in typed.columns if typed[name].dtype == float]
    categories = [name for name in typed.columns if typed[name].dtype != float]
    _check_size(typed, numbers, categories)
    one_hot = OneHotEncoder(min_frequency=max(2, len(typed) // 200), max_categories=MAX_CATEGORIES, sparse_output=False)
    return ColumnTransformer(
        [
            ("numbers", SimpleImputer(strategy="median", add_indicator=True), numbers),
            ("categories", one_hot, categories),
        ]
    ).fit_transform(typed)


def read_column(column: pd.Series) -> tuple[str, pd.Series, str]:
    """(kind, cells, note): kind "numbers" (cells as float), "categories" (as text) or a key of SKIPPED.

    Missing cells are NaN. The note says what was taken for missing although it is not empty.
    """
    cells, note = _cells(column), ""
    if cells is None:
        inferred = pd.api.types.infer_dtype(column, skipna=True)
        return ("date" if inferred.startswith("date") else "other"), column, note
    known = cells.dropna()
    if cells.dtype != float:
        numbers = _to_numbers(known)
        wrong = numbers.isna()
        if len(known) and wrong.mean() <= 1 - MOSTLY:
            cells = numbers.reindex(cells.index)
            if wrong.any():
                note = f"column {column.name!r}: {wrong.sum()} cells are no numbers ({known[wrong].iloc[0]!r}), "
                note += "taken as missing"
    if cells.dtype == float and cells.abs().max() >= 2**53 and _long_integers(column):
        return "identifier", cells, note  # as floats several would be one
    if cells.nunique(dropna=False) < 2:
        return "constant", cells, note
    if cells.dtype == float:
        return _number_kind(cells), cells, note
    if known.str.match(DATE).mean() >= MOSTLY:
        return "date", cells, note
    if known.nunique() > max(2, len(known) / 2):
        return ("text" if known.str.contains(r"\s").mean() > 0.5 else "identifier"), cells, note
    return "categories", cells, note


def _cells(column: pd.Series) -> pd.Series | None:
    """Float, or stripped text, with NaN for missing cells, whatever type the cells came in; None for others."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind in {"integer", "floating", "mixed-integer-float", "decimal", "empty"}:
        return column.astype(float)
    if kind == "boolean":
        column = column.map({True: "true", False: "false"})
    elif kind != "string":
        return None
    text = column.astype(object).str.strip()
    return text.mask(text.str.lower().isin(MISSING), np.nan)


def _to_numbers(text: pd.Series) -> pd.Series:
    """Float, NaN for what is no number. 1,234 is read as 1234, or as 1.234 if other cells are like 1,5."""
    if text.str.contains(",", regex=False).any():
        thousands = text.str.fullmatch(r"[+-]?\d{1,3}(,\d{3})*(\.\d+)?").mean() >= MOSTLY
        text = text.str.replace(",", "" if thousands else ".", regex=False)
    return pd.to_numeric(text, errors="coerce").astype(float)


def _long_integers(column: pd.Series) -> bool:
    """Whether the cells are integers of 16 digits and more, hardly one of them twice."""
    text = column.dropna().astype(str).str.strip()
    text = text[~text.str.lower().isin(MISSING)]
    return bool(text.str.fullmatch(r"[+-]?\d{16,}").mean() >= MOSTLY and text.nunique() > len(text) / 2)


def _number_kind(values: pd.Series) -> str:
    beyond = (values.abs() > MAX_NUMBER).to_numpy()
    if beyond.any():
        row = int(beyond.argmax())
        what = "infinity" if np.isinf(values.iloc[row]) else f"{values.iloc[row]:g}, beyond what can be compared,"
        raise ValueError(
            f"column {values.name!r} holds {what} in row {row} (counted from 0); write a number or leave it empty"
        )
    steps = np.diff(values)
    counts_up_or_down = (steps > 0).all() or (steps < 0).all()  # False where a value is missing
    whole = (values == np.round(values)).all()
    return "identifier" if len(values) > 10 and whole and counts_up_or_down else "numbers"


def _check_size(typed: pd.DataFrame, numbers: list[str], categories: list[str]) -> None:
    n_rows = len(typed)
    width = 2 * len(numbers) + sum(min(typed[name].nunique() + 1, MAX_CATEGORIES) for name in categories)
    if n_rows * width > MAX_CELLS:
        raise ValueError(
            f"{n_rows:,} rows x {width:,} features after one-hot encoding would take {n_rows * width * 8e-9:.0f} GB; "
            "remove columns, or name embeddings of the rows with --embeddings"
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
