"""Nets that are trained together in one program, their weights stacked, and which nets can be."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.utils import is_dataset
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils.data import DataLoader

from sktda.devices import in_blocks
from sktda.model.fitting import bad_row, may_broadcast
from sktda.model.given import part_of
from sktda.model.reading import count, in_columns, take
from sktda.model.settings import seed_generators, torch_state_kept
from sktda.model.skorch_net import check_targets
from sktda.seeds import seed_of

NETS = (NeuralNet, NeuralNetClassifier, NeuralNetRegressor, NeuralNetBinaryClassifier)
ELEMENTWISE = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad)
LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCEWithLogitsLoss)
RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
MIXING = (nn.modules.batchnorm._NormBase, nn.RNNBase)
OWN = vars(nn.Module())  # what every module has: its parameters, hooks and parts
GROUP_BYTES = {"cpu": 2**24, "cuda": 2**32}  # of one group of nets; on a processor, what fits the caches is fastest


def why_not(estimator: Any, X: Any, y: Any) -> str | None:
    """Why trainings of this estimator cannot run side by side; None if they can."""
    if type(estimator) not in NETS:
        return f"{type(estimator).__name__} is not one of skorch's own nets"
    net, kind = estimator, lambda given: given if isinstance(given, type) else type(given)
    loader = net.get_params_for("iterator_train")
    if net.callbacks not in (None, [], (), "disable"):
        return "the net has callbacks"
    if net.warm_start or net.compile or net.iterator_train is not DataLoader:
        return "of warm_start, compile or an iterator_train of its own"
    if any(f"__{name}".endswith("__random_state") for name in net.get_params(deep=True)):
        return "a part of it has a random_state of its own"
    if set(loader) - {"batch_size", "shuffle", "drop_last"}:
        return f"the iterator has settings ({', '.join(sorted(loader))}) beside batch_size, shuffle and drop_last"
    if y is None or is_dataset(X) or not in_columns(net, X):
        return "X and y are not arrays"
    if kind(net.optimizer) not in ELEMENTWISE or "param_groups" in net.get_params_for("optimizer"):
        return f"{kind(net.optimizer).__name__}, or its groups of parameters, may not treat every number by itself"
    with torch_state_kept():
        new = clone(net).initialize()
        if may_broadcast(new):
            check_targets(new, X, y)
    module, criterion = new.module_, new.criterion_
    if type(criterion) not in LOSSES or criterion.reduction != "mean":
        return f"{type(criterion).__name__} is not one of torch's losses with reduction='mean'"
    ignored = getattr(criterion, "ignore_index", None)
    if getattr(criterion, "weight", None) is not None or (ignored is not None and np.any(np.asarray(y) == ignored)):
        return "the rows of a batch do not count alike (weight, ignore_index)"
    for each in module.modules():
        if (isinstance(each, RANDOM) and each.p > 0) or (isinstance(each, nn.MultiheadAttention) and each.dropout > 0):
            return f"{type(each).__name__} draws random numbers"
        if isinstance(each, MIXING):
            return f"{type(each).__name__} keeps running statistics, or runs in a kernel of its own"
        if getattr(each, "padding_idx", None) is not None:
            return f"{type(each).__name__} has a padding_idx, which torch.func does not know"
    few = np.arange(min(2, count(X)))
    try:
        if changes_itself(new, X, y, few):
            return f"{type(module).__name__} changes itself while it is trained, beside its parameters"
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # operations that are mapped one net after the other
            Stack(net, X, y, [0]).gradients(few[None])
    except Exception as error:  # whatever torch.func says of an operation that it cannot map, or of random numbers
        return f"torch.func.vmap of {type(module).__name__}: {str(error).splitlines()[0]}"
    return None


def changes_itself(net: Any, X: Any, y: Any, rows: np.ndarray) -> bool:
    """Whether one forward pass in training changes a buffer or an attribute of a net's module; the net stays as it is.

    Raises whatever the pass or the loss raises.
    """

    def state(module: nn.Module) -> dict[tuple[str, str], Any]:
        found = {("", name): value.clone() for name, value in module.named_buffers()}
        for path, part in module.named_modules():
            found |= {(path, name): value for name, value in vars(part).items() if name not in OWN}
        return found

    module = deepcopy(net.module_).train()
    before = state(module)
    inputs = _to(take(X, rows), net.device)
    with torch_state_kept(), torch.no_grad():
        outputs = module(**inputs) if isinstance(inputs, dict) else module(inputs)
        net.get_loss(_squeezed(net, outputs), _to(take(y, rows), net.device), training=True)
    after = state(module)
    return before.keys() != after.keys() or not all(_same(value, after[name]) for name, value in before.items())


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return a is b or (isinstance(a, bool | int | float | str) and type(a) is type(b) and a == b)


def _squeezed(net: Any, outputs: Any) -> Any:
    """Outputs as the net's `infer` returns them."""
    if isinstance(net, NeuralNetBinaryClassifier) and outputs.ndim > 1 and outputs.shape[-1] == 1:
        return outputs.squeeze(-1)
    return outputs


