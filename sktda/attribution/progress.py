"""Progress of an attributor's fit for scikit-learn's callbacks: one task per pass, one subtask per shard or model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Progress:
    """Opens and closes the tasks of a fit as the passes over the rows begin; `end` closes what is open."""

    def __init__(self, estimator: Any, X: Any, y: Any) -> None:
        self._about = {"estimator": estimator, "X": X, "y": y}
        self._root = estimator._init_callback_context(max_subtasks=None)
        self._root.call_on_fit_task_begin(**self._about)
        self._open: list[Any] = []

    def begin(self, name: str, k: int = 0, total: int = 1) -> None:
        """Shard k of `total` of the pass `name` begins; what came before it has ended."""
        self._close(1 if k else 0)
        if not k:
            self._start(self._root, name, total)
        self._start(self._open[0], f"shard {k + 1}", 0)

    def each(self, name: str, found: Iterator[Any], total: int) -> Iterator[Any]:
        """What is found, one after the other, as the shards of a pass; by workers it may come from."""
        for k in range(total):
            self.begin(name, k, total)
            yield next(found)

    def _start(self, parent: Any, name: str, total: int) -> None:
        task = parent.subcontext(task_name=name, max_subtasks=total)
        task.call_on_fit_task_begin(**self._about)
        self._open.append(task)

    def _close(self, left: int) -> None:
        while len(self._open) > left:
            self._open.pop().call_on_fit_task_end(**self._about)

    def end(self) -> None:
        """The fit is done."""
        self._close(0)
        self._root.call_on_fit_task_end(**self._about)
