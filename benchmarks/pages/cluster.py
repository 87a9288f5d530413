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
    differs = {row["flow"]: max(row["difference"], *(each["difference"] for each in row["kills"])) for row in rows}
    efficiency = {row["flow"]: row["one"] / row["two"] / 2 for row in rows}
    body = [
        [
            f"`{row['flow']}`",
            f"{row['rows']:,}",
            *(f"{row[name]:.1f}" for name in ("alone", "one", "two")),
            f"{efficiency[row['flow']]:.2f}",
            f"{row['tasks']}",
            *(f"{row[name] / 1e3:.1f}" for name in ("own", "models")),
            f"{row['once'] / 1e6:.1f}",
            f"{max(each['seconds'] for each in row['kills']):.1f}",
            f"{differs[row['flow']]:.1g}",
        ]
        for row in rows
    ]
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
    names = {"alone": "without a cluster", "one": "one worker", "two": "two workers"}
    panels = {"": {title: {row["flow"]: row[name] for row in rows} for name, title in names.items()}}
    least, most = min(efficiency, key=efficiency.__getitem__), max(efficiency, key=efficiency.__getitem__)
    largest = max(differs.values())
    same = "all scores are those without a cluster, to the bit"
    if largest:
        same = f"no score differs by more than {largest:.1g} of the largest from those without a cluster"
    return Page(
        name="cluster",
        question="What do two workers of a cluster gain, and what does a killed one change?",
        answer=f"Two workers are {2 * efficiency[least]:.2f} ({least}) to {2 * efficiency[most]:.2f} times ({most}) as "
        f"fast as one, and with one killed on the way {same}.",
        picture=Picture(
            "Seconds without a cluster, on one worker and on two, for each method", partial(bars, panels, "seconds")
        ),
        about="Fashion-MNIST, and made rows on disk for `ComplexityGap`; workers of one thread on one machine. Alone: "
        "in one process without a cluster. Efficiency: seconds of one worker over twice those of two. Killed: the "
        f"longest of {len(rows[0]['kills'])} runs in which one of two workers got a SIGKILL at some moment. Differs: "
        "the largest difference of any score, of all these runs, from the result without a cluster, as a share of the "
        "largest score.",
        command="python benchmarks/cluster.py",
        measured=[(environment, rows)],
        tables={"Every method": table([*head, "killed, s", "differs"], body)},
    )
