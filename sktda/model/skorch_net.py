"""skorch nets: a copy of the module, its criterion and weight decay, and targets in the form the criterion takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import Tensor, nn

from sktda.data import DICT_TARGETS, check_weights
from sktda.model.base import DifferentiableModel, Inputs, Rows, forward, to_device
from sktda.model.criterion import SAME_SHAPE, OfCriterion, criterion_total, likelihood_of, tokens_of
from sktda.model.likelihood import Binary, Likelihood
from sktda.model.logits import LogitsLoss
from sktda.model.module_copy import module_copy, squeezed, unwrapped
from sktda.model.reading import Block, as_dtype, in_columns, reader
from sktda.model.recorder import TrajectoryRecorder, find_trajectory
from sktda.model.softmax import Categorical, Tokens
from sktda.model.trajectory import Trajectory

TYPES = (NeuralNet,)
LOSSES = (NeuralNet.get_loss, NeuralNetClassifier.get_loss)
INFERS = (NeuralNet.infer, NeuralNetBinaryClassifier.infer)


def check(net: Any) -> None:
    """Raise TypeError for a net whose loss or forward pass is not that of its criterion and its one module."""
    name = type(net).__name__
    if type(net).get_loss not in LOSSES:
        raise TypeError(
            f"{name} has its own get_loss, so its loss per row is not known; put the loss into a criterion with a "
            "`reduction`, as torch's own have, and leave get_loss as it is"
        )
    if type(net).infer not in INFERS:
        raise TypeError(f"{name} has its own infer; put what it does into the module's forward")
    others = [each for each in getattr(net, "_modules", []) if each != "module"]
    if others:
        raise TypeError(f"{name} has more modules ({', '.join(others)}) than `module`; put all into one module")


def module_of(net: Any) -> nn.Module:
    """A copy of a fitted net's module, as `module_copy` makes it."""
    return module_copy(net.module_)


def rebuild(net: Any, n_rows: int | None) -> DifferentiableModel:
    """The differentiable copy of a fitted net; n_rows is needed only for a sum criterion with batch_size=-1."""
    if getattr(net, "criterion_", None) is None or getattr(net, "optimizer_", None) is None:
        raise ValueError(
            f"this {type(net).__name__} has no criterion or optimizer any more: trim_for_prediction removes them, and "
            "with them the loss and the weight decay. Pass the net as it was before trim_for_prediction (make a "
            "copy.deepcopy first and trim that)"
        )
    criterion = unwrapped(net.criterion_)
    likelihood = likelihood_of(net, criterion)
    takes = likelihood.packing if isinstance(likelihood, OfCriterion) else None
    module = module_copy(net.module_, criterion if isinstance(criterion, LogitsLoss) else takes)
    if not any(value.requires_grad for value in module.parameters()):
        raise ValueError(
            f"no parameter of {type(net.module_).__name__} requires a gradient, so rows have none: pass the net as it "
            "was trained, with its adapters not merged away and what was trained not frozen"
        )
    # such a net hands (n,) to its criterion where the module gives (n, 1)
    if isinstance(likelihood, OfCriterion) and isinstance(net, NeuralNetBinaryClassifier):
        module.register_forward_hook(squeezed)
    decay = weight_decay(net)
    if criterion_total(criterion) and decay:
        # the loss of a batch of B rows is B times its mean, so beside the mean the penalty is a B-th
        sizes = [size for size in (batch_size(net), n_rows) if size is not None and size != -1]
        if not sizes:
            raise ValueError("batch_size=-1 with a criterion that adds the losses of all rows: pass n_rows")
        decay = {name: value / min(sizes) for name, value in decay.items()}
    about = criterion.about if isinstance(criterion, LogitsLoss) else None
    source = _Source(_settings(net), module, likelihood, about)
    model = DifferentiableModel(module, likelihood, source.rows, decay)
    if isinstance(likelihood, Categorical) and not likelihood.probabilities:
        source.by_position = partial(_by_position, model, criterion)
    return model


def _by_position(model: DifferentiableModel, criterion: Any) -> Likelihood:
    """The model's likelihood from now on, once its targets are seen to be no single labels."""
    model.likelihood = tokens_of(criterion)
    return model.likelihood


def _settings(net: Any) -> Any:
    """The net without what it learned and its callbacks, which may hold a record: enough to read its data."""
    settings = object.__new__(type(net))
    own = {name: value for name, value in net.__dict__.items() if not name.endswith("_")}
    settings.__dict__.update(own | {"callbacks": None})
    return settings


def batch_size(net: Any) -> int:
    """Rows per training batch; -1 = all."""
    return int(net.get_params_for("iterator_train").get("batch_size", net.batch_size))


