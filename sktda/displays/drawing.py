"""What all displays draw with: colours, axes, label texts and pictures. Matplotlib is imported on first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

KEPT, MARKED, INK, FAINT = "#0072B2", "#D55E00", "0.15", "0.6"  # blue and vermilion differ for colour-blind readers too
CHAR = 0.56  # mean width of a character, as a share of the font size


def new_axes(ax: Any, figsize: tuple[float, float] | None = None) -> Any:
    """The given axes, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=figsize, layout="constrained")[1]


def label_text(label: Any, length: int = 24) -> str:
    """A label on one line of at most `length` characters, its middle left out; a dollar sign starts no formula."""
    text = f"{float(label):.4g}" if isinstance(label, (float, np.floating)) else " ".join(str(label).split())
    return short(text or "(blank)", length).replace("$", r"\$")


def short(text: str, length: int) -> str:
    """At most `length` characters; the middle goes, for names often differ at their end."""
    if len(text) <= length:
        return text
    head = length // 2
    return text[:head] + "…" + text[len(text) - (length - head - 1) :]


def fitting(width: float, fontsize: float) -> int:
    """Characters that fit into a width in inches, at least four."""
    return max(4, int(width * 72 / (CHAR * fontsize)))


def width_of(ax: Any) -> float:
    """In inches, before the layout is made."""
    return ax.get_window_extent().width / ax.figure.dpi


def legend_above(ax: Any) -> None:
    """A legend over the axes, where it covers no data; more than three entries take two lines."""
    n = len(ax.get_legend_handles_labels()[1])
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    ax.legend(ncols=3 if n <= 3 else 2, handlelength=1.4, columnspacing=1.2, frameon=False, **place)


def pick_pictures(images: Any, rows: Sequence[int]) -> list[np.ndarray]:
    """Rows of `images` as arrays (height, width) or (height, width, 3 or 4) in [0, 1], on one common scale.

    images: (n, height, width), (n, height, width, channels), (n, channels, height, width), or a sequence of such
    pictures or of PIL images. Bytes and values in [0, 1] are taken as they are; others are stretched from the smallest
    to the largest value among the rows.
    """
    found = [_channels_last(np.asarray(images[int(row)])) for row in rows]
    if all(each.dtype == np.uint8 for each in found):
        return [each / 255 for each in found]
    found = [np.nan_to_num(each.astype(float)) for each in found]
    low, high = min(each.min() for each in found), max(each.max() for each in found)
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    return [(each - low) / ((high - low) or 1.0) for each in found]


def _channels_last(picture: np.ndarray) -> np.ndarray:
    if picture.ndim == 3 and picture.shape[2] not in {1, 3, 4} and picture.shape[0] in {1, 3, 4}:
        picture = np.moveaxis(picture, 0, 2)
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[:, :, 0]
    if picture.ndim != 2 and not (picture.ndim == 3 and picture.shape[2] in {3, 4}):
        raise ValueError(
            f"a picture of shape {picture.shape} cannot be drawn; images must be (n, height, width), with 1, 3 or 4 "
            "channels last or first if any, such as X.reshape(-1, 8, 8)"
        )
    return picture


def picture_axes(ax: Any, n: int, n_columns: int) -> list[Any]:
    """Axes of n pictures, line by line, within ax, which is itself not drawn; room for two lines above, one below."""
    ax.set_axis_off()
    n_lines = -(-n // n_columns)
    width, height = 1 / n_columns, 1 / n_lines
    found = []
    for place in range(n):
        line, column = divmod(place, n_columns)
        box = (column * width + 0.05 * width, 1 - (line + 0.9) * height, 0.9 * width, 0.64 * height)
        inner = ax.inset_axes(box)
        inner.set(xticks=[], yticks=[], anchor="S")
        found.append(inner)
    return found


def draw_picture(ax: Any, picture: np.ndarray, title: str, below: str, color: str) -> None:
    """A picture with a line or two above and one below; its frame and the title in a colour."""
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title, fontsize=8, color=color, pad=3)
    ax.set_xlabel(below, fontsize=8, labelpad=2)
    for spine in ax.spines.values():
        spine.set_color(color)
