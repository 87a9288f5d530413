"""record_run: the record of a training by any loop of torch, without changing it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
import torch
from skorch.utils import is_dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, default_collate

from sktda.model.batches import as_dataset
from sktda.model.contrastive import BatchLoss
from sktda.model.loop_losses import LossAtOutputs
from sktda.model.loop_parts import Listener, as_tensors, check_recordable, targets_in
from sktda.model.reading import count, take
from sktda.model.resuming import resumed
from sktda.model.run_record import Counted, Recording, described
from sktda.model.sampling import Draws, handing, watch
from sktda.model.settings import random_state_kept
from sktda.model.step_gradients import Part

Claim = Callable[[deque[np.ndarray], nn.Module, dict[str, Any]], tuple[np.ndarray | None, Any]]
"""From what was drawn, a module and the keywords that it was called with to (rows, targets) of that batch."""


class record_run:
    """Record the training that happens inside of ``with``, by whatever loop, without changing it.

    Every step of the optimiser is seen as it happens: its learning rates by group, momentum, what the gradient was
    scaled by (clipping, accumulation, a GradScaler), and which rows it came from. At every backward pass the gradient
    that reaches the module's outputs is compared with that of the criterion, so that a loop which trains with another
    loss, or on other rows, is noticed: methods that need the rates refuse such a record.

    Parameters
    ----------
    module : torch.nn.Module
        What is trained: the module whose outputs the criterion gets. Called as ``module(inputs)`` in the loop.
    criterion : torch.nn.Module
        The loss of the loop, as a module with reduction "mean" or "sum": ``nn.CrossEntropyLoss()`` where the loop uses
        ``F.cross_entropy``, or a model computes that by itself. The loop need not call it.
    optimizer : torch.optim.Optimizer
        The one that is stepped in the loop, of any parameters of the module.
    X : DataLoader, Dataset, array-like or dict of array-like
        What is trained on. A DataLoader that the loop goes through tells which rows every batch holds; with anything
        else the loop says so by `batch`.
    y : array-like, default=None
        Targets, where X does not hold them.
    n_checkpoints : int, default=6
        Checkpoints are taken after steps round(k n_steps / n_checkpoints), and of the final parameters.
    n_steps : int or None, default=None
        How many steps of the optimiser there will be: epochs times len(loader), without accumulation.
    every : int or None, default=None
        Take a checkpoint after every so many steps instead. With neither, after every pass through the DataLoader.
    steps : bool, default=False
        Also keep the learning rates and the rows of every step, and the initial parameters.
    optimizer_state : bool, default=False
        Also keep the optimiser's tensors (momentum buffers, Adam's moments) at every checkpoint.
    path : path-like or None, default=None
        A new or empty folder that checkpoints are written to as they come. None keeps them in memory.
    resume : Trajectory, path-like or None, default=None
        The record, or its folder, of the part of the training that came before: the run is continued in it (in the
        same folder, if it has one) from the checkpoint that has the module's present parameters; what was recorded
        after that one is dropped. Restore module and optimiser first. `steps` and `optimizer_state` as before.

    Attributes
    ----------
    trajectory_ : Trajectory
        After the loop, also where it broke out or raised.

    Raises
    ------
    ValueError
        When it starts: what cannot be recorded (LBFGS, several processes, a loop of unknown length), or continued.
    FileExistsError
        When it starts and the folder at `path` is not empty.

    Examples
    --------
    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from sktda import TorchModel, record_run
    >>> X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    >>> loader = DataLoader(TensorDataset(X, (X[:, 0] > 0).long()), batch_size=10, shuffle=True)
    >>> module, criterion = torch.nn.Linear(3, 2), torch.nn.CrossEntropyLoss()
    >>> optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    >>> with record_run(module, criterion, optimizer, loader, n_checkpoints=3, n_steps=24) as run:
    ...     for epoch in range(6):
    ...         for inputs, targets in loader:
    ...             optimizer.zero_grad()
    ...             criterion(module(inputs), targets).backward()
    ...             _ = optimizer.step()
    >>> run.trajectory_.steps.tolist()
    [8, 16, 24]
    >>> model = TorchModel(module, criterion, run.trajectory_)
    """

    def __init__(
        self,
        module,
        criterion,
        optimizer,
        X,
        y=None,
        *,
        n_checkpoints=6,
        n_steps=None,
        every=None,
        steps=False,
        optimizer_state=False,
        path=None,
        resume=None,
    ):
        if every is None and n_steps is None and isinstance(X, DataLoader):
            every = "pass"
        for name, value in {"n_checkpoints": n_checkpoints, "n_steps": n_steps, "every": every}.items():
            whole = isinstance(value, Integral) and not isinstance(value, bool) and value >= 1
            if not whole and (name == "n_checkpoints" or value not in {None, "pass"}):
                raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
        if every is None and n_steps is None:
            raise ValueError(
                "when to take checkpoints is not known: give n_steps (steps of the optimiser in all) or every, or a "
                "DataLoader, after each pass of which one is taken"
            )
        check_recordable(module, optimizer)
        self.module = module
        self.optimizer = optimizer
        self.loss = LossAtOutputs(criterion)
        self.loader = X if isinstance(X, DataLoader) else None
        self.X, self.y = (as_dataset(X.dataset), None) if isinstance(X, DataLoader) else (X, y)
        self.n_checkpoints, self.n_steps, self.every = n_checkpoints, n_steps, every
        self.steps = steps
        self.optimizer_state = optimizer_state
        self.path = path
        self.resume = resume
        self._handles: list[Any] = []
        self._undo: list[Callable[[], None]] = []
        self._rows: np.ndarray | None = None
        self._batch_targets: Any = None

    # ---- the loop's side -------------------------------------------------------------------------------------------

    def __enter__(self) -> record_run:
        self.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.finish()

    def batch(self, indices: Any, y: Any = None) -> None:
        """Say that what the module gets next are the rows at these positions of X (with these targets, else X's own).

        Once per batch, before the forward pass; not needed where X is the DataLoader that the loop goes through.
        """
        self._check_running()
        rows = np.atleast_1d(np.asarray(indices.cpu() if isinstance(indices, Tensor) else indices))
        if rows.dtype == bool or rows.dtype.kind not in "iu" or rows.ndim != 1 or not len(rows):
            raise ValueError(f"indices must be the positions of rows in X, got {rows.dtype} of shape {rows.shape}")
        n = len(self.X) if is_dataset(self.X) else count(self.X)
        if rows.min() < 0 or rows.max() >= n:
            raise ValueError(
                f"indices must be the positions of rows in X, 0 to {n - 1}, got {rows.min()}..{rows.max()}"
            )
        self.next_batch(rows, self.targets(rows) if y is None else y)

    def __getattr__(self, name: str) -> Any:
        if name == "trajectory_":
            raise AttributeError(
                "there is no trajectory_: the loop has not ended, or the optimizer given to record_run made no step in "
                "it (another optimizer, updates by hand), or rows of a step were lost"
            )
        raise AttributeError(f"'record_run' object has no attribute {name!r}")

    # ---- what callbacks use ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to record."""
        self.begin()
        if self.loader is not None:
            self._undo.append(handing(self.loader, self._pass_begins, self._handed, self.pass_is_over))
            self._follow(self.loader, lambda: self._draws.now)

    def follow(self, loader: Any) -> None:
        """Note which rows a DataLoader draws from now on, for `next_drawn`."""
        self._follow(loader, self._draws.begin)

    def _follow(self, loader: Any, drawn: Callable[[], deque[np.ndarray]]) -> None:
        if self.steps or not isinstance(loader.dataset, IterableDataset):
            self._undo.append(watch(getattr(loader, "base_dataloader", loader), drawn))

    def plan(self, n_steps: int | None) -> None:
        """So many steps there will be in all; None = nobody knows."""
        self.every = "pass" if n_steps is None else None
        self.run.plan(None if n_steps is None else n_steps / self.n_checkpoints)

    def next_batch(self, rows: np.ndarray | None, targets: Any) -> None:
        """What the module gets next."""
        self._rows, self._batch_targets = rows, targets
        self.run.gradients.follow(self.optimizer)

    def next_drawn(self, batch: Any) -> None:
        """The module gets next what was drawn first, of what it did not get yet."""
        self._handed(self._draws.now, batch)

    def targets(self, rows: np.ndarray) -> Any:
        """Of the rows at these positions of X; None where it has none."""
        if self.y is not None:
            return take(self.y, rows)
        if not is_dataset(self.X):
            return None
        collate = default_collate if self.loader is None else self.loader.collate_fn
        with random_state_kept():
            return targets_in(collate([self.X[int(row)] for row in rows]))

    def checkpoint(self) -> None:
        """Take one now."""
        taken = len(self.run.taken)
        self.run.checkpoint(self.module, self.optimizer, self.optimizer_state)
        if len(self.run.taken) > taken:
            self.run.write_index()  # at each, so that a run that is killed can be resumed

    def finish(self) -> None:
        """The present parameters are the last checkpoint; everything is as before."""
        if not hasattr(self, "run"):
            return
        for handle in self._handles:
            handle.remove()
        for undo in self._undo:
            undo()
        run = self.run
        run.release()
        self._handles, self._undo = [], []
        self._rows = self._batch_targets = None
        if run.steps and not run.lost:
            self.checkpoint()
            self.trajectory_ = run.trajectory()

    # ---- inside ----------------------------------------------------------------------------------------------------

    def begin(self, claim: Claim | None = None) -> None:
        """Watch module and optimiser; which rows the module gets is said by `claim`, `next_batch` or `next_drawn`."""
        if hasattr(self, "run"):
            raise ValueError("record_run records one run; make another one, with resume=run.trajectory_ to continue")
        about = described(type(self.optimizer).__name__, *Counted.given(self.X, self.y))
        if self.resume is None:
            run = Recording(self.path, self.steps, by_parts=True)
        else:
            run = resumed(self.resume, self.path, self.module, self.optimizer, self.steps)
        spacing = None if self.every is not None else self.n_steps / self.n_checkpoints
        run.start(self.module, self.optimizer, about, spacing)
        run.gradients.total, run.meet = self.loss.total, isinstance(self.loss.criterion, BatchLoss)
        self.run = run
        self._draws, self._claim = Draws(), claim
        self._handles = [
            self.module.register_forward_hook(Listener(self._called), with_kwargs=True),
            self.optimizer.register_step_post_hook(self._stepped),  # after that of the recording
        ]
        run.gradients.follow(self.optimizer)

    def _check_running(self) -> None:
        if not hasattr(self, "run") or not self._handles:
            raise ValueError("nothing is recorded: use it inside of `with record_run(...) as run:`")

    def _pass_begins(self) -> deque[np.ndarray]:
        self.pass_is_over()  # one that was given up
        return self._draws.begin()

    def _handed(self, drawn: deque[np.ndarray], batch: Any) -> None:
        self.next_batch(drawn.popleft() if drawn else None, targets_in(batch))

    def pass_is_over(self) -> None:
        """Take a checkpoint if passes are what they are taken after."""
        if self.every == "pass":
            self.checkpoint()

    def _called(self, module: nn.Module, arguments: tuple, keywords: dict[str, Any], output: Any) -> None:
        # a loop may also evaluate: such passes train nothing
        if not torch.is_grad_enabled():
            return
        outputs = self.loss.outputs(output)
        if outputs is None:
            return
        rows, targets = self._rows, self._batch_targets
        if self._claim is not None:
            rows, targets = self._claim(self._draws.now, module, keywords)
        targets = as_tensors(targets)
        call = object()

        def seen(gradient: Any) -> None:
            value, rest = self.loss.compare(outputs, gradient, targets)
            size, rounding = self.loss.size(outputs, targets), self.loss.rounding(gradient)
            self.run.gradients.passed(call, Part(value, size, rest, rounding, rows))

        self.loss.watch(outputs, seen)

    def _stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        run = self.run
        run.batches += 1  # the spacing counts steps here
        run.gradients.follow(optimizer)
        if run.due() or (isinstance(self.every, int) and run.steps % self.every == 0):
            self.checkpoint()
