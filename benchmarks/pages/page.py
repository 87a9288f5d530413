"""A page of docs/benchmarks/: one question, its answer in a sentence, one picture, the tables folded or as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pages.common import Rows, where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORDS = 2_500  # of a page; its longest tables become files of their own until it has no more


@dataclass(frozen=True)
class Picture:
    """What is drawn, and the sentence for those who do not see it."""

    alt: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Page:
    """name is that of the file; tables are titles with Markdown; measured holds (environment, rows) of the results."""

    name: str
    question: str
    answer: str
    picture: Picture
    about: str
    command: str
    measured: list[tuple[dict, Rows]]
    tables: dict[str, str]

    def files(self) -> dict[str, str]:
        """Paths below docs/benchmarks and their text: the page, and the tables that it links."""
        linked: dict[str, str] = {}
        text = self._text(linked)
        while len(text.split()) > WORDS:
            longest = max(
                (title for title in self.tables if title not in linked),
                key=lambda title: len(self.tables[title].split()),
            )
            linked[longest] = f"tables/{self.name}-{list(self.tables).index(longest) + 1}.csv"
            text = self._text(linked)
        return {f"{self.name}.md": text, **{file: as_csv(self.tables[title]) for title, file in linked.items()}}

    def _text(self, linked: dict[str, str]) -> str:
        shown = [
            f"{title}: [table]({linked[title]}).{beside(table)}" if title in linked else folded(title, table)
            for title, table in self.tables.items()
        ]
        return "\n\n".join(
            [
                f"# {self.question}",
                f"**{self.answer}**",
                f"![{self.picture.alt}](pictures/{self.name}.svg)",
                self.about,
                "## All figures",
                *shown,
                "## How it was measured",
                f"`{self.command}`{seeds(self.measured)}. {environments(self.measured)} [All benchmarks](index.md).\n",
            ]
        )


def folded(title: str, text: str) -> str:
    """HTML that sphinx and the viewers of code hosts know."""
    return f"<details>\n<summary>{title}</summary>\n\n{text}\n\n</details>"


def as_csv(text: str) -> str:
    """The tables in a piece of Markdown, an empty line between two."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    before = ""
    for line in text.splitlines():
        if line.startswith("| ---"):
            continue
        if line.startswith("|"):
            if not before.startswith("|") and out.tell():
                writer.writerow([])
            writer.writerow(cell.strip("*`") for cell in line[2:-2].split(" | "))
        before = line
    return out.getvalue()


def beside(text: str) -> str:
    """What stands around a table that is linked."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("|")).strip()
    return f"\n\n{lines}" if lines else ""


def seeds(measured: list[tuple[dict, Rows]]) -> str:
    """Those that the rows name; where they name none, the script says what is drawn."""
    found = sorted({row["seed"] for _, rows in measured for row in rows if row.get("seed") is not None})
    if not found:
        return ", seeds as in the script"
    return f", seed{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}"


def environments(measured: list[tuple[dict, Rows]]) -> str:
    """Where each result was measured, once if it was the same."""
    return " ".join(dict.fromkeys(where(environment) for environment, _ in measured))
