"""Features and labels as they are judged: what was found about them is acted upon, and said."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sktda.cli.columns import encode, read_columns
from sktda.findings import Finding, inspect, leak_positions, merge_spellings, without_leaks

LEFT_OUT = "it was left out of the features"
ONLY_FEATURE = "it stays, as there is no other feature"


class Column(NamedTuple):
    """What was made of a column."""

    name: str
    kind: str
    how: str
    note: str = ""


def of_table(
    cells: pd.DataFrame, given: pd.Series, task: str, kinds: dict[Any, str] | None = None
) -> tuple[np.ndarray, list[Finding], list[str], list[Column]]:
    """(features (n, p), findings, notes, what was made of each column) of the columns beside the labels.

    kinds: columns that a user says to ignore, or to take as category.

    A column that gives the label away is no feature, unless it is the only one; sentinels are taken as missing.
    Rows are compared in all columns but identifiers. Raises ValueError if no column can be used.
    """
    kinds = kinds or {}
    names = list(cells)
    ignored = [name for name, kind in kinds.items() if kind == "ignore"]
    typed, comparable, notes = read_columns(cells.drop(columns=ignored))
    for name, kind in kinds.items():
        if kind == "category":
            typed[name] = cells[name].astype(object).where(cells[name].notna(), np.nan)
    _, findings = inspect(pd.concat([typed, comparable], axis=1), given.to_numpy(), task)
    leaking = [typed.columns[j] for j in leak_positions(findings) if j < typed.shape[1]]
    stays = len(leaking) == typed.shape[1]
    for finding in findings:
        if finding.kind == "sentinel" and finding.positions:
            typed.iloc[finding.rows, finding.positions[0]] = np.nan
    typed = typed if stays else typed.drop(columns=leaking)
    actions = {"leak": ONLY_FEATURE if stays else LEFT_OUT, "sentinel": "it was taken as missing"}
    made = [
        Column(str(name), "left out", "left out")
        if name not in typed
        else Column(str(name), "number" if typed[name].dtype == float else "category", "used")
        for name in names
    ]
    return encode(typed), findings, _notes(findings, actions) + notes, made


def of_arrays(X: Any, given: pd.Series, task: str) -> tuple[Any, list[Finding], list[str]]:
    """(features, findings, notes) of features that are numbers already: pixels, embeddings, arrays."""
    _, findings = inspect(X, given.to_numpy(), task)
    kept = without_leaks(X, findings)
    return kept, findings, _notes(findings, {"leak": ONLY_FEATURE if kept is X else LEFT_OUT})


def one_spelling(given: pd.Series, features: Any = None) -> pd.Series:
    """The labels with one spelling per class, in their type; see `sktda.findings.merge_spellings`."""
    merged, findings = merge_spellings(given.to_numpy(), features)
    return pd.Series(merged, index=given.index, name=given.name, dtype=given.dtype) if findings else given


def _notes(findings: list[Finding], actions: dict[str, str]) -> list[str]:
    done = [actions.get(f.kind) if f.positions else None for f in findings]  # nothing is done about labels
    return [f.message + (f"; {what}" if what else "") for f, what in zip(findings, done, strict=True)]
