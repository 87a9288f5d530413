"""LSTM, GRU and RNN through the linear maps of their gates, which are called at every step.

torch runs all steps in one operation, without the gradients at the gates. While layers are recorded the module runs
step by step: W_ih on all inputs at once, W_hh on one state after another, each a linear layer with the steps as
positions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from sktda.engine.layers.layer import Layer, Opened
from sktda.engine.layers.linear import Part

Cell = Callable[[Tensor, Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


def lstm(ih: Tensor, hh: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(h, c) after a step."""
    # in torch's order: input, forget, cell, output
    i, f, g, o = (ih + hh).chunk(4, dim=1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru(ih: Tensor, hh: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(h,) after a step."""
    (r, z, n), (hr, hz, hn) = ih.chunk(3, dim=1), hh.chunk(3, dim=1)
    update = torch.sigmoid(z + hz)
    # torch's reset gate multiplies the map of the state, with its bias, and not the state before it
    return ((1 - update) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + update * state[0],)


def rnn(
    activation: Callable[[Tensor], Tensor], ih: Tensor, hh: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """(h,) after a step."""
    return (activation(ih + hh),)


class Unrolled(Opened):
    """The module in steps."""

    def __init__(self, module: nn.RNNBase | nn.RNNCellBase) -> None:
        super().__init__(module)
        if isinstance(module, nn.LSTM | nn.LSTMCell):
            self.cell: Cell = lstm
        elif isinstance(module, nn.GRU | nn.GRUCell):
            self.cell = gru
        else:
            self.cell = partial(rnn, torch.tanh if module.nonlinearity == "tanh" else torch.relu)

    def _map(self, name: str, suffix: str, x: Tensor) -> Tensor:
        key = name + suffix
        bias = getattr(self.module, f"bias_{key}") if self.module.bias else None
        return self.noted(key, x, getattr(self.module, f"weight_{key}"), bias)

    def __call__(self, x: Tensor, hx: Tensor | tuple[Tensor, Tensor] | None = None) -> object:
        """As the module's own."""
        if isinstance(self.module, nn.RNNCellBase):
            return self._one_step(x, hx)
        return self._all_steps(x, hx)

    def _one_step(self, x: Tensor, hx: Tensor | tuple[Tensor, Tensor] | None) -> object:
        if x.ndim != 2:
            raise RuntimeError("a recurrent cell on inputs without an axis of rows")
        states = self._states(hx, x.new_zeros(len(x), self.module.hidden_size))
        state = self.cell(self._map("ih", "", x), self._map("hh", "", states[0]), states)
        return state if len(state) == 2 else state[0]

    def _states(self, hx: Tensor | tuple[Tensor, Tensor] | None, zeros: Tensor) -> tuple[Tensor, ...]:
        if hx is None:
            return (zeros, zeros) if self.cell is lstm else (zeros,)
        return tuple(hx) if self.cell is lstm else (hx,)  # type: ignore[return-value]

    def _all_steps(self, x: Tensor, hx: Tensor | tuple[Tensor, Tensor] | None) -> object:
        module = self.module
        assert isinstance(module, nn.RNNBase)
        if not isinstance(x, Tensor) or x.ndim != 3 or (module.training and module.dropout):
            raise RuntimeError("a recurrent layer on packed or single sequences, or with dropout")
        x = x if module.batch_first else x.transpose(0, 1)
        ways = 2 if module.bidirectional else 1
        states = self._states(hx, x.new_zeros(module.num_layers * ways, len(x), module.hidden_size))
        last = []
        for layer in range(module.num_layers):
            outputs = []
            for way in range(ways):
                suffix = f"_l{layer}" + ("_reverse" if way else "")
                state = tuple(each[layer * ways + way] for each in states)
                # inputs of all steps at once, (n, t, gates * hidden): only states wait for each other
                ih, seen = self._map("ih", suffix, x), []
                for t in reversed(range(x.shape[1])) if way else range(x.shape[1]):
                    state = self.cell(ih[:, t], self._map("hh", suffix, state[0]), state)
                    seen.append(state[0])
                # what was read backwards goes back into the order of the sequence
                outputs.append(torch.stack(seen[::-1] if way else seen, dim=1))
                last.append(state)
            x = torch.cat(outputs, dim=2)
        # (layers * ways, n, hidden), rows second also where batch_first is set
        final = tuple(torch.stack(each) for each in zip(*last, strict=True))
        return x if module.batch_first else x.transpose(0, 1), final if len(final) == 2 else final[0]


def layers(name: str, module: nn.Module) -> list[Layer]:
    """Every linear map of a recurrent module; not of one that projects its states, or has a forward of its own."""
    kinds = {nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell}
    if type(module) not in kinds or "forward" in module.__dict__ or getattr(module, "proj_size", 0) != 0:
        return []
    gates = [
        key.removeprefix("weight_") for key, _ in module.named_parameters(recurse=False) if key.startswith("weight")
    ]
    return [Part(name, module, gate, (f"weight_{gate}", f"bias_{gate}"), Unrolled) for gate in gates]
