"""Conjugate gradients on an accelerator, which are looked at once in some rounds, end as those on the processor do."""

import pytest
import torch

from sktda.engine.curvature import ROUNDS, conjugate_gradients

VALUES = torch.cat([torch.arange(1.0, 13.0), torch.ones(4)]).double()
SIDES = torch.stack([torch.eye(16)[0], torch.zeros(16), torch.ones(16), torch.eye(16)[1] + torch.eye(16)[2]]).double()


def solve(device, values, max_iter=40):
    values = values.to(device)
    calls = []

    def multiply(direction):
        calls.append(len(direction["w"]))
        return {"w": direction["w"] * values}

    found = conjugate_gradients(multiply, {"w": SIDES.to(device)}, 0.5, 1e-10, max_iter)
    return found["w"].cpu(), calls


def test_systems_that_end_in_between_stay_as_they_are(device):
    """One of them is solved to the last digit by its first product."""
    found, calls = solve(device, VALUES)
    torch.testing.assert_close(found, SIDES / (VALUES + 0.5), rtol=1e-9, atol=1e-12)
    assert calls == ROUNDS * [3] + ROUNDS * [1]


def test_what_cannot_be_solved_is_said(device):
    with pytest.raises(ValueError, match=r"direction of curvature -1\.5"):
        solve(device, -2 * torch.ones(16).double())
    with pytest.raises(ValueError, match="did not converge in 5 products"):
        solve(device, VALUES, max_iter=5)
