"""Work on a cluster: what cluster.py measured."""

from __future__ import annotations

from functools import partial

from pages.common import found, table
from pages.page import Page, Picture
from pages.plots import bars


def cluster() -> Page | None:
    """Two workers against one, and killed ones; nothing where it was not run."""
    environment, rows = found("cluster")
    if not rows:
        return None
    body = [
        [
            f"`{row['flow']}`",
            f"{row['one']:.1f}",
            f"{row['two']:.1f}",
            f"{row['one'] / row['two'] / 2:.2f}",
            f"{row['tasks']}",
            f"{row['own'] / 1e3:.1f}",
            f"{row['once'] / 1e6:.1f}",
            f"{max(each['seconds'] for each in row['kills']):.1f}",
            f"{max(each['difference'] for each in row['kills']):g}",
        ]
        for row in rows
    ]
    head = ["", "1 process, s", "2 workers, s", "efficiency", "tasks", "kB a task", "MB once", "killed, s", "differs"]
    efficiency = [row["one"] / row["two"] / 2 for row in rows]
    most = max(each["difference"] for row in rows for each in row["kills"])
    panels = {
        "": {
            "one process": {row["flow"]: row["one"] for row in rows},
            "two workers": {row["flow"]: row["two"] for row in rows},
        }
    }
    return Page(
        name="cluster",
        question="What do two workers of a cluster gain, and what does a killed one cost?",
        answer=f"Two workers use {min(efficiency):.0%} to {max(efficiency):.0%} of twice one process, and where one of "
        f"them is killed on the way no score differs by more than {most:g} from the result without a cluster.",
        picture=Picture("Seconds of one process and of two workers for each method", partial(bars, panels, "seconds")),
        about=f"{rows[0]['rows']:,} rows of Fashion-MNIST, workers of one thread on one machine. Efficiency: seconds "
        f"of one process over twice those of two workers. Killed: the longest of {len(rows[0]['kills'])} runs in which "
        "one of two workers got a SIGKILL at some moment, and the largest difference of any score.",
        command="python benchmarks/cluster.py",
        measured=[(environment, rows)],
        tables={"Every method": table(head, body)},
    )
