"""What is said of models that cannot be read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NoReturn


def refuse_loss(model: Any, loss: Any, allowed: Collection[Any]) -> None:
    """ValueError unless the loss is one of those allowed."""
    if loss not in allowed:
        raise ValueError(
            f"{type(model).__name__} was trained with the loss {loss!r}, of which the trees are not read; allowed are "
            f"{', '.join(map(repr, sorted(allowed)))}"
        )


def refuse_option(model: Any, option: str, why: str, remedy: str = "leave it out") -> NoReturn:
    """ValueError that names an option in force."""
    raise ValueError(
        f"{type(model).__name__} was trained with {option}, and {why}; {remedy} in the model that scores the rows (the "
        "final one may keep it)"
    )
