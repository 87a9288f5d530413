"""A folder of images: read by `sktda.images`, written as a table of paths and labels, or as a cleaned copy."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from sktda.cli.formats import read_source, write_frame
from sktda.cli.formats.base import Reading, Source, edited
from sktda.cli.formats.known import FORMATS, PLAIN, plain_ending
from sktda.images import SPLITS, ImageFolder, list_images


def read_images(path: Path, reading: Reading, progress: Callable[[str], None]) -> Images:
    """List the images of a folder with the labels that their folders, their names or a table say.

    Images that cannot be read are left out, and named, where pixels are needed. Raises ValueError if there are none.
    """
    labels = reading.labels or (None if reading.level else _table_in(path))
    listing: Images = (
        LabelledImages.of(path, labels, reading, progress)
        if labels
        else ImageListing(ImageFolder.read(path, reading.size, progress, reading.level, reading.encode))
    )
    return listing.readable() if reading.pixels else listing


@dataclass(frozen=True, eq=False)
class Images(Source):
    """Rows that are images of a folder."""

    images: ImageFolder

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.images.notes

    @property
    def unreadable(self) -> str:  # type: ignore[override]
        return self.images.unreadable

    @property
    def X(self) -> np.ndarray:
        return self.images.X

    @property
    def picture(self) -> Callable[[int], Any]:
        return self.images.picture

    @abstractmethod
    def readable(self) -> Images:
        """Without the images that cannot be read."""

    def copy(self, destination: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any]) -> None:
        """Copy the images at these positions; where folders are classes, into those of their labels."""
        for row in rows.tolist():
            name = self.images.frame["path"].iloc[row]
            place = self._place(name, self.frame[target].iloc[row], relabelled.get(row))
            (destination / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.images.path / name, destination / place)

    def _place(self, name: str, label: Any, new: Any) -> Path:
        """Where an image goes in a copy. The new class may have a file of this name."""
        parts = name.split("/")
        folder, file = Path(*parts[:-1]), Path(parts[-1])
        if new is not None and self.images.level:
            folder = Path(*(new if i + 1 == self.images.level else part for i, part in enumerate(parts[:-1])))
        elif new is not None:
            file = Path(f"{new}-{file}")
        return folder / (f"{file.stem}-from-{label}{file.suffix}" if new is not None else file)


@dataclass(frozen=True, eq=False)
class ImageListing(Images):
    """The paths and labels of the images of a folder, in which nothing is changed."""

    ending: str = PLAIN

    default_index: ClassVar[str | None] = "path"
    default_target: ClassVar[str | None] = "label"

    @property
    def frame(self) -> pd.DataFrame:
        return self.images.frame

    def readable(self) -> ImageListing:
        return replace(self, images=self.images.readable()[0])

    def write(self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame) -> None:
        """Write the list of images: path, label and the added columns."""
        write_frame(edited(self.frame, rows, target, relabelled, extra), path)


@dataclass(frozen=True, eq=False)
class LabelledImages(Images):
    """Images whose labels are in a table.

    positions: its rows that have an image which can be read; names_images: the column that says which.
    """

    table: Source
    positions: np.ndarray
    names_images: str

    @property
    def ending(self) -> str:  # type: ignore[override]
        return self.table.ending

    @property
    def default_target(self) -> str | None:  # type: ignore[override]
        """The only column beside that of the images."""
        others = [name for name in self.frame if name != self.names_images]
        return str(others[0]) if len(others) == 1 else None

    @classmethod
    def of(cls, path: Path, labels: Path, reading: Reading, progress: Callable[[str], None]) -> LabelledImages:
        """Find the column that names the images. Raises ValueError if there is none."""
        table = read_source(labels, replace(reading, labels=None, level=None))
        found, _ = list_images(path)
        if not found:
            raise ValueError(f"{path} has no images; check the folder")
        names, column = _match(table.frame, found, labels.name, path)
        known = names.notna().to_numpy()
        notes = [f"labels are from {labels.name}, in which column {column!r} names the images"]
        if not known.all():
            missing = table.frame[column][~known].astype(str).tolist()
            left_out = f"{len(missing)} rows of {labels.name} have no image in {path.name} and are left out"
            notes.insert(0, f"{left_out}, such as {missing[0]!r}")
        without = sorted(set(found) - set(names.dropna()))
        if without:
            notes.append(f"{len(without)} images have no row in {labels.name} and are left out, such as {without[0]}")
        frame = pd.DataFrame({"path": names[known].astype(str)}).reset_index(drop=True)
        images = ImageFolder(path, frame, reading.size, progress, 0, (*notes, *table.notes), encode=reading.encode)
        return cls(images, table, np.flatnonzero(known), column)

    @property
    def frame(self) -> pd.DataFrame:
        return self.table.frame.iloc[self.positions].reset_index(drop=True)

    def readable(self) -> LabelledImages:
        images, kept = self.images.readable()
        return replace(self, images=images, positions=self.positions[kept])

    def write(self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame) -> None:
        """Write the rows of the table, as they were read."""
        changed = {int(self.positions[row]): label for row, label in relabelled.items()}
        everywhere = extra.set_axis(self.positions).reindex(range(len(self.table.frame)), method=None)
        self.table.write(path, self.positions[rows], target, changed, everywhere)


def _table_in(path: Path) -> Path | None:
    """The one table of a folder whose images are in no class folders."""
    endings = {end for format in FORMATS if format.is_table for end in format.endings} - {
        ".txt",
        ".dat",
        ".data",
        ".db",
    }
    found = [file for file in path.iterdir() if plain_ending(file) in endings and not file.name.startswith(".")]
    images, _ = list_images(path)
    folders = {name.split("/")[0] for name in images if "/" in name}
    flat = not any(name.count("/") > 1 for name in images)
    return found[0] if len(found) == 1 and (len(folders) <= 1 or (flat and SPLITS.issuperset(folders))) else None


def _match(frame: pd.DataFrame, found: list[str], table: str, path: Path) -> tuple[pd.Series, str]:
    """(for every row the path of its image, the column that says so): by path, name, or name without its ending."""
    keys: list[dict[str, str | None]] = [{}, {}, {}]
    for name in found:
        short = Path(name).name
        for known, key in zip(keys, (name, short, Path(short).stem), strict=True):
            known[key] = None if key in known else name  # of two with one name, neither is meant
    best, column = pd.Series(dtype=object), ""
    for name in frame.columns:
        cells = frame[name].astype(str).str.strip().str.replace("\\", "/")
        for prefix in ("", f"{path.name}/"):
            for known in keys:
                match = cells.str.removeprefix(prefix).map(known)
                if match.notna().sum() > best.notna().sum():
                    best, column = match, str(name)
    if best.notna().sum() < max(1, len(frame) / 2):
        raise ValueError(
            f"no column of {table} names the images of {path}, such as {found[0]}; one with paths or names is needed"
        )
    return best, column
