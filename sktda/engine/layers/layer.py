"""What a module is to the engine: parameters, and the factors of their gradients by row, taken from its calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F

from sktda.engine.layers.kernels import layer_by_layer
from sktda.engine.layers.rows import LayerRows

Call = tuple[tuple[Tensor, ...], GradientEdge]
Note = Callable[[tuple[Tensor, ...], Tensor], None]

ROWS, SECOND, FOLDED, FOLDED_SECOND = "rows first", "rows second", "rows folded", "rows folded, second"
LAYOUTS = (ROWS, SECOND, FOLDED, FOLDED_SECOND)
"""Where the rows of a batch are in the input of a layer: (n, ...), (t, n, ...), (n * t, ...) or (t * n, ...)."""
ONCE = "once for all rows"
"""Of a layer whose input (t,) is made once for a batch, such as the positions of tokens; (1, ...) says it itself."""


class Layer(ABC):
    """Trainable parameters of a module whose per-row gradients follow from its inputs and the gradient at its output.

    The gradient must not depend on the parameters themselves, given these two. keys: the parameters that it is about;
    prefix: the name of their module, where the layer is only a part of it, with a name of its own.
    """

    is_product = False
    """Whether the gradient is a product of inputs and output gradients, as Kronecker factors need."""

    layout = ROWS
    """Set where the layers are checked against autograd."""

    may_be_once = False
    """Whether it can give every row an output of its own where its input is made once for all."""

    transposed = False
    """Whether the weight is (in, out)."""

    def __init__(
        self, name: str, module: nn.Module, keys: Sequence[str] = ("weight", "bias"), prefix: str | None = None
    ) -> None:
        self.name = name
        self.module = module
        own = dict(module.named_parameters(recurse=False))
        self.trained = [key for key in keys if own.get(key) is not None and own[key].requires_grad]
        prefix = name if prefix is None else prefix
        self.parameters = [f"{prefix}.{key}" if prefix else key for key in self.trained]
        self.shapes = [own[key].shape for key in self.trained]

    def __getstate__(self) -> dict:
        # a pickled curvature describes its layers and leaves the model out
        return {key: None if isinstance(value, nn.Module) else value for key, value in vars(self).items()}

    @property
    def n_parameters(self) -> int:
        """Trainable numbers of the layer."""
        return sum(shape.numel() for shape in self.shapes)

    @abstractmethod
    def rows(self, inputs: tuple[Tensor, ...], delta: Tensor) -> LayerRows:
        """Factors from the inputs of a call and the gradient of the losses at its output, rows first in both."""

    @abstractmethod
    def watch(self, note: Note, n: int) -> Callable[[], None]:
        """Have every call noted, with its inputs and output, for a batch of n rows; returns what ends this."""

    def factors(self, inputs: tuple[Tensor, ...], delta: Tensor, n: int) -> LayerRows:
        """Of one call, for a batch of n rows."""
        if self.is_once(inputs[0]):
            # `watch` gave every row an output of its own, so that delta is by row; the indices are the same for all
            return self.rows((inputs[0].reshape(1, -1).expand(n, -1),), delta)
        if self.layout == SECOND:
            inputs, delta = tuple(x.transpose(0, 1) for x in inputs), delta.transpose(0, 1)
        if self.layout in {ROWS, SECOND}:
            if len(inputs[0]) != n:
                raise RuntimeError(
                    f"layer {self.name!r} was called on {len(inputs[0])} of {n} rows: a module that sends rows to "
                    "different layers has no factors by row; freeze the layer or give all rows to it"
                )
            return self.rows(inputs, delta)
        return self.rows(inputs, delta).unfolded(n, self.layout == FOLDED_SECOND)

    def is_once(self, x: Tensor) -> bool:
        """Whether an input is not of one row each."""
        # (t,) may also be one index for each row: what it is was found against autograd
        if x.ndim == 1:
            return self.may_be_once and self.layout == ONCE
        return self.may_be_once and len(x) == 1 and self.layout in {ROWS, ONCE}


class Called(Layer):
    """A layer that torch calls as a module."""

    def watch(self, note: Note, n: int) -> Callable[[], None]:
        """By a hook."""
        return self.module.register_forward_hook(lambda module, inputs, output: note(inputs, output)).remove


@contextmanager
def recording(layers: list[Layer], n: int) -> Iterator[dict[str, list[Call]]]:
    """Collects (inputs, gradient edge of the output) of every call of the layers, for a batch of n rows."""
    calls: dict[str, list[Call]] = {layer.name: [] for layer in layers}

    def noting(name: str) -> Note:
        def note(inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # an edge, not the tensor: a later in-place activation would change the tensor's place in the graph
            calls[name].append((inputs, get_gradient_edge(output)))

        return note

    ends = [layer.watch(noting(layer.name), n) for layer in layers]
    try:
        with layer_by_layer():
            yield calls
    finally:
        # the last first: modes of torch functions, by which some are watched, are a stack
        for end in reversed(ends):
            end()


class Opened(ABC):
    """A forward in place of a module's own: the same, with the linear maps inside noted at every call.

    For modules that torch runs in one operation, without the gradients at what is inside. Raises RuntimeError for a
    call that it does not know.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.notes: dict[str, Note] = {}

    @abstractmethod
    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """As the module's own."""

    def noted(self, key: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The linear map of a key."""
        found = F.linear(x, weight, bias)
        if (note := self.notes.get(key)) is not None:
            note((x,), found)
        return found

    @classmethod
    def watch(cls, module: nn.Module, key: str, note: Note) -> Callable[[], None]:
        """Have a map noted; the module has its own forward again when none is watched any more."""
        opened: Any = module.__dict__.get("forward")
        if not isinstance(opened, cls):
            # of this module alone: others of its class keep the class's
            opened = module.__dict__["forward"] = cls(module)
        opened.notes[key] = note

        def end() -> None:
            opened.notes.pop(key, None)
            if not opened.notes:
                module.__dict__.pop("forward", None)

        return end
