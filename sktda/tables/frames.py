"""Tables of any library as a DataFrame of pandas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sktda.containers import refuse_kind


def as_frame(X: Any) -> pd.DataFrame:
    """X as a DataFrame of pandas, its columns named; a Series is a table of one column.

    Raises ValueError for what has no two dimensions, and for names that occur twice.
    """
    if isinstance(X, pd.DataFrame):
        frame = X
    elif isinstance(X, pd.Series):
        frame = X.to_frame()
    elif hasattr(X, "to_pandas"):
        frame = X.to_pandas()
        frame = frame.to_frame() if isinstance(frame, pd.Series) else frame
    elif sparse.issparse(X):
        raise TypeError(
            "Sparse data was passed for X, and a table is dense; give X.toarray(), or no encoder: it is numbers"
        )
    else:
        cells = np.asarray(X)
        if cells.ndim != 2:
            raise ValueError(
                f"Expected 2D array, got {cells.ndim}D array instead: rows and columns are needed. Reshape your data "
                "either using array.reshape(-1, 1) if it is one column or array.reshape(1, -1) if it is one row"
            )
        refuse_kind(cells.dtype.kind if cells.dtype.kind not in "mM" else "O", "X")
        frame = pd.DataFrame(cells)
    if not frame.columns.is_unique:
        name = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"X has several columns named {name!r}; give every column a name of its own")
    return frame
