"""Out-of-sample class probabilities in a file, as a table of the data's rows with the classes as columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sktda.cli.formats import read_source
from sktda.cli.formats.arrays import is_arrays, load_arrays
from sktda.cli.formats.base import Reading
from sktda.review.decisions import index_column, row_positions

if TYPE_CHECKING:
    from sktda import NoisyLabelDetector


def give(detector: NoisyLabelDetector, path: Path, judged: pd.Series, task: str) -> str:
    """Put the probabilities of a file into the detector's attributor; returns how rows were aligned, as a note."""
    if task == "regression":
        raise ValueError("--probabilities are of classes, and the labels are numbers; if they are names, add --task")
    table, how = read_probabilities(path, judged)
    detector.attributor.set_params(probabilities=table)
    return f"labels were judged by the probabilities of {path.name}, {how}"


def read_probabilities(path: Path, judged: pd.Series) -> tuple[pd.DataFrame, str]:
    """(probabilities of the rows with a label, one column per class as text, in file order; how rows were aligned).

    judged (n,): labels with one spelling per class and the user's index, missing where there is none. The file is an
    .npy or .npz (columns as the sorted classes, or named by an array `classes`), or a table with a column per class
    and, where it is not in the order of the data, the column of --index or `row`. Raises ValueError or OSError.
    """
    labelled = judged.notna().to_numpy()
    n = len(judged)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file; check the path")
    if is_arrays(path):
        table, positions, how = _of_arrays(path, judged), None, ""
    else:
        table = read_source(path, Reading(header=True)).frame
        positions, table, how = _aligned(table, judged, path.name)
    if positions is None:
        how = "in the order of the data"
        if len(table) != n:
            raise ValueError(
                f"{path.name} has {len(table)} rows of probabilities but the data has {n}; give one per row in the "
                "order of the data, or a table with the column of --index, or row (counted from 0)"
            )
        positions = np.arange(n)
    place = np.full(n, -1)
    place[positions] = np.arange(len(positions))
    missing = np.flatnonzero((place < 0) & labelled)
    if len(missing):
        raise ValueError(
            f"{path.name} has no probabilities for {len(missing)} rows of the data, the first is row {missing[0]} "
            "(counted from 0); give them for every row that has a label"
        )
    chosen = table.iloc[place[labelled]].reset_index(drop=True)
    return chosen, how


def _of_arrays(path: Path, judged: pd.Series) -> pd.DataFrame:
    arrays, _ = load_arrays(path, path.name)
    names = arrays.pop("classes", None)
    if len(arrays) != 1:
        raise ValueError(
            f"{path.name} holds the arrays {', '.join(arrays) or '(none)'}; one is needed, of shape (rows, classes)"
        )
    values = next(iter(arrays.values()))
    if names is None:
        names = _sorted_classes(judged, path.name)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ValueError(
            f"{path.name} has probabilities of shape {values.shape} but there are {len(names)} classes; give one "
            "column for each, sorted, or a table whose columns have their names"
        )
    return pd.DataFrame(values, columns=[str(name) for name in names])


def _sorted_classes(judged: pd.Series, name: str) -> np.ndarray:
    """Classes in the one order that they can be meant in. ValueError where those of text and of numbers differ."""
    classes = np.unique(judged.dropna().to_numpy())
    numbers = pd.to_numeric(pd.Series(classes), errors="coerce").to_numpy()
    if classes.dtype.kind not in "biuf" and not np.isnan(numbers).any() and (np.diff(numbers) < 0).any():
        raise ValueError(
            f"the columns of {name} have no names, and the classes are in another order as numbers than as text; add "
            "an array `classes` to an .npz, or give a table whose columns have the names of the classes"
        )
    return classes


def _aligned(table: pd.DataFrame, judged: pd.Series, name: str) -> tuple[np.ndarray | None, pd.DataFrame, str]:
    """(positions of the table's rows in the data or None, the columns of classes, how rows were aligned)."""
    table.columns = [str(column) for column in table.columns]
    classes = set(map(str, judged.dropna().unique()))
    key = next(
        (key for key in (index_column(judged.index), "row") if key in table.columns and key not in classes), None
    )
    if key is None:
        return None, table, ""
    positions = row_positions(table[[key]].astype(str), judged.index, name)
    return positions, table.drop(columns=key), f"by the column {key!r}"
