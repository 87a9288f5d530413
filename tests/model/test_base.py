"""Rows as blocks of tensors, and the rows at chosen positions."""

import numpy as np
import torch

from sktda.model.base import Rows
from tests.in_turn import in_turn

CPU = torch.device("cpu")
X = torch.arange(24.0).reshape(8, 3)
Y = torch.arange(8) * 10
WEIGHT = torch.arange(8.0) / 8
BLOCKS = [slice(0, 4), slice(1, 3), slice(0, 0), np.array([2, 0]), np.array([1, 1]), np.array([-1])]


def rows(weight=None, kind="tensor"):
    def read(part):
        return (X[part] if kind == "tensor" else {"one": X[part], "two": -X[part]}), Y[part]

    return Rows(8, read, weight)


@in_turn("block", BLOCKS)
@in_turn("positions", [[5, 0, 7, 2], [1, 1, 1, 6], [0, 1, 2, 3]])
@in_turn("weight", [None, WEIGHT])
def test_blocks_of_chosen_rows_are_those_at_the_positions(positions, block, weight):
    positions = np.array(positions)
    chosen = rows(weight).chosen(positions)
    inputs, targets, weights = chosen.block(block, CPU)
    assert len(chosen) == 4
    assert torch.equal(inputs, X[positions[block]])
    assert torch.equal(targets, Y[positions[block]])
    assert weights is None if weight is None else torch.equal(weights, WEIGHT[positions[block]])


def test_inputs_by_name_are_chosen_alike():
    inputs, _, _ = rows(kind="dict").chosen(np.array([4, 2])).block(slice(0, 2), CPU)
    assert torch.equal(inputs["one"], X[[4, 2]])
    assert torch.equal(inputs["two"], -X[[4, 2]])


def test_chosen_of_chosen_rows_and_of_no_row():
    twice = rows(WEIGHT).chosen(np.array([6, 4, 2, 0])).chosen(np.array([3, 1]))
    inputs, targets, weights = twice.block(slice(0, 2), CPU)
    assert torch.equal(inputs, X[[0, 4]])
    assert targets.tolist() == [0, 40]
    assert torch.equal(weights, WEIGHT[[0, 4]])
    assert torch.equal(twice.rooted().block(slice(0, 2), CPU)[2], WEIGHT[[0, 4]].sqrt())
    assert len(rows(WEIGHT).chosen(np.array([], dtype=int))) == 0


def test_rows_are_read_when_they_are_asked_for_and_no_others():
    seen = []

    def read(part):
        seen.append(part)
        return X[part], Y[part]

    chosen = Rows(8, read).chosen(np.array([5, 0, 7, 2]))
    assert not seen
    chosen.block(slice(1, 3), CPU)
    assert [part.tolist() for part in seen] == [[0, 7]]


def test_batches_go_to_cuda_through_pinned_memory_and_nobody_waits(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda value: (seen.append("pinned"), value)[1])
    monkeypatch.setattr(
        torch.Tensor,
        "to",
        lambda value, device, non_blocking=False: (seen.append((device.type, non_blocking)), value)[1],
    )
    for device, expected in (("cuda", ["pinned", ("cuda", True)]), ("cpu", [("cpu", False)])):
        rows(WEIGHT, "dict").block(slice(0, 2), torch.device(device))
        assert seen == 4 * expected  # two inputs, targets, weights
        seen.clear()
