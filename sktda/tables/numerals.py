"""How the cells of a column are read as numbers: what is in doubt in one cell, the others decide."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sktda.tables.units import BARE, Unit, is_known, is_money
from sktda.tables.values import NUMBER, OTHER, SPACES, Cell, of_parts, parse, plain

MOSTLY = 0.95  # of the known cells decide what a column holds
PLAIN = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|inf(?:inity)?)", re.IGNORECASE)  # what programs write
PARTS = {"°": "°", "m": "ft"}  # what cells of several parts are counted in
FEW = 10  # cells like 1.234, below which nothing is concluded from them


@dataclass(frozen=True)
class Numerals:
    """How the cells of one column are read as numbers, and written.

    mark: the decimal mark, "" where cells show both and those that could be either are not read; unit: what numbers are
    counted in; bare: what a cell without a unit is worth in it; example: a cell that is no plain number, or ""; note:
    what was assumed; shown: the decimal mark that the cells show beyond doubt, or ""; doubtful: none was, and needed.
    """

    mark: str = "."
    unit: Unit = BARE
    bare: float = 1.0
    example: str = ""
    note: str = ""
    shown: str = ""
    doubtful: bool = False

    def read(self, texts: Sequence[str]) -> np.ndarray:
        """Values (n,) float64 in `unit`, NaN for what is no number or in a unit of another kind."""
        return np.array([np.nan if (cell := parse(text)) is None else self.value(cell) for text in texts], dtype=float)

    def value(self, cell: Cell) -> float:
        """Of one cell."""
        # 300K beside $1.2M are dollars; beside 1.2B or 5 m it could be anything
        if cell.unit.base == self.unit.base or (_is_word(cell) and is_money(self.unit.base)):
            return cell.value(self.mark) * (cell.unit.factor / self.unit.factor)
        return cell.value(self.mark) * self.bare if cell.unit == BARE else np.nan

    def write(self, value: float, digits: int = 8) -> str:
        """The value as the example is written: its signs before and behind, marks and decimals."""
        mark = self.mark or "."
        text = np.format_float_positional(abs(value), digits, unique=False, fractional=False, trim="-")
        sign = "-" if value < 0 else ""
        if of_parts(self.example) is not None:
            return f"{sign}{text.replace('.', mark)} {PARTS[self.unit.base]}"
        found = NUMBER.fullmatch(self.example)
        if found is None or found["power"]:
            return sign + text.replace(".", mark)
        body = found["body"]
        if mark in body:
            decimals = len(body.rpartition(mark)[2])
            text = f"{abs(value):.{max(decimals, len(text.partition('.')[2]))}f}"
        whole, _, fraction = text.partition(".")
        between = next((other for other in OTHER[mark] + SPACES if other in body), "")
        whole = f"{int(whole):,}".replace(",", between) if between else whole
        before, after = self.example[: found.start("body")], self.example[found.end("body") :]
        number = whole + (mark + fraction if fraction else "")
        return sign + before.lstrip("(-+−– ") + number + after.rstrip(")-− ")


def learn(texts: Sequence[str], counts: np.ndarray, hint: str = "") -> tuple[Numerals | None, str]:
    """(how the different texts of a column are read as numbers, "") or (None, why they are not, "" for mere words).

    counts (n,): how often each occurs; hint: the decimal mark that the other columns show, or "".
    """
    cells = [(text, cell, int(n)) for text, n in zip(texts, counts, strict=True) if (cell := parse(text)) is not None]
    if sum(n for *_, n in cells) < max(1, sum(counts) / 2):
        return None, ""
    found, why = _units(cells)
    if found is None:
        return None, why
    unit, others = found
    used = [each for each in cells if each[1].unit.base in (unit.base, "")]
    mark, doubt, shown = _mark(used, is_money(unit.base), hint)
    if mark is None:
        return None, doubt
    notes = [doubt] if doubt else []
    bare = 1.0
    if others and unit.base:
        bare, said = _bare(used, unit, mark)
        notes.append(f"{others} cells without a unit taken {said}")
    if len({cell.unit.factor for _, cell, _ in used if cell.unit != BARE or not unit.base}) > 1:
        notes.append("units converted")
    odd = [(text, cell) for text, cell, _ in used if PLAIN.fullmatch(text) is None or (mark == "," and "." in text)]
    odd = odd or ([(text, cell) for text, cell, _ in used if cell.mark == "?"] if doubt else [])
    examples = [text for text, cell in odd if cell.unit == unit] + [text for text, _ in odd]
    return Numerals(mark, unit, bare, examples[0] if examples else "", "; ".join(notes), shown, bool(doubt)), ""


Cells = list[tuple[str, Cell, int]]  # text, what it says, how often


def unit_name(text: str) -> str:
    """What the value of a cell is counted in, as it is written there: "$M" for "$2M"; "" of mere counts such as 2M."""
    cell, found = parse(text), NUMBER.fullmatch(plain(text))
    if cell is None or not cell.unit.base:
        return ""
    if of_parts(plain(text)) is not None:
        return PARTS[cell.unit.base]
    return "".join(part.strip() for part in found.group("before", "after") if part) if found else ""


def _is_word(cell: Cell) -> bool:
    """Whether only a word for a large number is behind it, as in 300K."""
    return cell.unit.base == "" and cell.unit != BARE


def _units(cells: Cells) -> tuple[tuple[Unit, int] | None, str]:
    """((the unit of the column, number of cells without one), "") or (None, which ones are mixed)."""
    bases, units = Counter[str](), Counter[Unit]()
    for _, cell, n in cells:
        bases[cell.unit.base] += n
        units[cell.unit] += n
    total = sum(bases.values())
    n_loose, n_bare = bases.pop("", 0), units[BARE]
    if n_loose >= MOSTLY * total:
        return (BARE, n_loose), ""
    base, n_base = bases.most_common(1)[0]
    fitting = n_base + (n_loose if is_money(base) else n_bare)
    if n_base < n_loose or fitting < MOSTLY * total:
        known = [name for name, _ in bases.most_common() if is_known(name)]
        if not known:
            return None, ""  # words with numbers before them
        names = [*known, *(name for name, _ in bases.most_common() if name not in known)][:2] + ["none"] * (n_loose > 0)
        return None, f"cannot be one number: its units are mixed ({', '.join(names)})"
    return (max((unit for unit in units if unit.base == base), key=lambda unit: units[unit]), n_bare), ""


def _mark(cells: Cells, money: bool, hint: str) -> tuple[str | None, str, str]:
    """(decimal mark, what was assumed for it, the mark that is shown beyond doubt); None: it cannot be told."""
    marks = Counter[str]()
    for _, cell, n in cells:
        marks[cell.mark] += n
    point, comma = marks["."], marks[","]
    shown = "." if point > comma else "," if comma else ""
    if not marks["?"]:
        return shown or ".", "", shown
    doubtful = [text for text, cell, _ in cells if cell.mark == "?"]
    if shown:
        if max(point, comma) >= MOSTLY * (point + comma):
            return shown, "", shown
        return "", f"{marks['?']} cells such as {doubtful[0]!r} could be either number and are taken as missing", ""
    dots = any("." in text for text in doubtful)
    if dots and any("," in text for text in doubtful):
        return None, f"cannot be one number: {doubtful[0]!r} has a decimal mark or one of thousands", ""
    if hint == "." and dots and not money:
        return hint, "", ""
    mark = _doubtful_mark("." if dots else ",", marks, cells, money, hint)
    seen, what = ("point", ".") if dots else ("comma", ",")
    return mark, f"the {seen} taken for {'the decimal mark' if mark == what else 'one of thousands'}", ""


def _doubtful_mark(seen: str, marks: Counter[str], cells: Cells, money: bool, hint: str) -> str:
    """The decimal mark where all that is seen is `seen`, once, before three digits."""
    if money:  # has two decimals, or none
        return OTHER[seen]
    if hint:
        return hint
    if seen == ",":
        return "."
    whole = [abs(cell.value(".")) for _, cell, _ in cells if cell.mark == ""]
    # 1.234 among 5 and 67, never 1.23: thousands; decimals would end with a zero now and then
    return "," if marks["?"] >= FEW and whole and max(whole) < 1000 else "."


def _bare(cells: Cells, unit: Unit, mark: str) -> tuple[float, str]:
    """(what a cell without a unit is worth in the unit, in words)."""
    loose = np.array([cell.value(mark) for _, cell, _ in cells if cell.unit == BARE])
    counted = np.array([cell.value(mark) for _, cell, _ in cells if cell.unit.base])
    if unit.base == "%" and np.nanmax(np.abs(loose)) <= 1 < np.nanmedian(np.abs(counted)):
        return 100.0, "as shares of 1"
    return 1.0, f"as {next(unit_name(text) for text, cell, _ in cells if cell.unit == unit)}"
