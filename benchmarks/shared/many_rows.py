"""Each method that goes through the rows block by block, on a mapped X that is made on the way: seconds and memory."""

from __future__ import annotations

import json
import pickle
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from shared.common import RESULTS, measured, quick, save
from shared.memory import Anonymous, limit_gib

COLUMNS, NARROW, CLASSES, SEED = 100, 50, 10, 0
VALIDATION, NEIGHBOURS = 1_000, 100
STEP = 100_000  # rows written at a time
TRAINED = 10_000  # rows that the net is trained on, where its training is not part of the method
BATCH = 4_096  # of the recorded training
NAME = "scale_rows"
SAME = ("method", "n", "threads", "limit_gib")  # a run that is measured again replaces the one before


def make(folder: str, n: int, columns: int) -> None:
    """X.npy (n, columns) float32, and y.npy: ten classes, a tenth of the labels wrong."""
    rng = np.random.default_rng(SEED)
    directions = rng.standard_normal((columns, CLASSES), dtype=np.float32)
    place = Path(folder)
    X = np.lib.format.open_memmap(place / "X.npy", "w+", np.float32, (n + VALIDATION, columns))
    y = np.lib.format.open_memmap(place / "y.npy", "w+", np.int64, (n + VALIDATION,))
    for start in range(0, len(X), STEP):
        block = rng.standard_normal((min(STEP, len(X) - start), columns), dtype=np.float32)
        wrong = rng.random(len(block)) < 0.1
        true = (block @ directions).argmax(axis=1)
        X[start : start + STEP] = block
        y[start : start + STEP] = np.where(wrong, (true + rng.integers(1, CLASSES, len(block))) % CLASSES, true)
    X.flush()
    y.flush()


