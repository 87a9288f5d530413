"""Section of docs/benchmarks.md: on a cluster."""

from __future__ import annotations

from pages.common import found, table, where


def cluster() -> str:
    """Two workers against one, and killed ones; nothing where it was not run."""
    measured, rows = found("cluster")
    if not rows:
        return ""
    head = [
        "",
        "rows",
        "alone, s",
        "1 worker, s",
        "2 workers, s",
        "efficiency",
        "tasks",
        "kB a task",
        "of models",
        "MB once",
    ]
    body = [
        [
            f"`{row['flow']}`",
            f"{row['rows']:,}",
            *(f"{row[name]:.1f}" for name in ("alone", "one", "two")),
            f"{row['one'] / row['two'] / 2:.2f}",
            f"{row['tasks']}",
            *(f"{row[name] / 1e3:.1f}" for name in ("own", "models")),
            f"{row['once'] / 1e6:.1f}",
            f"{max(each['seconds'] for each in row['kills']):.1f}",
            f"{max(row['difference'], *(each['difference'] for each in row['kills'])):.1g}",
        ]
        for row in rows
    ]
    return "\n\n".join(
        [
            "## On a cluster",
            f"{where(measured)} `python benchmarks/cluster.py`: Fashion-MNIST, and made rows on disk for "
            "`ComplexityGap`; workers of one thread on one machine, seed 0. Alone: in one process without a cluster. "
            f"Efficiency: seconds of one worker over twice those of two. Killed: the longest of "
            f"{len(rows[0]['kills'])} runs in which one of two workers got a SIGKILL at some moment. Differs: the "
            "largest difference of any score, of all these runs, from the result without a cluster, as a share of the "
            "largest score.",
            table([*head, "killed, s", "differs"], body),
        ]
    )
