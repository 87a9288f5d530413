"""What the table formats share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

MAX_COLUMNS = 100_000


def check_width(n_columns: int, name: str) -> None:
    """Refuse files that are transposed or lack line breaks before they fill the memory."""
    if n_columns > MAX_COLUMNS:
        raise ValueError(
            f"{name} has more than {MAX_COLUMNS:,} columns; is it transposed, or without line breaks? "
            "Wide numeric data goes into an .npz with arrays X and y"
        )


def check_header(names: list[str], file: str) -> None:
    """Refuse too many columns and names that occur twice."""
    check_width(len(names), file)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{file} has several columns named {twice!r}; give every column its own name")


def check_numbers(X: np.ndarray, name: str) -> None:
    """Refuse anything but finite numbers, naming the first row that holds something else."""
    if X.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {X.dtype} values; numbers are needed")
    if X.dtype.kind == "f" and not np.isfinite(X).all():
        bad = ~np.isfinite(X).reshape(len(X), -1).all(axis=1)
        raise ValueError(
            f"{name} has NaN or infinity in {bad.sum()} rows, the first is row {bad.argmax()} (counted from 0); "
            "impute or remove them"
        )


def edited(
    frame: pd.DataFrame, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
) -> pd.DataFrame:
    """The rows at these positions with their new labels and the added columns."""
    labels = frame[target].tolist()
    for row, label in relabelled.items():
        labels[row] = label
    frame = frame.assign(**{target: pd.Series(labels, index=frame.index, dtype=frame[target].dtype)})
    return pd.concat([frame, extra], axis=1).iloc[rows]
