"""Which run of the gallery is of the code that is here, and what a script printed in it."""

import hashlib
import re
import textwrap
import warnings
from pathlib import Path

DOCS = Path(__file__).parent
GALLERY = DOCS / "gallery"
STAMP = GALLERY / "code.sha256"
OUTPUT = re.compile(r"^ \.\. code-block:: none\n\n((?:    .*\n|\n)*)", re.MULTILINE)  # of a cell, in a page


def digest(folder: str) -> str:
    """Of the code in `sktda` or `examples`: pages made from other code are out of date."""
    whole = hashlib.sha256()
    for path in sorted((DOCS.parent / folder).rglob("*.py")):
        whole.update(f"{path.relative_to(DOCS.parent)}\n".encode() + path.read_bytes())
    return whole.hexdigest()


def stamp() -> str:
    """What a build without errors leaves behind: the library and the examples that it ran."""
    return f"{digest('sktda')}\n{digest('examples')}\n"


def is_current() -> bool:
    """Whether the pages in docs/gallery were made by a build without errors, from this code."""
    return STAMP.exists() and STAMP.read_text(encoding="utf-8") == stamp()


def library_is_current() -> bool:
    """Whether they were made with this library, so that examples which are as they were need not run."""
    return STAMP.exists() and STAMP.read_text(encoding="utf-8").startswith(digest("sktda"))


def printed(name: str) -> str:
    """What examples/`name`.py printed as its page was made."""
    page = (GALLERY / f"{name}.rst").read_text(encoding="utf-8")
    return "\n\n".join(textwrap.dedent(text).strip("\n") for text in OUTPUT.findall(page))


def place(path: str) -> int:
    """Where docs/examples.md lists an example."""
    return (DOCS / "examples.md").read_text(encoding="utf-8").find(f"/{Path(path).name}\n")


filters = warnings.catch_warnings()


def strict(gallery_conf: dict, fname: str, when: str) -> None:
    """Warnings are errors while an example runs, and every example runs on one thread."""
    import torch

    global filters
    if when == "before":
        torch.set_num_threads(1)
        filters = warnings.catch_warnings()
        filters.__enter__()
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*is non-interactive")  # plt.show(), for those who run the script
    else:
        filters.__exit__(None, None, None)
