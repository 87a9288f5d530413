"""A million rows from a memory map: memory, seconds as rows grow, and a run that is killed half way.

    python benchmarks/scale.py                  # 1,000,000 rows of 100 float32 columns
    python benchmarks/scale.py --rows 300000    # a smaller trial; nothing written
    python benchmarks/scale.py --quick          # few rows, nothing killed, nothing written: does it run?

Scores an MLP 100-128-128-10 (frozen; trained on the first 10,000 rows) with validation rows, with `InnerProduct` and
with EK-FAC `Influence`. Every run has a process of its own. Two peaks of memory are given, both beyond a run with
10,000 rows: of the process, in which the pages of the map count that it has read, and (on Linux) without them.
Last, the process is killed (SIGKILL) once half of the values are in its `work_dir`, and started again.
Writes benchmarks/results/scale.json.

    python benchmarks/scale.py --pairs          # 1,000,000 image-text pairs that are made as they are read

Trains two small towers on the pairs for one epoch, 30 % of them mismatched, and scores all by `DiffIn` at the last
checkpoint, in the batches that they stood in. Writes benchmarks/results/scale_pairs.json, after every size.

    python benchmarks/scale.py --methods all --rows 1000000 10000000
    python benchmarks/scale.py --methods TracIn "Influence ekfac" --rows 10000000 --threads 1

Each method that goes through the rows block by block, on rows of 100 columns (NoisyLabelDetector: 50) that are made in
a temporary folder: 4 GB for 10,000,000, and as much again where a method keeps its own form of them; two classes where
probabilities of all rows are a result, else ten. TracIn and Source explain a training of one epoch on all rows, which
is not timed. Adds to benchmarks/results/scale_rows.json, after every row; what was measured before stays. Run
within a limit of memory, in which the pages of files count (`systemd-run --scope -p MemoryMax=1536M`, or a container),
the row says so.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import pickle
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from shared.common import begin, measured, save, set_threads
from shared.many_rows import METHODS as OF_ROWS
from shared.many_rows import rows_of_methods
from shared.memory import Anonymous

COLUMNS, CLASSES, SEED = 100, 10, 0
SMALL, VALIDATION = 10_000, 1_000
STEP = 100_000  # rows written at a time
KINDS, PAIRS_IN_A_BATCH = 40, 256
METHODS = ("InnerProduct", "Influence ekfac")


def make(folder: str, n: int) -> None:
    """X.npy (n, 100) float32 and y.npy: the class is the largest of ten noisy linear functions."""
    rng = np.random.default_rng(SEED)
    directions = rng.standard_normal((COLUMNS, CLASSES), dtype=np.float32)
    X = np.lib.format.open_memmap(Path(folder) / "X.npy", "w+", np.float32, (n + VALIDATION, COLUMNS))
    y = np.lib.format.open_memmap(Path(folder) / "y.npy", "w+", np.int64, (n + VALIDATION,))
    for start in range(0, len(X), STEP):
        block = rng.standard_normal((min(STEP, len(X) - start), COLUMNS), dtype=np.float32)
        noise = 3 * rng.standard_normal((len(block), CLASSES), dtype=np.float32)
        X[start : start + STEP] = block
        y[start : start + STEP] = (block @ directions + noise).argmax(axis=1)
    X.flush()
    y.flush()


def train(folder: str) -> dict:
    """net.pkl, trained once: every run must explain the very same parameters."""
    import torch
    from shared.nets import mlp, trained

    X, y = np.load(Path(folder) / "X.npy", mmap_mode="r"), np.load(Path(folder) / "y.npy", mmap_mode="r")
    torch.manual_seed(SEED)
    net = trained(mlp(COLUMNS, 128, 128, CLASSES), np.array(X[:SMALL]), np.array(y[:SMALL]), epochs=3, lr=0.05)
    net.callbacks_ = []  # the recorded run is of the first rows only: explain the net as it is
    (Path(folder) / "net.pkl").write_bytes(pickle.dumps(net))
    return {}


def score(folder: str, n: int, method: str, work_dir: str | None = None, keep: str | None = None) -> dict:
    """Scores of the first n rows; seconds are of the fit alone. `keep`: a file for the scores."""
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import Influence, InnerProduct

    X = np.load(Path(folder) / "X.npy", mmap_mode="r")
    y = np.load(Path(folder) / "y.npy")
    net = pickle.loads((Path(folder) / "net.pkl").read_bytes())
    settings = {"work_dir": work_dir, "random_state": SEED}
    frozen = FrozenEstimator(net)
    if method == "InnerProduct":
        attributor = InnerProduct(frozen, **settings)
    else:
        attributor = Influence(frozen, curvature="ekfac", **settings)
    with Anonymous() as memory:
        start = time.perf_counter()
        attributor.fit(X[:n], y[:n], X_val=np.array(X[-VALIDATION:]), y_val=y[-VALIDATION:])
        seconds = time.perf_counter() - start
    if keep is not None:
        np.save(keep, attributor.scores_)
    return {"seconds": seconds, "anonymous_gib": memory.peak}


def killed_half_way(folder: str, n: int, method: str) -> dict:
    """Whether a run that was killed and started again has the scores of one that was not."""
    whole, resumed = str(Path(folder) / "whole.npy"), str(Path(folder) / "resumed.npy")
    work_dir = Path(folder) / f"work {method}"
    undisturbed = measured(score, folder, n, method, None, whole)
    from sktda.engine.journal import SHARD

    half = -(-n // SHARD) // 2
    process = mp.get_context("spawn").Process(target=score, args=(folder, n, method, str(work_dir), resumed))
    process.start()
    while not list(work_dir.rglob(f"*-{half - 1:06d}.safetensors")):
        if process.exitcode is not None:
            raise RuntimeError(f"the run ended (exit code {process.exitcode}) before half of its shards were seen")
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    shards = len(list(work_dir.rglob("*-[0-9]*.safetensors")))
    again = measured(score, folder, n, method, str(work_dir), resumed)
    # a finished run removes the shards of its own problem: any that are left were not taken up
    return {
        "taken_up": shards > 0 and not list(work_dir.rglob("*.safetensors")),
        "identical": bool(np.array_equal(np.load(whole), np.load(resumed))),
        "shards_kept": shards,
        "shards": -(-n // SHARD),
        "seconds": undisturbed["seconds"],
        "seconds_again": again["seconds"],
    }


class Made:
    """Rows (n, width) that are made when they are read: row i is its kind's, and what a hash of i adds."""

    def __init__(self, kinds: np.ndarray, centres: np.ndarray, noise: np.ndarray) -> None:
        self.kinds, self.centres, self.noise = kinds, centres, noise
        self.shape, self.dtype = (len(kinds), centres.shape[1]), centres.dtype

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, rows: Any) -> np.ndarray:
        rows = rows[0] if isinstance(rows, tuple) else rows
        at = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        found = self.centres[self.kinds[at]] + self.noise[at % 4093] + self.noise[at // 4093 + at % 4091]
        return found.astype(self.dtype)


def pairs(n: int) -> tuple[dict, np.ndarray, dict]:
    """(training pairs, mask of the mismatched ones, matched validation pairs): 40 kinds of images and texts."""
    rng = np.random.default_rng(SEED)
    kinds = rng.integers(0, KINDS, n + VALIDATION)
    wrong = rng.random(n + VALIDATION) < 0.3
    wrong[n:] = False
    told = np.where(wrong, (kinds + rng.integers(1, KINDS, n + VALIDATION)) % KINDS, kinds)
    pictures = rng.standard_normal((KINDS, 64)).astype(np.float32), rng.standard_normal((8192, 64), dtype=np.float32)
    # two words of a kind, and two that any may have
    texts = np.c_[2 * np.arange(KINDS), 2 * np.arange(KINDS) + 1, np.full((KINDS, 2), 2 * KINDS)] + 1
    chatter = np.c_[np.zeros((8192, 2), dtype=int), rng.integers(0, 20, (8192, 2))]
    parts = [
        {"images": Made(kinds[part], *pictures), "texts": Made(told[part], texts, chatter)}
        for part in (slice(0, n), slice(n, None))
    ]
    return parts[0], wrong[:n], parts[1]


def score_pairs(n: int) -> dict:
    """Training for one epoch, and DiffIn at its end."""
    import torch
    from shared.captions import towers
    from sklearn.frozen import FrozenEstimator
    from sklearn.metrics import roc_auc_score
    from skorch import NeuralNet

    from sktda import ContrastiveLoss, TrajectoryRecorder
    from sktda.attribution import DiffIn

    torch.manual_seed(SEED)
    X, wrong, validation = pairs(n)
    net = NeuralNet(
        towers(width=32, hidden=64, pixels=64, n_words=2 * KINDS + 40),
        criterion=ContrastiveLoss,
        batch_size=PAIRS_IN_A_BATCH,
        max_epochs=1,
        lr=0.05,
        optimizer__momentum=0.9,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints=1, steps=True)],
    )
    clock = time.perf_counter(), time.process_time()
    net.fit(X, None)
    trained = time.perf_counter(), time.process_time()
    method = DiffIn(FrozenEstimator(net)).fit(X, None, X_val=validation)
    done = time.perf_counter(), time.process_time()
    return {
        "n": n,
        "parameters": sum(value.numel() for value in net.module_.parameters()),
        "batch": PAIRS_IN_A_BATCH,
        "train_seconds": trained[0] - clock[0],
        "train_processor_seconds": trained[1] - clock[1],
        "seconds": done[0] - trained[0],
        "processor_seconds": done[1] - trained[1],
        "auroc": roc_auc_score(wrong, -method.scores_),
    }


