"""How easy is the code to walk through? Files that a call passes, looks into estimators, exceptions to the rules.

`--source` names another checkout to measure beside this one, such as a worktree of an earlier commit: it is "before".
What counts as a hop and as turning back is said in shared/flows.py, and what is counted in the files in
shared/layout.py. Every checkout has a process of its own, which imports its sktda.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from shared.common import begin, save
from shared.layout import counted

HERE = Path(__file__).parents[1]
FLOWS = Path(__file__).parent / "shared" / "flows.py"


def measures(root: Path, quick: bool) -> dict[str, float]:
    """{what: number} of the checkout in a folder."""
    found = subprocess.run(
        [sys.executable, str(FLOWS), *(["--quick"] if quick else [])],
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": "ignore"},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise SystemExit(f"the calls of {root} could not be followed: {found.stderr.strip().splitlines()[-1]}")
    ran = json.loads(found.stdout.splitlines()[-1])
    ways = {f"{name}: {what}": number for name, counts in ran["flows"].items() for what, number in counts.items()}
    return {**ways, **counted(root, 10 if quick else 1), **ran["classes"]}


def show(rows: list[dict]) -> None:
    width = max(len(row["what"]) for row in rows)
    both = any(row["before"] is not None for row in rows)
    print(f"{'':{width}s} {'before' if both else '':>8s} {'now':>8s}")
    for row in rows:
        before = "" if row["before"] is None else f"{row['before']:g}"
        print(f"{row['what']:{width}s} {before:>8s} {row['now']:>8g}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="a checkout to measure beside this one")
    options = begin(parser, arguments)
    if options.source is not None and not (options.source / "sktda" / "__init__.py").exists():
        parser.error(f"--source {options.source} is no checkout: it has no sktda/__init__.py")
    now = measures(HERE, options.quick)
    before = {} if options.source is None else measures(options.source.resolve(), options.quick)
    rows = [{"what": what, "before": before.get(what), "now": number} for what, number in now.items()]
    show(rows)
    save("structure", rows)


if __name__ == "__main__":
    main()
