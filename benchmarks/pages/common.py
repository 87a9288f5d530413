"""What the pages of docs/benchmarks/ are made with: results, choices from them, where measured, a table."""

from __future__ import annotations

import json

import numpy as np
from shared.common import RESULTS

Rows = list[dict]


def read(name: str) -> tuple[dict, list[dict]]:
    """(environment, rows) of benchmarks/results/NAME.json."""
    content = json.loads((RESULTS / f"{name}.json").read_text())
    return content["environment"], content["rows"]


def where(environment: dict) -> str:
    """One sentence."""
    versions = ", ".join(f"{k} {value}" for k, value in environment.items() if k not in {"processor", "threads"})
    threads = "one thread" if environment.get("threads", 2) == 1 else "two threads"
    return f"Measured on {environment['processor']} ({threads}); {versions}."


def table(head: list[str], body: list[list[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def found(name: str) -> tuple[dict, Rows]:
    """As `read`, with no rows where it was not run."""
    return read(name) if (RESULTS / f"{name}.json").exists() else ({}, [])


def distinct(rows: Rows, *names: str) -> list[tuple]:
    """Values of these keys, each once, in the order they come."""
    return list(dict.fromkeys(tuple(row[name] for name in names) for row in rows))


def chosen(rows: Rows, **values: object) -> Rows:
    """Rows with these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in values.items())]


def over_seeds(rows: Rows, name: str, digits: int = 3) -> str:
    """Mean ± standard deviation."""
    values = [row[name] for row in rows if name in row]
    if not values:
        return "–"
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def middle(rows: Rows, name: str) -> float:
    """Median."""
    return float(np.median([row[name] for row in rows]))


def mean(rows: Rows, name: str) -> float:
    """Of the rows that have it."""
    return float(np.mean([row[name] for row in rows if row.get(name) is not None]))


def band(rows: Rows, name: str) -> float | tuple[float, float, float]:
    """(mean, mean minus, mean plus the standard deviation); the mean alone where there is one row."""
    values = [row[name] for row in rows if row.get(name) is not None]
    middle = float(np.mean(values))
    if len(values) < 2:
        return middle
    spread = float(np.std(values, ddof=1))
    return middle, middle - spread, middle + spread


def n_seeds(rows: Rows) -> int:
    """How many."""
    return len(distinct(rows, "seed"))
