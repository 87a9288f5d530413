"""TorchModel: a trained torch module as a frozen estimator, which every method and cleaner takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.utils import is_dataset
from torch import nn

from sktda.model.batches import PairingCollate, Pairs, argument_names, first_output
from sktda.model.contrastive import meets
from sktda.model.criterion import SAME_SHAPE, criterion_total
from sktda.model.loop_losses import ONE_OUTPUT, criterion_given
from sktda.model.module_copy import _computed, unwrapped
from sktda.model.recorder import TrajectoryRecorder
from sktda.model.run_record import plain
from sktda.model.settings import torch_state_kept
from sktda.model.trajectory import Trajectory


class TorchModel(FrozenEstimator):
    """A torch module that was trained elsewhere, as an estimator that is fitted and stays as it is.

    Every method and cleaner takes it like a frozen skorch net. It holds a copy of the module in eval mode, so that
    training the module further does not change it.

    Parameters
    ----------
    module : torch.nn.Module
        The trained module, compiled or not; what its forward returns (a tensor, the first of a tuple, the logits of a
        Hugging Face output) is what the criterion was given.
    criterion : torch.nn.Module
        The loss that it was trained with, called as criterion(outputs, targets), such as ``nn.CrossEntropyLoss()``.
        With reduction "mean" or "sum".
    trajectory : Trajectory, path-like or None, default=None
        The record of its training, or the folder that holds it: of `record_run`, `Trajectory.from_checkpoints`, a
        callback. Methods that follow a run need it. Weight decay is taken from it.
    optimizer : torch.optim.Optimizer or None, default=None
        Without a record: the optimiser that trained it, for the weight decay. None = no weight decay.
    collate_fn : callable or None, default=None
        What makes a batch of rows where X is a torch Dataset whose rows cannot just be stacked (texts of other
        lengths). None = torch's.

    Attributes
    ----------
    estimator : skorch.NeuralNet
        The net that is made of it.

    Raises
    ------
    TypeError
        For a criterion that is no module or has no reduction to one number, and for a module that is none.
    ValueError
        For a trajectory of another module, or one whose end is not the module's parameters.

    Notes
    -----
    X and y are what `fit` of the methods takes: arrays or tensors, a dict of them by the names of forward's arguments,
    or a torch Dataset alone, whose rows are (x, y), (a, b, ..., y), or dicts that hold their "labels".

    Examples
    --------
    >>> import numpy as np, torch
    >>> from sktda import TorchModel
    >>> from sktda.attribution import Influence
    >>> X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    >>> y = (X[:, 0] > 0).astype(int)
    >>> module = torch.nn.Linear(3, 2)  # trained, one hopes
    >>> Influence(TorchModel(module, torch.nn.CrossEntropyLoss()), damping=0.1).fit(X, y).scores_.shape
    (40,)
    """

    def __init__(self, module, criterion, trajectory=None, *, optimizer=None, collate_fn=None):
        criterion = unwrapped(criterion_given(criterion))
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
        if trajectory is not None and not isinstance(trajectory, Trajectory):
            trajectory = Trajectory.load(trajectory)
        original = plain(module)
        copy = _copied(original).eval()
        copy.register_forward_hook(_first if isinstance(criterion, ONE_OUTPUT) else _logits)
        names = argument_names(original)
        kind = _kind(criterion)
        # of a sum criterion rates and penalty are turned into those of the mean by the batch size of the net
        size = 0 if trajectory is None else int(np.median(trajectory.batch_sizes))
        if trajectory is not None and not size and criterion_total(criterion):
            raise ValueError(
                "of a criterion that adds the losses of a batch, rates count by the size of a batch, which checkpoints "
                "do not tell; record the run, or train with reduction='mean'"
            )
        net = kind(
            copy,
            criterion=criterion,
            device=_device(copy),
            train_split=None,
            verbose=0,
            callbacks=[TrajectoryRecorder()] if trajectory is not None else None,
            batch_size=size or 128,
        )
        if collate_fn is not None:
            collate = PairingCollate(collate_fn, names)
            net.set_params(iterator_train__collate_fn=collate, iterator_valid__collate_fn=collate)
        net.names = names
        with torch_state_kept():
            net.initialize()
        net.module_.eval()
        if trajectory is not None:
            trajectory.check_final(copy)
            decay = trajectory.weight_decay
            next(each for _, each in net.callbacks_ if isinstance(each, TrajectoryRecorder)).trajectory_ = trajectory
        else:
            decay = {} if optimizer is None else _decay(original, optimizer)
            if decay and criterion_total(criterion):
                raise ValueError(
                    "of a criterion that adds the losses of a batch, weight decay counts by the size of a batch, which "
                    "only a record knows; pass trajectory, or train with reduction='mean'"
                )
        net.optimizer_ = _with_decay(copy, decay)
        self.estimator = net

    def fit(self, X, y=None, *args, **kwargs):
        """Raises ValueError: there is nothing to fit it with.

        Methods and cleaners do not call it, except those that need a model of other rows.
        """
        raise ValueError(
            f"{type(self.estimator.module_).__name__} was trained elsewhere and cannot be trained again here; where a "
            "model of other rows is needed, pass a skorch net or a scikit-learn model in place of TorchModel"
        )


class TrainedNet(NeuralNet):
    """Of any criterion."""

    def get_dataset(self, X: Any, y: Any = None) -> Any:
        return super().get_dataset(_in_pairs(self, X), y)


class TrainedClassifier(NeuralNetClassifier):
    """Of a cross-entropy."""

    def get_dataset(self, X: Any, y: Any = None) -> Any:
        return super().get_dataset(_in_pairs(self, X), y)

    @property
    def classes_(self) -> np.ndarray:
        """0..k-1, the positions of the outputs, once some were computed."""
        if self.classes is not None:
            return np.asarray(self.classes)
        if (found := vars(self).get("n_outputs")) is None:
            raise AttributeError("classes_ are known once the module has predicted something")
        return np.arange(found)

    def predict_proba(self, X: Any) -> np.ndarray:
        found = super().predict_proba(X)
        self.n_outputs = found.shape[1]
        return found


class TrainedRegressor(NeuralNetRegressor):
    """Of a loss between numbers."""

    def get_dataset(self, X: Any, y: Any = None) -> Any:
        return super().get_dataset(_in_pairs(self, X), y)


def _in_pairs(net: Any, X: Any) -> Any:
    """X, where it is a Dataset with rows of any kind as pairs."""
    if is_dataset(X) and not isinstance(X, Pairs) and "iterator_valid__collate_fn" not in vars(net):
        return Pairs(X, net.names, not meets(net))
    return X


def _kind(criterion: nn.Module) -> type[NeuralNet]:
    if isinstance(criterion, nn.CrossEntropyLoss):
        return TrainedClassifier
    return TrainedRegressor if isinstance(criterion, SAME_SHAPE) else TrainedNet


def _copied(module: nn.Module) -> nn.Module:
    """A copy that shares nothing; Lightning's trainer, which holds data and loops, stays behind."""
    memo = _computed(module)
    with _without_trainer(module):
        return deepcopy(module, memo)


