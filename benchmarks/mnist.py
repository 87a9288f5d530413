"""Does a published ranking of attributions hold here? MNIST with logistic regression and an MLP, as in dattri.

    python benchmarks/truth.py mnist_lr; python benchmarks/truth.py mnist_mlp    # the truths; ten minutes on one core
    python benchmarks/mnist.py                      # an hour on one core
    python benchmarks/mnist.py mnist_lr --methods "Influence, CG"    # some of it; the other figures stay
    python benchmarks/mnist.py --pictures FOLDER    # no measurement: makes data/mnist.npz in SKTDA_DATA from PNG files
    python benchmarks/mnist.py --quick              # few pictures, models and methods, nothing written: does it run?

Deng et al. 2024 (arXiv:2410.04555) compare attributions on the first 5,000 training and 500 test pictures of MNIST:
logistic regression (SGD, rate 0.01, batches of 32, 20 epochs) and an MLP 784-128-64-10 with dropout 0.1 (momentum 0.9,
batches of 64, 50 epochs). The truth are nets trained again on 100 random halves of the rows; what is predicted is the
cross-entropy of a query. Here each half is trained on twice, so that the ceiling is known; LDS against the first of the
two alone, as published, is noted too. All methods have their defaults, none is set on the truth; beside them stand
TRAK with 512 numbers, also on nets of other halves, as published, and influence with the dense curvature of logistic
regression under every damping of the published search, whose best the published figure is. Intervals are bootstrap
intervals over the queries (95 %). Writes benchmarks/results/mnist.json; `python benchmarks/tables.py` makes the page.

The pictures are mnist.npz in the folder data of SKTDA_DATA (x_train, y_train, x_test, y_test), else they come from
OpenML. FOLDER holds train/LABEL/NUMBER.png and test/LABEL/NUMBER.png, numbered from 0 through both parts in the order
of the original files, such as github.com/rasbt/mnist-pngs.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from lds import FIRST_SEED, attributor, interval, lds
from shared.common import RESULTS, begin, data_folder, measured, quick, save, set_threads
from shared.lds import BY_LOSS, Problem, load, trained, truth

METHODS = (
    "InnerProduct",
    "TracIn",
    "Influence, EK-FAC",
    "Influence, CG",
    "Source",
    "Source, fast",
    "TRAK",
    "TRAK, 512",
)
HALVES = "TRAK, 512, nets of halves"
EXACT = "Influence, exact"  # of logistic regression: 7,850 parameters
ALL = (*METHODS, HALVES, EXACT)
COUNTS = (1, 10, 50)  # models averaged
SCORED = 10  # nets of all rows, and those whose own LDS are averaged for count 1
DAMPINGS = (1.0, 1e-1, 1e-2, 5e-3, 1e-3, 1e-4, 1e-5)  # of the published search
HALVES_SEED = 20_000  # nets of halves of their own


def explained(method: str, net: Any, number: int) -> Any:
    """The method around a trained net, ready to explain the losses of queries."""
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import TRAK, Influence
    from sktda.objectives import Margin

    common = {"objective": None, "random_state": number}
    if method == "Influence, CG":
        return Influence(FrozenEstimator(net), curvature="cg", **common)
    if method == HALVES:  # published scores leave out the slope of the query's loss
        return TRAK(FrozenEstimator(net), proj_dim=512, objective=Margin(), random_state=number)
    if method.startswith("TRAK"):
        return TRAK(FrozenEstimator(net), **({"proj_dim": 512} if "512" in method else {}), **common)
    return attributor(method.removesuffix(", EK-FAC"), net, "loss", number)


def part(name: str, n_halves: int, methods: list[str]) -> dict:
    """What these methods find about one truth, written after each; n_halves: nets of halves."""
    from sktda.metrics import noise_ceiling

    problem = load(name)
    start = time.perf_counter()
    nets = [trained(problem, FIRST_SEED + number) for number in range(2 if quick() else SCORED)]
    print(f"{name}: {len(nets)} nets trained, {time.perf_counter() - start:.0f} s", flush=True)
    common = {"truth": name, "n_train": len(problem.X), "n_queries": len(problem.X_query)}
    common |= {"n_subsets": len(problem.kept), "ceiling": noise_ceiling(problem.measured), "first_seed": FIRST_SEED}
    common |= {"accuracy": float(np.mean([net.score(problem.X_query, problem.y_query) for net in nets]))}
    rows: list[dict] = []

    def note(added: list[dict]) -> None:
        for row in added:
            damping = f", damping {row['damping']:g}" if "damping" in row else ""
            print(f"{name}, {row['method']}{damping}, models {row['models']}: {said(row)}", flush=True)
            rows.append(common | row)
        both = kept(name, methods) + rows
        save("mnist", sorted(both, key=lambda row: (BY_LOSS.index(row["truth"]), ALL.index(row["method"]))))

    for method in methods:
        if method == EXACT:
            note(dense(problem, nets[0]))
        else:
            note(scored(problem, method, of_halves(problem, n_halves) if method == HALVES else nets))
    return {}


def scored(problem: Problem, method: str, nets: list[Any]) -> list[dict]:
    """One row for each number of averaged models."""
    once = replace(problem, measured=problem.measured[:, :1])
    total, singles, seconds, rows = 0.0, [], [], []
    for number, net in enumerate(nets):
        start = time.perf_counter()
        fitted = explained(method, net, number).fit(problem.X, problem.y)
        values = fitted.attribute(problem.X_query, problem.y_query).astype(np.float32)
        seconds.append(time.perf_counter() - start)
        total = total + values
        if number < SCORED:
            singles.append((lds(problem, values), lds(once, values)))
        if number + 1 in COUNTS[1:]:
            rows.append({"models": number + 1} | against(lds(problem, total), lds(once, total)))
    whole, of_one = np.mean(singles, axis=0)
    first = {"models": 1, "sd": float(np.std([each.mean() for each, _ in singles], ddof=1)), "scored": len(singles)}
    found = [first | against(whole, of_one), *rows]
    return [{"method": method, "seconds": float(np.median(seconds))} | row for row in found]


def against(whole: np.ndarray, of_one: np.ndarray) -> dict:
    """Scores (n_query,) against the mean of the trainings of a half, and against the first alone."""
    return interval("lds", whole) | interval("one_run", of_one)


def of_halves(problem: Problem, count: int) -> list[Any]:
    """Nets of random halves of the rows that the truth has not."""
    nets = []
    for number in range(count):
        rows = np.random.default_rng(HALVES_SEED + number).permutation(len(problem.X))[: len(problem.X) // 2]
        half = replace(problem, X=problem.X[rows], y=problem.y[rows])
        nets.append(trained(half, HALVES_SEED + number, recorded=False))
    return nets


def dense(problem: Problem, net: Any) -> list[dict]:
    """Influence with the whole curvature, for which the library's limit of parameters is lifted, by damping."""
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import Influence
    from sktda.engine import curvature

    once = replace(problem, measured=problem.measured[:, :1])
    curvature.DENSE_PARAMETERS, before = 10_000, curvature.DENSE_PARAMETERS
    try:
        start = time.perf_counter()
        influence = Influence(FrozenEstimator(net), curvature="exact", damping=DAMPINGS[0], objective=None)
        influence.fit(problem.X, problem.y)
        fitting = time.perf_counter() - start
    finally:
        curvature.DENSE_PARAMETERS = before
    rows = []
    for damping in DAMPINGS:
        start = time.perf_counter()
        values = influence.set_params(damping=damping).attribute(problem.X_query, problem.y_query)
        row = {"method": EXACT, "damping": damping, "models": 1}
        row["seconds"] = fitting + time.perf_counter() - start
        rows.append(row | against(lds(problem, values), lds(once, values)))
    return rows


