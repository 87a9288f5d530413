"""A job on Parquet that is too large to be held: what columns hold is learned from some rows and applied to all.

The labels, the verdicts and eight bytes a row for each number on the way are in memory; the cells never are.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from sktda.cli.formats.row_groups import Fetched, RowGroups, parquet_files
from sktda.cli.jobs import Job
from sktda.cli.learned_columns import RowsOfCells, drawn_rows, learn_columns
from sktda.cli.plan import FLAGS
from sktda.cli.settings import DEFAULT_METHOD, Settings, named_columns, without
from sktda.files import STANDARD
from sktda.mapped import mapped_blocks
from sktda.room import check_held, kept

HELD_BYTES = 2**29  # of cells: fewer are read whole, which takes several times as much memory


def streamed(settings: Settings) -> RowGroups | None:
    """The rows, where the data are Parquet that is not to be held in memory: a folder, or a large file."""
    files = parquet_files(settings.data)
    if not files:
        return None
    is_folder = settings.data.is_dir()
    if not is_folder and (settings.embeddings or settings.probabilities):
        return None  # the cells are not read as features
    source = RowGroups.open(settings.data, files)
    if not is_folder and source.cells_bytes <= HELD_BYTES:
        return None
    given = {
        "--embeddings": settings.embeddings,
        "--probabilities": settings.probabilities,
        "--labels": settings.labels,
        "--label-level": settings.level,
        "--sheet": settings.part,
        "--query": settings.query,
    }
    if (wrong := [name for name, value in given.items() if value is not None]) or settings.header is False:
        raise ValueError(f"{(wrong or ['--no-header'])[0]} is not for Parquet that is read by row group; leave it out")
    if settings.unlabelled == "predict":
        raise ValueError(
            f"--unlabelled predict holds all rows in memory, which would be {source.cells_bytes / 1e9:.1f} GB of "
            "cells; use keep or drop"
        )
    return source


def check_large(settings: Settings, outputs: dict[str, Path], with_data: bool = False) -> None:
    """Raise ValueError, before any work, for outputs that cannot be written of rows that are not in memory."""
    if (source := streamed(settings)) is None:
        return
    folder = os.path.realpath(settings.data)
    for output in outputs.values() if settings.data.is_dir() else ():
        if output != STANDARD and Path(os.path.realpath(output)).is_relative_to(folder):
            raise ValueError(
                f"{output} is in the folder that is read, and would be read as its rows; name another place"
            )
    if "out" in outputs:
        source.check_place(outputs["out"])
    if "copy" in outputs:
        raise ValueError("--copy is for a folder of images; leave it out")
    if with_data:
        raise ValueError(
            f"--with-data holds all cells of {source.name} in memory, {source.cells_bytes / 1e9:.2g} GB at least; "
            "leave it out"
        )


def read_by_row_group(source: RowGroups, settings: Settings, progress: Callable[[str], None]) -> Job:
    """Learn what columns hold, and map the numbers of the rows that have a label; raises as Job.load does."""
    from sktda.cli.features import last_row_sums_up, notes_of, one_spelling
    from sktda.cli.labels import check_classes, read_labels
    from sktda.cli.learned import learned

    text, _, said = learned(settings)
    frame, n = source.frame, source.n_rows
    target, index, kinds = named_columns(settings, source, source.name)
    labels = read_labels(source.column(target), settings.task, settings.no_label)
    given, task = labels.given, labels.task
    if task == "classification":
        check_classes(one_spelling(given))
    if index is not None:
        given.index = pd.Index(source.column(index), name=index)
    known = given.notna().to_numpy()
    own = [name for name in FLAGS if name in frame]
    rows = RowsOfCells(
        source, [name for name in map(str, frame) if name not in (target, index, *own)], settings.na_values
    )
    if not rows.names:
        raise ValueError("no column can be used as a feature (there is none beside the labels)")
    if task == "regression" and settings.method == DEFAULT_METHOD:
        cells = 16.0 * int(known.sum()) * len(rows.names)
        check_held(f"{DEFAULT_METHOD} of numbers", cells, "--method complexity-gap does not")
    drawn = drawn_rows(n, len(rows.names), settings.seed)
    progress(f"learning the columns from {len(drawn):,} of {n:,} rows")
    encoder, findings = learn_columns(rows, drawn, given, task, without(kinds, index), text)
    progress(f"encoding by row group {n:,} rows")
    X = mapped_blocks(int(known.sum()), lambda: rows.encoded(encoder, known))
    judged = given
    if task == "classification":
        part = given[known]
        merged = one_spelling(part, X if len(drawn) == n else None)
        if merged is not part:
            judged = given.copy()
            judged[known] = merged.array
            check_classes(judged)
    told = notes_of(findings, encoder)
    first = sum(finding.kind == "contradiction" for finding in findings)
    notes = [
        *told[:first],
        _how(source, len(drawn)),
        *labels.notes,
        *told[first:],
        *([f"columns not used as features (written by sktda): {', '.join(own)}"] if own else []),
        *last_row_sums_up(source.rows(np.array([n - 1]))),
        *said,
    ]
    columns, numerals = encoder.columns_, labels.numerals
    hidden = {target, given.index.name}
    fetched = Fetched(source, kept(np.arange(n)), [name for name in map(str, frame) if name not in hidden])
    return Job(settings, source, target, given, judged, task, X, findings, notes, columns, numerals, fetched)


def _how(source: RowGroups, n_drawn: int) -> str:
    """How the rows are read, for the user."""
    if n_drawn == source.n_rows:
        return f"{source.name} was read by row group"
    return (
        f"{source.name} was read by row group, as its {source.n_rows:,} rows may not fit in memory; what columns hold "
        f"was learned from {n_drawn:,} rows drawn at random, and equal rows with different labels were looked for "
        "among these"
    )
