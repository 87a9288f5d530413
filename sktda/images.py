"""A folder of images: which files are images, which label each has, and their pixels."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

# only recognised, or read by another program, or documents and data more often than pictures
NOT_READ = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "eval", "dev"}
AT_ONCE = 256  # images
LEADING = re.compile(r"(.*?[^\W\d_])[\W_]*\d+\W*")  # cat.0, cat_001, cat12, cat (3)
TRAILING = re.compile(r"\d+[\W_]+([^\W\d_].*)")  # 001_cat


@cache
def suffixes() -> frozenset[str]:
    """Endings of the images that Pillow opens, HEIC among them where pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    except ModuleNotFoundError:
        pass
    known = Image.registered_extensions()  # this also loads all formats
    return frozenset(end for end, kind in known.items() if kind in Image.OPEN and kind not in NOT_READ)


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images in the order of their sorted relative paths, with labels; nothing in the folder is changed.

    frame (n, 2): path and label. level: the folder that is the label, 1 for the first below `path`, 0 where labels come
    from names of files or from a table. notes: what was assumed and what was left out, one sentence each; unreadable:
    which images cannot be read and are left out, one sentence. encode: what makes features of pixels, so that those of
    all images need not fit into memory at once; None where pixels are the features.
    """

    path: Path
    frame: pd.DataFrame
    size: int
    progress: Callable[[str], None]
    level: int = 1
    notes: tuple[str, ...] = ()
    unreadable: str = ""
    encode: Callable[[np.ndarray], np.ndarray] | None = None

    @classmethod
    def read(
        cls,
        path: Path | str,
        size: int,
        progress: Callable[[str], None] = lambda text: None,
        level: int | None = None,
        encode: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> ImageFolder:
        """List the images of class folders, or those of a flat folder with the labels in their names.

        level: the folder that is the label; needed where the first ones are called train and val, or the like.
        Raises ValueError if there are no images, or no labels for them.
        """
        path = Path(path)
        found, left = list_images(path)
        notes = [_left_out(left)] if left else []
        folders = [name for name in found if "/" in name]
        if level is None and folders:
            _check_splits(path, folders)
        if not found or (level is not None and not folders):
            raise ValueError(
                f"{path} has no images in class folders; expected e.g. {path.name}/cat/1.png, with endings such as "
                f".png, .jpg or .webp{f' ({notes[0]})' if notes else ''}"
            )
        if folders:
            level = level or 1
            top = [name for name in found if name.count("/") < level]
            if top:
                notes.append(f"{len(top)} images are in no folder of a class and were left out: {_first(top)}")
            names = [name for name in folders if name.count("/") >= level]
            if not names:
                raise ValueError(f"{path} has no images {level} folders deep, such as {folders[0]}; give a lower level")
            labels = [name.split("/")[level - 1] for name in names]
        else:
            names, level = found, 0
            labels = _labels_in_names(names, path)
            notes.append(f"labels were taken from the names of the files, such as {labels[0]!r} of {names[0]}")
        frame = pd.DataFrame({"path": names, "label": labels}, dtype=str)
        return cls(path, frame, size, progress, level, tuple(notes), encode=encode)

    @cached_property
    def X(self) -> np.ndarray:
        """Pixels (n, size, size, 3) uint8, or features (n, ...) that `encode` made of them.

        Raises ValueError naming the images that cannot be read.
        """
        features, broken = self._features_and_broken
        if broken:
            raise ValueError(f"{self._unreadable()}; repair them or move them out of the folder")
        return features

    def readable(self) -> tuple[ImageFolder, np.ndarray]:
        """(the folder without the images that cannot be read, which its notes name; positions of the others).

        Raises ValueError if none can be read.
        """
        features, broken = self._features_and_broken
        kept = np.setdiff1d(np.arange(len(features)), list(broken))
        if not len(kept):
            raise ValueError(f"{self._unreadable()}; repair them")
        if not broken:
            return self, kept
        said = f"{self._unreadable()}; they are neither judged nor in the output"
        folder = replace(self, frame=self.frame.iloc[kept].reset_index(drop=True), unreadable=said)
        folder.__dict__["_features_and_broken"] = (features[kept], {})
        return folder, kept

    def _unreadable(self) -> str:
        _, broken = self._features_and_broken
        return f"{len(broken)} of {len(self.frame)} images cannot be read: {_first(list(broken.values()))}"

    @cached_property
    def _features_and_broken(self) -> tuple[np.ndarray, dict[int, str]]:
        names = self.frame["path"].tolist()
        features = np.empty(0)
        broken = {}
        pool = ThreadPoolExecutor()  # decoding releases the interpreter lock
        try:
            for start in range(0, len(names), AT_ONCE):
                self.progress(f"reading images, {start:,} of {len(names):,}")
                found = list(pool.map(self._pixels, names[start : start + AT_ONCE]))
                pixels = np.zeros((len(found), self.size, self.size, 3), dtype=np.uint8)
                for row, result in enumerate(found):
                    if isinstance(result, str):
                        broken[start + row] = result
                    else:
                        pixels[row] = result
                made = pixels if self.encode is None else self.encode(pixels)
                if not start:
                    features = np.empty((len(names), *made.shape[1:]), dtype=made.dtype)
                features[start : start + len(made)] = made
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
        return features, broken

    def _pixels(self, name: str) -> np.ndarray | str:
        """The resized pixels, or what is wrong: an exception would end the reading at the first broken image."""
        try:
            return np.asarray(_open(self.path / name, self.size).resize((self.size, self.size)))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if isinstance(error, FileNotFoundError):
                return f"{name} (no such file)"
            reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else error
            return f"{name} ({reason})"

    def picture(self, row: int) -> Image.Image:
        """The image for display, at most 256 pixels wide and high."""
        image = _open(self.path / self.frame["path"].iloc[row], 256)
        image.thumbnail((256, 256))
        return image


def list_images(path: Path) -> tuple[list[str], list[str]]:
    """(images, other files) of a folder and those below, as sorted relative paths; hidden files are in neither.

    Links are followed, those to a folder that they are in excepted. Devices, pipes and links to nothing are no images,
    whatever their names. Raises OSError for a folder that cannot be read: its class would be missing.
    """
    images: list[str] = []
    others: list[str] = []
    for folder, below, names in os.walk(path, onerror=_refuse, followlinks=True):
        above = {os.path.realpath(each) for each in (Path(folder), *Path(folder).parents)}
        below[:] = [
            name for name in below if not name.startswith(".") and os.path.realpath(Path(folder, name)) not in above
        ]
        for file in (Path(folder, name) for name in names if not name.startswith(".")):
            is_image = file.suffix.lower() in suffixes() and file.is_file()
            (images if is_image else others).append(file.relative_to(path).as_posix())
    return sorted(images), sorted(others)


def _refuse(error: OSError) -> None:
    raise OSError(
        f"the folder {error.filename} cannot be read ({error.strerror}); change its permissions, or move it elsewhere"
    ) from error


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _left_out(names: list[str]) -> str:
    said = f"{len(names)} files are no images and were left out: {_first(names)}"
    if any(Path(name).suffix.lower() in {".heic", ".heif"} for name in names):
        said += '; HEIC is read after pip install "sktda[heic]"'
    return said


def _check_splits(path: Path, names: list[str]) -> None:
    """Refuse folders train and val as classes unless the user says that they are."""
    first = sorted({name.split("/")[0] for name in names})
    if not SPLITS.issuperset(name.lower() for name in first):
        return
    if not any(name.count("/") > 1 for name in names):
        raise ValueError(
            f"{path} has the folders {', '.join(first)}, with images but no folders of classes in them; give a table "
            f"of labels with --labels, or say --label-level 1 for {_first(first)}"
        )
    second = sorted({name.split("/")[1] for name in names if name.count("/") > 1})
    raise ValueError(
        f"{path} has the folders {', '.join(first)}, and {_first(second)} in them; which are the labels? Say "
        f"--label-level 2 for {_first(second[:2])}, or --label-level 1 for {_first(first[:2])}"
    )


def _labels_in_names(names: list[str], path: Path) -> list[str]:
    """The words before or after the numbers in names of files."""
    for pattern in (LEADING, TRAILING):
        found = [pattern.fullmatch(Path(name).stem) for name in names]
        labels = [match[1] for match in found if match]
        counts = Counter(labels)
        if len(labels) == len(names) and len(counts) > 1 and min(counts.values()) > 1:
            return labels
    raise ValueError(
        f"{path} has no images in class folders, and the names of its images, such as {names[0]}, tell no labels; "
        f"expected e.g. {path.name}/cat/1.png or cat_1.png, or a table of labels with --labels"
    )


def _open(path: Path, size: int) -> Image.Image:
    """RGB image, upright, deep grey scaled and transparency on white; large JPEGs are decoded at reduced size."""
    with Image.open(path) as image:
        image.draft("RGB", (size, size))
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16") or upright.mode in ("I", "F"):
            upright = _eight_bits(np.asarray(upright))
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright)
        return upright.convert("RGB")


def _eight_bits(grey: np.ndarray) -> Image.Image:
    """Sixteen bits by their upper half; other ranges, of which nothing is known, by their extremes."""
    if grey.dtype.kind == "f" or grey.max(initial=0) > 65_535 or grey.min(initial=0) < 0:
        low, high = float(grey.min()), float(grey.max())
        grey = 255 * (grey - low) / ((high - low) or 1.0)
    elif grey.dtype.itemsize > 1 and (grey.dtype == np.uint16 or grey.max(initial=0) > 255):
        grey = grey.astype(np.int32) >> 8
    return Image.fromarray(grey.astype(np.uint8))
