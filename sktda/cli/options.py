"""The options that the commands share, as annotations for typer."""

from __future__ import annotations

import re
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

OWN_FEATURES = ("auto", "pixels", "patches")  # all others are pretrained models


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


class Without(StrEnum):
    """What becomes of rows without a label."""

    keep = "keep"
    drop = "drop"
    predict = "predict"


def option(names: str, text: str, metavar: str | None = None, **checks: Any) -> Any:
    """A typer option."""
    return typer.Option(*names.split(), help=text, metavar=metavar, **checks)


def data_path(text: str) -> Path:
    """The path of DATA; `sqlite:///` may stand before that of a database."""
    return Path(re.sub(r"^sqlite:///", "", text))


def drop_amount(text: str) -> str | float | int:
    """ "auto", "confident-joint", a share such as 0.1 or 10%, or a number of rows such as 10.

    Raises ValueError for anything else.
    """
    plain = text.strip().lower()
    if plain in ("auto", "confident-joint"):
        return plain
    if re.fullmatch(r"\d+", plain):
        return int(plain)
    share = _share(plain)
    if not 0 <= share < 1:
        raise ValueError(
            f"--drop {text!r} is neither auto, nor confident-joint, nor a share such as 0.1 or 10%, nor a number of "
            "rows such as 10"
        )
    return share


def noise_bound(text: str) -> float:
    """The share of wrong labels that is allowed, such as 0.05 or 5%. Raises ValueError for anything else."""
    share = _share(text.strip())
    if not 0 <= share < 1:
        raise ValueError(f"--max-noise {text!r} is no share such as 0.05 or 5%")
    return share


def _share(text: str) -> float:
    """0.1 or 10% as a number; -1 for what is none."""
    number = re.fullmatch(r"(\d+\.?\d*|\d*\.\d+)\s*(%?)", text)
    return float(number[1]) / (100 if number[2] else 1) if number else -1.0


def features_name(text: str) -> str:
    """auto, pixels or patches, or a pretrained model: loads nothing, but knows whether there can be one.

    Raises ValueError for what is neither, OSError for a path that is not there, ImportError for a missing library.
    """
    if text in OWN_FEATURES:
        return text
    from sktda.pretrained.names import read_name

    close = get_close_matches(text.strip().lower(), OWN_FEATURES, n=1)
    try:
        read_name(text)
    except ValueError as error:
        if close:
            raise ValueError(f"--features {text!r} is unknown; did you mean {close[0]}?") from None
        raise ValueError(f"--features is none of {', '.join(OWN_FEATURES)}, and {error}") from None
    return text


def values(text: str | None) -> tuple[str, ...] | None:
    """Values that are written with commas between them."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


Data = Annotated[
    Path,
    typer.Argument(
        help="Table, folder of images or of Parquet files, or - for standard input.", metavar="DATA", parser=data_path
    ),
]
Target = Annotated[
    str | None,
    option(
        "--target -t",
        "Column of labels; without it the columns of a table are listed.",
        "COLUMN",
    ),
]
Index = Annotated[str | None, option("--index", "Column that names the rows. It is no feature, and is kept.", "COLUMN")]
Embeddings = Annotated[
    Path | None,
    option(
        "--embeddings",
        "NPZ with embeddings X, one row per data row, in place of columns or pixels. For an image folder: in the "
        "order of the sorted relative paths, or with an array named paths.",
        "FILE",
    ),
]
Features = Annotated[
    str,
    option(
        "--features",
        "What images and texts are compared by: auto, pixels, patches, or a pretrained model that is on this machine: "
        "its path, or its name such as timm:resnet18, open_clip:ViT-B-32/openai, sentence-transformers:NAME, "
        "model2vec:NAME, transformers:NAME.",
        "WHAT",
    ),
]
Probabilities = Annotated[
    Path | None,
    option(
        "--probabilities",
        "Class probabilities by a model of yours that did not see the row: a table with a column per class, and "
        "that of --index or row, or NPY or NPZ. Labels are judged by these; features only show rows.",
        "FILE",
    ),
]
Listing = Annotated[
    bool, option("--columns", "List the columns, what each is used as and which are not used, and stop.")
]
Text = Annotated[
    list[str] | None, option("--text", "Column of free text, whatever it looks like. May be repeated.", "COLUMN")
]
Ignore = Annotated[
    list[str] | None, option("--ignore", "Column that is no feature, and is kept. May be repeated.", "COLUMN")
]
AsCategory = Annotated[
    list[str] | None,
    option("--as-category", "Column whose numbers are names of categories. May be repeated.", "COLUMN"),
]
NaValues = Annotated[
    str | None,
    option(
        "--na-values",
        "What stands for no label beside empty cells, with commas; '' says that NA is a label. By default NA, N/A, "
        "nan and null.",
        "VALUES",
    ),
]
Sheet = Annotated[str | None, option("--sheet --table", "Sheet of a spreadsheet, table of a database.", "NAME")]
Query = Annotated[str | None, option("--query", "What to read of a SQLite database: a SELECT.", "SQL")]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header", help="Whether the first line holds the names of columns; found out by default."
    ),
]
Labels = Annotated[
    Path | None, option("--labels", "Table of the labels of an image folder; one of its columns names images.", "FILE")
]
Level = Annotated[
    int | None,
    option("--label-level", "Which folder of an image is its label: 1 for the first one below DATA.", "N", min=1),
]
Size = Annotated[
    int | None,
    option(
        "--size",
        "Images are resized to this width and height: 64 by default, or what a model of --features is made for.",
        "PIXELS",
        min=4,
        max=1024,
    ),
]
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
        "auto: estimate how many labels are wrong; none where the features do not predict them. confident-joint: "
        "count all that a good model is sure of, for classes that do not overlap. Or the worst rows in any case: a "
        "share such as 0.1 or 10%, or a number of rows such as 10.",
        "AMOUNT",
    ),
]
Unlabelled = Annotated[
    Without,
    option(
        "--unlabelled",
        "What becomes of rows without a label, which are not judged: keep, drop, or predict: they stay, with a label "
        "suggested in the column sktda_suggested_label.",
        "WHAT",
    ),
]
NoComparison = Annotated[
    bool, option("--no-comparison", "Leave the comparison of models before and after cleaning out of the report.")
]
WithData = Annotated[
    bool,
    option(
        "--with-data",
        "Beside the scores of each row its line in DATA and its own cells; in an .xlsx with lists of decisions.",
    ),
]
Method = Annotated[str, option("--method", "Attribution method that ranks the rows.", "NAME")]
Seed = Annotated[int, option("--seed", "The same seed gives the same result.", "NUMBER", min=0)]
Force = Annotated[bool, option("--force", "Replace files that exist, but never an input or a folder.")]
Json = Annotated[bool, option("--json", "Print one JSON object in place of the summary.")]
Quiet = Annotated[bool, option("--quiet -q", "Show no progress and no summary.")]
