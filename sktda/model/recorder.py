"""TrajectoryRecorder: a skorch callback that records a training without changing it."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any

import torch
from skorch.callbacks import Callback
from skorch.dataset import get_len

from sktda.model.checkpoints import FolderStore
from sktda.model.run_record import Recording, described
from sktda.model.sampling import Tap, remove_taps
from sktda.model.settings import random_state_kept
from sktda.model.trajectory import Trajectory
from sktda.model.trajectory_files import write_index


class TrajectoryRecorder(Callback):
    """Record the training of a skorch net: checkpoints, learning rates, and the rows that were trained on.

    Recorded and unrecorded training give the same parameters, bit for bit. Before the first step the training data
    are read once, to recognise their rows later. Where the optimiser gets other gradients than those of the loss
    (clipped, scaled, accumulated over batches), the rates that are recorded are those that moved the parameters. To see
    that costs 50 to 90 microseconds a step and 3 for each parameter: up to a sixth of a training of tiny nets on tiny
    batches, a few percent of others.

    Parameters
    ----------
    n_checkpoints : int, default=6
        Checkpoints are taken after steps round(k T / n_checkpoints), T = epochs times batches per epoch, the last one
        being the final parameters whenever training ends: earlier, there are fewer; later, the spacing goes on.
    every : int or None, default=None
        Take a checkpoint after every so many epochs instead (and of the final parameters); n_checkpoints is then not
        used.
    steps : bool, default=False
        Also keep the learning rate and the rows of the batch of every step, and the initial parameters.
    optimizer_state : bool, default=False
        Also keep the optimiser's tensors (momentum buffers, Adam's moments) at every checkpoint.
    path : path-like or None, default=None
        A new or empty folder that checkpoints are written to as they come, and read from one at a time. None keeps
        them in memory, on the processor.

    Attributes
    ----------
    trajectory_ : Trajectory
        After training.

    Raises
    ------
    ValueError
        When training starts: a net of several modules or optimisers, a training loop that makes several optimiser
        steps per batch (or with steps=True none), data whose rows cannot be followed.
    FileExistsError
        When training starts and the folder at `path` is not empty.

    Notes
    -----
    `fit` starts a new trajectory; `partial_fit`, or `fit` with warm_start, continues it and adds n_checkpoints more,
    on the same rows (other rows are refused: a trajectory is of one data set).

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skorch import NeuralNetClassifier
    >>> from sktda.model.recorder import TrajectoryRecorder
    >>> X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Linear, module__in_features=3, module__out_features=2, criterion=torch.nn.CrossEntropyLoss,
    ...     max_epochs=6, batch_size=10, train_split=None, verbose=0, callbacks=[TrajectoryRecorder(n_checkpoints=3)])
    >>> trajectory = net.fit(X, (X[:, 0] > 0).astype(int)).callbacks_[-2][1].trajectory_
    >>> trajectory.steps.tolist()
    [8, 16, 24]
    """

    def __init__(self, n_checkpoints=6, every=None, steps=False, optimizer_state=False, path=None):
        self.n_checkpoints = n_checkpoints
        self.every = every
        self.steps = steps
        self.optimizer_state = optimizer_state
        self.path = path

    def initialize(self):
        """Forget the last training; skorch calls this when a net is initialised."""
        for name in ("n_checkpoints", "every"):
            value = getattr(self, name)
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if not (whole and value >= 1) and not (name == "every" and value is None):
                raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
        for name in ("run_", "trajectory_"):
            vars(self).pop(name, None)
        return self

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Check the net, and watch the training DataLoader that is made next."""
        _check_net(net)
        if not hasattr(self, "run_"):
            self.run_ = Recording(self.path, self.steps)
        self.run_.begin(X, y)
        if self.run_.with_steps:
            net.iterator_train = Tap(net.iterator_train, self.run_.drawn)

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        """Before the first epoch: which rows, which model, how many steps."""
        if not hasattr(self, "run_"):
            raise ValueError("TrajectoryRecorder saw no start of training; call fit or partial_fit, not fit_loop")
        remove_taps(net)
        run = self.run_
        run.drawn.clear()
        if not run.pending:
            return
        spacing = None
        if self.every is None:
            spacing = net.max_epochs * _batches(net, dataset_train) / self.n_checkpoints
        run.start(
            net.module_, net.optimizer_, described(type(net.optimizer_).__name__, dataset_train, *run.data), spacing
        )
        run.gradients.attach(net.criterion_)

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Which rows come next."""
        if training:
            n = get_len(batch[0]) if isinstance(batch, tuple | list) else get_len(batch)
            self.run_.next_batch(n, net.optimizer_)

    def on_batch_end(self, net, batch=None, training=False, loss=None, **kwargs):
        """Take a checkpoint if one is due."""
        if training:
            self.run_.end_batch(loss)
            if self.run_.due():
                self.run_.checkpoint(net.module_, net.optimizer_, self.optimizer_state)

    def on_epoch_end(self, net, **kwargs):
        """Take a checkpoint if one is due."""
        self.run_.epochs += 1
        if self.every is not None and self.run_.epochs % self.every == 0:
            self.run_.checkpoint(net.module_, net.optimizer_, self.optimizer_state)

    def on_train_end(self, net, **kwargs):
        """The final parameters are the last checkpoint, however training ended."""
        remove_taps(net)
        run = self.run_
        run.release()
        if run.steps:
            run.checkpoint(net.module_, net.optimizer_, self.optimizer_state)
            self.trajectory_ = run.trajectory()
            if isinstance(run.store, FolderStore):
                write_index(self.trajectory_, run.store.folder)


def find_trajectory(net: Any) -> Trajectory | None:
    """The trajectory that a TrajectoryRecorder among the callbacks of a fitted net has recorded, or None.

    Raises ValueError if the net's parameters are not those at the end of it (see `Trajectory.check_final`).
    """
    for _, callback in getattr(net, "callbacks_", []):
        if isinstance(callback, TrajectoryRecorder) and hasattr(callback, "trajectory_"):
            trajectory: Trajectory = callback.trajectory_
            trajectory.check_final(net.module_)
            return trajectory
    return None


def _check_net(net: Any) -> None:
    for kind, names, single in (("modules", net._modules, "module"), ("optimisers", net._optimizers, "optimizer")):
        if list(names) != [single]:
            raise ValueError(
                f"TrajectoryRecorder records one module trained by one optimiser, but the net has the {kind} "
                f"{', '.join(names) or 'none'}; train the model to be explained in a net of its own"
            )
    optimizer = getattr(net, "optimizer_", None)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            f"TrajectoryRecorder needs a torch.optim.Optimizer, but net.optimizer_ is {type(optimizer).__name__} "
            "(trim_for_prediction removes it); train an untrimmed net"
        )


def _batches(net: Any, dataset: Any) -> int:
    """Batches per epoch, from a second DataLoader that is never iterated."""
    try:
        with random_state_kept(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first one has said them already
            return len(net.get_iterator(dataset, training=True))
    except TypeError as error:
        raise ValueError(
            f"n_checkpoints needs to know the number of batches per epoch, which the training data do not tell "
            f"({error}); use TrajectoryRecorder(every=1)"
        ) from error
