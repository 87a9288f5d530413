"""NPZ files: data sets of arrays, and embeddings that take the place of a data set's own features."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from sktda.cli.formats.base import Reading, Source, check_numbers
from sktda.cli.formats.files import Input, write_bytes
from sktda.cli.formats.known import plain_ending

CELLS = "biufSUmM"  # kinds of arrays whose values a column holds
DAMAGED = (
    ValueError,
    EOFError,
    OSError,
    RuntimeError,  # a password; NotImplementedError, of an unknown compression
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True, eq=False)
class ArrayFile(Source):
    """An .npz with X (rows first), labels y and whatever else; all arrays with a row per row of X are cut alike."""

    name: str
    arrays: dict[str, np.ndarray]
    ending: str = ".npz"
    notes: tuple[str, ...] = ()

    default_target: ClassVar[str | None] = "y"

    @classmethod
    def read(cls, file: Input, reading: Reading) -> ArrayFile:
        """Read all arrays. Raises ValueError if there is no X of finite numbers."""
        arrays, others = load_arrays(io.BytesIO(file.read()), file.name)
        if arrays.get("X", np.empty(0)).ndim < 2 or not len(arrays["X"]):
            found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise ValueError(f"{file.name} holds {found or 'nothing'}; X (rows, features...) and y (rows,) are needed")
        check_numbers(arrays["X"], f"X of {file.name}")
        shape = arrays.get("y", np.empty(len(arrays["X"]))).shape
        if np.prod(shape) != len(arrays["X"]):
            raise ValueError(f"y of {file.name} has shape {shape}; {len(arrays['X'])} labels are needed, one per row")
        if "y" in arrays and arrays["y"].dtype.kind not in CELLS:
            raise ValueError(f"y of {file.name} holds {arrays['y'].dtype}; labels are text, numbers, or dates")
        said = "is no array" if len(others) == 1 else "are no arrays"
        notes = (f"{', '.join(others[:5])} of {file.name} {said} and not in the output",) if others else ()
        return cls(file.name, arrays, notes=notes)

    @property
    def X(self) -> np.ndarray:
        return _native(self.arrays["X"])

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The arrays with one value per row, bytes as the text that they are."""
        columns = {k: v for k, v in self.arrays.items() if k != "X" and self._per_row(v) and v.size == len(v)}
        cells = {
            k: _text(_native(v.ravel()), f"{k} of {self.name}") for k, v in columns.items() if v.dtype.kind in CELLS
        }
        return pd.DataFrame(cells, index=range(len(self.X)))

    @property
    def picture(self) -> Callable[[int], Any] | None:
        """row -> PIL image, where X has the shape of grey or RGB pictures."""
        shape = self.X.shape[1:]
        grey, rgb = len(shape) == 2, len(shape) == 3 and shape[2] in (1, 3)
        return self._picture if (grey or rgb) and min(shape[:2]) >= 8 else None

    def _picture(self, row: int) -> Any:
        from PIL import Image

        low, high = self._range
        values = 255 * (self.X[row].astype(float) - low) / ((high - low) or 1.0)
        return Image.fromarray(np.squeeze(values).astype(np.uint8)).convert("RGB")

    @cached_property
    def _range(self) -> tuple[float, float]:
        return float(self.X.min()), float(self.X.max())

    def _per_row(self, array: np.ndarray) -> bool:
        return array.ndim > 0 and len(array) == len(self.X)

    def write(self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame) -> None:
        """Cut every per-row array; dtypes stay."""
        if plain_ending(path) != self.ending:
            raise ValueError(f"{self.name} holds arrays, which are written as .npz; name such an output")
        labels = self.arrays[target].copy()
        for row, label in relabelled.items():
            label = label.encode() if labels.dtype.kind == "S" else label
            labels[row] = label
            if labels.dtype.kind != "f" and labels[row] != label:  # cut off, without an error
                raise ValueError(f"{target} of {self.name} holds {labels.dtype}, which cannot take {label!r}")
        arrays = {**self.arrays, target: labels, **{name: np.array(extra[name].tolist()) for name in extra.columns}}
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:  # numpy.savez takes no array named "file"
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    kept = array[rows] if self._per_row(array) else array
                    np.lib.format.write_array(file, kept, allow_pickle=False)
        write_bytes(path, packed.getvalue())


def read_features(path: Path, n_rows: int, names: pd.Series | None = None) -> np.ndarray:
    """Embeddings of the data's rows: array X of an .npz (or its only array), or an .npy.

    names: relative paths of the images of a folder; an array `paths` in the file is then used to align the rows.
    Raises ValueError if rows do not match one to one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file; check the path")
    arrays, _ = load_arrays(path, path.name)
    paths = _text(arrays.pop("paths"), f"paths of {path.name}") if "paths" in arrays else None
    if "X" not in arrays and len(arrays) != 1:
        raise ValueError(f"{path.name} holds the arrays {', '.join(arrays) or '(none)'}; name the features X")
    X = _native(arrays.get("X", next(iter(arrays.values()))))
    check_numbers(X, f"{path.name}")
    if paths is not None and names is not None:
        if len(paths) != len(X) or len(set(paths)) != len(paths):
            raise ValueError(f"{path.name} has {len(set(paths))} different paths for {len(X)} rows; one each is needed")
        order = pd.Series(range(len(paths)), index=paths).reindex(names)
        if order.isna().any():
            raise ValueError(
                f"{path.name} has no features for {order.isna().sum()} images, the first is "
                f"{order.index[order.isna()][0]!r}; paths are relative to the folder, such as 'cat/1.png'"
            )
        X = X[order.to_numpy(dtype=int)]
    if X.ndim < 2 or len(X) != n_rows:
        raise ValueError(
            f"{path.name} has features of shape {X.shape} but the data has {n_rows} rows; give one row of features per "
            "row of data in the same order (for an image folder: sorted relative paths, or an array named paths)"
        )
    return X


def is_arrays(path: Path) -> bool:
    """Whether the name says that a file holds one array, or several."""
    return plain_ending(path) in (".npy", ".npz")


def load_arrays(file: Any, name: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """(arrays by name, that of an .npy as X; other members of the archive). Raises ValueError for what holds none."""
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"X": loaded}, []
        with loaded:
            names = [member.filename for member in loaded.zip.infolist() if not member.is_dir()]
            members = {name: loaded[name] if name.endswith(".npy") else None for name in names}
    except DAMAGED as error:
        raise ValueError(
            f"{name} cannot be read as arrays ({error}; pickled objects are not read); write it with numpy.savez"
        ) from error
    arrays = {name.removesuffix(".npy"): each for name, each in members.items() if isinstance(each, np.ndarray)}
    return arrays, [name for name, each in members.items() if not isinstance(each, np.ndarray)]


def _native(values: np.ndarray) -> np.ndarray:
    """In the byte order of this machine, in which pandas and torch need them."""
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def _text(values: np.ndarray, where: str) -> np.ndarray:
    if values.dtype.kind != "S":
        return values
    try:
        return np.char.decode(values, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} holds bytes that are no UTF-8 text ({error}); write it as text") from error
