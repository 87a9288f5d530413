"""What the shell takes, in seconds and memory, and what it finds: large, wide and plain files as people have them.

    python benchmarks/front_door.py [--quick] [--parts million wide start sms report] [--seed 0] [--sms FILE]

Each row is one command in a process of its own, on two threads: "million" cleans 1,000,000 rows of 30 columns
(numbers, categories, dates and two that name the rows) with 5 % of the labels planted wrong, "wide" 200 rows of 20,000
numbers; "start" is the help, and a command that ends where it begins to read; "sms" cleans the SMS Spam Collection
(Almeida and Hidalgo 2011, a file of label, tab, text, that --sms names) with 5, 10 and 15 % of the labels flipped;
"report" cleans 9,000 rows with and without --report, of classes and of numbers.
Writes benchmarks/results/front_door.json (--quick: few rows in this process, nothing).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from shared.common import begin, data_folder, quick, save, set_threads
from shared.memory import peak_gib

set_threads(2)

from pages.front_door import found as page  # noqa: E402

TEXTS = {
    0: ["see you at home tonight", "are you there yet", "ok i will call you later", "lunch at noon then"],
    1: ["win a free prize now", "call now to claim cash", "free entry, text win", "urgent: you won a prize"],
}


def shell(*arguments: str) -> dict:
    """Run `sktda` with these arguments: seconds, those of the processor, and the peak of its memory in GiB."""
    start, before = time.perf_counter(), time.process_time()
    if quick():  # which must not pay for another process
        from sktda.cli.commands import app

        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            app(list(arguments))
        peak = peak_gib()
        cpu = time.process_time() - before
    else:
        process = subprocess.Popen(
            [sys.executable, "-m", "sktda", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},  # else threads that wait for each other count as work
        )
        peak, ended = 0.0, 0
        while not ended:
            peak = max(peak, peak_gib(process.pid))
            time.sleep(0.02)
            ended, _, used = os.wait4(process.pid, os.WNOHANG)
        cpu = used.ru_utime + used.ru_stime
    return {"seconds": time.perf_counter() - start, "cpu": cpu, "peak_gib": peak}


def cleaned(frame: pd.DataFrame, wrong: np.ndarray | None, folder: Path, *options: str) -> dict:
    """`sktda clean` of a table with the column `label`; with the mask of the wrong labels how many were found."""
    data, scores = folder / "data.csv", folder / "scores.csv"
    frame.to_csv(data, index=False)
    outputs = ["--out", str(folder / "clean.csv"), "--scores", str(scores), "--force"]
    row = {"rows": len(frame), "columns": frame.shape[1] - 1}
    del frame
    row |= shell("clean", str(data), "--target", "label", *outputs, *options)
    if wrong is None:
        return row
    verdicts = pd.read_csv(scores, usecols=["row", "noisy"])
    flagged = np.zeros(len(wrong), dtype=bool)
    flagged[verdicts["row"][verdicts["noisy"]]] = True
    hits = int((flagged & wrong).sum())
    return row | {
        "flagged": int(flagged.sum()),
        "precision": hits / max(1, flagged.sum()),
        "recall": hits / wrong.sum(),
    }


def million(folder: Path, seed: int, sms: Path | None) -> Iterator[dict]:
    """Three classes around centres in 20 numbers; categories, dates and names that say nothing."""
    n, rng = 300 if quick() else 1_000_000, np.random.default_rng(seed)
    true = rng.integers(0, 3, n)
    numbers = (rng.normal(0, 1.5, (3, 20))[true] + rng.normal(size=(n, 20))).round(3)
    frame = pd.DataFrame(numbers, columns=[f"n{j}" for j in range(20)])
    for j in range(6):
        frame[f"c{j}"] = np.array([f"v{k}" for k in range(3 + 4 * j)])[rng.integers(0, 3 + 4 * j, n)]
    for j in range(2):
        frame[f"d{j}"] = (np.datetime64("2020-01-01") + rng.integers(0, 1500, n)).astype(str)
    frame["id"], frame["uid"] = np.arange(n), [f"u{i:07d}" for i in rng.permutation(n)]
    wrong = np.zeros(n, dtype=bool)
    wrong[rng.permutation(n)[: n // 20]] = True
    frame["label"] = np.array(["red", "green", "blue"])[(true + wrong) % 3]
    yield {"what": "million", **cleaned(frame, wrong, folder)}


def wide(folder: Path, seed: int, sms: Path | None) -> Iterator[dict]:
    """Two classes that differ in 50 of 20,000 numbers, one label in twenty wrong."""
    n, p, rng = (60, 300, np.random.default_rng(seed)) if quick() else (200, 20_000, np.random.default_rng(seed))
    true = rng.integers(0, 2, n)
    numbers = rng.normal(size=(n, p))
    numbers[:, :50] += 2 * true[:, None]
    wrong = np.zeros(n, dtype=bool)
    wrong[rng.permutation(n)[: n // 20]] = True
    frame = pd.DataFrame(numbers.round(3), columns=[f"f{j}" for j in range(p)])
    yield {"what": "wide", **cleaned(frame.assign(label=np.array(["a", "b"])[true ^ wrong]), wrong, folder)}


def start(folder: Path, seed: int, sms: Path | None) -> Iterator[dict]:
    """The second of two runs, as the first one reads the libraries from the disk."""
    for what, arguments in {"help": ["--help"], "start": ["clean", "nothing.csv", "-t", "y", "-o", "x.csv"]}.items():
        shell(*arguments)
        yield {"what": what, **shell(*arguments)}


def sms(folder: Path, seed: int, sms: Path | None) -> Iterator[dict]:
    """Labels flipped at random."""
    rng = np.random.default_rng(seed)
    if quick():
        true = rng.integers(0, 2, 80)
        texts = [f"{rng.choice(TEXTS[label])} {rng.choice(TEXTS[label])}" for label in true]
    elif sms is None or not sms.exists():
        print("sms: no file; name it with --sms")
        return
    else:
        lines = [line.split("\t", 1) for line in sms.read_text(encoding="utf-8").splitlines()]
        true, texts = np.array([line[0] == "spam" for line in lines]) * 1, [line[1] for line in lines]
    for share in (0.15,) if quick() else (0.05, 0.1, 0.15):
        wrong = np.zeros(len(true), dtype=bool)
        wrong[rng.permutation(len(true))[: round(share * len(true))]] = True
        frame = pd.DataFrame({"text": texts, "label": np.array(["ham", "spam"])[true ^ wrong]})
        yield {"what": f"sms {share:.0%}", **cleaned(frame, wrong, folder)}


def report(folder: Path, seed: int, sms: Path | None) -> Iterator[dict]:
    """Thirteen columns, numbers and categories, of which the label depends on some."""
    n, rng = (60 if quick() else 9_000), np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n, 9)).round(3), columns=[f"n{j}" for j in range(9)])
    for j in range(4):
        frame[f"c{j}"] = np.array(list("abcdefgh"))[rng.integers(0, 4 + j, n)]
    level = frame["n0"] + frame["n1"] * (frame["c0"] == "a") + rng.normal(0, 0.3, n)
    wrong = rng.random(n) < 0.05
    labels: dict[str, np.ndarray] = {
        "classes": np.where((level > 0) ^ wrong, "yes", "no"),
        "numbers": (1000 * (level + np.where(wrong, rng.choice([-8, 8], n), 0))).round(1),
    }
    for task, label in list(labels.items())[: 1 if quick() else None]:
        for what, options in {task: [], f"{task}, report": ["--report", str(folder / "report.html")]}.items():
            yield {"what": what, **cleaned(frame.assign(label=label), wrong, folder, *options)}


PARTS: dict[str, Callable[[Path, int, Path | None], Iterator[dict]]] = {
    "million": million,
    "wide": wide,
    "start": start,
    "sms": sms,
    "report": report,
}


def main(arguments: list[str] | None = None) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="others stay as they were")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sms", type=Path, help="label, tab, text in each line")
    chosen = begin(parser, arguments)
    file = chosen.sms or (data_folder() / "sms.tsv" if data_folder() else None)
    rows = [row for row in earlier() if row["part"] not in chosen.parts]
    for part in chosen.parts:
        with tempfile.TemporaryDirectory() as folder:
            for row in PARTS[part](Path(folder), chosen.seed, file):
                rows.append({"part": part, "seed": chosen.seed, **row})
                save("front_door", sorted(rows, key=lambda row: list(PARTS).index(row["part"])))
                print({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()})
    print(page(rows))


def earlier() -> list[dict]:
    """What was measured before."""
    from pages.common import found

    return [] if quick() else found("front_door")[1]


if __name__ == "__main__":
    main()
