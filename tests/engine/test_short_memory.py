"""Memory that runs out in the middle of a batch: its rows are tried again, fewer at a time, and none counts twice."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import sktda
from sktda import devices
from sktda.attribution import Influence, KNNShapley
from sktda.attribution.runs.moso import agreement
from sktda.engine.blocks import BlockCurvature
from sktda.engine.compressed_curvature import compressed_curvature, random_sides
from sktda.engine.compression import Compression, compressed, taken_blocks
from sktda.engine.covering import k_center, neighbour_weights
from sktda.engine.curvature import DenseCurvature, gauss_newton
from sktda.engine.differential import aggregated, first_and_second, meeting, own_values
from sktda.engine.ekfac import EKFAC
from sktda.engine.gauss_newton import FactoredGaussNewton, gauss_newton_products
from sktda.engine.kernel import arc_cosine_gram, leave_one_out_nystrom
from sktda.engine.last_layer import last_layer
from sktda.engine.links import Links
from sktda.engine.pairwise import along_each
from sktda.engine.per_row import PerRow
from sktda.engine.projection import projected, projection_of
from sktda.engine.replay import Batch, Replay
from sktda.engine.root_features import RootFeatures
from sktda.engine.second_order import SecondOrder
from sktda.engine.softmax_head import SoftmaxHead
from sktda.model.base import DifferentiableModel
from sktda.model.softmax import Categorical
from sktda.model.torch_model import TorchModel
from tests.engine.test_layers import CPU, rows_of

N, WIDTH, HIDDEN, CLASSES = 24, 4, 20, 3  # a layer with more parameters than rows x outputs, and one with fewer
ASKING = {"sweep", "for_blocks"}
PASSED = {"PerRow.sweep", "PerRow.computed", "for_blocks"}  # between a sweep and `in_blocks`
DRAWN = torch.Generator().manual_seed(0)
X = torch.randn(N, WIDTH, generator=DRAWN, dtype=torch.float64)
Y = torch.randint(CLASSES, (N,), generator=DRAWN)
UNIT = nn.functional.normalize(X)


class Short(TorchDispatchMode):
    """Counts the operations that take memory; the one of the number `refused` gets none."""

    def __init__(self, refused):
        super().__init__()
        self.count, self.refused = 0, refused

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += takes_memory(func, args)
        if self.count == self.refused:
            self.refused = None
            raise torch.OutOfMemoryError("out of memory (of the test)")
        return func(*args, **(kwargs or {}))


def takes_memory(func, args):
    """Whether an operation makes a tensor: one that is no view, or in place a copy of another type."""
    if func._schema.is_mutable:
        return len({value.dtype for value in args if isinstance(value, Tensor) and value.ndim}) > 1
    returns = func._schema.returns
    return any(isinstance(each.type, torch.TensorType) and each.alias_info is None for each in returns)


def watched(monkeypatch, sweep, refused=None):
    """A list that will hold the `Short` under which the first batch of a sweep ran."""
    own, seen = devices.in_blocks, []

    def in_blocks(n, size, compute, *rest):
        frame = sys._getframe(1)
        while frame.f_code.co_qualname in PASSED:
            frame = frame.f_back
        asking = frame.f_code.co_qualname

        def first(rows):
            if seen or asking != sweep:
                return compute(rows)
            assert rows.stop - rows.start > 1
            seen.append(Short(refused))
            with seen[0]:
                return compute(rows)

        return own(n, size, first, *rest)

    for name, module in list(sys.modules.items()):
        if name.startswith("sktda.") and getattr(module, "in_blocks", None) is own:
            monkeypatch.setattr(module, "in_blocks", in_blocks)
    return seen


class Setting:
    """An engine with its rows, and k directions."""

    def __init__(self, dtype=torch.float64, deep=True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES))
            net = (net if deep else nn.Linear(WIDTH, CLASSES)).to(dtype)
        self.model = DifferentiableModel(net, Categorical(), rows_of, {})
        self.engine = PerRow(self.model, 8)
        self.rows = rows_of(X.to(dtype), Y, torch.linspace(0.5, 2, N).to(dtype))
        self.engine.prepare(self.rows)
        drawn = torch.Generator().manual_seed(1)
        self.k = {
            name: torch.randn(2, *value.shape, generator=drawn, dtype=torch.float64)
            for name, value in self.model.parameters.items()
        }
        """In double precision in any case, as conjugate gradients have them."""
        self.one = {name: value[0].to(dtype) for name, value in self.k.items()}
        self.both = self.engine, self.rows
        self.bends = SecondOrder(self.engine)


def replayed(setting):
    replay = Replay.__new__(Replay)
    replay.engine, replay.shapes = setting.engine, {name: value.shape[1:] for name, value in setting.k.items()}
    directions = torch.cat([value.flatten(1) for value in setting.k.values()], dim=1)
    return replay.products(Batch(0, setting.rows, np.arange(N), N), directions)


def compression_of(setting):
    blocks = taken_blocks(*setting.both)
    return Compression(blocks, 3, random_sides(blocks, 3, 0), 0, setting.model)


def linked(setting):
    return Links(*setting.both, EKFAC(*setting.both), 0.1).quadratic(*setting.both, 0, N)


def features(setting):
    """Products, as the order of the features is that of the batches."""
    few = setting.engine.capture(setting.rows.block(slice(0, 3), CPU))[1]
    found = RootFeatures(*setting.both).of(few)
    return found @ found.T


def nystrom():
    found = leave_one_out_nystrom(lambda part: UNIT[part], UNIT[:9], nn.functional.one_hot(Y).double(), 0.1, 8)
    return found.precision, found.residual


def scores(method):
    return torch.as_tensor(method.fit(X.numpy(), Y.numpy()).scores_)


def bent(setting):
    return setting.bends.products(setting.rows, setting.k)


def of_head(setting):
    return SoftmaxHead.of(*setting.both).products(setting.rows, setting.k)


SWEEPS = {  # the function that asks for it: what is found then
    "KNNShapley._values": lambda s: scores(KNNShapley()),
    "Influence._self_scores": lambda s: scores(
        Influence(TorchModel(s.model.module, nn.CrossEntropyLoss()), curvature="cg", damping=0.1)
    ),
    "agreement": lambda s: agreement(*s.both, s.one, N, 0, N),
    "BlockCurvature._root_gradients": lambda s: BlockCurvature(*s.both).values,
    "compressed": lambda s: compressed(*s.both, compression_of(s), None, 0, N),
    "compressed_curvature": lambda s: compressed_curvature(*s.both, compression_of(s), 0),
    "_approach": lambda s: k_center(X, 5),
    "neighbour_weights": lambda s: neighbour_weights(X, 3),
    "DenseCurvature.quadratic": lambda s: DenseCurvature(*s.both).quadratic(*s.both, torch.exp, 0, N),
    "gauss_newton": lambda s: gauss_newton(*s.both),
    "aggregated": lambda s: aggregated(*s.both, s.bends, s.k, s.one, s.k, 0, N),
    "first_and_second": lambda s: first_and_second(*s.both, s.bends, s.one, s.one, s.one),
    "own_values": lambda s: own_values(*s.both, s.bends, meeting(s.engine, None, s.rows), s.one, 8, 0, N),
    "EKFAC._shard": lambda s: EKFAC(*s.both).values,
    "EKFAC.quadratic": lambda s: EKFAC(*s.both).quadratic(*s.both, torch.exp, 0, N),
    "FactoredGaussNewton.__init__": lambda s: FactoredGaussNewton(*s.both)(s.k),
    "gauss_newton_products": lambda s: gauss_newton_products(*Setting(torch.float32).both, s.k),
    "arc_cosine_gram": lambda s: arc_cosine_gram(UNIT),
    "_Streamed.sums": lambda s: nystrom(),
    "last_layer": lambda s: last_layer(s.model, s.rows).features,
    "Links._matrix": linked,
    "Links.quadratic": linked,
    "along_each": lambda s: along_each(*s.both, s.k, 0, N),
    "PerRow.dots": lambda s: s.engine.dots(s.rows, s.one),
    "PerRow.gradient": lambda s: s.engine.mean_gradient(s.rows),
    "PerRow.losses": lambda s: s.engine.losses(s.rows),
    "PerRow.square_norms": lambda s: s.engine.square_norms(s.rows),
    "projected": lambda s: projected(*s.both, projection_of(*s.both, 16, 0), None, 0, N),
    "Replay.products": replayed,
    "RootFeatures.__init__": features,
    "SecondOrder.products": lambda s: bent(Setting(torch.float32)),
    "SoftmaxHead.products": lambda s: of_head(Setting(deep=False)),
}


def flat(found):
    """All numbers of what was found."""
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list | tuple):
        return torch.cat([flat(each) for each in found])
    return torch.as_tensor(found).double().flatten()


@pytest.mark.parametrize("sweep", SWEEPS)
def test_rows_whose_batch_runs_out_of_memory_count_once(sweep, monkeypatch):
    """At the last allocation of the first batch, where all that must not have changed before it would have."""
    expected = flat(SWEEPS[sweep](Setting()))  # what is made once, such as rules of differentiation, is made here
    with monkeypatch.context() as patch:
        calm = watched(patch, sweep)
        SWEEPS[sweep](Setting())
    with monkeypatch.context() as patch:
        short = watched(patch, sweep, calm[0].count)
        found = flat(SWEEPS[sweep](Setting()))
    assert calm[0].count
    assert short[0].refused is None, "the memory was not short"
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_there_is_a_case_for_every_sweep_that_works_by_what_it_changes():
    missing = []

    def look(node, inside):
        for each in ast.iter_child_nodes(node):
            if isinstance(each, ast.Call) and getattr(each.func, "attr", getattr(each.func, "id", "")) in ASKING:
                missing.extend({".".join(inside)} - set(SWEEPS))
            look(each, [*inside, each.name] if isinstance(each, ast.ClassDef | ast.FunctionDef) else inside)

    for path in Path(sktda.__file__).parent.rglob("*.py"):
        if any(f"{name}(" in (text := path.read_text()) for name in ASKING):
            look(ast.parse(text), [])
    assert missing == [], "these have no case above"
