"""Columns as a user names them."""

from __future__ import annotations

import difflib

import pandas as pd

from sktda.cli.formats.base import Source
from sktda.cli.settings import Settings


def each_named(kinds: dict[str, str], frame: pd.DataFrame) -> dict[str, str]:
    """Names that were written with commas between them, one by one."""
    names = {name: [name] if name in frame else [part.strip() for part in name.split(",")] for name in kinds}
    return {part: kind for name, kind in kinds.items() for part in names[name]}


def named_columns(settings: Settings, source: Source, file: str) -> tuple[str, str | None, dict[str, str]]:
    """(column of labels, that of the rows' names or None, kinds of columns). ValueError for names that cannot be."""
    frame = source.frame
    target = target_of(source, settings.target, file)
    index = source.default_index if settings.index is None else settings.index
    kinds = each_named(settings.kinds, frame)
    for name in (index, *kinds):
        if name is not None and name not in frame:
            raise ValueError(unknown_column(frame, name, file))
    if target in (index, *kinds):
        used = "--index" if target == index else f"--{OPTIONS[kinds[target]]}"
        raise ValueError(f"column {target!r} cannot be both {used} and --target; name another")
    return target, index, kinds


def without(kinds: dict[str, str], index: str | None) -> dict[str, str]:
    """The kinds of columns beside the one that names the rows."""
    return {name: kind for name, kind in kinds.items() if name != index}


OPTIONS = {"ignore": "ignore", "text": "text", "category": "as-category"}


class TargetNeeded(ValueError):
    """No column of labels was named. listing: the columns with some of their values, to choose from."""

    def __init__(self, frame: pd.DataFrame, file: str) -> None:
        super().__init__(f"name the column of labels with --target; {file} has {_names(frame.columns.tolist())}")
        self.listing = [(str(name), _some_values(frame[name])) for name in frame]


def _some_values(column: pd.Series, n_values: int = 4) -> str:
    """The most frequent values where some recur, else the first."""
    cells = column.dropna().astype(str)
    counts = cells[cells.str.strip() != ""].value_counts(sort=False)
    if not len(counts):
        return "(empty)"
    counts = counts if counts.max() == 1 else counts.sort_values(ascending=False, kind="stable")
    shown = ", ".join(value if len(value) <= 24 else f"{value[:23]}…" for value in counts.index[:n_values])
    return shown if len(counts) <= n_values else f"{shown}, ... ({len(counts):,} different)"


def target_of(source: Source, target: str | None, file: str) -> str:
    """The column of labels. Raises ValueError where it is not there, or none was named and any could be it."""
    frame = source.frame
    if target is None:
        if source.default_target is None or source.default_target not in frame:
            raise TargetNeeded(frame, file)
        return source.default_target
    if target not in frame and target.isdecimal() and f"column {target}" in frame:  # of a file without header
        return f"column {target}"
    if target not in frame:
        raise ValueError(unknown_column(frame, target, file))
    return target


def unknown_column(frame: pd.DataFrame, name: str, file: str) -> str:
    """That there is no such column, and which ones there are."""
    known = {str(column).strip().casefold(): str(column) for column in frame.columns}
    close = [known[key] for key in difflib.get_close_matches(name.strip().casefold(), known, n=3)]
    hint = f"did you mean {_names(close)}?" if close else f"it has {_names(frame.columns.tolist())}"
    return f"{file} has no column {name!r}; {hint}"


def _names(names: list[str]) -> str:
    if not names:
        return "no columns"
    shown = list(map(repr, names))
    return ", ".join(shown if len(names) <= 20 else [*shown[:10], f"... ({len(names) - 15} more)", *shown[-5:]])
