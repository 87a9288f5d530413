"""What does each extra of sktda weigh once it is installed?

    python benchmarks/weights.py        # of the packages that are installed where this runs
    python benchmarks/weights.py --quick

For `sktda` alone and for each extra: the packages that it brings, those that they bring included, and the bytes of
their files on disk (compiled Python files left out, as they are made later). An extra's weight is what it adds to that
of `sktda` alone. Writes benchmarks/results/weights.json.
"""

from __future__ import annotations

import argparse
import re
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from shared.common import begin, quick, save

from sktda.cli.packages import EXTRAS

MIB = 2**20


def main(arguments: list[str] | None = None) -> None:
    begin(argparse.ArgumentParser(description=__doc__.splitlines()[0]), arguments)
    core = brought_by("sktda", set()) - {"sktda"}
    rows = [measured("sktda", core)]
    extras = EXTRAS[: 1 if quick() else None]
    rows += [measured(extra, brought_by("sktda", {extra}) - core - {"sktda"}) for extra in extras]
    for row in rows:
        heaviest = ", ".join(f"{name} {version} {size:.0f}" for name, version, size in row["packages"][:4])
        print(f"{row['extra']:<9} {row['mib']:6.0f} MiB in {len(row['packages']):>2} packages: {heaviest}")
    save("weights", rows)


def brought_by(name: str, extras: set[str]) -> set[str]:
    """The packages that `pip install name[extras]` installs, itself included. Raises SystemExit if one is not here."""
    found: set[str] = set()
    waiting = [(name, frozenset(extras))]
    seen = set()
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        found.add(canonicalize_name(each[0]))
        for text in of(each[0]).requires or ():
            requirement = Requirement(text)
            contexts = [{"extra": extra} for extra in each[1] or {""}]
            if requirement.marker is None or any(requirement.marker.evaluate(context) for context in contexts):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


def of(name: str):
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise SystemExit(f"{name} is not installed, and is weighed here; pip install '.[test]'") from None


def measured(extra: str, names: set[str]) -> dict:
    """Versions and MiB, the heaviest first."""
    packages = [(name, of(name).version, size(name)) for name in names]
    packages.sort(key=lambda package: -package[2])
    return {"extra": extra, "mib": sum(each[2] for each in packages), "packages": packages}


def size(name: str) -> float:
    """MiB of the files that a package installed."""
    places = (file.locate() for file in of(name).files or () if not re.search(r"\.pyc$", str(file)))
    return sum(place.stat().st_size for place in places if place.is_file()) / MIB


if __name__ == "__main__":
    main()