def side_by_side(
    estimator: Any, X: Any, y: Any, seeds: list[int], parts: list[np.ndarray | None], same_order: bool = False
) -> list[Any]:
    """As `retrain`, for nets that `why_not` finds nothing against."""
    everything = np.arange(count(X))
    kept = [everything if part is None else part for part in parts]
    seen = np.stack([np.bincount(part, minlength=len(everything)) for part in kept]) if same_order else None
    drawn = [everything] * len(seeds) if same_order else kept
    sizes = np.array([len(part) for part in drawn])
    nets: list[Any] = [None] * len(seeds)
    # batches are stacked, so a group has trainings on equally many rows
    for size in np.unique(sizes):
        same = np.flatnonzero(sizes == size)
        rows = np.stack([drawn[k] for k in same])
        step = Stack(estimator, X, y, seeds[:1]).group_size(int(size))

        def trained(group: slice, rows: np.ndarray = rows, same: np.ndarray = same) -> list[Any]:
            stack = Stack(estimator, X, y, [seeds[k] for k in same[group]], [parts[k] for k in same[group]])
            stack.train(rows[group], None if seen is None else seen[same[group]])
            return stack.fitted(X, y)

        for group, found in in_blocks(len(same), step, trained):
            for k, net in zip(same[group], found, strict=True):
                nets[k] = net
    return nets


