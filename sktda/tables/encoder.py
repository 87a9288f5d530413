"""A table as people have it, as numbers that compare its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sktda.findings.finding import Columns, Finding
from sktda.findings.sentinels import sentinels
from sktda.tables.blocks import Dates, Encoded, Levels, Numbers, Topics
from sktda.tables.cells import Texts, Values, cells_of
from sktda.tables.columns import KINDS, LEFT_OUT, Column, Reader, learn_column
from sktda.tables.frames import as_frame

BLOCKS: dict[str, type] = {"number": Numbers, "date": Dates, "category": Levels, "boolean": Levels, "text": Topics}
MAX_CELLS = 1_000_000_000  # of float64 features: 8 GB
SHOWN = 5


class TableEncoder(TransformerMixin, BaseEstimator):
    """Numbers from a table of text, categories, dates, booleans and numbers, missing cells and all.

    What a column holds, its cells decide, not the type that they came in. Numbers are read as people write them
    ("12,5 %", "€ 1.234,50", "3.4 kg", "(1,234)", "1:02:33"), categories are one-hot encoded, dates become days, year,
    month, weekday and hour, texts the topics of their words and letters, two numbers in a cell ("120/80") two columns.
    Identifiers and constant columns are left out.
    What was made of each column is in `columns_`. It is what `NoisyLabelDetector` and the shell do with a table.

    Parameters
    ----------
    kinds : dict of {str: str}, default=None
        Columns whose kind is known: "number", "category", "date", "text" or "ignore".
    text : transformer of texts, default=None
        What makes features of a column of texts, such as a `PretrainedEncoder`; a clone of it is fitted for each. By
        default the topics of their words and letters.

    Attributes
    ----------
    columns_ : list of Column
        For each column of the table its ``name``, ``kind`` ("number", "category", "boolean", "date", "text"; left out
        are "constant", "identifier", "other", "ignore" and, by who knows the labels, "leak"), ``how`` it is used, and a
        ``note``: what was read as a number, with an example, and what was taken for missing.
    n_features_in_ : int
        Columns of the table.
    feature_names_in_ : ndarray of shape (n_features,)
        Only where all columns are named by text.

    Raises
    ------
    ValueError
        In `fit`, where no column can be used, for kinds that none of a column's cells is of, for numbers that are
        infinite, and where the numbers would take more than 8 GB.

    Notes
    -----
    Where a number is missing the median stands in, and a column says where that was, if `fit` saw any missing. A
    number that stands for a missing one (-999) is one. A category that `fit` did not see counts as a rare one. Of a
    number in doubt (1,234) the other cells and columns decide what it is, and a note says so. Units of one kind are
    converted; a column of several kinds (kg and €) is no number. Measured beside skrub's TableVectorizer by
    benchmarks/tables_encoders.py.

    Examples
    --------
    >>> import pandas as pd
    >>> from sktda import TableEncoder
    >>> frame = pd.DataFrame({"price": ["$1,250.00", "$75.50", "(20.00)"], "paid": ["yes", "no", "yes"]})
    >>> encoder = TableEncoder().fit(frame)
    >>> encoder.transform(frame).tolist()
    [[1250.0, 0.0, 1.0], [75.5, 1.0, 0.0], [-20.0, 0.0, 1.0]]
    >>> encoder.get_feature_names_out()
    array(['price', 'paid_no', 'paid_yes'], dtype=object)
    >>> encoder.columns_[0].note
    "column 'price': '$1,250.00' read as 1250 $; 1 cells without a unit taken as $"
    """

    def __init__(self, *, kinds=None, text=None):
        self.kinds = kinds
        self.text = text

    def fit(self, X, y=None):
        """Learn what the columns hold.

        Parameters
        ----------
        X : DataFrame of pandas or polars, pyarrow Table, or array-like, of shape (n_samples, n_features)
        y : None
            Ignored.

        Returns
        -------
        self
        """
        self.fit_transform(X)
        return self

    def fit_transform(self, X, y=None):
        """Learn what the columns hold, and return their numbers (n_samples, n_features_out), float64."""
        typed = self._read(X)
        for finding in sentinels(Columns.read(typed)):
            self._take_as_missing(finding, typed)
        self._learn(typed)
        return self._numbers(typed)

    def transform(self, X):
        """Numbers (n_samples, n_features_out) of a table of the same columns, float64.

        Raises ValueError for other columns than those of `fit`, and for numbers that are infinite.
        """
        check_is_fitted(self, "columns_")
        frame = as_frame(X)
        validate_data(self, frame, reset=False, skip_check_array=True)
        names = list(frame.columns)
        # names that are no text are compared by nobody else
        if names != self._names and set(names) == set(self._names):
            raise ValueError(f"X has the columns of `fit` in another order; give X[{self._names!r:.100}]")
        return self._filled(len(frame), self._used(frame))

    def _used(self, frame: pd.DataFrame) -> Iterator[tuple[Any, pd.Series]]:
        """(block, typed column) of every typed column that is a feature."""
        for j, reader in enumerate(self._readers):
            if reader.is_used:
                read = _typed(reader, frame.iloc[:, j])
                for name, typed in zip(self._typed_names[j], read, strict=True):
                    if name in self._blocks:
                        yield self._blocks[name], _without(typed, self._stand_ins.get(name))

    def _filled(self, n: int, columns: Iterable[tuple[Any, pd.Series]]) -> np.ndarray:
        """(n, n_features_out) of blocks and their columns, one after the other: memory holds them once."""
        encoded = np.empty((n, len(self.get_feature_names_out())))
        start = 0
        for block, column in columns:
            encoded[:, start : start + len(block.names)] = block.transform(column)
            start += len(block.names)
        return encoded

    def get_feature_names_out(self, input_features=None):
        """Names (n_features_out,) of the numbers: the column's, and behind it the category, the part or the topic."""
        check_is_fitted(self, "columns_")
        return np.array([name for block in self._blocks.values() for name in block.names], dtype=object)

    @property
    def notes_(self):
        """What a reader should know, in sentences: columns that are left out, and how values were read."""
        check_is_fitted(self, "columns_")
        left_out: dict[str, list[str]] = {}
        for column in self.columns_:
            if column.kind in LEFT_OUT and column.kind != "leak":  # of which a finding tells
                left_out.setdefault(column.kind, []).append(column.name)
        said = [column.note for column in self.columns_ if column.note]
        if len(said) > SHOWN:
            said[SHOWN:] = [f"and {len(said) - SHOWN} more columns with a note; see the list of columns"]
        return said + [f"columns not used as features ({LEFT_OUT[kind]}): {_listed(n)}" for kind, n in left_out.items()]

    def _read(self, X: Any) -> pd.DataFrame:
        """Learn how columns are read; returns the used ones, typed: floats, datetimes, categories of text."""
        frame = as_frame(X)
        validate_data(self, frame, skip_check_array=True)
        _check_rows(frame)
        kinds = _checked(self.kinds, frame)
        self._names = list(frame.columns)
        columns = [frame.iloc[:, j] for j in range(frame.shape[1])]
        cells = [cells_of(column) for column in columns]
        readers = [learn_column(column, cells[j], kinds.get(column.name)) for j, column in enumerate(columns)]
        shown = {reader.numerals.shown for reader in readers} - {""}
        if len(shown) == 1:
            for j, reader in enumerate(readers):
                if reader.numerals.doubtful:
                    readers[j] = learn_column(columns[j], cells[j], kinds.get(columns[j].name), *shown)
        self._readers: list[Reader] = readers
        self._stand_ins: dict[Any, list[float]] = {}
        self._left_out: set[Any] = set()
        typed: dict[Any, pd.Series] = {}
        self._typed_names: list[list[Any]] = []
        for j, reader in enumerate(readers):
            read = _typed(reader, columns[j], cells[j])
            self._typed_names.append([each.name for each in read])
            typed.update((each.name, each) for each in read)
            cells[j] = None  # memory
        if not typed:
            self.columns_ = [self._column(j) for j in range(len(readers))]
            self._refuse_nothing()
        return pd.DataFrame(typed, index=range(len(frame)), copy=False)

    def _refuse_nothing(self) -> NoReturn:
        raise ValueError(
            f"no column can be used as a feature ({'; '.join(self.notes_)}); name embeddings of the rows with "
            "--embeddings"
        )

    def _take_as_missing(self, finding: Finding, typed: pd.DataFrame) -> None:
        """The value of a finding "sentinel" stands for a missing cell, now and in `transform`; typed changes."""
        name = typed.columns[finding.positions[0]]
        self._stand_ins.setdefault(name, []).append(finding.detail["value"])
        typed[name] = _without(typed[name], [finding.detail["value"]])

    def _leave_out(self, names: list[Any]) -> None:
        """Columns that give the label away, by their names in what `_read` returned, are no features."""
        self._left_out |= set(names)

    def _typed(self, frame: pd.DataFrame, read: list[Any], wanted: list[Any]) -> list[pd.Series]:
        """The typed columns that are wanted, of a table that has some of the columns of `fit`, those to be read."""
        found: dict[Any, pd.Series] = {}
        for name in read:
            reader = self._readers[self._names.index(name)]
            found.update((each.name, each) for each in _typed(reader, frame[name]))
        return [_without(found[name], self._stand_ins.get(name)) for name in wanted]

    def _numbers(self, typed: pd.DataFrame) -> np.ndarray:
        """The numbers (n_samples, n_features_out) of typed columns that were learned."""
        return self._filled(len(typed), ((block, typed[name]) for name, block in self._blocks.items()))

    def _learn(self, typed: pd.DataFrame) -> None:
        """Learn the numbers of typed columns."""
        used = [name for name in typed.columns if name not in self._left_out]
        self._blocks: dict[Any, Any] = {}
        read = zip(self._typed_names, self._readers, strict=True)
        kinds = {name: reader.kind for names, reader in read for name in names}
        for name in used:
            is_word = kinds[name] == "number" and typed[name].dtype == "category"
            self._blocks[name] = self._block("category" if is_word else kinds[name]).fit(typed[name])
        n_features = sum(len(block.names) for block in self._blocks.values())
        if len(typed) * n_features > MAX_CELLS:
            raise ValueError(
                f"{len(typed):,} rows x {n_features:,} features after encoding would take "
                f"{len(typed) * n_features * 8e-9:.0f} GB; remove columns, or name embeddings of the rows with "
                "--embeddings"
            )
        self.columns_ = [self._column(j) for j in range(len(self._readers))]
        if not n_features:
            self._refuse_nothing()

    def _block(self, kind: str) -> Any:
        return Encoded(self.text) if kind == "text" and self.text is not None else BLOCKS[kind]()

    def _column(self, j: int) -> Column:
        reader, names = self._readers[j], self._typed_names[j]
        name = str(self._names[j])
        if not reader.is_used:
            return Column(name, reader.kind, f"not used: {LEFT_OUT[reader.kind]}", reader.note)
        if self._left_out.issuperset(names):
            return Column(name, "leak", f"not used: {LEFT_OUT['leak']}", reader.note)
        how = "; ".join(
            f"{each!r} not used: {LEFT_OUT['leak']}" if each in self._left_out else self._blocks[each].how
            for each in names
        )
        values = self._stand_ins.get(names[0], [])
        stands = f"; {', '.join(f'{value:g}' for value in values)} stands for a missing value" if values else ""
        return Column(name, reader.kind, how + stands, reader.note)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


