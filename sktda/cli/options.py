"""The options that the commands share, as annotations for typer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Task(StrEnum):
    """What the labels are."""

    auto = "auto"
    classification = "classification"
    regression = "regression"


class Action(StrEnum):
    """What happens to rows whose label is wrong."""

    drop = "drop"
    relabel = "relabel"
    flag = "flag"


def option(names: str, text: str, metavar: str | None = None, **checks: Any) -> Any:
    """A typer option."""
    return typer.Option(*names.split(), help=text, metavar=metavar, **checks)


Data = Annotated[Path, typer.Argument(help="Table, or folder of class folders of images.")]
Target = Annotated[
    str | None,
    option(
        "--target -t",
        "Column of labels; by default the only one called label, target, y or class. A row without a label is "
        "an error.",
        "COLUMN",
    ),
]
Index = Annotated[str | None, option("--index", "Column that names the rows. It is no feature, and is kept.", "COLUMN")]
Features = Annotated[
    Path | None,
    option(
        "--features",
        "NPZ with embeddings X, one row per data row, in place of columns or pixels. For an image folder: in the "
        "order of the sorted relative paths, or with an array named paths.",
        "FILE",
    ),
]
Size = Annotated[int, option("--size", "Images are resized to this width and height.", "PIXELS", min=4, max=1024)]
TaskKind = Annotated[
    Task,
    option(
        "--task",
        "auto, classification or regression; auto takes text and small sets of whole numbers for classes.",
        "KIND",
    ),
]
Drop = Annotated[
    str,
    option(
        "--drop",
        "auto: estimate how many labels are wrong; none where the features do not predict them. Or their share, such "
        "as 0.1: the worst rows in any case.",
        "SHARE",
    ),
]
NoComparison = Annotated[
    bool, option("--no-comparison", "Leave the comparison of models before and after cleaning out of the report.")
]
Method = Annotated[str, option("--method", "Attribution method that ranks the rows.", "NAME")]
Seed = Annotated[int, option("--seed", "The same seed gives the same result.", "NUMBER", min=0)]
Force = Annotated[bool, option("--force", "Replace files that exist, but never an input or a folder.")]
Json = Annotated[bool, option("--json", "Print one JSON object in place of the summary.")]
Quiet = Annotated[bool, option("--quiet -q", "Show no progress and no summary.")]
