"""Files that appear whole or not at all: checks before any work, temporary files beside them, renames at the end."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

STANDARD = Path("-")  # standard output, which nothing can be in the way of


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path], *, force: bool) -> None:
    """Raise ValueError or OSError, before any work is done, for a place that cannot or must not be written.

    Inputs are never written over, not even with `force`; folders are never replaced.
    """
    for position, path in enumerate(outputs):
        if os.path.realpath(path) in map(
            os.path.realpath, outputs[:position]
        ):  # Path.resolve fails at links in a circle
            raise ValueError(f"{path} is named for two outputs; give each its own name")
        if path == STANDARD:
            continue
        if any(path.exists() and other.exists() and path.samefile(other) for other in inputs):
            raise ValueError(f"{path} is an input and is never written over; choose another name")
        _refuse_existing(path, force)
        _probe(path)


def _refuse_existing(path: Path, force: bool) -> None:
    if path.is_dir():
        raise FileExistsError(f"{path} is an existing folder, which is never replaced; choose another name")
    if (path.exists() and not path.is_file()) or _target(path).is_symlink():  # a link to itself
        raise FileExistsError(f"{path} is not a regular file; choose another name")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists already; choose another name, or add --force to replace it")


def _probe(path: Path) -> None:
    parent = _target(path).parent
    if not parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: {parent} is not a folder; create it first")
    try:  # asking the file system is the only test that also knows read-only mounts and quotas
        with _room(path) as place:
            place.touch()
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}; choose another folder") from error


def _target(path: Path) -> Path:
    """The file that a link leads to, which is written in its place."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def _room(path: Path) -> Iterator[Path]:
    """A path of this name in a new folder beside the output, which nobody else can look into; it is gone at the end."""
    target = _target(path)
    folder = tempfile.mkdtemp(prefix=".sktda-", dir=target.parent)
    try:
        yield Path(folder, path.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def staged(outputs: Sequence[Path], *, force: bool, ending: str = "") -> Iterator[list[Path]]:
    """Temporary paths to write the outputs to; all are renamed at the end, or none if anything fails.

    What is meant for standard output, the path `-`, is written to a file with this ending, and then there. A file that
    is replaced leaves its mode to the new one, and a link stays: what it leads to is replaced.
    Raises OSError naming the outputs if the disk is full, for example; the temporary files are gone then.
    """
    stuck: list[Path] = []
    with ExitStack() as rooms:
        try:
            places = [rooms.enter_context(_standard(ending) if path == STANDARD else _room(path)) for path in outputs]
            yield places
            for path in outputs:
                if path != STANDARD:
                    _refuse_existing(path, force)
            _publish(dict(zip(outputs, places, strict=True)), stuck)
        except FileExistsError:
            raise
        except OSError as error:
            names = ", ".join(map(str, outputs))
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error  # of a page, staged itself
            behind = f"{', '.join(map(str, stuck))} could not be taken back" if stuck else "nothing was left behind"
            raise OSError(
                f"could not write {names}: {cause.strerror or cause}; {behind}. Free some space or choose another place"
            ) from cause


@contextmanager
def _standard(ending: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sktda-", ignore_cleanup_errors=True) as folder:
        yield Path(folder, f"out{ending}")


def _publish(places: dict[Path, Path], stuck: list[Path]) -> None:
    """Put what lies at the places where it belongs: everything, or nothing but what gets `stuck`."""
    targets = {_target(path): place for path, place in places.items() if path != STANDARD}
    earlier = {target: _kept(target, place) for target, place in targets.items() if target.exists()}
    moved: list[Path] = []
    try:
        for target, place in targets.items():
            moved.append(target)  # before: an interrupt may come at any moment
            os.replace(place, target)
        if STANDARD in places:  # last, as nothing takes it back
            with open(places[STANDARD], "rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    except BaseException:
        for target in moved:
            try:
                if target in earlier:
                    os.replace(earlier[target], target)
                elif not targets[target].exists():
                    os.replace(target, targets[target])
            except OSError:
                stuck.append(target)
        raise


def _kept(target: Path, place: Path) -> Path:
    """A second name for a file that is replaced, to put it back by; the new one gets its mode."""
    shutil.copymode(target, place)
    kept = Path(tempfile.mkdtemp(dir=place.parent), "old")
    try:
        os.link(target, kept)
    except OSError:  # of file systems without hard links
        shutil.copy2(target, kept)
    return kept