def pairs_of_sizes(sizes: list[int]) -> None:
    """A row per size."""
    rows: list[dict] = []
    for n in sizes:
        rows.append(measured(score_pairs, n, threads=1))
        row = rows[-1]
        print(
            f"seed {SEED} DiffIn {n:9,} pairs {row['seconds']:8.2f} s ({row['processor_seconds']:.2f} s of the "
            f"processor, {1e6 * row['processor_seconds'] / n:.1f} us/pair), training {row['train_seconds']:.2f} s "
            f"({row['train_processor_seconds']:.2f} s), peak {row['peak_gib']:.2f} GiB, AUROC {row['auroc']:.3f}",
            flush=True,
        )
        save("scale_pairs", rows)  # a run that is cut leaves the smaller sizes


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument(
        "--methods", nargs="+", choices=["all", *OF_ROWS], default=[], help="of those that go by blocks"
    )
    parser.add_argument("--pairs", action="store_true", help="image-text pairs only")
    parser.add_argument("--threads", type=int, default=2, help="of `--methods`")
    options = begin(parser, arguments)
    set_threads(1 if options.pairs else options.threads)
    if options.methods or options.quick:
        names = list(OF_ROWS) if {"all"} & {*options.methods} else options.methods or ["InnerProduct", "noise rate"]
        rows_of_methods(names, [500] if options.quick else options.rows, options.threads)
        if options.methods:
            return
    n = 2_000 if options.quick else options.rows[-1]
    if options.pairs or options.quick:
        pairs_of_sizes([400] if options.quick else sorted({SMALL, n // 10, n}))
    if options.pairs:
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make(folder, n)
        measured(train, folder)
        for method in METHODS:
            small = measured(score, folder, min(SMALL, n), method)
            for size in (n // 4, n // 2, n):
                run = {"method": method, "n": size, **measured(score, folder, size, method)}
                run["beyond_gib"] = run["peak_gib"] - small["peak_gib"]
                if run["anonymous_gib"] is not None:
                    run["anonymous_beyond_gib"] = run["anonymous_gib"] - small["anonymous_gib"]
                rows.append(run)
                print(
                    f"{method:16s} {size:9,} rows {run['seconds']:7.2f} s {1e6 * run['seconds'] / size:6.2f} us/row, "
                    f"{run['beyond_gib']:.2f} GiB beyond {SMALL:,} rows, "
                    f"{run.get('anonymous_beyond_gib', float('nan')):.3f} without the map",
                    flush=True,
                )
            if options.quick:
                continue  # a run of so few rows is over before it can be killed
            rows.append({"method": method, "n": n, **killed_half_way(folder, n, method)})
            print(f"{method:16s} killed half way: {rows[-1]}", flush=True)
    if [n] == parser.get_default("rows"):
        save("scale", rows)


if __name__ == "__main__":
    main()
