"""What a user said on the command line: the options, the detector that they ask for, and columns by their names."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sktda.cli.formats.base import Reading, Source
from sktda.cli.formats.known import comes_in_parts

if TYPE_CHECKING:  # the detector and torch below it take seconds to import: the file is read before
    from sktda import NoisyLabelDetector

DEFAULT_METHOD = "label-posterior"
OPTIONS = {"ignore": "ignore", "text": "text", "category": "as-category"}


@dataclass(frozen=True)
class Settings:
    """The options that all commands share."""

    data: Path
    target: str | None = None
    index: str | None = None
    embeddings: Path | None = None
    features: str = "auto"
    size: int | None = None
    probabilities: Path | None = None
    task: str = "auto"
    drop: str | float | int = "auto"  # a share, or a number of rows
    method: str = DEFAULT_METHOD
    seed: int = 0
    unlabelled: str = "keep"
    kinds: dict[str, str] = field(default_factory=dict)  # column: text, category or ignore
    na_values: tuple[str, ...] | None = None
    part: str | None = None
    query: str | None = None
    header: bool | None = None
    labels: Path | None = None
    level: int | None = None

    @property
    def no_label(self) -> frozenset[str]:
        """What stands for no label, in lower case."""
        from sktda.cli.labels import NO_LABEL

        return NO_LABEL if self.na_values is None else frozenset({"", *map(str.lower, self.na_values)})

    @property
    def may_be_large(self) -> bool:
        """Whether the data may be Parquet that is read by row group."""
        return self.data.is_dir() or comes_in_parts(self.data)

    @property
    def reading(self) -> Reading:
        """How the data are to be read."""
        named = tuple(name for name in (self.target, self.index, *self.kinds) if name)
        pixels = self.embeddings is None
        return Reading(self.part, self.query, self.header, named, self.size or 64, self.labels, self.level, pixels)

    def detector(self, task: str, n_rows: int, unlabelled: str = "error") -> NoisyLabelDetector:
        """The unfitted detector. Raises ValueError where more rows are to be dropped than there are."""
        from sktda import NoisyLabelDetector
        from sktda.attribution import PrecomputedProbabilities
        from sktda.attribution.base import needs_of

        contamination = self.drop
        if contamination == "confident-joint":
            if task == "regression":
                raise ValueError(
                    "--drop confident-joint counts rows that are confidently another class, and the labels are numbers "
                    "to be predicted; take --drop auto, or a share"
                )
            contamination = "confident_joint"
        if isinstance(contamination, int):
            if contamination >= n_rows:
                raise ValueError(f"--drop {contamination} is no fewer than the {n_rows:,} rows there are; keep some")
            contamination = contamination / n_rows
        attributor = PrecomputedProbabilities() if self.probabilities else methods()[self.method]()
        params = attributor.get_params(deep=False)
        if "task" in params:
            attributor.set_params(task=task)
        needs = needs_of(attributor)
        if "estimator" in params and needs.gradients:
            from sktda.model.proxy import default_net

            attributor.set_params(estimator=default_net(task, **needs.net))
        return NoisyLabelDetector(
            attributor, contamination=contamination, unlabelled=unlabelled, random_state=self.seed
        )


def methods() -> dict[str, type]:
    """Attribution methods by their name in the shell: those that need nothing but X and y."""
    import sktda.attribution as package

    # a hyphen between words of three letters or more: names such as TracIn and LoGra are one word
    found = {name: getattr(package, name) for name in package.__all__ if "Precomputed" not in name}
    return {
        re.sub(r"(?<=\w\w[a-z0-9])(?=[A-Z]\w\w)|(?<=[A-Z])(?=[A-Z][a-z]\w)", "-", name).lower(): cls
        for name, cls in found.items()
        if hasattr(cls, "fit")
    }


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
