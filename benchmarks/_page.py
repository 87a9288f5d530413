"""What the sections of docs/benchmarks.md are made with: results read, the place they were measured at, tables."""

from __future__ import annotations

import json

from _common import RESULTS


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
