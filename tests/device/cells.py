"""Cells of recurrent nets by the names that they have on CUDA, which fuses them; the processor has none of these."""

from __future__ import annotations

import torch
from torch import Tensor


def summed(gates: Tensor, bias: Tensor | None) -> Tensor:
    return gates if bias is None else gates + bias


def gru_cell(
    inputs: Tensor, hidden: Tensor, state: Tensor, bias: Tensor | None = None, hidden_bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(next state, workspace (n, 5h) of the backward pass)."""
    r, z, n = summed(inputs, bias).chunk(3, 1)
    r_hidden, z_hidden, n_hidden = summed(hidden, hidden_bias).chunk(3, 1)
    r, z = torch.sigmoid(r + r_hidden), torch.sigmoid(z + z_hidden)
    n = torch.tanh(n + r * n_hidden)
    return n + z * (state - n), torch.cat([r, z, n, state, n_hidden], dim=1)


def gru_cell_backward(slope: Tensor, workspace: Tensor, has_bias: bool) -> tuple[Tensor | None, ...]:
    """Slopes in the inputs (n, 3h), the hidden gates (n, 3h), the state (n, h) and both biases."""
    r, z, n, state, n_hidden = workspace.chunk(5, 1)
    of_n = slope * (1 - z) * (1 - n.square())
    of_z, of_r = slope * (state - n) * z * (1 - z), of_n * n_hidden * r * (1 - r)
    inputs, hidden = torch.cat([of_r, of_z, of_n], dim=1), torch.cat([of_r, of_z, of_n * r], dim=1)
    biases = (inputs.sum(dim=0), hidden.sum(dim=0)) if has_bias else (None, None)
    return inputs, hidden, slope * z, *biases


def lstm_cell(
    inputs: Tensor, hidden: Tensor, cell: Tensor, bias: Tensor | None = None, hidden_bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(next state, next cell, workspace (n, 4h) of the backward pass)."""
    i, f, g, o = (summed(inputs, bias) + summed(hidden, hidden_bias)).chunk(4, 1)
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    new = f * cell + i * g
    return o * torch.tanh(new), new, torch.cat([i, f, g, o], dim=1)


def lstm_cell_backward(
    slope: Tensor | None, of_cell: Tensor | None, cell: Tensor, new: Tensor, workspace: Tensor, has_bias: bool
) -> tuple[Tensor | None, ...]:
    """Slopes in the gates (n, 4h), the cell (n, h) and the bias."""
    i, f, g, o = workspace.chunk(4, 1)
    squashed = torch.tanh(new)
    slope = torch.zeros_like(cell) if slope is None else slope
    inner = slope * o * (1 - squashed.square()) + (0 if of_cell is None else of_cell)
    of_i, of_f, of_g = inner * g * i * (1 - i), inner * cell * f * (1 - f), inner * i * (1 - g.square())
    gates = torch.cat([of_i, of_f, of_g, slope * squashed * o * (1 - o)], dim=1)
    return gates, inner * f, gates.sum(dim=0) if has_bias else None


FUSED = {
    "_thnn_fused_gru_cell": gru_cell,
    "_thnn_fused_gru_cell_backward": gru_cell_backward,
    "_thnn_fused_lstm_cell": lstm_cell,
    "_thnn_fused_lstm_cell_backward_impl": lstm_cell_backward,
}
