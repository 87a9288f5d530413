"""What a program asked of the simulated device, and which line of it did."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

ROOT = str(Path(__file__).parents[2] / "sktda")


class Ledger:
    """Counts of one stretch of a program.

    counts: "kernels" launched; "syncs", in which the program waits for the device (values that it reads, shapes that
    depend on values, copies to the processor); "uploads" and "downloads", and their "uploaded" and "downloaded" bytes;
    "factorised64", decompositions and solves in float64. places: the same but kernels, by (kind, line of sktda).
    peak: the most bytes of tensors that were alive at once.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.places: Counter[tuple[str, str]] = Counter()
        self.peak = 0

    def note(self, kind: str, n_bytes: tuple[str, int] | None = None) -> None:
        """One more of this kind, by the line that the program is at."""
        self.counts[kind] += 1
        self.places[kind, line()] += 1
        if n_bytes is not None:
            self.counts[n_bytes[0]] += n_bytes[1]

    def lines(self, kind: str) -> dict[str, int]:
        """How often each line did this, the most frequent first."""
        return {place: n for (what, place), n in self.places.most_common() if what == kind}


def line() -> str:
    """The innermost line of sktda that runs, as "engine/per_row.py:93 work".

    Backward passes run in a thread of their own, while the program's is at the line that asked for them.
    """
    found = _inside(sys._getframe(1))
    if found is None and threading.current_thread() is not threading.main_thread():
        main = threading.main_thread().ident
        assert main is not None
        found = _inside(sys._current_frames().get(main))
    return found or "outside"


def _inside(frame: FrameType | None) -> str | None:
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(ROOT):
            return f"{code.co_filename[len(ROOT) + 1 :]}:{frame.f_lineno} {code.co_name}"
        frame = frame.f_back
    return None
