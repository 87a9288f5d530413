"""The column of labels: classes or numbers, as people write them, and rows that have none."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Number

import numpy as np
import pandas as pd

from sktda.data import infer_task
from sktda.review.decisions import shared_values
from sktda.tables.clocks import Clock, learn_clocks
from sktda.tables.numerals import Numerals, learn, unit_name

NO_LABEL = frozenset({"", "na", "n/a", "nan", "<na>", "null"})  # after stripping, in lower case


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels (n,): float for regression, else as they are; missing where a row has none.

    numerals: how numbers are written in the file.
    """

    task: str
    given: pd.Series
    numerals: Numerals | Clock
    notes: tuple[str, ...] = ()


def read_labels(column: pd.Series, task: str, no_label: frozenset[str] = NO_LABEL) -> Labels:
    """The labels of a column; task may be "auto". Raises ValueError for labels that cannot be used."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    missing = _of_each(column, lambda values: _missing(values, no_label))
    if missing.all():
        raise ValueError(f"no row has a label in column {column.name!r}; name another column with --target")
    known = column[~missing]
    _check_types(known)
    given_task = task
    numbers, numerals = _numbers(known, task)
    if task == "auto":
        task = "classification"
        if known.dtype != bool and np.isfinite(numbers).all():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # many different numbers: that is what is asked
                task = infer_task(numbers)
    n_numbers = int(np.isfinite(numbers).sum())
    if given_task == "auto" and len(known) / 2 < n_numbers < len(known) and _too_many(known.nunique(), len(known)):
        raise ValueError(
            f"column {column.name!r} has numbers in {n_numbers:,} of {len(known):,} rows, and no number in the others"
            f"{_none_of(known[~np.isfinite(numbers)])}"
        )
    notes = [_without_label(column, missing)] if missing.any() else []
    if task != "regression":
        return Labels(task, column.mask(missing) if missing.any() else column.copy(), Numerals(), tuple(notes))
    if not (finite := np.isfinite(numbers)).all():
        row = int(np.flatnonzero(~missing)[finite.argmin()])
        raise ValueError(
            f"column {column.name!r} has {column.iloc[row]!r} in row {row} (counted from 0); regression needs finite "
            f"numbers in all rows that have a label, of one unit{_none_of(known[~finite])}"
        )
    if isinstance(numerals, Clock):
        notes.append(f"labels: {numerals.note}")
    elif numerals.example:
        value = f"{numerals.read([numerals.example])[0]:.12g} {unit_name(numerals.example)}".rstrip(" ?")
        notes.append("; ".join(filter(None, (f"labels: {numerals.example!r} read as {value}", numerals.note))))
    values = np.full(len(column), np.nan)
    values[~missing] = numbers
    return Labels(task, pd.Series(values, index=column.index, name=column.name), numerals, tuple(notes))


def _of_each(column: pd.Series, function: Callable[[pd.Series], np.ndarray]) -> np.ndarray:
    """function(column) (n,), of text by its different values alone: each cell as an object takes fifty bytes."""
    if not isinstance(column.dtype, pd.StringDtype):
        return function(column)
    codes, different = pd.factorize(column, use_na_sentinel=False)
    return function(pd.Series(different, dtype=column.dtype))[codes]


def _missing(values: pd.Series, no_label: frozenset[str]) -> np.ndarray:
    texts = values.map(str) if values.dtype == object else values.astype(str)  # pandas decodes bytes, or fails
    return (values.isna() | texts.str.strip().str.lower().isin(no_label)).to_numpy()


def _as_numbers(values: pd.Series) -> np.ndarray:
    return pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def check_classes(labels: pd.Series) -> None:
    """Refuse one label, and labels that are nearly all different."""
    labels = labels.dropna()
    n_labels = labels.nunique()
    if n_labels == 1:
        raise ValueError(
            f"column {labels.name!r} has one label ({labels.iloc[0]!r} in all {len(labels)} rows); two are needed"
        )
    if _too_many(n_labels, len(labels)):
        raise ValueError(
            f"column {labels.name!r} has {n_labels} different labels in {len(labels)} rows, such as {labels.iloc[0]!r}"
            "; name the column of labels with --target, or use --task regression"
        )


def _too_many(n_labels: int, n_rows: int) -> bool:
    """Whether so many different labels are no classes."""
    return n_labels > max(2, n_rows // 2)


def _numbers(known: pd.Series, task: str) -> tuple[np.ndarray, Numerals | Clock]:
    """(labels as numbers (n,), NaN for what is none; how they are written).

    Times such as 1:02:33 are numbers where they are no classes: where they are nearly all different.
    """
    if known.dtype.kind in "mM":
        return np.full(len(known), np.nan), Numerals()
    numbers = _of_each(known, _as_numbers)
    if np.isnan(numbers).any() and isinstance(known.iloc[0], str):
        codes, texts = pd.factorize(known.str.strip())
        numerals, _ = learn(list(texts), np.bincount(codes))
        if numerals is not None:
            return numerals.read(list(texts))[codes], numerals
        if (task == "regression" or _too_many(len(texts), len(known))) and (clock := learn_clocks(list(texts))):
            return clock.read(list(texts))[codes], clock
    return numbers, Numerals()


def _without_label(column: pd.Series, missing: np.ndarray) -> str:
    rows = np.flatnonzero(missing)
    first = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    texts = {text for text in column[missing].dropna().astype(str).str.strip() if text}
    written = f" ({', '.join(map(repr, sorted(texts)))} is none; --na-values '' says that it is one)" if texts else ""
    have = "1 row has" if len(rows) == 1 else f"{len(rows):,} of {len(column):,} rows have"
    return f"{have} no label in column {column.name!r}{written} and cannot be judged: {first} (from 0)"


def _none_of(words: pd.Series) -> str:
    """How to say that these are no labels."""
    texts = [text for text in dict.fromkeys(words.astype(str).str.strip()) if "," not in text]
    return f"; --na-values {shlex.quote(','.join(texts[:5]))} says that these are no labels" if texts else ""


def _check_types(column: pd.Series) -> None:
    """Refuse labels that are neither text nor numbers, and some of each."""
    if column.dtype != object:
        return
    types = column.map(lambda label: str if isinstance(label, str) else Number if isinstance(label, Number) else None)
    strange = types.map(lambda kind: kind is None or kind is not types.iloc[0]).to_numpy()
    if pd.api.types.infer_dtype(column) in ("date", "datetime") or not strange.any():
        return
    row = int(strange.argmax())
    beside = f" beside {column.iloc[0]!r} in row {column.index[0]}" if types.iloc[row] is not None else ""
    is_text = types.map(lambda kind: kind is str).to_numpy()
    raise ValueError(
        f"column {column.name!r} holds {column.iloc[row]!r} in row {column.index[row]} (counted from 0){beside}; "
        "labels are all text or all numbers" + (_none_of(column[is_text]) if is_text.mean() < 0.5 else "")
    )


def as_text(labels: pd.Series) -> np.ndarray:
    """Classes as text (n,), None where there is none: whole numbers could be taken for measurements."""
    if pd.api.types.is_string_dtype(labels.dtype) and labels.dtype != object:  # one object for each of the few texts
        return shared_values(labels)
    texts = labels.astype(str).to_numpy(dtype=object, copy=True)
    texts[labels.isna().to_numpy()] = None
    return texts
