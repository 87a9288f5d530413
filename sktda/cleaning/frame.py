"""The table of rows that every cleaner has: one vocabulary, one order of columns, the worst row first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

COLUMNS = (
    "given_label",
    "suggested_label",
    "label_quality",  # in [0, 1], below 0.5 = noisy
    "score",  # higher = keep
    "rank",  # 1 = first to go
    "noisy",
    "kept",
    "round",  # of removal, 0 = kept
    "weight",
    "held_out",  # as a validation row, so without a score
)


def frame_of(columns: Mapping[str, Any], index: Any, order: np.ndarray) -> Any:
    """DataFrame of some of COLUMNS in their order, then of what else is given; order: positions, worst first."""
    pd = import_pandas()
    names = [name for name in COLUMNS if name in columns]
    names += [name for name in columns if name not in COLUMNS]
    return pd.DataFrame({name: columns[name] for name in names}, index=index).iloc[order]


def import_pandas() -> Any:
    """The pandas module; ImportError naming the extra where it is missing."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        message = 'to_frame() needs pandas; install it with: pip install "sktda[shell]"'
        raise ModuleNotFoundError(message, name="pandas") from error
    return pandas
