"""What is asked of an accelerator, row by row: methods, sizes, precisions, and the order they come in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from shared.common import data_folder
from shared.nets import SEED, Setting, images, mlp, plain_pass, trained
from sklearn.frozen import FrozenEstimator
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sktda.attribution import ComplexityGap, KNNShapley, Source
from sktda.attribution.features.complexity_gap import default_landmarks
from sktda.engine.ekfac import EKFAC
from sktda.engine.pairwise import EKFACQueries
from sktda.engine.per_row import PerRow
from sktda.model.precision import at_precision

PRECISIONS = {"fp32": "float32", "TF32": "tf32", "bf16": "bf16"}  # and their names in the library
TOLERANCE = 0.02  # the default of Influence for pairs
FEW = 2_048  # rows of the run that does not count, in which memory and algorithms are found
COUNTED = 256  # rows of a plain pass on which floating point operations are counted
CHECKPOINTS = 6
ENGINE = ("fit", "pairs", "itself", "aggregated")  # kinds of rows that call the engine and no method
# Seconds of kronfluence for ResNet-9 on 50,000 rows as its authors publish them, on an A100; "half" beside our bf16.
KRONFLUENCE = {
    ("EK-FAC fit and pairs, 2,000 queries", "fp32"): 106.0,
    ("EK-FAC fit and pairs, 2,000 queries", "bf16"): 36.0,
    ("EK-FAC self-influence", "fp32"): 122.0,
}


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    images: tuple[int, ...] = (50_000, 10_000)
    width: int = 32  # channels of the first layer
    queries: tuple[int, ...] = (2_000, 500)
    source: tuple[int, ...] = (10_000,)
    gap: tuple[tuple[int, int], ...] = ((1_000_000, 384), (60_000, 784))  # rows and columns
    gap_settings: tuple[tuple[str, Any], ...] = ()
    neighbours: tuple[tuple[int, int], ...] = ((60_000, 784),)
    nets: tuple[int, ...] = (10_000,)  # rows of each
    n_nets: int = 50
    epochs: int = 10
    precisions: tuple[str, ...] = tuple(PRECISIONS)
    timed: bool = True
    """Whether there are the rows that only say something in seconds."""


# What is counted does not depend on the precision. The ridge is given, as how many are tried depends on the rows.
SMALL = Sizes(
    images=(32, 64),
    width=4,
    queries=(8, 4),
    source=(32, 64),
    gap=((256, 24), (512, 24)),
    gap_settings=(("mode", "nystrom"), ("n_landmarks", 48), ("ridge", 0.3), ("scale", "unit")),
    neighbours=((64, 16), (128, 16)),
    nets=(32, 64),
    n_nets=5,
    epochs=2,
    precisions=("fp32",),
    timed=False,
)
PEAK = 8_192  # rows and columns of the matrices whose product is the peak


@dataclass(frozen=True)
class Row:
    """One measurement."""

    what: str
    kind: str
    """The method of `Work` that makes it."""
    size: tuple[int, ...]
    """Rows first; what else there is of sizes after it."""
    precision: str


def rows(sizes: Sizes) -> list[Row]:
    """The most important first: time may run out."""

    def of(n: int) -> list[Row]:
        return [
            Row(what, kind, (n, *more), precision)
            for precision in sizes.precisions
            for what, kind, more in (
                ("plain forward and backward pass", "plain", ()),
                ("EK-FAC fit", "fit", ()),
                *((f"EK-FAC fit and pairs, {q:,} queries", "pairs", (q,)) for q in sizes.queries),
                ("EK-FAC self-influence", "itself", ()),
                ("validation objective", "aggregated", ()),
            )
        ]

    exact = sizes.precisions[:2]  # for what is in float32 at least
    q = min(sizes.queries)
    found = of(sizes.images[0])
    found += [Row("ComplexityGap", "gap", size, name) for size in sizes.gap for name in exact]
    found += [
        Row(f"Source over {CHECKPOINTS} checkpoints, {q} queries", "source", (n, q), name)
        for n in sizes.source
        for name in sizes.precisions
    ]
    found += [Row(f"{sizes.n_nets} nets side by side", "nets", (n,), name) for n in sizes.nets for name in exact]
    found += [Row("KNNShapley", "neighbours", size, "float64") for size in sizes.neighbours]
    for n in sizes.images[1:]:
        found += of(n)
    if not sizes.timed:
        return found
    peaks = [Row("matrix product, the peak", "peak", (PEAK,), name) for name in (*sizes.precisions, "float64")]
    return [*peaks, *found, Row("benchmarks/vit.py", "vit", (50_000,), "fp32")]


@dataclass(frozen=True)
class Task:
    """How one row is measured: run(n) on so many of the rows returns numbers to compare, or None."""

    run: Callable[[int], Any]
    operations: float = 0.0
    """Floating point operations that one row needs at least; 0 where this is not known."""
    before: float = 0.0
    """Seconds of what was done before and counts, too."""


class Work:
    """Nets and data, made when the first row needs them and kept for the others."""

    def __init__(self, device: str, sizes: Sizes, time: Callable[[Callable[[], Any]], tuple[float, Any]]) -> None:
        warnings.filterwarnings("ignore", message="EK-FAC leaves out")  # the batch normalisations
        self.device, self.sizes, self.time = torch.device(device), sizes, time
        self.curvatures: dict[tuple[int, str], tuple[EKFAC, float]] = {}
        self.made = cache(self._made)

    def task(self, row: Row) -> Task:
        """The row, ready to run."""
        return getattr(self, row.kind)(row)

    # ---- ResNet-9 --------------------------------------------------------------------------------------------------

    def _made(self, what: str) -> Any:
        if what == "images":
            n = max(self.sizes.images)
            setting = images(n, max(self.sizes.queries), self.sizes.width, device=str(self.device))
            setting.model.to(self.device)
            return setting
        return plain_operations(self.made("images"))

    def resnet(self, row: Row) -> tuple[Setting, PerRow, float]:
        setting: Setting = self.made("images")
        return setting, PerRow(setting.model), self.made("operations")

    def plain(self, row: Row) -> Task:
        setting, _, operations = self.resnet(row)
        size = min(1_024, row.size[0])
        return Task(lambda n: plain_pass(setting, size, n)(), operations)

    def curvature(self, row: Row) -> tuple[EKFAC, float]:
        """Fitted on all rows, and the seconds of it."""
        key = row.size[0], row.precision
        if key not in self.curvatures:
            self.curvatures.clear()  # of another size or precision: memory
            setting, engine, _ = self.resnet(row)
            part = setting.model.rows(setting.X[: key[0]], setting.y[: key[0]])
            seconds, found = self.time(lambda: EKFAC(engine, part, SEED))
            self.curvatures[key] = found, seconds
        return self.curvatures[key]

    def fit(self, row: Row) -> Task:
        setting, engine, operations = self.resnet(row)

        def run(n: int) -> Tensor:
            found = EKFAC(engine, setting.model.rows(setting.X[:n], setting.y[:n]), SEED)
            return torch.cat([values.flatten() for values in found.values.values()])

        return Task(run, operations)

    def itself(self, row: Row) -> Task:
        (setting, engine, operations), (curvature, _) = self.resnet(row), self.curvature(row)

        def run(n: int) -> Tensor:
            part = setting.model.rows(setting.X[:n], setting.y[:n])
            return curvature.quadratic(engine, part, curvature.inverse(), 0, n)

        return Task(run, operations)

    def aggregated(self, row: Row) -> Task:
        (setting, engine, operations), (curvature, _) = self.resnet(row), self.curvature(row)

        def run(n: int) -> Tensor:
            part = setting.model.rows(setting.X[:n], setting.y[:n])
            return engine.dots(part, curvature.apply(curvature.inverse(), engine.mean_gradient(setting.validation)))

        return Task(run, operations)

    def pairs(self, row: Row) -> Task:
        (setting, engine, operations), (curvature, seconds) = self.resnet(row), self.curvature(row)
        queries = setting.model.rows(setting.X_val[: row.size[1]], setting.y_val[: row.size[1]])
        engine.prepare(queries)

        def run(n: int) -> Tensor:
            part = setting.model.rows(setting.X[:n], setting.y[:n])
            source = EKFACQueries(curvature, curvature.inverse(), TOLERANCE)
            source.choose_ranks(engine, queries, part, None)
            values = torch.empty(len(queries), n, device=self.device)
            for asked, ready in source.blocks(engine, queries, None):

                def block(some: slice, ready: Any = ready) -> Tensor:
                    return ready.block(engine.capture(part.block(some, self.device), None, curvature.own(engine))[1])

                for some, found in engine.computed(part, block):
                    values[asked, some] = found.to(values)
            return values

        return Task(run, operations, seconds)

    # ---- the public methods ----------------------------------------------------------------------------------------

    def source(self, row: Row) -> Task:
        setting: Setting = self.made("images")
        n, q = row.size
        X, y = setting.X[:n], setting.y[:n]
        module = type(setting.net.module_)(self.sizes.width)
        net = trained(module, X, y, 1, 0.01, CHECKPOINTS, str(self.device), max(1, min(128, n // CHECKPOINTS)))
        settings = {"device": str(self.device), "random_state": SEED, "precision": PRECISIONS[row.precision]}
        method = Source(FrozenEstimator(net), objective=None, **settings)

        def run(n: int) -> np.ndarray:
            return method.fit(X[:n], y[:n]).attribute(setting.X_val[:q], setting.y_val[:q])

        return Task(run, CHECKPOINTS * self.made("operations"))

    def gap(self, row: Row) -> Task:
        X, y = table(*row.size)
        settings = {"device": str(self.device), "random_state": SEED}
        method = ComplexityGap(**settings, **dict(self.sizes.gap_settings))
        landmarks = method.n_landmarks if method.n_landmarks != "auto" else default_landmarks(row.size[0])
        # the kernel with the landmarks, its projection, and the Gram of that
        operations = 2 * landmarks * (row.size[1] + 2 * landmarks)
        return Task(lambda n: method.fit(X[:n], y[:n]).scores_, operations)

    def neighbours(self, row: Row) -> Task:
        X, y = table(*row.size)
        q = max(self.sizes.queries)
        X_val, y_val = X[:q] + np.float32(0.1), y[:q]
        method = KNNShapley(device=str(self.device))
        return Task(lambda n: method.fit(X[:n], y[:n], X_val=X_val, y_val=y_val).scores_, 2.0 * q * row.size[1])

    def nets(self, row: Row) -> Task:
        from skorch import NeuralNetClassifier
        from torch import nn

        from sktda import retrain

        X, y = table(row.size[0], 64)
        torch.manual_seed(SEED)
        net = NeuralNetClassifier(
            mlp(64, 64, 10),
            criterion=nn.CrossEntropyLoss,
            lr=0.05,
            max_epochs=self.sizes.epochs,
            batch_size=max(1, min(128, row.size[0] // 2)),
            train_split=None,
            verbose=0,
            device=str(self.device),
        )
        parameters = 64 * 64 + 64 * 10

        def run(n: int) -> Tensor:
            found = retrain(net, X[:n], y[:n], seeds=range(self.sizes.n_nets), batched=True)
            return torch.cat([value.detach().flatten() for each in found for value in each.module_.parameters()])

        return Task(run, 6.0 * parameters * self.sizes.epochs * self.sizes.n_nets)

    def vit(self, row: Row) -> Task:
        folder = data_folder()
        if folder is None or not (folder / "fashion_mnist.npz").exists():
            raise FileNotFoundError("Fashion-MNIST is not here; put fashion_mnist.npz into SKTDA_DATA/data")
        import vit

        return Task(lambda n: vit.main([]) if n == row.size[0] else None)

    def peak(self, row: Row) -> Task:
        kind = {"bf16": torch.bfloat16, "float64": torch.float64}.get(row.precision, torch.float32)
        a = torch.randn(row.size[0], row.size[0], device=self.device, dtype=kind)

        def run(n: int) -> None:
            for _ in range(10):
                a @ a

        return Task(run, 10 * 2 * row.size[0] ** 2)


def precision_context(row: Row) -> AbstractContextManager:
    """What else than the settings of TF32 a row needs: the library's own context, or autocast for a plain pass."""
    if row.kind in ENGINE:
        return at_precision(PRECISIONS[row.precision], torch.device("cuda"), torch.float32)
    alone = row.precision != "bf16" or row.kind == "source"
    return nullcontext() if alone else torch.autocast("cuda", torch.bfloat16)


@contextmanager
def at(row: Row) -> Iterator[None]:
    """Matrix products and convolutions at the row's precision; passes in bf16 by autocast."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = row.precision == "TF32"
    try:
        with precision_context(row):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@cache
def table(n: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal numbers, and ten classes that half depend on them."""
    rng = np.random.default_rng(SEED)
    X = rng.standard_normal((n, columns), dtype=np.float32)
    y = (X[:, :10] + rng.standard_normal((n, 10), dtype=np.float32)).argmax(axis=1)
    return X, y


def plain_operations(setting: Setting) -> float:
    """Floating point operations of one row's forward and backward pass."""
    model = setting.model
    inputs, targets, _ = setting.rows.block(slice(0, COUNTED), model.device)
    with FlopCounterMode(display=False) as counter:
        model.likelihood.losses(model.module(inputs), targets).mean().backward()
    model.module.zero_grad(set_to_none=True)
    return counter.get_total_flops() / len(targets)
