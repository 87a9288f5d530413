"""What is run on a borrowed GPU: packages that are missing are named, rows that fail or hang do not stop the others."""

import json
import multiprocessing
import os
import re
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
from shared import gpu, gpu_kit  # noqa: E402
from shared.gpu_rows import Row, Sizes, rows  # noqa: E402

WORDS = ["fine", "fails", "dies", "hangs", "lost", "fine"]


def test_what_the_library_needs_is_among_what_the_kit_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", each).groups() for each in project["dependencies"])
    assert named.items() <= gpu_kit.NEEDED.items()


def test_the_tests_of_the_kit_are_there():
    assert all((ROOT / each.removeprefix("--ignore=")).exists() for each in gpu_kit.TESTS)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"skorch": "1.3", "torch": "2.11.0+cu130"}, "skorch: missing here, or too old. Where there is a network, "),
        ({"torch": "2.5.1"}, "torch 2.6 or later has to be there"),
        ({}, ""),
    ],
)
def test_packages_that_are_missing_are_named_with_the_command_that_brings_them(found, says, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_kit, "version", lambda name: found.get(name, "99.0rc1"))
    problem = gpu_kit.unprepared(str(tmp_path), None)
    assert problem.startswith(says)
    assert bool(problem) == bool(says)
    if "skorch" in found:
        assert f"make gpu-wheels WHEELS=folder PY={sys.version_info[0]}.{sys.version_info[1]}" in problem


def test_the_rows_are_those_of_the_full_size_first_and_each_once():
    every = rows(Sizes())
    assert len(set(every)) == len(every)
    assert every[0].kind == "peak"
    assert {row.size[0] for row in every if row.kind == "fit"} == {50_000, 10_000}
    assert {row.precision for row in every if row.kind == "pairs"} == {"fp32", "TF32", "bf16"}


def child(pipe, todo, sizes, folder):
    """As shared.gpu.child, with rows that say what becomes of them."""
    os.setpgrp()
    pipe.send({"environment": {"card": "none"}})
    for row in todo:
        if row.what == "dies":
            os._exit(3)
        if row.what == "hangs":
            time.sleep(60)
        pipe.send({"status": f"failed: {row.what}" if row.what in ("fails", "lost") else "ok"})
        if row.what == "lost":
            pipe.send({})
            return


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here, which is faster")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("seconds", [60.0, 0.0])
def test_a_row_that_fails_kills_its_process_or_hangs_is_recorded_and_the_next_one_runs(seconds, monkeypatch, tmp_path):
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(gpu.mp, "get_context", lambda kind: fork)
    monkeypatch.setattr(gpu, "child", child)
    monkeypatch.setattr(gpu, "ROW_SECONDS", 0.3)
    monkeypatch.setattr(gpu, "line", str)
    record = gpu.Record(tmp_path / "gpu.json")
    gpu.in_processes([Row(word, "plain", (1,), "fp32") for word in WORDS], record, Sizes(), time.monotonic() + seconds)
    written = json.loads((tmp_path / "gpu.json").read_text())
    statuses = [row["status"] for row in written["rows"]]
    if not seconds:
        assert statuses == ["not run: time"] * len(WORDS)
        return
    assert written["environment"] == {"card": "none"}
    assert statuses[:2] == ["ok", "failed: fails"]
    assert statuses[2] == "failed: its process ended with 3"
    assert statuses[3:] == ["stopped after 0 s", "failed: lost", "ok"]
