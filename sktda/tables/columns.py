"""What the cells of one column are: numbers, categories, dates, text, or nothing that compares rows."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pandas as pd

from sktda.tables.cells import Texts, Values, as_texts, zeros_in_front
from sktda.tables.clocks import Clock, learn_clocks
from sktda.tables.dates import DateFormat, learn_dates, without_end
from sktda.tables.numerals import MOSTLY, Numerals, learn, unit_name
from sktda.tables.pairs import Pair, learn_pairs

TRUTH = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"on", "off"})
MAX_CATEGORIES = 50
MAX_NUMBER = 1e100  # sums of squares stay finite
SAMPLE = 20_000  # different texts, from which it is learned how they are to be read
FEW_WORDS = 20  # different ones, which may stand among numbers
SENTENCE = 3  # words on average, from where on texts that recur are no names of categories
NO_SPACES = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]{4}")  # scripts that put none between words
LONG = re.compile(r"[+-]?\d{16,}|\+\d{10,}")  # numbers of things, or of telephones
NO_WORD = re.compile(r"[\W_]+")
KINDS = ("number", "category", "date", "text", "ignore")
LEFT_OUT = {
    "constant": "one value only",
    "identifier": "identifiers",
    "other": "neither numbers nor text",
    "leak": "they give the label away",
    "ignore": "as asked",
}


PLAIN, SHOWS_POINT, ANY_DATE = Numerals(), Numerals(shown="."), DateFormat()


class Column(NamedTuple):
    """What was made of a column: its kind, how it is used, and what a reader should know of it, or ""."""

    name: str
    kind: str
    how: str
    note: str = ""


@dataclass(frozen=True)
class Reader:
    """How the cells of a column are read; kind: number, category, boolean, date, text, or a key of LEFT_OUT.

    words: the texts among the numbers are kept, as categories; padded: zeros in front are, where all look like numbers.
    """

    kind: str
    numerals: Numerals | Clock = PLAIN
    pair: Pair | None = None
    dates: DateFormat = ANY_DATE
    words: bool = False
    padded: bool = False
    note: str = ""

    @property
    def is_used(self) -> bool:
        return self.kind not in LEFT_OUT

    def read(self, name: Any, cells: Values | Texts) -> tuple[pd.Series, ...]:
        """The column as it is meant: float64, datetime64 or text as categories; with `words` the two of them.

        Raises ValueError naming the row of a number that is infinite or beyond what can be compared.
        """
        if self.pair is not None:
            texts = as_texts(cells)
            both = [texts.take(values) for values in self.pair.read(texts.different)]
            return tuple(pd.Series(values, name=f"{name} ({i})") for i, values in enumerate(both, 1))
        if self.kind == "number":
            numbers = cells.take(self.numerals.read(cells.different)) if isinstance(cells, Texts) else cells.array
            numbers = numbers if numbers.dtype.kind == "f" else np.full(len(numbers), np.nan)
            _check_numbers(numbers, name)
            read = (pd.Series(numbers, name=name, copy=False),)
            return (*read, _words(name, as_texts(cells), numbers)) if self.words else read
        if self.kind == "date":
            dates = cells.take(self.dates.read(cells.different)) if isinstance(cells, Texts) else cells.array
            dates = dates if dates.dtype.kind == "M" else np.full(len(dates), "NaT", dtype="datetime64[us]")
            return (pd.Series(without_end(dates)[0], name=name, copy=False),)
        return (_categories(name, as_texts(cells)),)


def learn_column(column: pd.Series, cells: Values | Texts | None, kind: str | None = None, hint: str = "") -> Reader:
    """How a column of these cells is to be read; kind: one of KINDS, where it is known; hint: see `numerals.learn`.

    Raises ValueError where none of the cells is of the kind.
    """
    if kind in ("ignore", "category", "text"):
        return Reader(kind)
    if cells is None:
        if kind is not None:
            _refuse_kind(column.name, kind, "they are neither numbers, dates nor text")
        return Reader("other")
    if isinstance(cells, Values):
        return _of_values(cells, column, kind)
    if len(cells.different) + (cells.codes < 0).any() < 2 and kind is None:
        return Reader("constant")
    return _of_texts(cells, column.name, kind, hint)


def _of_values(cells: Values, column: pd.Series, kind: str | None) -> Reader:
    array = cells.array
    known = array[~(np.isnat(array) if array.dtype.kind == "M" else np.isnan(array))]
    if kind == "date" and array.dtype.kind == "f":
        if len(known):
            _refuse_kind(
                column.name, kind, f"they are numbers ({known[0]:.12g}), which pandas.to_datetime makes dates of"
            )
        return Reader(kind)
    if kind == "number" and array.dtype.kind == "M":
        _refuse_kind(column.name, kind, "they are dates")
    if kind is None:
        if len(known) and array.dtype.kind == "f" and _is_identifier(array, column):
            return Reader("identifier")
        if not len(known) or (len(known) == len(array) and (known == known[0]).all()):
            return Reader("constant")
    if array.dtype.kind == "M":
        return Reader("date", note=_said(column.name, without_end(array)[1]))
    return Reader("number", SHOWS_POINT if cells.shows_point else PLAIN)


def _of_texts(cells: Texts, name: object, kind: str | None, hint: str) -> Reader:
    texts, counts = cells.different, cells.counts
    if kind is None and LONG.fullmatch(texts[0]) and all(map(LONG.fullmatch, texts)):
        return Reader("identifier")  # as floats several would be one
    some = _sample(len(texts))
    sampled = [texts[i] for i in some]
    if kind is None and (zeros := zeros_in_front(sampled)):
        return Reader(
            "category" if len(texts) <= max(2, int(counts.sum()) / 2) else "identifier",
            padded=True,
            note=_said(name, f"{zeros!r} has zeros in front, so it is no number"),
        )
    number = _of_numbers(cells, sampled, counts[some], name, kind, hint) if kind != "date" else None
    if number is not None and number.kind:
        return number
    if kind in (None, "number") and (clock := learn_clocks(sampled)) is not None:
        return Reader("number", clock, note=_said(name, clock.note))
    if kind == "number":
        unread = np.isnan(PLAIN.read(sampled))
        if len(texts) and unread.all():
            _refuse_kind(name, kind, f"such as {texts[0]!r}")
        other = f"cells that are no plain numbers ({sampled[int(unread.argmax())]!r}) are taken as missing"
        return Reader("number", note=_said(name, other if len(texts) else ""))
    dates = learn_dates(sampled)
    if dates is not None or kind == "date":
        dates = dates or DateFormat()
        read = dates.read(sampled)
        unread = np.asarray(read.isna())
        never = without_end(np.repeat(read.to_numpy(), counts[some]))[1]
        other = ""
        if unread.any():
            example = sampled[int(unread.argmax())]
            other = f"{counts[some][unread].sum()} cells are no dates that can be read ({example!r}), taken as missing"
        return Reader("date", dates=dates, note=_said(name, dates.note, other, never))
    note = number.note if number is not None else ""
    lowered = {text.lower() for text in texts[:3]}
    if len(texts) == 2 and any(lowered == pair for pair in TRUTH):
        return Reader("boolean", note=note)
    if kind is None and len(texts) > MAX_CATEGORIES and (pair := learn_pairs(sampled)) is not None:
        return Reader("number", pair=pair, note=_said(name, pair.note))
    n_known = int(counts.sum())
    words = np.mean([1 + text.count(" ") for text in sampled])
    if len(texts) > max(2, n_known / 2):
        return Reader("text" if _are_sentences(sampled) else "identifier", note=note)
    return Reader("text" if len(texts) > MAX_CATEGORIES and words >= SENTENCE else "category", note=note)


def _of_numbers(
    cells: Texts, sampled: list[str], counts: np.ndarray, name: object, kind: str | None, hint: str
) -> Reader | None:
    """A Reader of kind "number", one of no kind that says why not, or None for mere words."""
    numerals, why = learn(sampled, counts, hint)
    if numerals is None:
        return Reader("", note=_said(name, why)) if why else None
    values = numerals.read(sampled)
    wrong = np.isnan(values)
    share = counts[~wrong].sum() / counts.sum()
    others = [text for text, is_wrong in zip(sampled, wrong, strict=True) if is_wrong]
    words = share < MOSTLY
    recurs = len(cells.different) <= max(2, cells.counts.sum() / 2)
    few = recurs and len(values) <= MAX_CATEGORIES  # names of categories, with numbers among them
    if words and kind is None and (share < 0.5 or few or len(others) > FEW_WORDS):
        return None
    notes = [numerals.note] if numerals.note else []
    if others:
        many = f"{counts[wrong].sum()} cells" if len(sampled) == len(cells.different) else "some cells"
        notes.append(f"{many} are no numbers ({others[0]!r}), " + ("a category" if words else "taken as missing"))
    if numerals.example:
        value = float(numerals.read([numerals.example])[0])
        notes.insert(0, f"{numerals.example!r} read as {value:.12g} {unit_name(numerals.example)}".rstrip(" ?"))
    found = Reader("number", numerals, words=words, note=_said(name, *notes))
    if kind is None and not numerals.unit.base and _counts_up_or_down(cells.take(numerals.read(cells.different))):
        return replace(found, kind="identifier", note="")
    return found


def _are_sentences(texts: list[str]) -> bool:
    """Whether texts that are nearly all different have words in common: sentences, names, tags."""
    if np.mean([any(map(str.isalpha, text)) for text in texts]) < 0.5:
        return False
    spaced = np.mean([any(map(str.isspace, text)) or NO_SPACES.search(text) is not None for text in texts])
    if spaced > 0.5:
        return True
    words = [set(filter(str.isalpha, NO_WORD.split(text.lower()))) for text in texts]
    counts = Counter(word for own in words for word in own)
    shared = {word for word, count in counts.items() if 2 <= count <= 0.8 * len(texts)}
    return bool(np.mean([len(own & shared) for own in words]) >= 1)


def _refuse_kind(name: object, kind: str, what: str) -> NoReturn:
    raise ValueError(
        f"kinds says {kind!r} of the column {name!r}, and none of its cells is one: {what}; make them so, or leave the "
        "column out of kinds"
    )


def _said(name: object, *notes: str) -> str:
    text = "; ".join(filter(None, notes))
    return f"column {name!r}: {text}" if text else ""


def _sample(n: int) -> np.ndarray:
    if n <= SAMPLE:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, SAMPLE, replace=False))


def _is_identifier(values: np.ndarray, column: pd.Series) -> bool:
    if np.nanmax(np.abs(values)) >= 2**53:
        text = column.dropna().astype(str).str.strip()
        return bool(
            np.mean([LONG.fullmatch(each) is not None for each in text]) >= MOSTLY and text.nunique() > len(text) / 2
        )
    return _counts_up_or_down(values)


def _counts_up_or_down(values: np.ndarray) -> bool:
    if len(values) <= 10 or np.isnan(values[0]):
        return False
    with np.errstate(invalid="ignore"):  # differences of infinities
        steps = np.diff(values)
    return bool(((steps > 0).all() or (steps < 0).all()) and (values == np.round(values)).all())


def _check_numbers(values: np.ndarray, name: object) -> None:
    beyond = np.abs(values) > MAX_NUMBER
    if beyond.any():
        row = int(beyond.argmax())
        what = "infinity" if np.isinf(values[row]) else f"{values[row]:g}, beyond what can be compared,"
        raise ValueError(
            f"column {name!r} holds {what} in row {row} (counted from 0); write a number or leave it empty"
        )


def _categories(name: Any, cells: Texts) -> pd.Series:
    return pd.Series(pd.Categorical.from_codes(cells.codes, pd.Index(cells.different, dtype=object)), name=name)


def _words(name: Any, cells: Texts, numbers: np.ndarray) -> pd.Series:
    """The texts that are no numbers, as categories of their own; numbers are no category."""
    used, codes = np.unique(np.where(np.isnan(numbers), cells.codes, -1), return_inverse=True)
    texts = [cells.different[i] for i in used if i >= 0]
    return _categories(f"{name} (words)", Texts(codes - (used[0] < 0), texts))
