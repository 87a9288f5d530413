"""Section of docs/benchmarks.md: on a cluster."""

from __future__ import annotations

from pages.common import found, table, where


def cluster() -> str:
    """Two workers against one, and killed ones; nothing where it was not run."""
    measured, rows = found("cluster")
    if not rows:
        return ""
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
    return "\n\n".join(
        [
            "## On a cluster",
            f"{where(measured)} `python benchmarks/cluster.py`: {rows[0]['rows']:,} rows of Fashion-MNIST, workers of "
            "one thread on one machine, seed 0. Efficiency: seconds of one process over twice those of two workers. "
            f"Killed: the longest of {len(rows[0]['kills'])} runs in which one of two workers got a SIGKILL at some "
            "moment, and the largest difference of any score from the result without a cluster.",
            table(
                [
                    "",
                    "1 process, s",
                    "2 workers, s",
                    "efficiency",
                    "tasks",
                    "kB a task",
                    "MB once",
                    "killed, s",
                    "differs",
                ],
                body,
            ),
        ]
    )
