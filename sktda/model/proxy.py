"""The net that is trained where no estimator is given: an MLP for tables, a small CNN for images."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from math import ceil, prod
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_consistent_length, validate_data
from skorch import NeuralNet
from torch import Tensor, nn

from sktda.data import check_weights
from sktda.model import skorch_net
from sktda.model.base import DifferentiableModel, Inputs, Rows
from sktda.model.likelihood import Gaussian
from sktda.model.scaled import Scaled, ScaledRows, whole_batch
from sktda.model.settings import seed_generators, single_precision, torch_state_kept
from sktda.model.skorch_net import weight_decay
from sktda.model.softmax import Categorical
from sktda.model.standard import Standard
from sktda.model.table import class_codes
from sktda.seeds import seed_of

WIDTH = 128
CHANNELS = (32, 64)
POOL = 4  # side of what the convolutions leave of an image
STEPS, EPOCHS = 240, (6, 100)  # about so many steps, but each row at least and at most so often
# SGD's learning rate falls with the curvature, as AdamW's need not: squares curve more than a softmax, wide rows more
# than narrow ones. Twice these did not diverge on the worst: columns that are all equal, and images of one value
RATE = {"classification": 0.05, "regression": 0.015}
FULL_RATE_COLUMNS, COLUMNS_OF_CHANNEL = 64, 400


class WeightedLoss(nn.Module):
    """Mean of the losses of a batch, times the row weights where the targets carry some."""

    def __init__(self, classes: bool) -> None:
        super().__init__()
        self.loss = nn.CrossEntropyLoss(reduction="none") if classes else nn.MSELoss(reduction="none")

    def forward(self, outputs: Tensor, targets: Any) -> Tensor:
        """0-d."""
        if isinstance(targets, Tensor):
            return self.loss(outputs, targets).mean()
        # a mean over rows and not over weights, in which a row would count by the others of its batch
        losses = self.loss(outputs, targets[0])
        return (losses * targets[1].reshape(-1, *[1] * (losses.ndim - 1))).mean()


@single_precision
def table_net(n_features: int, n_outputs: int) -> nn.Module:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(n_features, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, n_outputs)
    )


@single_precision
def image_net(n_channels: int, n_outputs: int) -> nn.Module:
    """Convolutions that halve the image twice, without normalisation over the batch; any size of image."""
    layers: list[nn.Module] = []
    for inside, outside in zip((n_channels, *CHANNELS), CHANNELS, strict=False):
        layers += [nn.Conv2d(inside, outside, 3, stride=2, padding=1), nn.ReLU()]
    hidden = nn.Linear(CHANNELS[-1] * POOL**2, WIDTH)
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(POOL), nn.Flatten(), hidden, nn.ReLU(), nn.Linear(WIDTH, n_outputs)
    )


@single_precision
def linear_net(n_inputs: int, n_outputs: int) -> nn.Module:
    """Softmax or linear regression on the raw values."""
    return nn.Sequential(nn.Flatten(), nn.Linear(n_inputs, n_outputs))


class DefaultNet(BaseEstimator, metaclass=ABCMeta):
    """What the classifier and the regressor share; about 240 steps, or 6 epochs of many rows.

    X: (n, n_features), dense or sparse, or images (n, height, width), (n, height, width, channels) or
    (n, channels, height, width); more dimensions are flattened. y of any labels, or of numbers.
    callbacks: skorch callbacks. device: where to train. `net_` is the skorch net, `dataset(X, y)` its input.
    optimizer: "adamw", or "sgd" with momentum 0.9 for methods that follow the steps of SGD back.
    hidden: False = no hidden layer, for methods that are slow with many parameters.
    """

    def __init__(
        self,
        callbacks: Any = None,
        device: Any = "cpu",
        random_state: Any = None,
        optimizer: str = "adamw",
        hidden: bool = True,
    ) -> None:
        self.callbacks = callbacks
        self.device = device
        self.random_state = random_state
        self.optimizer = optimizer
        self.hidden = hidden

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> DefaultNet:
        """Train on all rows."""
        X = validate_data(self, X, accept_sparse="csr", allow_nd=True, dtype="numeric")
        check_consistent_length(X, y)
        classes = self._learn_targets(y)
        self.scaled_ = Scaled(X)
        # only ratios of weights matter: single precision knows neither 1e40 nor the square of 1e-30
        self.weight_unit_ = 1.0 if sample_weight is None else float(check_weights(sample_weight, X.shape[0]).mean())
        data = ScaledRows(X, self._targets(y), self.scaled_, self.weights(sample_weight, X.shape[0]))
        optimizer = self._optimizer("classification" if classes else "regression")
        width = len(self.classes_) if classes else data.y.shape[1]
        # up to 512 rows make about eight batches, so that an epoch has several steps
        size = max(8, min(64, ceil(len(data) / 8)))
        epochs = int(np.clip(ceil(STEPS / ceil(len(data) / size)), *EPOCHS))
        with torch_state_kept():
            seed_generators(seed_of(self.random_state))
            self.net_ = NeuralNet(
                self._module(width),
                criterion=WeightedLoss(classes),
                optimizer__fused=True,
                max_epochs=epochs,
                batch_size=size,
                iterator_train__shuffle=True,
                iterator_train__collate_fn=whole_batch,
                iterator_valid__collate_fn=whole_batch,
                train_split=None,
                callbacks=self.callbacks,
                device=self.device,
                verbose=0,
                **optimizer,
            ).fit(data)
        return self

    @abstractmethod
    def _learn_targets(self, y: Any) -> bool:
        """Learn what the targets are; whether they are classes."""

    @abstractmethod
    def _targets(self, y: Any) -> Tensor:
        """The targets as the criterion takes them."""

    def _module(self, n_outputs: int) -> nn.Module:
        if not self.hidden:
            return linear_net(prod(self.scaled_.shape), n_outputs)
        make = table_net if self.scaled_.channels is None else image_net
        return make(self.scaled_.width, n_outputs)

    def _optimizer(self, task: str) -> dict[str, Any]:
        """The net's settings for the optimiser."""
        if self.optimizer == "adamw":
            return {"optimizer": torch.optim.AdamW, "optimizer__weight_decay": 1e-2, "lr": 2e-3}
        if self.optimizer != "sgd":
            raise ValueError(f"optimizer={self.optimizer!r} is not one of 'adamw', 'sgd'")
        columns = self.scaled_.width * (1 if self.scaled_.channels is None else COLUMNS_OF_CHANNEL)
        # without a hidden layer the curvature grows with the columns, and not with their root
        columns, power = (columns, 0.5) if self.hidden else (prod(self.scaled_.shape), 1.0)
        rate = RATE[task] / max(1.0, columns / FULL_RATE_COLUMNS) ** power
        # per step, this decay shrinks a parameter by about as much as AdamW's: 1.5e-5 to 5e-5 against 2e-5
        return {
            "optimizer": torch.optim.SGD,
            "optimizer__momentum": 0.9,
            "optimizer__weight_decay": 1e-4,
            "lr": rate,
        }

    def dataset(self, X: Any, y: Any = None, sample_weight: Any = None) -> ScaledRows:
        """The rows of X (and y, and weights) as `net_` sees them."""
        X = validate_data(self, X, reset=False, accept_sparse="csr", allow_nd=True, dtype="numeric")
        targets = torch.empty(X.shape[0], 0) if y is None else self._targets(y)
        check_consistent_length(X, targets)
        return ScaledRows(X, targets, self.scaled_, self.weights(sample_weight, X.shape[0]))

    def weights(self, sample_weight: Any, n: int) -> Tensor | None:
        """Row weights (n,) as the loss takes them: over their mean in the training."""
        return None if sample_weight is None else torch.from_numpy(check_weights(sample_weight, n) / self.weight_unit_)

    def _outputs(self, X: Any) -> np.ndarray:
        return self.net_.forward(self.dataset(X)).numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags


class DefaultClassifier(ClassifierMixin, DefaultNet):
    """Softmax over the classes."""

    def _learn_targets(self, y: Any) -> bool:
        self.classes_ = np.unique(np.asarray(y))
        return True

    def _targets(self, y: Any) -> Tensor:
        return torch.from_numpy(class_codes(y, self.classes_))

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, n_classes)."""
        return torch.from_numpy(self._outputs(X)).softmax(dim=1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Labels (n,)."""
        return self.classes_[self._outputs(X).argmax(axis=1)]


class DefaultRegressor(RegressorMixin, DefaultNet):
    """Squared error of the standardised target; predictions are in the target's own units."""

    def _learn_targets(self, y: Any) -> bool:
        y = np.asarray(y, dtype=np.float64)
        self.n_columns_ = y.shape[1:]
        y = y.reshape(len(y), -1)
        self.standard_ = Standard.of_blocks(lambda: [y], y.shape[1])
        return False

    def _targets(self, y: Any) -> Tensor:
        # a copy, as the standard works in place
        values = np.array(y, dtype=np.float64)
        values = values.reshape(len(values), -1)
        return torch.from_numpy(self.standard_.apply(values).astype(np.float32))

    def predict(self, X: Any) -> np.ndarray:
        """Numbers, of the shape of y."""
        values = self._outputs(X) * self.standard_.spread + self.standard_.mean
        return values.reshape(len(values), *self.n_columns_)


