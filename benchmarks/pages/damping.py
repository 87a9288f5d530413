"""Section of docs/benchmarks.md about the damping of influence and of Source."""

from __future__ import annotations

from pages.common import read, table, where
from shared.common import RESULTS


def damping() -> str:
    """LDS of all settings on all truths; None where it was not run."""
    if not (RESULTS / "lds_damping.json").exists():
        return ""
    environment, rows = read("lds_damping")
    truths = list(dict.fromkeys(row["truth"] for row in rows))
    cells = {(row["method"], row["setting"], row["truth"]): row for row in rows}
    body = []
    for method, setting in dict.fromkeys((row["method"], row["setting"]) for row in rows):
        found = [cells.get((method, setting, name)) for name in truths]
        scores = ["–" if row is None else f"{row['single']:.3f}" for row in found]
        times = [
            row["seconds"] / cells["EK-FAC", "default", row["truth"]]["seconds"]
            for row in found
            if row is not None and setting == "default"
        ]
        body.append([method, setting, *scores, f"{min(times):.1f} to {max(times):.1f}" if times else "–"])
    models = ", ".join(f"{name} {next(r['n_models'] for r in rows if r['truth'] == name)}" for name in truths)
    return "\n".join(
        [
            "## Which damping",
            "",
            "`python benchmarks/damping.py`: LDS of one model (mean over the models) for every damping, on the truths "
            "of `truth.py`; how they are made is said there. Shares and constants are added to the eigenvalues of the "
            "loss without the penalty. `digits_noise` and `digits_wide`, where they are there, were "
            "looked at only after the default had "
            "been chosen. Time is that of fit and attribute, in times that of EK-FAC with its default. "
            f"Models: {models}. {where(environment)}",
            "",
            table(["method", "damping", *truths, "time"], body),
        ]
    )
