"""Cells of two numbers: coordinates, 120/80, 10-20, 1920 x 1080."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOSTLY = 0.95  # of the texts decide
NUMBER = r"[-+]?(?:0|[1-9]\d*)(?:\.\d+)?"  # no zeros in front
PAIR = re.compile(
    rf"(?:POINT ?)?[(\[]?\s*({NUMBER})(\s*[,;/x×]\s*|\s*-\s*|\s+to\s+|(?<=\d)\s+(?=[-\d]))({NUMBER})\s*[)\]]?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Pair:
    """note: how one of them was read."""

    note: str

    def read(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The first and the second numbers (n,) float64, NaN for what is no pair."""
        found = [PAIR.fullmatch(text) for text in texts]
        return [np.array([float(m[which]) if m else np.nan for m in found]) for which in (1, 3)]


def learn_pairs(texts: Sequence[str]) -> Pair | None:
    """How the different texts of a column write two numbers; None where hardly any does, or where they are no two.

    A dash is between the ends of a range. Spaces and commas are between coordinates, which have decimals: others could
    stand between thousands or the parts of a telephone's number.
    """
    found = [match for text in texts if (match := PAIR.fullmatch(text))]
    if len(found) < MOSTLY * len(texts):
        return None
    for match in found:
        between = match[2].strip()
        if between == "-" and float(match[1]) > float(match[3]):
            return None
        if between in ("", ",") and not ("." in match[1] and "." in match[3]):
            return None
    first = found[0]
    return Pair(f"{first[0]!r} read as two numbers, {float(first[1]):g} and {float(first[3]):g}")
