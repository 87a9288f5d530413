"""What an optimiser's parameter groups were set to while a training went on, where that changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

BY_STEP = "by_step"
"""Key of a described group under which are the values at every step, by hyperparameter, of those that changed."""


class StepSettings:
    """Hyperparameters of every group at every step but the rates, which are recorded by themselves."""

    def __init__(self) -> None:
        self._last: list[dict[str, Any]] = []
        self._changes: list[dict[str, list[tuple[int, Any]]]] = []  # by group and name: (step, value from there on)

    @classmethod
    def of(cls, groups: Sequence[Mapping[str, Any]], n_steps: int) -> StepSettings:
        """As it was after so many steps of a training whose groups are described so."""
        found = cls()
        for step in range(n_steps):
            found.note(step, at_step(groups, step))
        return found

    def note(self, step: int, groups: Sequence[Mapping[str, Any]]) -> None:
        """What a step was made with; step = those made before."""
        found = [settings(group) for group in groups]
        if found == self._last:
            return
        # groups may be added on the way
        self._changes += [{} for _ in range(len(found) - len(self._changes))]
        for group, known in zip(found, self._changes, strict=True):
            for name, value in group.items():
                if name not in {"lr", "initial_lr"} and (name not in known or known[name][-1][1] != value):
                    known.setdefault(name, []).append((step, value))
        self._last = found

    def described(self, group: int, n_steps: int) -> dict[str, dict[str, list[Any]]]:
        """What is added to the description of a group; nothing where nothing changed."""
        found = {}
        for name, entries in self._changes[group].items() if group < len(self._changes) else ():
            # one entry is no change: the description of the group has it
            if len(entries) > 1:
                stops = [step for step, _ in entries[1:]] + [n_steps]
                starts = [0, *stops[:-1]]
                found[name] = [
                    value
                    for (_, value), start, stop in zip(entries, starts, stops, strict=True)
                    for _ in range(start, stop)
                ]
        return {BY_STEP: found} if found else {}


def at_step(groups: Sequence[Mapping[str, Any]], step: int) -> list[dict[str, Any]]:
    """Described groups with the values that they had at a step."""
    return [{**group, **{name: values[step] for name, values in group.get(BY_STEP, {}).items()}} for group in groups]


def settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """Every hyperparameter of a group that is a number, or several."""
    return {key: _number(value) for key, value in group.items() if key != "params" and _is_number(value)}


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_number, value))
    return value is None or isinstance(value, int | float) or (isinstance(value, torch.Tensor) and value.numel() == 1)


def _number(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_number(part) for part in value]
    return value.item() if isinstance(value, torch.Tensor) else value