def said(row: dict) -> str:
    """A row for the screen."""
    words = f"{row['lds']:.3f} [{row['lds_low']:.3f}, {row['lds_high']:.3f}], of one training {row['one_run']:.3f}"
    return f"{words}; {row['seconds']:.1f} s"


def pictures(folder: Path) -> None:
    """Write data/mnist.npz in SKTDA_DATA. ValueError if a picture is missing."""
    from PIL import Image

    into = data_folder()
    if into is None:
        raise ValueError("SKTDA_DATA is not set; it names the folder whose folder data is written to")
    content = {}
    for part, first, n in (("train", 0, 60_000), ("test", 60_000, 10_000)):
        images, labels = np.zeros((n, 28, 28), dtype=np.uint8), np.full(n, 255, dtype=np.uint8)
        for file in (folder / part).glob("*/*.png"):
            number = int(file.stem) - first
            images[number], labels[number] = np.asarray(Image.open(file)), int(file.parent.name)
        if (labels == 255).any():
            raise ValueError(f"{int((labels == 255).sum()):,} of the {n:,} pictures are not in {folder / part}")
        content |= {f"x_{part}": images, f"y_{part}": labels}
    np.savez_compressed(into / "mnist.npz", **content)


def kept(name: str, methods: list[str]) -> list[dict]:
    """Rows of the other truth, and of other methods, in the result that is there."""
    file = RESULTS / "mnist.json"
    if quick() or not file.exists():
        return []
    rows = [row for row in json.loads(file.read_text())["rows"] if "truth" in row]
    return [row for row in rows if row["truth"] != name or row["method"] not in methods]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of {', '.join(BY_LOSS)}; default: all")
    parser.add_argument("--halves", type=int, default=50, help="nets of halves of the rows, at least two")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="make mnist.npz from PNG files instead")
    parser.add_argument("--methods", nargs="+", choices=ALL, default=ALL, metavar="METHOD", help="the others' stay")
    options = begin(parser, arguments, threads=1)
    if options.pictures:
        pictures(options.pictures)
        return
    names = options.names or list(BY_LOSS)
    if unknown := set(names) - set(BY_LOSS):
        parser.error(f"unknown truths {', '.join(sorted(unknown))}; allowed are {', '.join(BY_LOSS)}")
    if options.quick:
        names, options.halves, options.methods = [BY_LOSS[0]], 2, [*METHODS[::3], HALVES]
    if options.halves < 2:
        parser.error(f"--halves {options.halves} must be at least 2")
    set_threads(1)  # as truth.py
    for name in names:
        truth(name)  # now, and not in the process that is measured
        methods = [method for method in options.methods if method != EXACT or name == "mnist_lr"]
        measured(part, name, options.halves, methods, threads=1)


if __name__ == "__main__":
    main()
