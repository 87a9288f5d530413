"""`sktda doctor`: what is installed here, what it runs on, and what does not work.

Packages are imported in a process of their own: one that fails, hangs or takes its process down is named, and the
others are tried all the same.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from queue import Empty, Queue
from subprocess import DEVNULL, PIPE
from threading import Thread
from typing import Any

import typer

from sktda.cli.formats.escapes import visible
from sktda.cli.learned import cache_folder
from sktda.cli.options import Json
from sktda.cli.packages import ALONE, CORE, packages

TOO_LONG = 60  # seconds for one import

# Prints one line of JSON before and after each import. What packages print goes nowhere.
PROBE = """
import importlib, json, os, sys
out = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
def say(**what):
    print(json.dumps(what), file=out, flush=True)
for name in sys.argv[1:]:
    say(begin=name)
    try:
        module = importlib.import_module(name)
        more = {}
        if name == "torch":
            torch, cuda, of = module, module.cuda, module.cuda.get_device_properties
            more = {"threads": torch.get_num_threads(), "built_for_cuda": torch.version.cuda, "mps": False, "cuda": []}
            if cuda.is_available():
                cards = [of(k) for k in range(cuda.device_count())]
                more["cuda"] = [{"name": card.name, "bytes": card.total_memory} for card in cards]
            more["mps"] = torch.backends.mps.is_available()
        if name == "joblib":
            more = {"processors": module.cpu_count()}
        say(end=name, error=None, more=more)
    except BaseException as error:
        say(end=name, error=(type(error).__name__ + ": " + str(error)).strip()[:300], more={})
"""


def doctor(json_output: Json = False) -> None:
    """Say what is installed, what it runs on, and what does not work.

    Exit status 0: all that is installed works; 1: something is too old or cannot be imported, or is missing and
    nothing works without it. What is missing otherwise is listed with the extra that brings it.
    """
    if not json_output:
        typer.echo("sktda: importing what is installed ...", err=True)
    found = findings()
    if json_output:
        typer.echo(json.dumps(found))
    else:
        _show(found)
    raise typer.Exit(1 if found["problems"] else 0)


def findings() -> dict[str, Any]:
    """All that is shown, as it is printed with --json."""
    from sktda import __version__

    problems = []
    try:
        listed = packages()
    except PackageNotFoundError:
        listed = []
        problems.append("sktda runs from a folder and is not installed, so what it needs is unknown; pip install .")
    here = [package for package in listed if package.version is not None]
    tried = try_imports([package.module for package in here])
    for package in here:
        package.error = tried[package.module]["error"]
    problems += [problem for package in listed if (problem := package.problem())]
    torch, joblib = (tried.get(name, {}).get("more", {}) for name in ("torch", "joblib"))
    return {
        "sktda": {"version": __version__, "folder": str(Path(__file__).parents[1])},
        "python": {"version": platform.python_version(), "program": sys.executable, "system": platform.platform()},
        "machine": {
            "processors": joblib.get("processors", os.cpu_count()),
            "memory_gib": _memory(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
        "torch": torch | {"auto": "cuda" if torch.get("cuda") else "cpu"} if torch else None,
        "cache": _cache(),
        "packages": [vars(package) | {"state": package.state} for package in listed],
        "problems": problems,
    }


def try_imports(modules: Sequence[str], seconds: float = TOO_LONG) -> dict[str, dict[str, Any]]:
    """By module its "error", None where it can be imported, and "more", what torch and joblib say of the machine."""
    found: dict[str, dict[str, Any]] = {}
    while left := [name for name in modules if name not in found]:
        began = left[0]
        command = [sys.executable, "-P", "-W", "ignore", "-c", PROBE, *left]
        with subprocess.Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, text=True) as process:
            lines: Queue[str | None] = Queue()
            Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
            try:
                while line := lines.get(timeout=seconds):
                    said = json.loads(line)
                    if "begin" in said:
                        began = said["begin"]
                    else:
                        found[said.pop("end")] = said
                end = f"it ends Python, exit status {process.wait()}"
            except Empty:
                end = f"no answer in {seconds:.0f} seconds"
                process.kill()
        unknown = [name for name in left if name not in found]
        if unknown:
            found[began if began in unknown else unknown[0]] = {"error": end, "more": {}}
    return found


def _read(pipe: Any, lines: Queue[str | None]) -> None:
    for line in pipe:
        lines.put(line)
    lines.put(None)


def _memory() -> float | None:
    """Of this machine, or what its container may use; None where the system does not say."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    with suppress(OSError, ValueError):  # there is no such file, or it says "max"
        whole = min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return round(whole / 2**30, 1)


