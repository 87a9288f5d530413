"""Compressed gradients on disk: what asking costs against a million rows, and what compression costs in quality.

    python benchmarks/store.py size                         # ten minutes, 2 GB in the folder of temporary files
    python benchmarks/store.py concrete fmnist_n fmnist     # minutes each; truths as for lds.py
    python benchmarks/store.py --quick                      # a small net, few rows, nothing written: does it run?

size: an MLP 784-2048-2048-2048-10 (10 million parameters) on Fashion-MNIST; LoGra fits the first --real rows by passes
through the net. The store is then filled to a million rows by the same writer, with rows of the fit at random, each
times a normal number: what asking costs depends on how many rows there are, not on what they say. 100 queries for
their ten most helpful rows, in a fresh process that has the net and the folder, twice: files are compared with their
checksums when they are read for the first time. One thread.

Truths: LDS as of lds.py, of one model (its seed is 10,000, as of the large net), of LoGra, of TRAK at as many numbers a
row, and of their sparse relatives: GraSS (random coordinates, then TRAK's sparse projection) and LoGra on random
coordinates. Processor seconds, on one thread.
Writes benchmarks/results/store_NAME.json.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import joblib
import numpy as np
from shared.common import begin, fashion_mnist, measured, quick, save, set_threads
from shared.memory import peak_gib

WIDTHS = (784, 2048, 2048, 2048, 10)
STORED, ASKED, SEED = 1_000_000, 100, 10_000
LARGER = {"concrete": 32, "fmnist": 32, "fmnist_n": 32, "digits": 32}


# ---- size ------------------------------------------------------------------------------------------------------------


def net_of(widths: tuple[int, ...], X: np.ndarray, y: np.ndarray) -> Any:
    """A frozen net after one epoch."""
    import torch
    from shared.nets import mlp
    from sklearn.frozen import FrozenEstimator
    from skorch import NeuralNetClassifier

    torch.manual_seed(SEED)
    net = NeuralNetClassifier(
        mlp(*widths), criterion=torch.nn.CrossEntropyLoss, lr=0.01, max_epochs=1, train_split=None, verbose=0
    )
    return FrozenEstimator(net.fit(X, y))


def images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(X, y) of the training pictures, standardised."""
    X, y, _, _ = fashion_mnist()
    return ((X[:n].reshape(-1, 784) / 255 - 0.2860) / 0.3530).astype(np.float32), y[:n].astype(np.int64)


def written(folder: Path, widths: tuple[int, ...], n_real: int, n_stored: int, rank: int) -> dict:
    """Fit on real rows, and fill the store to as many as are wanted."""
    set_threads(1)
    import torch

    from sktda.attribution import LoGra
    from sktda.engine.store import GradientStore

    X, y = images(n_real)
    model = net_of(widths, X[:2_000], y[:2_000])
    joblib.dump(model, folder / "net")
    start, busy = time.perf_counter(), time.process_time()
    fitted = LoGra(model, rank=rank, objective=None, work_dir=folder / "real").fit(X, y)
    row = {"part": "fit", "rows": len(X), "seconds": time.perf_counter() - start, "busy": time.process_time() - busy}
    known, generator = fitted._store, torch.Generator().manual_seed(SEED)
    store = GradientStore(folder / "gradients-all", known.about, known.tensors, n_stored)
    store.begin()
    few = known.block(slice(0, min(known.shard, len(X))))
    few_rows = few.values.double() * few.scale[:, None]
    start = time.perf_counter()
    for k, first in enumerate(range(0, n_stored, store.shard)):
        count = min(store.shard, n_stored - first)
        chosen = torch.randint(len(few_rows), (count,), generator=generator)
        store.put(k, few_rows[chosen] * torch.randn(count, 1, generator=generator).double())
    size = sum(file.stat().st_size for file in store.folder.glob("rows-*"))  # type: ignore[union-attr]
    parameters = sum(value.numel() for value in model.estimator.module_.parameters())
    row |= {"threads": torch.get_num_threads(), "width": fitted.width_, "parameters": parameters, "rank": rank}
    row |= {"stored": n_stored, "gib": size / 2**30, "write_seconds": time.perf_counter() - start}
    return {"rows": [row]}


