"""Nets drawn at random, of pieces of every kind: gradients by row, their lengths and their products, by brute force."""

import numpy as np
import pytest
import torch
from torch import nn

from sktda.engine.ekfac import EKFAC
from sktda.engine.pairwise import Plain
from sktda.engine.per_row import PerRow
from sktda.model.adapters import differentiable
from sktda.model.consistency import check_losses
from sktda.model.given import GivenModel, GivenRows
from tests.model.matrix import HIDDEN, LOSSES, MODULES, WIDTH, expected, net_of

ROWS = 5
DRAWS = (*range(29), 81)  # the last one computes checkpoints again row by row
PIECES = [kind for kind in MODULES if kind not in {"tuple of outputs", "mixed dtypes", "orthogonal"}]


class Drawn(nn.Module):
    """Pieces one after the other, some of them twice or with a part in common; skips, buffers and hooks between."""

    def __init__(self, random):
        super().__init__()
        pieces = [MODULES[PIECES[random.integers(len(PIECES))]]() for _ in range(random.integers(1, 5))]
        self.pieces = nn.ModuleList(pieces)
        self.order = [k for k in range(len(pieces)) for _ in range(1 + (random.random() < 0.2))]
        self.between = nn.ModuleList([nn.Linear(HIDDEN, WIDTH) for _ in self.order[1:]])
        self.skip = random.random() < 0.5
        if len(pieces) > 1 and random.random() < 0.3 and type(pieces[0].first) is type(pieces[1].first) is nn.Linear:
            pieces[1].first.weight = pieces[0].first.weight
        if random.random() < 0.3:
            self.register_buffer("offset", torch.rand(HIDDEN))
            self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        if random.random() < 0.3:
            self.shift = nn.Parameter(torch.rand(() if random.random() < 0.5 else HIDDEN))
        if random.random() < 0.3:
            pieces[-1].register_forward_hook(self.halved)
        for value in self.parameters():
            value.requires_grad_(bool(random.random() < 0.85))

    def halved(self, module, arguments, output):
        return 0.5 * output

    def forward(self, x):
        hidden = self.pieces[0](x)
        for layer, k in zip(self.between, self.order[1:], strict=True):
            found = self.pieces[k](torch.tanh(layer(hidden)))
            hidden = hidden + found if self.skip else found
        if hasattr(self, "offset"):
            self.calls += len(x)
            hidden = hidden + self.offset
        return hidden * self.shift if hasattr(self, "shift") else hidden


@pytest.fixture(autouse=True)
def default_dtype():
    yield
    torch.set_default_dtype(torch.float32)


def trial(seed):
    """Draw a net, and compare; returns what it was."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    dtype = torch.float64 if random.random() < 0.8 else torch.float32
    torch.set_default_dtype(dtype)
    name = list(LOSSES)[random.integers(len(LOSSES))]
    while "ignored" in name or "class weights" in name:  # whose criterion is no mean once it is one's own
        name = list(LOSSES)[random.integers(len(LOSSES))]
    reduction = ("mean", "sum")[random.integers(2)]
    several = random.random() < 0.2
    _, _, y = loss = LOSSES[name]
    y = np.concatenate([y, y])[:ROWS]
    y = y.astype(np.float32) if dtype is torch.float32 and y.dtype.kind == "f" else y
    X = random.normal(size=(ROWS, WIDTH)).astype(np.float64 if dtype is torch.float64 else np.float32)
    net = net_of(lambda: Drawn(random), loss, reduction, "tuple" if several else "")
    said = f"{name}, {reduction}, {dtype}, several={several}, {net.module_}"

    given, data = GivenModel.of(net), GivenRows(X, y)
    model = differentiable(given, ROWS)
    rows, engine = model.training_rows(*data), PerRow(model, int(random.integers(1, ROWS + 2)))
    check_losses(given, model, rows, data)
    total, true = expected(net, X, y, reduction)
    scale = true.abs().max().item()
    tolerance = {"rtol": 0, "atol": (1e-7 if dtype is torch.float64 else 2e-3) * max(scale, 1e-3)}
    gradients = engine.gradients(rows, slice(0, ROWS))
    torch.testing.assert_close(gradients, true, **tolerance, msg=said)
    torch.testing.assert_close(
        getattr(engine.losses(rows), reduction)(), total, rtol=1e-5, atol=1e-6, check_dtype=False, msg=said
    )
    along = torch.randn(true.shape[1])
    shapes = [value.shape for value in model.parameters.values()]
    parts = [part.reshape(shape) for part, shape in zip(along.split([s.numel() for s in shapes]), shapes, strict=True)]
    dots = engine.dots(rows, dict(zip(model.parameters, parts, strict=True)))
    close = {"rtol": 1e-6 if dtype is torch.float64 else 1e-2, "atol": 30 * tolerance["atol"] * max(scale, 1)}
    torch.testing.assert_close(dots, true @ along, **close, msg=said)
    torch.testing.assert_close(engine.square_norms(rows), true.square().sum(1), **close, msg=said)
    factors = engine.capture(rows.block(slice(0, ROWS), model.device))[1]
    torch.testing.assert_close(Plain([factors]).block(factors), true @ true.T, **close, msg=said)
    if name in {"MultiMargin", "MultiLabelMargin"}:
        with pytest.raises(ValueError, match="torch has no second derivative of"):
            EKFAC(engine, rows)
    elif dtype is torch.float64 and scale > 1e-3:
        curvature = EKFAC(engine, rows)
        moved = curvature.apply(
            fn := lambda s: 1 / (s + 0.1), dict(zip(model.parameters, _by_parameter(true, shapes), strict=True))
        )
        whole = torch.cat(
            [
                moved[k].reshape(ROWS, -1) if k in moved else torch.zeros(ROWS, v.numel())
                for k, v in model.parameters.items()
            ],
            1,
        )
        torch.testing.assert_close(
            curvature.quadratic(engine, rows, fn, 0, ROWS), (whole * true).sum(1), **close, msg=said
        )
    return said


def _by_parameter(gradients, shapes):
    parts = gradients.split([shape.numel() for shape in shapes], 1)
    return [part.reshape(ROWS, *shape) for part, shape in zip(parts, shapes, strict=True)]


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss:UserWarning", "ignore:EK-FAC leaves out")
@pytest.mark.parametrize("seed", DRAWS)
def test_a_net_drawn_at_random(seed):
    trial(seed)
