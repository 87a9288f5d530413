"""A table and its labels as they are judged: what was found about them is acted upon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sktda.findings import Finding, inspect, leak_positions
from sktda.tables.encoder import TableEncoder

if TYPE_CHECKING:
    import pandas as pd


def prepare(
    X: Any,
    y: Any,
    task: str,
    kinds: dict[Any, str] | None = None,
    rows: np.ndarray | None = None,
    text: Any = None,
) -> tuple[np.ndarray, TableEncoder, np.ndarray, list[Finding]]:
    """(features (n, p), the fitted encoder, labels with one spelling per class, findings) of a table.

    y: labels of the rows at the positions `rows`, of all if None. A column that gives the label away is no feature,
    unless it is the only one; values that stand for a missing one are taken as missing. Rows are compared in all
    columns but identifiers. Raises as `TableEncoder.fit`.
    """
    encoder, typed, labels, findings = learn(X, y, task, kinds, rows, text)
    return encoder._numbers(typed), encoder, labels, findings


def learn(
    X: Any,
    y: Any,
    task: str,
    kinds: dict[Any, str] | None = None,
    rows: np.ndarray | None = None,
    text: Any = None,
    *,
    names: np.ndarray | None = None,
    confirm: Callable[[TableEncoder, pd.DataFrame, list[Finding]], list[Finding]] | None = None,
) -> tuple[TableEncoder, pd.DataFrame, np.ndarray, list[Finding]]:
    """As `prepare`, with the typed columns in place of the features.

    names (n,): what findings call the rows, where X has some of many; confirm: which of the findings hold in all.
    """
    encoder = TableEncoder(kinds=kinds, text=text)
    typed = encoder._read(X)
    named = rows if names is None else names if rows is None else names[rows]
    labels, findings = inspect(typed if rows is None else typed.iloc[rows], y, task, rows=named)
    if confirm is not None:
        findings = confirm(encoder, typed, findings)
    leaking = [typed.columns[j] for j in leak_positions(findings)]
    if len(leaking) < typed.shape[1]:
        encoder._leave_out(leaking)
    for finding in findings:
        if finding.kind == "sentinel" and finding.positions:
            encoder._take_as_missing(finding, typed)
    origin = {name: j for j, read in enumerate(encoder._typed_names) for name in read}
    findings = [replace(each, positions=tuple(origin[typed.columns[j]] for j in each.positions)) for each in findings]
    encoder._learn(typed)
    return encoder, typed, labels, findings