def _cache() -> dict[str, Any]:
    """Where the shell keeps features of pretrained models; nothing is made here."""
    try:
        folder = cache_folder()
        place = next(above for above in (folder, *folder.parents) if above.exists())
        writable = place.is_dir() and os.access(place, os.W_OK)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except (OSError, RuntimeError) as error:  # there is no home, or it may not be looked at
        return {"folder": str(error), "writable": False, "mib": 0.0}
    return {"folder": str(folder), "writable": writable, "mib": round(size / 2**20, 1)}


# ---- shown ---------------------------------------------------------------------------------------------------------


def _show(found: dict[str, Any]) -> None:
    for name, text in _about(found):
        typer.echo(visible(f"{name:<9} {text}"))
    typer.echo()
    rows = [_row(package) for package in found["packages"]]
    if rows:
        _printer()(("package", "version", "needs", "extra", "for"), rows)
    for problem in found["problems"]:
        typer.echo(visible(f"Problem: {problem}"))
    if not found["problems"]:
        typer.echo("All that is installed works.")


def _about(found: dict[str, Any]) -> list[tuple[str, str]]:
    python, machine, torch, cache = (found[name] for name in ("python", "machine", "torch", "cache"))
    memory = "an unknown amount" if machine["memory_gib"] is None else f"{machine['memory_gib']} GiB"
    threads = machine["OMP_NUM_THREADS"]
    lines = [
        ("sktda", f"{found['sktda']['version']} in {found['sktda']['folder']}"),
        ("Python", f"{python['version']}, {python['program']}, {python['system']}"),
        ("machine", f"{machine['processors']} processors, {memory} of memory"),
    ]
    if torch:
        cards = [f"cuda:{k} {card['name']}, {card['bytes'] / 2**30:.0f} GiB" for k, card in enumerate(torch["cuda"])]
        built = f"built for CUDA {torch['built_for_cuda']}" if torch["built_for_cuda"] else "built for processors"
        mps = ['mps, if named: device="mps"'] if torch["mps"] else []
        devices = "; ".join([*cards, *mps, "cpu"])
        lines.append(("devices", f'{devices} (torch is {built}); device="auto" is {torch["auto"]}'))
        said = f", OMP_NUM_THREADS={threads}" if threads else ""
        lines.append(("threads", f"{torch['threads']} of torch{said}"))
    state = f"{cache['mib']} MiB" if cache["writable"] else "cannot be written, so that features are not kept"
    return [*lines, ("cache", f"{cache['folder']}, {state}")]


def _row(package: dict[str, Any]) -> tuple[str, ...]:
    extra = {CORE: "", ALONE: "-"}.get(package["extra"], package["extra"])
    needs = f">= {package['needs']}" if package["needs"] else ""
    state = "" if package["state"] == "ok" else package["state"]
    return package["name"], f"{package['version'] or ''} {state}".strip(), needs, extra, package["use"]


def _printer() -> Callable[[Sequence[str], Sequence[Sequence[str]]], None]:
    """Of a table: rich's, or plain where rich is what does not work."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except Exception:
        return lambda names, rows: typer.echo("\n".join(visible("  ".join(row)) for row in (names, *rows)))

    def printed(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(box=None, pad_edge=False)
        for name in names:
            table.add_column(name, no_wrap=name != "for")
        for row in rows:
            style = "dim" if row[1] == "missing" else "bold red" if " " in row[1] else ""
            table.add_row(*(Text(visible(cell)) for cell in row), style=style)
        console = Console()
        if not console.is_terminal:
            console.width = 120
        console.print(table)

    return printed