class Stack:
    """Nets of one kind that are trained together: every parameter (n_nets, ...).

    parts: positions that each net is meant to see, None = all.
    """

    def __init__(
        self, net: Any, X: Any, y: Any, seeds: Sequence[int], parts: Sequence[np.ndarray | None] | None = None
    ) -> None:
        self.nets, self._states = [], []
        self.parts = [None] * len(seeds) if parts is None else list(parts)
        with torch_state_kept():
            for seed, part in zip(seeds, self.parts, strict=True):
                # as train_clone and skorch do, whose random numbers these are
                seed_generators(seed_of(seed))
                new = clone(net)
                new.check_data(X, y if part is None else part_of(y, part))  # from which it knows the classes
                self.nets.append(new.initialize())
                # after the first weights: from here a training by itself would draw its order
                self._states.append(torch.get_rng_state())
        self.net = self.nets[0]
        self.net.criterion_.reduction = "none"
        self.module = deepcopy(self.net.module_).train()
        modules = [each.module_ for each in self.nets]
        self.parameters = {
            name: torch.stack([dict(module.named_parameters())[name].detach() for module in modules])
            for name, value in self.module.named_parameters()
        }
        for name, value in self.module.named_parameters():
            self.parameters[name].requires_grad_(value.requires_grad)
        self.buffers = {
            name: torch.stack([dict(module.named_buffers())[name] for module in modules])
            for name, _ in self.module.named_buffers()
        }
        (_, settings) = self.net.get_params_for_optimizer("optimizer", self.module.named_parameters())
        kind = type(self.net.optimizer_)
        # one for all nets: what it does to every number by itself, it does to each net as if alone
        self.optimizer = kind([value for value in self.parameters.values() if value.requires_grad], **settings)
        whole = slice(0, count(X))
        self.X, self.y = _to(take(X, whole), self.net.device), _to(take(y, whole), self.net.device)
        self.dtype = next(iter(self.parameters.values())).dtype

    def gradients(self, batch: np.ndarray | Tensor, seen: Tensor | None = None) -> Tensor:
        """Losses (n_nets,) of batches (n_nets, size) of positions; the gradients go to the stacked parameters.

        seen (n_nets, size): how often each row of a batch counts.
        """
        rows = torch.as_tensor(batch, device=self.net.device)
        # the mean of a batch as a product with shares, in which a row can count 0 or twice
        share = torch.full(rows.shape, 1 / rows.shape[1], device=rows.device, dtype=self.dtype)
        if seen is not None:
            # at least 1: a batch of which no row counts has gradients of 0, not 0 / 0
            share = seen / seen.sum(dim=1, keepdim=True).clamp(min=1)
        # "error": what vmap would draw is not what each net would draw by itself
        losses = vmap(self._loss, randomness="error")(
            self.parameters, self.buffers, _rows(self.X, rows), _rows(self.y, rows), share
        )
        self.optimizer.zero_grad()
        losses.sum().backward()  # no net's gradient depends on another
        return losses.detach()

    def _loss(self, parameters: dict, buffers: dict, x: Any, y: Tensor, share: Tensor) -> Tensor:
        given = ((), x) if isinstance(x, dict) else ((x,), {})
        outputs = _squeezed(self.net, functional_call(self.module, (parameters, buffers), *given))
        losses = self.net.get_loss(outputs, y, training=True)
        # a row's outputs first: torch's mean over (b, k) is the mean over rows of these
        return losses.reshape(len(share), -1).mean(dim=1) @ share

    def train(self, rows: np.ndarray, seen: np.ndarray | None = None) -> None:
        """All epochs, on these rows (n_nets, n_drawn); seen (n_nets, n): as `gradients` takes it."""
        drawn = torch.from_numpy(rows)
        counts = None if seen is None else torch.from_numpy(seen).to(self.dtype)
        # over positions in the drawn rows: a loader then gives the order, and reads nothing
        loaders = [net.get_iterator(range(rows.shape[1]), training=True) for net in self.nets]
        self.drawn_any = len(loaders[0]) > 0  # drop_last drops the only batch of few rows
        for _ in range(self.net.max_epochs):
            total, n_seen = (torch.zeros(len(self.nets), device=self.net.device, dtype=self.dtype) for _ in range(2))
            for batch in zip(*self._orders(loaders), strict=True):
                positions = drawn.gather(1, torch.tensor(batch))
                here = torch.full_like(n_seen, positions.shape[1])
                share = None
                if counts is not None:
                    share = counts.gather(1, positions)
                    # a row that does not count may hold NaN, and 0 * NaN is NaN: any other takes its place
                    positions = torch.where(share > 0, positions, counts.argmax(dim=1, keepdim=True))
                    share = share.to(self.net.device)
                    here = share.sum(dim=1)
                # sums stay on the device until the epoch is over: a look at each batch would wait for it
                total = total + self.gradients(positions, share) * here
                self.optimizer.step()
                n_seen = n_seen + here
            for net, loss in zip(self.nets, (total / n_seen).tolist(), strict=True):
                net.history.new_epoch()
                net.history.record("epoch", len(net.history))
                net.history.record("train_loss", loss)

    def _orders(self, loaders: list[Any]) -> Iterator[list[list[int]]]:
        """The batches of one epoch, of every net: as its iterator would draw them."""
        with torch_state_kept():
            for k, loader in enumerate(loaders):
                # every net's generator goes on where its own training would be, from its first weights on
                torch.set_rng_state(self._states[k])
                torch.empty((), dtype=torch.int64).random_()  # a DataLoader draws this before the order
                yield list(loader.batch_sampler)
                self._states[k] = torch.get_rng_state()

    def fitted(self, X: Any, y: Any) -> list[Any]:
        """The nets with what they have learned. Raises ValueError if one diverged."""
        for k, net in enumerate(self.nets):
            losses = np.array([epoch["train_loss"] for epoch in net.history])
            if self.drawn_any and not np.isfinite(losses).all():
                epoch = int((~np.isfinite(losses)).argmax()) + 1
                own = self.parts[k]
                part = np.arange(count(X)) if own is None else own
                row = bad_row(net, part_of(X, part), part_of(y, part))
                cause = (
                    f"row {part[row]} of X or y holds NaN or infinity; impute or drop it"
                    if row is not None
                    else f"the training diverged at learning rate {net.lr:g}; lower it, or standardise X and y"
                )
                raise ValueError(f"the training loss became NaN or infinite in epoch {epoch}: {cause}")
            with torch.no_grad():
                for name, value in net.module_.named_parameters():
                    value.copy_(self.parameters[name][k])
        self.net.criterion_.reduction = "mean"
        return self.nets

    def group_size(self, n: int) -> int:
        """Nets that are trained together: as many as fit the memory that is meant for a group."""
        saved = 0

        def note(value: Tensor) -> Tensor:
            nonlocal saved
            saved += value.nbytes
            return value

        loader = self.net.get_iterator(range(n), training=True)
        batch = np.arange(n)[None, : loader.batch_size]
        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
            self.gradients(batch)
        own = sum(value.nbytes for value in self.parameters.values())
        kind = torch.device(self.net.device).type
        return max(1, GROUP_BYTES.get(kind, GROUP_BYTES["cpu"]) // (3 * own + saved))


def _to(data: Any, device: Any) -> Any:
    if isinstance(data, dict):
        return {name: _to(value, device) for name, value in data.items()}
    return data.to(device)


def _rows(data: Any, rows: Tensor) -> Any:
    if isinstance(data, dict):
        return {name: _rows(value, rows) for name, value in data.items()}
    return data[rows]
