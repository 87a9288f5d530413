"""The peak of a process's memory, what of it is not a mapped file, and what it may have."""

from __future__ import annotations

import contextlib
import resource
import threading
from pathlib import Path


def peak_gib(process: int | None = None) -> float:
    """The peak of this or another running process so far; 0 for another one that has ended.

    As /proc tells it: what `getrusage` says, the only source elsewhere, holds the peak of the process that started it.
    """
    with contextlib.suppress(OSError, IndexError):
        return float(Path(f"/proc/{process or 'self'}/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20
    return 0.0 if process else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Anonymous:
    """Peak of the memory that is not a mapped file, in GiB, looked at every 5 ms; None where it is not told."""

    STATUS = Path("/proc/self/status")

    def __enter__(self) -> Anonymous:
        self.peak: float | None = 0.0 if self.STATUS.exists() else None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while self.peak is not None and not self._stop.wait(0.005):
            line = next(line for line in self.STATUS.read_text().splitlines() if line.startswith("RssAnon"))
            self.peak = max(self.peak, int(line.split()[1]) / 2**20)


def limit_gib() -> float | None:
    """What this process's control group may hold, pages of files included, in GiB; None where nothing limits it."""
    groups = Path("/proc/self/cgroup")
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, group = line.split(":", 2)
        if controllers == "memory":
            place = Path(f"/sys/fs/cgroup/memory{group}/memory.limit_in_bytes")
        elif controllers == "":
            place = Path(f"/sys/fs/cgroup{group}/memory.max")
        else:
            continue
        found = place.read_text().strip() if place.exists() else "max"
        if found != "max" and int(found) < 2**60:  # the first version writes a huge number where it has none
            return int(found) / 2**30
    return None