def asked(folder: Path) -> dict:
    """100 queries, twice, as a process that starts with the net and the folder."""
    set_threads(1)
    from sktda.attribution import LoGra

    X, y = images(ASKED)
    model = joblib.load(folder / "net")
    before = peak_gib()
    start = time.perf_counter()
    loaded = LoGra.load(folder / "gradients-all", model)
    rows: list[dict] = [{"part": "load", "seconds": time.perf_counter() - start, "net_gib": before}]
    for number in range(2):
        start, busy = time.perf_counter(), time.process_time()
        loaded.top_k(X[:ASKED], y[:ASKED], k=10)
        spent = {"seconds": time.perf_counter() - start, "busy": time.process_time() - busy}
        rows.append({"part": "top_k", "number": number, "queries": ASKED, "threads": 1, **spent, "gib": peak_gib()})
    return {"rows": rows}


def size(n_real: int, rank: int) -> None:
    """Both, each in a process of its own."""
    widths, n_stored = ((784, 16, 10), 9_000) if quick() else (WIDTHS, STORED)
    folder = Path(tempfile.mkdtemp())
    try:
        rows = measured(written, folder, widths, 50 if quick() else n_real, n_stored, rank)["rows"]
        print(rows[0], flush=True)
        rows += measured(asked, folder)["rows"]
        for row in rows[1:]:
            print(row, flush=True)
        save("store_size", rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---- quality ---------------------------------------------------------------------------------------------------------


def methods(larger: int) -> dict[str, tuple[Any, dict[str, Any]]]:
    """{name: (attributor of (estimator, objective), what is put in the place of what)}."""
    from shared.store import Grass, coordinate_sides

    from sktda.attribution import TRAK, Influence, LoGra

    def logra(rank: int, **options: Any) -> Any:
        return partial(LoGra, rank=rank, **options)

    numbers = 1024  # as of LoGra of rank 16 on three or four layers
    sides = {"sktda.attribution.gradients.logra.random_sides": coordinate_sides}
    return {
        "Influence, EK-FAC": (partial(Influence, curvature="ekfac"), {}),
        **{f"LoGra, rank {rank}": (logra(rank), {}) for rank in (8, 16, larger)},
        "LoGra, rank 16, random": (logra(16, init="random"), {}),
        "LoGra, rank 16, coordinates": (logra(16, init="random"), sides),
        "TRAK, 1,024": (partial(TRAK, proj_dim=numbers), {}),
        "TRAK, 1,024, GraSS": (
            partial(TRAK, proj_dim=numbers),
            {"sktda.attribution.gradients.trak.projection_of": Grass},
        ),
    }


def quality(name: str) -> dict:
    """Every method on one net of a truth."""
    set_threads(1)
    from contextlib import ExitStack

    from shared.lds import load, trained
    from sklearn.frozen import FrozenEstimator

    from sktda.metrics import linear_datamodeling_score
    from sktda.objectives import Margin

    problem = load(name)
    net = FrozenEstimator(trained(problem, SEED))
    objective, rows, generator = Margin() if problem.kind == "margin" else None, [], np.random.default_rng(0)
    for method, (make, instead) in methods(4 if quick() else LARGER[name]).items():
        with ExitStack() as stack:
            for place, value in instead.items():
                stack.enter_context(patch(place, value))
            start = time.process_time()
            fitted = make(net, objective=objective, random_state=0).fit(problem.X, problem.y)
            fit_seconds = time.process_time() - start
            start = time.process_time()
            values = fitted.attribute(problem.X_query, problem.y_query)
            ask_seconds = time.process_time() - start
        each = linear_datamodeling_score(values, problem.kept, problem.measured)
        draws = each[generator.integers(0, len(each), (2_000, len(each)))].mean(axis=1)
        low, high = np.quantile(draws, [0.025, 0.975])
        row = {"truth": name, "method": method, "lds": each.mean(), "low": low, "high": high}
        row |= {"numbers": getattr(fitted, "width_", getattr(fitted, "proj_dim", None)), "n": len(problem.X)}
        row |= {"fit": fit_seconds, "ask": ask_seconds, "n_query": len(problem.X_query)}
        rows.append(row)
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
        save(f"store_{name}", rows)
    return {"rows": rows}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="size, or truths; default: size and concrete")
    parser.add_argument("--real", type=int, default=8_192, help="rows that are passed through the large net")
    parser.add_argument("--rank", type=int, default=16)
    options = begin(parser, arguments, threads=1)
    for name in options.names or (("size", "digits") if quick() else ("size", "concrete")):
        if name == "size":
            size(options.real, 4 if quick() else options.rank)
        else:
            measured(quality, name)


if __name__ == "__main__":
    main()
