"""A folder of images: read by `sktda.images`, written as a table of paths and labels, or as a cleaned copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from sktda.cli.formats import write_frame
from sktda.cli.formats.base import Source, edited
from sktda.images import ImageFolder


@dataclass(frozen=True, eq=False)
class ImageListing(Source):
    """The paths and labels of the images of a folder, in which nothing is changed."""

    images: ImageFolder

    default_index: ClassVar[str | None] = "path"

    @classmethod
    def read(cls, path: Path, size: int, progress: Callable[[str], None]) -> ImageListing:
        """List the images. Raises ValueError if there are none."""
        return cls(ImageFolder.read(path, size, progress))

    @property
    def frame(self) -> pd.DataFrame:
        return self.images.frame

    @property
    def X(self) -> np.ndarray:
        return self.images.X

    @property
    def picture(self) -> Callable[[int], Any]:
        return self.images.picture

    def write(self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame) -> None:
        """Write the list of images: path, label and the added columns."""
        write_frame(edited(self.frame, rows, target, relabelled, extra), path)

    def copy(self, destination: Path, rows: np.ndarray, relabelled: dict[int, Any]) -> None:
        """Copy the images at these positions into class folders of their labels."""
        for row in rows.tolist():
            name = self.frame["path"].iloc[row]
            label, _, rest = name.partition("/")
            target = destination / relabelled.get(row, label) / rest
            if row in relabelled:  # the new class may have a file of this name
                target = target.with_name(f"{target.stem}-from-{label}{target.suffix}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.images.path / name, target)
