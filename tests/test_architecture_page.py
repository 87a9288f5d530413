"""The page about the code says what the imports say: every place with its stage, and no file that is not there."""

import re
from pathlib import Path

from tests.test_architecture import FREE, ROOMS, ROOT, STAGE

PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")


def table(heading):
    """{name without / or .py: number} of the first two columns below a heading."""
    part = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return {name: int(number) for name, number in re.findall(r"^\| `(\w+)(?:/|\.py)` \| (-?\d) \|", part, re.MULTILINE)}


def places(folder):
    return {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - FREE


def test_every_place_is_named_with_its_stage():
    found = table("Places")
    assert found == {name: stage for name, stage in STAGE.items() if name in found}
    assert set(found) == places(ROOT)


def test_every_room_is_named_in_its_order():
    found = table("Rooms of `attribution/`")
    assert found == ROOMS
    assert set(found) == places(ROOT / "attribution")


def test_every_file_that_is_named_exists():
    names = set(re.findall(r"`([\w/]+(?:/|\.py|\.md))`", PAGE))
    bases = ROOT, ROOT.parent, ROOT / "attribution"
    assert len(names) > 30
    assert [name for name in sorted(names) if not any((base / name).exists() for base in bases)] == []