def _typed(reader: Reader, column: pd.Series, cells: Values | Texts | None = None) -> tuple[pd.Series, ...]:
    """What a reader makes of a column, whose cells may have been looked at before."""
    if not reader.is_used:
        return ()
    if reader.padded:
        return reader.read(column.name, Texts.of(column.to_numpy(dtype=object, na_value=np.nan)))
    cells = cells_of(column) if cells is None else cells
    return reader.read(column.name, Texts.of(column.astype(str).to_numpy()) if cells is None else cells)


def _checked(kinds: Any, frame: pd.DataFrame) -> dict[Any, str]:
    for name, kind in (kinds or {}).items():
        if name not in frame:
            raise ValueError(f"kinds names the column {name!r}, which is not there; there are {_listed(frame.columns)}")
        if kind not in KINDS:
            raise ValueError(f"kinds says {kind!r} of the column {name!r}; known are {', '.join(KINDS)}")
    return kinds or {}


def _check_rows(frame: pd.DataFrame) -> None:
    if len(frame) < 2:
        raise ValueError(
            f"Found array with {len(frame)} sample(s) (shape={frame.shape}) while a minimum of 2 is required: what a "
            "column holds shows in several rows"
        )
    if not frame.shape[1]:
        raise ValueError(
            f"Found array with 0 feature(s) (shape={frame.shape}) while a minimum of 1 is required: no column can be "
            "used as a feature (there is none beside the labels)"
        )


def _without(column: pd.Series, values: list[float] | None) -> pd.Series:
    return column.mask(column.isin(values)) if values else column


def _listed(names: Any) -> str:
    shown = ", ".join(repr(str(name)) for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
