"""Copies and strange rows, as columns of the scores, findings and notes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from sktda.alike import Alike
    from sktda.findings import Finding


def compared(X: Any, judged: pd.Series, task: str) -> tuple[Alike, list[Finding], list[str]]:
    """(what `sktda.alike.compare_rows` finds, its findings, notes) of the rows with these labels."""
    from sktda.alike import MOST_ROWS, compare_rows

    alike = compare_rows(X)
    codes = None if task == "regression" else pd.factorize(judged)[0]
    findings = alike.findings(codes)
    notes = [f"{finding.message}; nothing was done about that" for finding in findings]
    if not alike.is_compared and len(judged) > MOST_ROWS:
        notes.append(f"more than {MOST_ROWS:,} different rows: near duplicates and outliers were not looked for")
    return alike, findings, notes


def columns_of(alike: Alike) -> dict[str, Any]:
    """The columns that the scores have of it: numbers of rows, counted from 0, and empty for none."""
    numbers = {
        name: pd.array(np.where(first < 0, 0, first), dtype="Int64")
        for name, first in (("duplicate_of", alike.duplicate_of), ("near_duplicate_of", alike.near_duplicate_of))
    }
    for name, column in numbers.items():
        column[getattr(alike, name) < 0] = pd.NA
    return {**numbers, "outlier": alike.is_outlier}


def among(rows: np.ndarray, finding: Finding) -> Finding:
    """The finding with positions among these rows (ascending) in place of those in the data."""
    detail = dict(finding.detail)
    if finding.kind in ("duplicate", "near_duplicate", "outlier"):  # found among all rows, with a label or without
        known = np.isin(finding.rows, rows) & np.isin(detail.get("of", finding.rows), rows)
        finding = replace(finding, rows=finding.rows[known])
        detail = {name: value[known] for name, value in detail.items()}
    if "of" in detail:
        detail["of"] = np.searchsorted(rows, detail["of"])
    if "groups" in detail:
        detail["groups"] = [np.searchsorted(rows, group) for group in detail["groups"]]
    return replace(finding, rows=np.searchsorted(rows, finding.rows), detail=detail)


def from_among(rows: np.ndarray, finding: Finding) -> Finding:
    """The finding about some of the rows, by their positions (k,) among all."""
    detail = dict(finding.detail)
    if "of" in detail:
        detail["of"] = rows[detail["of"]]
    return replace(finding, rows=rows[finding.rows], detail=detail)
