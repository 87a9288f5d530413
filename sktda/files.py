"""Files that appear whole or not at all: checks before any work, temporary files beside them, renames at the end."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

STANDARD = Path("-")  # standard output, which nothing can be in the way of


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path], *, force: bool) -> None:
    """Raise ValueError or OSError, before any work is done, for a place that cannot or must not be written.

    Inputs are never written over, not even with `force`; folders are never replaced.
    """
    for position, path in enumerate(outputs):
        if path.resolve() in {other.resolve() for other in outputs[:position]}:
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
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is not a regular file; choose another name")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists already; choose another name, or add --force to replace it")


def _probe(path: Path) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: {path.parent} is not a folder; create it first")
    probe = _temporary(path)
    try:  # asking the file system is the only test that also knows read-only mounts and quotas
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}; choose another folder") from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{os.getpid()}-{path.name}")


@contextmanager
def staged(outputs: Sequence[Path], *, force: bool, ending: str = "") -> Iterator[list[Path]]:
    """Temporary paths to write the outputs to; all are renamed at the end, or none if anything fails.

    What is meant for standard output, the path `-`, is written to a file with this ending, and then there.
    Raises OSError naming the outputs if the disk is full, for example; the temporary files are gone then.
    """
    elsewhere = Path(tempfile.mkdtemp(prefix="sktda-")) if STANDARD in outputs else Path()
    temporary = [elsewhere / f"out{ending}" if path == STANDARD else _temporary(path) for path in outputs]
    try:
        yield temporary
        for path in outputs:
            if path != STANDARD:
                _refuse_existing(path, force)
        for source, path in sorted(zip(temporary, outputs, strict=True), key=lambda pair: pair[1] != STANDARD):
            if path == STANDARD:  # first: it may be closed
                with open(source, "rb") as file:
                    shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.buffer.flush()
            else:
                os.replace(source, path)
    except FileExistsError:
        raise
    except OSError as error:
        names = ", ".join(map(str, outputs))
        raise OSError(
            f"could not write {names}: {error.strerror or error}; nothing was left behind. "
            "Free some space or choose another place"
        ) from error
    finally:
        for path in temporary:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if STANDARD in outputs:
            shutil.rmtree(elsewhere, ignore_errors=True)