def net_of(n: int, n_epochs: int, callbacks: list) -> Any:
    """An unfitted MLP of two hidden layers."""
    import torch
    from shared.nets import mlp
    from skorch import NeuralNetClassifier

    torch.manual_seed(SEED)
    return NeuralNetClassifier(
        mlp(COLUMNS, 128, 128, CLASSES),
        criterion=torch.nn.CrossEntropyLoss,
        lr=0.05,
        batch_size=min(BATCH, max(32, n // 16)),
        max_epochs=n_epochs,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=callbacks,
    )


def train(folder: str, n: int) -> dict:
    """net.pkl, trained on the first rows, and recorded.pkl, on all for one epoch."""

    X, y = arrays(folder)
    few = min(TRAINED, n)
    net = net_of(few, 5, []).fit(np.array(X[:few]), y[:few])
    (Path(folder) / "net.pkl").write_bytes(pickle.dumps(net))
    return {}


def record(folder: str, n: int) -> dict:
    """recorded.pkl: a net that was trained on all n rows for one epoch, with six checkpoints."""
    from sktda import TrajectoryRecorder

    X, y = arrays(folder)
    net = net_of(n, 1, [TrajectoryRecorder(n_checkpoints=6)]).fit(X[:n], y[:n])
    (Path(folder) / "recorded.pkl").write_bytes(pickle.dumps(net))
    return {}


def arrays(folder: str) -> tuple[np.ndarray, np.ndarray]:
    return np.load(Path(folder) / "X.npy", mmap_mode="c"), np.load(Path(folder) / "y.npy")


def frozen(folder: str, name: str) -> Any:
    """A net that was trained before."""
    from sklearn.frozen import FrozenEstimator

    return FrozenEstimator(pickle.loads((Path(folder) / f"{name}.pkl").read_bytes()))


def by_net(name: str, which: str = "net", validation: bool = True, **settings: Any) -> Callable:
    """An attributor that explains a net, for validation rows or for its own loss."""

    def fit(folder: str, X: np.ndarray, y: np.ndarray, held: tuple) -> Any:
        import sktda.attribution

        method = getattr(sktda.attribution, name)(frozen(folder, which), random_state=SEED, **settings)
        given = {"X_val": held[0], "y_val": held[1]} if validation else {}
        return lambda: method.fit(X, y, **given).scores_

    return fit


def by_features(name: str, n_classes: int = 2, few: int = 0, **settings: Any) -> Callable:
    """An attributor that looks at X and y alone; y in fewer classes, for validation rows where `few` are given."""

    def fit(folder: str, X: np.ndarray, y: np.ndarray, held: tuple) -> Any:
        import sktda.attribution

        method = getattr(sktda.attribution, name)(random_state=SEED, **settings)
        given = {"X_val": held[0][:few], "y_val": held[1][:few] % n_classes} if few else {}
        labels = y % n_classes
        return lambda: method.fit(X, labels, **given).scores_

    return fit


def detector(folder: str, X: np.ndarray, y: np.ndarray, held: tuple) -> Any:
    """The detector as it comes."""
    from sktda import NoisyLabelDetector

    labels = y % 2
    return lambda: NoisyLabelDetector().fit(X, labels).scores_


def noise_rate(folder: str, X: np.ndarray, y: np.ndarray, held: tuple) -> Any:
    """The share of wrong labels, from predictions that are made here."""
    from sktda.noise import label_noise_rate
    from sktda.room import parts, room

    labels = y % 2
    decision, rng = room((len(y), 2)), np.random.default_rng(SEED)
    for part in parts(*decision.shape):
        right = np.clip(0.8 + 0.2 * rng.standard_normal(part.stop - part.start), 0, 1)
        decision[part, 0] = np.where(labels[part] == 0, right, 1 - right)
        decision[part, 1] = 1 - decision[part, 0]
    return lambda: np.array([label_noise_rate(decision, labels)])


def shell(folder: str, X: np.ndarray, y: np.ndarray, held: tuple) -> Any:
    """`sktda clean` of a Parquet file, read by row group however small it is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sktda.cli import streamed
    from sktda.cli.commands import app

    streamed.HELD_BYTES = 0
    names = [f"x{j}" for j in range(X.shape[1])]
    paths = [str(Path(folder) / name) for name in ("rows.parquet", "clean.parquet", "scores.parquet")]
    fields = [(name, pa.float32()) for name in names]
    with pq.ParquetWriter(paths[0], pa.schema([*fields, ("label", pa.string())])) as writer:
        for start in range(0, len(X), STEP):
            block, labels = X[start : start + STEP], y[start : start + STEP] % 2
            columns = [*block.T, np.where(labels == 1, "odd", "even")]
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=writer.schema))
    command = ["clean", paths[0], "-t", "label", "-o", paths[1], "--scores", paths[2], "--quiet"]
    return lambda: app(command, standalone_mode=False)


METHODS: dict[str, tuple[Callable, tuple[str, ...], int]] = {  # what is fitted, what it needs made, columns of X
    "InnerProduct": (by_net("InnerProduct"), ("net",), COLUMNS),
    "self-scores": (by_net("InnerProduct", validation=False, objective="self"), ("net",), COLUMNS),
    "Influence ekfac": (by_net("Influence", curvature="ekfac"), ("net",), COLUMNS),
    "TracIn": (by_net("TracIn", "recorded"), ("recorded",), COLUMNS),
    "Source": (by_net("Source", "recorded", curvature="ekfac"), ("recorded",), COLUMNS),
    "ComplexityGap": (by_features("ComplexityGap", mode="nystrom"), (), COLUMNS),
    "LabelPosterior": (by_features("LabelPosterior"), (), COLUMNS),
    "noise rate": (noise_rate, (), COLUMNS),
    "KNNShapley": (by_features("KNNShapley", few=NEIGHBOURS), (), COLUMNS),
    "NoisyLabelDetector": (detector, (), NARROW),
    "sktda clean": (shell, (), COLUMNS),
}


def fit(folder: str, n: int, name: str) -> dict:
    """One method on the first n rows; seconds are of the fit alone, memory without what the map has in it."""
    import torch

    X, y = arrays(folder)
    held = np.array(X[-VALIDATION:]), y[-VALIDATION:].copy()
    X, y = X[:n], y[:n].copy()
    work = METHODS[name][0](folder, X, y, held)
    del X, y, held  # of which the shell needs none
    with Anonymous() as memory:
        clock = time.perf_counter(), time.process_time()
        work()
        seconds, processor = time.perf_counter() - clock[0], time.process_time() - clock[1]
    measures = {"seconds": seconds, "processor_seconds": processor, "anonymous_gib": memory.peak}
    return {"threads": torch.get_num_threads(), "limit_gib": limit_gib(), **measures}


def rows_of_methods(names: list[str], sizes: list[int], threads: int) -> None:
    """A row per method and size, added to those that were measured before, and written after each."""
    place = RESULTS / f"{NAME}.json"
    rows = json.loads(place.read_text())["rows"] if place.exists() and not quick() else []
    for name in names:
        for n in sizes:
            needed, columns = METHODS[name][1:]
            with tempfile.TemporaryDirectory() as folder:
                make(folder, n, columns)
                if "net" in needed:
                    measured(train, folder, n)
                if "recorded" in needed:
                    measured(record, folder, n)
                row = {"method": name, "n": n, "columns": columns, **measured(fit, folder, n, name, threads=threads)}
            print(
                f"{name:18s} {n:10,} x {columns} {row['seconds']:8.1f} s ({row['processor_seconds']:.1f} s of the "
                f"processor, {1e6 * row['processor_seconds'] / n:.1f} us/row), peak {row['peak_gib']:.2f} GiB, "
                f"{row['anonymous_gib'] or float('nan'):.2f} without mapped files",
                flush=True,
            )
            rows = [each for each in rows if any(each.get(key) != row[key] for key in SAME)] + [row]
            save(NAME, rows)
