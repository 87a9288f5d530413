"""Given and suggested labels as one set of classes, and the flagged rows counted per pair of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_CLASSES = 30  # a heat map of more is not readable; the commonest pairs are listed instead
MAX_PAIRS = 40


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of any kind as codes into one sorted list of classes (-1 = missing)."""

    classes: list[Any]
    given: np.ndarray
    suggested: np.ndarray

    @property
    def names(self) -> list[str]:
        return [label_text(c) for c in self.classes]


def label_text(label: Any) -> str:
    """A label as shown; one that is empty or blank would be invisible."""
    text = str(label)
    return text if text.strip() else f"(blank: {text!r})"


def encode(frame: Any) -> Labels:
    """Codes of frame's columns given_label and suggested_label; 1, 1.0 and True are one class."""
    import pandas as pd

    both = pd.concat([frame["given_label"].astype(object), frame["suggested_label"].astype(object)])
    codes, classes = pd.factorize(both)
    order = sorted(range(len(classes)), key=lambda i: _natural(classes[i]))
    rank = np.empty(len(classes) + 1, dtype=int)
    rank[order] = np.arange(len(classes))
    rank[-1] = -1
    codes = rank[codes]
    return Labels([classes[i] for i in order], codes[: len(frame)], codes[len(frame) :])


def _natural(label: Any) -> list[tuple]:
    """Sort key by which 2 comes before 10, in numbers and in text such as "class 2"."""
    if isinstance(label, int | float | np.number):
        return [(0, float(label), "")]
    parts = re.split(r"(\d+)", str(label))
    return [(0, float(part), "") if part.isdecimal() else (1, 0.0, part) for part in parts if part]


def flagged_pairs(labels: Labels, noisy: np.ndarray) -> list[dict]:
    """Pairs (given, suggested) with flagged rows, commonest first: codes, count and share of the given class."""
    both = np.column_stack([labels.given, labels.suggested])[noisy & (labels.suggested >= 0) & (labels.given >= 0)]
    pairs, counts = np.unique(both, axis=0, return_counts=True)
    sizes = np.bincount(labels.given[labels.given >= 0], minlength=len(labels.classes))
    rows = [
        {"given": int(g), "suggested": int(s), "count": int(k), "share": float(k / sizes[g])}
        for (g, s), k in zip(pairs, counts, strict=True)
    ]
    return sorted(rows, key=lambda row: -row["count"])


def heat_map(labels: Labels, noisy: np.ndarray) -> list[dict] | None:
    """One row per given class: name, rows, flagged share and its cells; None with more than MAX_CLASSES classes.

    A cell holds the share of the rows with that given label that are flagged with that suggestion, and its heat:
    the share relative to the largest one on the map.
    """
    names = labels.names
    if len(names) > MAX_CLASSES:
        return None
    pairs = {(row["given"], row["suggested"]): row for row in flagged_pairs(labels, noisy)}
    largest = max((row["share"] for row in pairs.values()), default=1.0)
    sizes = np.bincount(labels.given[labels.given >= 0], minlength=len(names))
    flagged = np.bincount(labels.given[noisy & (labels.given >= 0)], minlength=len(names))
    table = []
    for g, name in enumerate(names):
        cells = []
        for s in range(len(names)):
            pair = pairs.get((g, s), {"count": 0, "share": 0.0})
            cells.append({**pair, "heat": pair["share"] / largest, "same": g == s})
        share = flagged[g] / sizes[g] if sizes[g] else 0.0
        table.append({"name": name, "rows": int(sizes[g]), "flagged": int(flagged[g]), "share": share, "cells": cells})
    return table