@contextmanager
def _without_trainer(module: nn.Module) -> Iterator[None]:
    held = [(part, vars(part)["_trainer"]) for part in module.modules() if vars(part).get("_trainer") is not None]
    for part, _ in held:
        vars(part)["_trainer"] = None
    try:
        yield
    finally:
        for part, trainer in held:
            vars(part)["_trainer"] = trainer


def _first(module: nn.Module, arguments: Any, output: Any) -> Any:
    return first_output(output)


def _logits(module: nn.Module, arguments: Any, output: Any) -> Any:
    return first_output(output) if isinstance(output, Mapping) else output  # all of a tuple, for the criterion


def _device(module: nn.Module) -> str | None:
    """Of all its parameters; None where they are on several, and inputs find their way by themselves."""
    found = {str(value.device) for value in module.parameters()}
    return found.pop() if len(found) == 1 else None


def _decay(module: nn.Module, optimizer: Any) -> dict[str, float]:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be the torch.optim.Optimizer that trained the module, got {optimizer!r}")
    names = {parameter: name for name, parameter in module.named_parameters()}
    found = {
        names[parameter]: float(group.get("weight_decay", 0.0))
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter in names
    }
    if not found:
        raise ValueError("optimizer has none of the module's parameters; pass the one that trained this very module")
    return found


def _with_decay(module: nn.Module, decay: Mapping[str, float]) -> torch.optim.Optimizer:
    """An optimiser that only says how much weight decay each parameter had."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, value in module.named_parameters():
        groups.setdefault(decay.get(name, 0.0), []).append(value)
    return torch.optim.SGD([{"params": each, "weight_decay": value} for value, each in groups.items()], lr=0.0)
