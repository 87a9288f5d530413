"""The part `gpu` of the engine's benchmark: one row after the other on a card, or counted on the simulated device.

A row is written as soon as it is there. Rows run in a process of their own: a row that takes too long, that kills its
process or leaves the card in a state that no further call survives is recorded with what happened, and the next one
starts in a new process. What the time does not suffice for is recorded as such.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared import common
from shared.common import RESULTS, environment, quick, set_threads
from shared.gpu_rows import ENGINE, FEW, KRONFLUENCE, SMALL, Row, Sizes, Work, at, rows
from shared.nets import agreement, timed

ROW_SECONDS = 150.0  # for one row, with the data and the net that it is the first to need
TOTAL_SECONDS = 540.0
COMPARED = 1_000_000  # numbers of a result that correlations are taken over
COUNTS = ("kernels", "syncs", "uploads", "downloads", "uploaded", "downloaded")


def gpu_part(simulate: bool, out: Path | None, seconds: float, n: int | None) -> list[dict]:
    """All rows, which are in OUT/gpu.json, too, or in benchmarks/results/ where no folder is given.

    n: of the rows of images, only those of this size. Raises SystemExit where there is no CUDA device.
    """
    sizes = SMALL if simulate else Sizes() if n is None else Sizes(images=(n,), source=(min(n, 10_000),))
    todo = rows(sizes)
    path = (out or RESULTS) / ("gpu_simulated.json" if simulate else "gpu.json")
    if simulate:
        record = Record(None if quick() and out is None else path)
        record.environment = environment() | {"card": "simulated", "date": datetime.now(UTC).date().isoformat()}
        work = simulated_work(sizes)
        for row in todo:
            record.add(row, attempt(work, row, count))
        return record.rows
    if not torch.cuda.is_available():
        raise SystemExit(
            f"torch {torch.__version__} sees no CUDA device here, and the part gpu needs one; with --simulate it "
            "counts kernels, synchronisations and transfers on a simulated device"
        )
    record = Record(path)
    in_processes(todo, record, sizes, time.monotonic() + seconds)
    return record.rows


class Record:
    """The rows so far, written after each one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.environment: dict[str, Any] = {}
        self.rows: list[dict] = []

    def add(self, row: Row, found: dict[str, Any]) -> None:
        """One more, on the screen and in the file, which is whole at any moment."""
        self.rows.append(asdict(row) | {"size": list(row.size)} | found)
        print(line(self.rows[-1]), flush=True)
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(
            json.dumps({"environment": self.environment, "rows": self.rows}, indent=1, default=float) + "\n"
        )
        os.replace(part, self.path)


def line(row: dict) -> str:
    """One row of a record, to read."""
    head = f"  {row['what']:40s} {' x '.join(f'{k:,}' for k in row['size']):16s} {row['precision']:7s}"
    if row["status"] != "ok":
        return f"{head} {row['status']}"
    if "kernels" in row:
        return head + "".join(f" {row[name]:9,} {name}" for name in COUNTS)
    share = f" {row['share']:6.1%} of the peak" if "share" in row else ""
    return f"{head} {row['seconds']:9.3f} s {row['rate']:12,.0f} rows/s{share} {row['peak_gib']:6.2f} GiB"


# ---- one row ---------------------------------------------------------------------------------------------------------


def attempt(work: Work, row: Row, measure: Callable[[Work, Row], dict]) -> dict[str, Any]:
    """What was measured, or what went wrong: whatever it is, the next row has its turn."""
    try:
        return {"status": "ok"} | measure(work, row)
    except Exception as error:
        without_data = row.kind == "vit" and isinstance(error, FileNotFoundError)
        return {
            "status": "not run: " + str(error) if without_data else f"failed: {type(error).__name__}: {error!s:.400}"
        }


def count(work: Work, row: Row) -> dict[str, Any]:
    """Kernels, synchronisations and transfers of one run, after one that does not count."""
    from tests.device.simulated import watched

    task = work.task(row)
    task.run(row.size[0])
    with watched() as seen:
        task.run(row.size[0])
    return {name: seen.counts[name] for name in COUNTS} | {"peak_bytes": seen.peak}


