"""Rows to review as records of Argilla 2, and its export.

Records are what `dataset.records.from_json` reads and `dataset.records.to_json` writes, settings what
`rg.Settings.from_json` reads (docs.argilla.io, "Import and export datasets").
"""

from __future__ import annotations

from typing import Any

from sktda.review.items import DROP, Answer, Item, classes_of, items, kind_of
from sktda.review.page import Review

SKIP = "skip"


def settings(review: Review) -> dict[str, Any]:
    """Fields, questions and metadata of a dataset for `records`."""
    classes = classes_of(review)
    label = _choice("label", "Right label", {name: name for name in classes}) if classes else _NUMBER
    shown = {"type": "image"} if kind_of(review) == "image" else {"type": "text", "use_markdown": False}
    fields = [_field("content", "Row", shown), _field("given", "Given label", {"type": "text", "use_markdown": False})]
    metadata = [
        {"name": name, "title": name, "settings": {"type": kind, "visible_for_annotators": True}}
        for name, kind in {
            "row": "integer",
            "row_name": "terms",
            "given_label": "terms",
            "suggested_label": "terms",
            "label_quality": "float",
        }.items()
    ]
    decision = _choice("decision", "Or", {DROP: "drop the row", SKIP: "leave it to the tool"}, required=False)
    return {
        "guidelines": "Choose the right label of each row; the suggestion is what similar rows say.",
        "fields": fields,
        "questions": [label, decision],
        "metadata": metadata,
        "vectors": [],
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
    }


def _field(name: str, title: str, kind: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "title": title, "required": True, "settings": kind}


def _choice(name: str, title: str, options: dict[str, str], required: bool = True) -> dict[str, Any]:
    listed = [{"value": value, "text": text} for value, text in options.items()]
    return {
        "name": name,
        "title": title,
        "required": required,
        "settings": {"type": "label_selection", "options": listed},
    }


_NUMBER = {
    "name": "value",
    "title": "Right value",
    "required": True,
    "settings": {"type": "text", "use_markdown": False},
}


def records(review: Review) -> list[dict[str, Any]]:
    """One record per row that is left to decide about, the worst first, with the suggested label as suggestion.

    The score of a suggestion grows with how likely the given label is wrong.
    """
    question = "value" if review.task == "regression" else "label"
    return [_record(item, question) for item in items(review)]


def _record(item: Item, question: str) -> dict[str, Any]:
    content = item.image or item.text
    if item.cells is not None:
        content = "\n".join(f"{name}: {value}" for name, value in item.cells.items())
    return {
        "id": str(item.row),
        "fields": {"content": content, "given": item.shown},
        "metadata": item.about,
        "suggestions": {question: {"value": item.suggested, "score": item.score, "agent": "sktda"}},
        "responses": {},
        "vectors": {},
    }


def is_export(entry: dict[str, Any]) -> bool:
    """Whether this is a record as `records` made it, with or without answers."""
    metadata = entry.get("metadata")
    return "fields" in entry and isinstance(metadata, dict) and {"row", "given_label"} <= metadata.keys()


def answers(entry: dict[str, Any]) -> list[Answer]:
    """What people said of the row of a record, by person; nothing of those who left it to the tool."""
    row, given = int(entry["metadata"]["row"]), str(entry["metadata"]["given_label"])
    said: dict[Any, dict[str, str]] = {}
    for question, responses in (entry.get("responses") or {}).items():
        for response in responses:
            said.setdefault(response.get("user_id"), {})[question] = str(response["value"])
    found = []
    for by_question in said.values():
        label, number, decision = map(by_question.get, ("label", "value", "decision"))
        if decision == DROP or (decision != SKIP and (label is not None or number is not None)):
            found.append(Answer(row, given, label, number, decision == DROP))
    return found
