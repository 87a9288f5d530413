"""A folder with one sub-folder of images per class."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images in class folders, in the order of their sorted relative paths; nothing in the folder is changed."""

    path: Path
    frame: pd.DataFrame
    size: int
    progress: Callable[[str], None]

    @classmethod
    def read(cls, path: Path | str, size: int, progress: Callable[[str], None] = lambda text: None) -> ImageFolder:
        """List the images. Raises ValueError if there are none; files outside class folders are not read."""
        path = Path(path)
        found = sorted(
            file.relative_to(path).as_posix()
            for file in path.glob("*/**/*")
            if file.suffix.lower() in SUFFIXES
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        if not found:
            raise ValueError(
                f"{path} has no images in class folders; expected e.g. {path.name}/cat/1.png, with the endings "
                f"{', '.join(sorted(SUFFIXES))}"
            )
        frame = pd.DataFrame({"path": found, "label": [name.split("/")[0] for name in found]}, dtype=str)
        return cls(path, frame, size, progress)

    @cached_property
    def X(self) -> np.ndarray:
        """Pixels (n, size, size, 3) uint8. Raises ValueError naming the images that cannot be read."""
        pixels = np.empty((len(self.frame), self.size, self.size, 3), dtype=np.uint8)
        broken = []
        pool = ThreadPoolExecutor()  # decoding releases the interpreter lock
        try:
            for row, result in enumerate(pool.map(self._pixels, self.frame["path"])):
                if row % 100 == 0:
                    self.progress(f"reading images, {row:,} of {len(pixels):,}")
                if isinstance(result, str):
                    broken.append(result)
                else:
                    pixels[row] = result
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
        if broken:
            more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
            raise ValueError(
                f"{len(broken)} of {len(pixels)} images cannot be read: {', '.join(broken[:5])}{more}; "
                "repair them or move them out of the folder"
            )
        return pixels

    def _pixels(self, name: str) -> np.ndarray | str:
        """The resized pixels, or what is wrong: an exception would end the reading at the first broken image."""
        try:
            return np.asarray(_open(self.path / name, self.size).resize((self.size, self.size)))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else error
            return f"{name} ({reason})"

    def picture(self, row: int) -> Image.Image:
        """The image for display, at most 256 pixels wide and high."""
        image = _open(self.path / self.frame["path"].iloc[row], 256)
        image.thumbnail((256, 256))
        return image


def _open(path: Path, size: int) -> Image.Image:
    """RGB image, upright, 16 bit grey scaled and transparency on white; large JPEGs are decoded at reduced size."""
    with Image.open(path) as image:
        image.draft("RGB", (size, size))
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright)
        return upright.convert("RGB")