class Timing:
    """Measures rows on CUDA, beside what the rows before have found."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}
        self.plain: dict[tuple[int, str], float] = {}
        self.first: dict[tuple, np.ndarray] = {}

    def __call__(self, work: Work, row: Row) -> dict[str, Any]:
        n = row.size[0]
        with at(row):
            task = work.task(row)
            task.run(min(n, FEW))
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            seconds, values = on_card(lambda: task.run(n))
        found = {"seconds": seconds, "rate": n / seconds, "peak_gib": torch.cuda.max_memory_allocated() / 2**30}
        if row.kind == "peak":
            self.peaks[row.precision] = task.operations * n / seconds
        if row.kind == "plain":
            self.plain[n, row.precision] = seconds
        if task.operations and row.precision in self.peaks:
            found["tflops"] = task.operations * n / seconds / 1e12
            found["share"] = task.operations * n / seconds / self.peaks[row.precision]
        if task.before:
            found["with_fit_seconds"] = seconds + task.before
        if row.kind in ENGINE and (n, row.precision) in self.plain:
            found["plain_passes"] = found.get("with_fit_seconds", seconds) / self.plain[n, row.precision]
        if n == Sizes().images[0] and (row.what, row.precision) in KRONFLUENCE:
            found["kronfluence_seconds"] = KRONFLUENCE[row.what, row.precision]
        return found | self.compared(row, values)

    def compared(self, row: Row, values: Any) -> dict[str, float]:
        """With what the same row found first, at the highest precision."""
        if values is None:
            return {}
        flat = torch.as_tensor(values).flatten()
        flat = flat[:: max(1, flat.numel() // COMPARED)].double().cpu().numpy()
        if not np.isfinite(flat).all():
            raise ValueError("some of the values are not finite")
        return agreement(flat, self.first.setdefault((row.what, row.size), flat))


def on_card(function: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds until the card has finished, result)."""

    def run() -> Any:
        found = function()
        torch.cuda.synchronize()
        return found

    return timed(run)


def simulated_work(sizes: Sizes) -> Work:
    """On the device of tests/device, which knows CUDA's rules and counts."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.device import backend, simulated

    backend.install()
    return Work(simulated.NAME, sizes, timed)


# ---- in processes ----------------------------------------------------------------------------------------------------


def in_processes(todo: list[Row], record: Record, sizes: Sizes, deadline: float) -> None:
    """All rows that there is time for; a new process after one that was lost."""
    todo = list(todo)
    while todo and time.monotonic() < deadline:
        receive, send = mp.get_context("spawn").Pipe(duplex=False)
        process = mp.get_context("spawn").Process(target=child, args=(send, todo, sizes, record.path.parent))
        process.start()
        send.close()
        lost = None
        while todo and lost is None:
            left = deadline - time.monotonic()
            limit = left if todo[0].kind == "vit" else min(ROW_SECONDS, left)
            try:
                if not receive.poll(max(0.0, limit)):
                    lost = "not finished: time" if left <= ROW_SECONDS else f"stopped after {limit:.0f} s"
                    break
                found = receive.recv()
            except EOFError:
                process.join()
                lost = f"failed: its process ended with {process.exitcode}"
                break
            if "environment" in found:
                record.environment = found["environment"]
            elif found:
                record.add(todo.pop(0), found)
            else:  # the card no longer answers that process
                break
        end(process)
        if lost is not None:
            record.add(todo.pop(0), {"status": lost})
    for row in todo:
        record.add(row, {"status": "not run: time"})


def end(process: Any) -> None:
    """A process, and those that it started."""
    if process.is_alive():
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not come to have a group of its own
            process.kill()
    process.join()


def child(pipe: Any, todo: list[Row], sizes: Sizes, folder: Path) -> None:
    """Rows one after the other, for as long as the card answers."""
    os.setpgrp()
    common.RESULTS = folder  # of what a row writes itself
    set_threads(os.cpu_count() or 1)
    pipe.send({"environment": environment() | card()})
    work, timing = Work("cuda", sizes, on_card), Timing()
    for row in todo:
        found = attempt(work, row, timing)
        pipe.send(found)
        if found["status"] != "ok":
            try:
                torch.cuda.empty_cache()
                torch.cuda.synchronize()
            except RuntimeError:
                pipe.send({})
                return


def card() -> dict[str, Any]:
    """The card, its driver and the day."""
    about = torch.cuda.get_device_properties(0)
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout.split("\n")[0].strip()
    except (OSError, subprocess.TimeoutExpired):
        driver = ""
    return {
        "card": f"{about.name}, {about.total_memory / 2**30:.0f} GiB",
        "driver": driver or "unknown",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "date": datetime.now(UTC).date().isoformat(),
        "system": platform.platform(),
    }