def weight_decay(net: Any) -> dict[str, float]:
    """Weight decay by name of the (uncompiled) module's parameters, where it is not 0."""
    by_identity = {
        id(parameter): float(group.get("weight_decay", 0.0))
        for group in net.optimizer_.param_groups
        for parameter in group["params"]
    }
    decays = {name: by_identity.get(id(value), 0.0) for name, value in named_parameters(net) if value.requires_grad}
    return {name: value for name, value in decays.items() if value}


def named_parameters(net: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """The net's own parameters, under their names in `module_of`."""
    return ((name.replace("_orig_mod.", ""), value) for name, value in net.module_.named_parameters())


def write(net: Any, parameters: Mapping[str, Tensor]) -> None:
    """Put parameters, named as in `module_of`, into the net's module in place, so that its optimiser has them too."""
    own = dict(named_parameters(net))
    with torch.no_grad():
        for name, value in parameters.items():
            own[name].copy_(value)


def duplicate(net: Any, memo: dict[int, Any]) -> None:
    """Put a copy of a net into the memo of a deepcopy, on the same device and with the optimiser on its own tensors.

    A deepcopy of the net itself pickles it, which fails for a module class that was defined inside a function. The
    record of the training stays behind: it would not be that of the copy's parameters.
    """
    copy = object.__new__(type(net))
    memo[id(net)] = copy  # before its parts, which may refer to the net
    for _, callback in getattr(net, "callbacks_", []):
        if isinstance(callback, TrajectoryRecorder):
            memo[id(callback)] = clone(callback)
    copy.__dict__.update(deepcopy(vars(net), memo))


def recorded_run(net: Any) -> Trajectory | None:
    """The trajectory of a fitted net, None without a net or a record; its rates are those beside the mean loss.

    A criterion that adds the losses of a batch of B rows moves B times as far at the same rate. Raises ValueError as
    `find_trajectory` does.
    """
    trajectory = None if net is None else find_trajectory(net)
    if trajectory is None or getattr(unwrapped(net.criterion_), "reduction", "mean") != "sum":
        return trajectory
    n_rows = None if trajectory.rows is None else len(trajectory.rows)
    size = min(size for size in (batch_size(net), n_rows) if size and size != -1)
    names = ("group_learning_rates", "group_rate_sums", "group_effective_rate_sums")
    # sum of B rows at rate r = mean at rate B r
    return replace(trajectory, **{name: size * getattr(trajectory, name) for name in names})


def check_targets(net: Any, X: Any, y: Any) -> None:
    """ValueError if the net's outputs and y differ in shape where its criterion would silently broadcast them.

    net: initialised or fitted. Reads one row, and changes nothing. A net trained so has learned from every pair of
    rows in a batch.
    """
    criterion = unwrapped(net.criterion_)
    if isinstance(criterion, SAME_SHAPE) and (y is not None or hasattr(X, "__getitem__")):
        source = _Source(net, module_copy(net.module_), likelihood_of(net, criterion))
        source.rows(X, y)


class _Source:
    """Makes Rows of what the net's fit takes, for one module and likelihood."""

    def __init__(
        self, net: Any, module: nn.Module, likelihood: Likelihood, about: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.net = net
        self.module = module
        self.likelihood = likelihood
        self.about = about
        """What the outputs are about, of the labels as they came; None = all."""
        self.dtype = torch.float32
        """Of the outputs, and so of targets that are numbers."""
        self.by_position: Callable[[], Likelihood] | None = None

    @property
    def _parameter(self) -> nn.Parameter:
        return next(self.module.parameters())

    def rows(self, X: Any, y: Any = None, sample_weight: Any = None) -> Rows:
        """As in DifferentiableModel; looks at the first row, so that errors come before the work."""
        n, inputs_of, targets_of = reader(self.net, X, y)
        dtypes = {value.dtype for value in self.module.parameters() if value.is_floating_point()}
        one_dtype = dtypes.pop() if len(dtypes) == 1 else None  # of several, the module sorts inputs out itself

        def inputs(block: Block) -> Any:
            found = inputs_of(block)
            return found if one_dtype is None else as_dtype(found, one_dtype)

        precise = torch.float64 if one_dtype is torch.float64 else torch.float32
        weight = None if sample_weight is None else torch.from_numpy(check_weights(sample_weight, n)).to(precise)
        if targets_of is None or n == 0:
            # no targets: only outputs are asked for
            nothing = torch.empty(n, 0)
            return Rows(n, lambda block: (inputs(block), nothing[block]), weight)
        about = self.about
        targets = targets_of if about is None else lambda block: about(targets_of(block))
        with torch.no_grad():
            output = forward(self.module, to_device(inputs(slice(0, 1)), self._parameter.device))
        shape, self.dtype = output.shape[1:], output.dtype
        start = targets(slice(0, 1))
        if isinstance(start, Mapping):
            raise TypeError(DICT_TARGETS.format(", ".join(map(repr, start))))
        soft = start.is_floating_point() and start.shape == output.shape
        if self.by_position is not None and isinstance(self.likelihood, Categorical) and (len(shape) > 1 or soft):
            self.likelihood = self.by_position()
        self._check_shape(shape, start)
        if in_columns(self.net, X) and start.ndim == 1 and isinstance(self.likelihood, Categorical | Binary):
            self._shaped(targets(slice(0, n)), shape, 0)  # all labels now, not in the middle of a long run

        def read(block: Block) -> tuple[Inputs, Tensor]:
            first = block.start or 0 if isinstance(block, slice) else 0
            return inputs(block), self._shaped(targets(block), shape, first)

        return Rows(n, read, weight)

    def _check_shape(self, shape: torch.Size, target: Tensor) -> None:
        if isinstance(self.likelihood, Tokens):
            allowed = [(*shape[1:],), (*shape,)] if target.is_floating_point() else [(*shape[1:],)]
            if (*target.shape[1:],) not in allowed:
                raise ValueError(
                    f"outputs are {_spell(shape)}, so y must be {_spell(shape[1:])} with a label for each position, or "
                    f"{_spell(shape)} with probabilities; got {_spell(target.shape[1:])}"
                )
            return
        if isinstance(self.likelihood, Categorical):
            if len(shape) != 1:
                raise ValueError(f"a classifier's outputs must be (n, n_classes), got {_spell(shape)}")
            return
        if isinstance(self.likelihood, OfCriterion) and not isinstance(self.likelihood.criterion, SAME_SHAPE):
            return
        given = target.shape[1:]
        if given == shape:
            return
        if isinstance(self.likelihood, Binary) and target[0].numel() == int(np.prod(shape)) == 1:
            return
        if given == () and shape == (1,):
            remedy = "pass y.reshape(-1, 1) and train the net with it"
        elif given == (1,) and shape == ():
            remedy = "pass y.ravel() and train the net with it"
        else:
            remedy = "give y and the outputs of the module the same shape"
        raise ValueError(
            f"y is {_spell(given)} but the net's outputs are {_spell(shape)}. A loss broadcasts one against the other, "
            f"so a net trained like this compares every output of a batch with every target; {remedy}"
        )

    def _shaped(self, y: Tensor, shape: torch.Size, first: int) -> Tensor:
        """Targets in the dtype and shape that the likelihood takes; ValueError naming a label it cannot."""
        if isinstance(self.likelihood, OfCriterion):
            return as_dtype(y, self.dtype)
        if isinstance(self.likelihood, Categorical | Tokens) and not y.is_floating_point():
            y = y.long()  # uint8 and int8 would wrap the numbers that they are compared with
        if isinstance(self.likelihood, Tokens):
            if y.shape[1:] == shape and y.is_floating_point():
                return y.to(self.dtype)
            ignored = y == self.likelihood.ignore_index
            wrong = ~ignored & ((y != y.long()) | (y < 0) | (y >= shape[0]))
            _refuse(y, wrong, f"0 to {shape[0] - 1}, one per output, and {self.likelihood.ignore_index}", first)
            return y.long()
        if not isinstance(self.likelihood, Categorical):
            y = y.to(self.dtype)
            if isinstance(self.likelihood, Binary):
                _refuse(y, (y < 0) | (y > 1) | y.isnan(), "0 and 1", first)
            return y.reshape(len(y), *shape)
        if y.ndim != 1:
            raise ValueError(f"class labels must be (n,), got {tuple(y.shape)}")
        _refuse(y, (y != y.long()) | (y < 0) | (y >= shape[0]), f"0 to {shape[0] - 1}, one per output", first)
        return y.long()


def _refuse(y: Tensor, wrong: Tensor, allowed: str, first: int) -> None:
    rows = wrong.reshape(len(y), -1).any(dim=1).nonzero()
    if len(rows):
        row = int(rows[0])
        label = y[row][wrong[row]][0] if y.ndim > 1 else y[row]
        raise ValueError(
            f"y holds the label {label.item()!r} (row {first + row}), which the net cannot be trained on; "
            f"allowed are {allowed}"
        )


def _spell(shape: torch.Size) -> str:
    return f"(n, {', '.join(map(str, shape))})" if len(shape) else "(n,)"