TYPES = (DefaultNet,)
HEAVY = {"net_", "callbacks"}  # what reading rows does not need


def check(model: Any) -> None:
    """Every default net can be differentiated."""


def module_of(model: Any) -> nn.Module:
    """A copy of the module of a fitted net."""
    return skorch_net.module_of(model.net_)


def write(model: Any, parameters: Mapping[str, Tensor]) -> None:
    """Put parameters, named as in `module_of`, into the net."""
    skorch_net.write(model.net_, parameters)


def rebuild(model: Any, n_rows: int | None) -> DifferentiableModel:
    """The differentiable copy; a regressor's losses are those of the standardised target, as it was trained."""
    fitted = _reader_of(model)

    def rows(X: Any, y: Any = None, sample_weight: Any = None) -> Rows:
        data = fitted.dataset(X, y)
        weight = fitted.weights(sample_weight, len(data))

        def read(block: slice | np.ndarray) -> tuple[Inputs, Tensor]:
            return data.scaled.block(data.X, block), data.y[block]

        return Rows(len(data), read, weight)

    # the mean over columns of y, as MSELoss took it in training
    likelihood = Categorical() if isinstance(model, ClassifierMixin) else Gaussian(average=True)
    return DifferentiableModel(module_of(model), likelihood, rows, weight_decay(model.net_))


def _reader_of(model: DefaultNet) -> DefaultNet:
    """What reads rows: the scaling and the encoding, without the weights."""
    copy = object.__new__(type(model))
    copy.__dict__.update(deepcopy({name: value for name, value in vars(model).items() if name not in HEAVY}))
    return copy


def default_net(task: str, random_state: Any = None, optimizer: str = "adamw", hidden: bool = True) -> DefaultNet:
    """The unfitted net that scores rows where no estimator is given; task "classification" or "regression".

    optimizer, hidden: as in DefaultNet. A fixed seed gives a fixed net, on one device.
    """
    if task not in {"classification", "regression"}:
        raise ValueError(f"task={task!r} is not one of 'classification', 'regression'")
    kind = DefaultClassifier if task == "classification" else DefaultRegressor
    return kind(random_state=random_state, optimizer=optimizer, hidden=hidden)
