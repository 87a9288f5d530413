"""Rows to review as tasks of Label Studio, and its export.

Tasks are its "JSON format for pre-annotations" (labelstud.io/guide/predictions), the export is its "JSON format of
annotated tasks" (labelstud.io/guide/task_format), and the configuration has the tags Table, Text, Image, Choices and
Number (labelstud.io/tags).
"""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import quoteattr

from sktda.review.items import DROP, Answer, Item, classes_of, items, kind_of
from sktda.review.page import Review

TAGS = {"image": "Image", "cells": "Table", "text": "Text"}


def configuration(review: Review) -> str:
    """The labeling configuration, as XML: the row, its given label, and what may be chosen."""
    kind, classes = kind_of(review), classes_of(review)
    if classes:
        choices = "\n".join(f"    <Choice value={_attribute(label)}/>" for label in classes)
        question = f'<Choices name="label" toName="row" choice="single-radio">\n{choices}\n  </Choices>'
    else:
        question = '<Number name="value" toName="row"/>'
    return f"""<View>
  <Header value="Given label"/>
  <Text name="given" value="$given_label_shown"/>
  <{TAGS[kind]} name="row" value="${kind}"/>
  {question}
  <Choices name="decision" toName="row" choice="multiple">
    <Choice value="{DROP}"/>
  </Choices>
</View>
"""


def _attribute(text: str) -> str:
    return quoteattr(text, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def tasks(review: Review) -> list[dict[str, Any]]:
    """One task per row that is left to decide about, the worst first, with the suggested label as prediction.

    The score of a prediction grows with how likely the given label is wrong.
    """
    return [_task(item, kind_of(review), review.task == "regression") for item in items(review)]


def _task(item: Item, kind: str, regression: bool) -> dict[str, Any]:
    value: dict[str, Any] = {"number": float(item.suggested)} if regression else {"choices": [item.suggested]}
    name = "value" if regression else "label"
    answer = {"id": name, "from_name": name, "to_name": "row", "type": next(iter(value)), "value": value}
    return {
        "data": {**item.about, "given_label_shown": item.shown, kind: getattr(item, kind)},
        "predictions": [{"model_version": "sktda", "score": item.score, "result": [answer]}],
    }


def is_export(entry: dict[str, Any]) -> bool:
    """Whether this is a task as `tasks` made it, with or without answers."""
    data = entry.get("data")
    return isinstance(data, dict) and {"row", "given_label"} <= data.keys()


def answers(entry: dict[str, Any]) -> list[Answer]:
    """What people said of the row of a task; nothing of those who skipped it."""
    row, given = int(entry["data"]["row"]), str(entry["data"]["given_label"])
    found = []
    for annotation in entry.get("annotations") or ():
        if annotation.get("was_cancelled"):
            continue
        said = {result.get("from_name"): result.get("value", {}) for result in annotation.get("result") or ()}
        label = next(iter(said.get("label", {}).get("choices", [])), None)
        number = said.get("value", {}).get("number")
        drop = DROP in said.get("decision", {}).get("choices", [])
        if drop or label is not None or number is not None:
            found.append(Answer(row, given, label, None if number is None else str(number), drop))
    return found
