"""Where the rows are in a JSON file that is one object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 3  # objects around the rows


def rows_within(text: str, at: int, name: str) -> tuple[int, str] | None:
    """(where the array of the rows begins, its keys with points between) in the object at `at`; None if more follows.

    Raises json.JSONDecodeError for what is no JSON, and ValueError where no array of objects is in it, or several are.
    """
    whole, end = json.JSONDecoder().raw_decode(text, at)
    if text[end:].strip():
        return None
    found = list(_arrays(text, at, ()))
    nearest = min((key.count(".") for _, key, _ in found), default=0)
    found = [each for each in found if each[1].count(".") == nearest]
    objects = [(start, key) for start, key, of_objects in found if of_objects]
    if len(objects) == 1 == len(found):
        return objects[0]
    keys = ", ".join(repr(key) for _, key, _ in found)
    cells = list(whole.values())
    if (cells and all(isinstance(cell, dict) for cell in cells)) or {"columns", "data"} <= set(whole):
        raise ValueError(
            f"{name} is one object of columns or rows, as pandas writes it by default; write it with "
            "to_json(orient='records')"
        )
    if not found:
        raise ValueError(f"{name} is one object, and no array of objects is in it; at least two objects are needed")
    if not objects:
        raise ValueError(f"the rows of {name} are arrays without names ({keys}); write an array of objects, or CSV")
    raise ValueError(f"{name} has several arrays: {keys}; write the one that is meant into a file")


def _arrays(text: str, at: int, above: tuple[str, ...]) -> Iterator[tuple[int, str, bool]]:
    """Yields (where it begins, its keys with points between, whether it is one of objects) of arrays of rows."""
    for key, value, start in _members(text, at):
        path = (*above, key)
        if isinstance(value, list) and len(value) > 1:
            for kind in (dict, list):
                if all(isinstance(each, kind) for each in value):
                    yield start, ".".join(path), kind is dict
        elif isinstance(value, dict) and len(path) < MAX_DEPTH:
            yield from _arrays(text, start, path)


def _members(text: str, at: int) -> Iterator[tuple[str, Any, int]]:
    """(key, value, where the value begins) of an object that is known to be whole."""
    decoder = json.JSONDecoder()
    at = next_of(text, at + 1)
    while text[at] != "}":
        key, at = decoder.raw_decode(text, at)
        start = next_of(text, next_of(text, at) + 1)
        value, end = decoder.raw_decode(text, start)
        yield key, value, start
        at = next_of(text, end)
        at = next_of(text, at + 1) if text[at] == "," else at


def next_of(text: str, at: int) -> int:
    """The position of the next character that is no space."""
    while text[at : at + 1].isspace():
        at += 1
    return at
