"""Which attribution predicts retraining of small transformers, of nets stopped early, and across two stages?

    python benchmarks/lds_transformers.py                  # an hour and a half on one core; makes the truths first
    python benchmarks/lds_transformers.py gpt --models 3   # one setting, fewer models
    python benchmarks/lds_transformers.py --truths         # only the truths; what is there is gone on with
    python benchmarks/lds_transformers.py --quick          # few rows, one model, nothing written: does it run?

bert: a transformer of four layers that tells good from bad reviews (SST-2), pre-trained on other reviews; predicted is
minus the margin. gpt: a causal one on characters of Shakespeare, pre-trained on another part of the text; predicted is
the loss of held-out sequences. stages: an MLP trained on upright digits of MNIST and then on turned ones; the truth
leaves out rows of the first stage, and asks after the second. Nets are retrained on 100 halves of the rows, from seeds
of their own, and asked twice, at an early epoch of the (last) stage and at its end. Attributed are other nets, trained
on all rows for as long. Needs data/sst2.csv.gz, shakespeare.txt and mnist.npz in SKTDA_DATA (the latter two from
github.com/karpathy/char-rnn and OpenML). Every model has a process of its own. Writes
benchmarks/results/lds_transformers_NAME.json after each; `python benchmarks/tables.py` makes the tables from it.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from shared.common import begin, measured, quick, save, set_threads

FIRST_SEED = 10_000  # the truth takes its seeds from 0 up
NAMES = ("gpt", "bert", "stages")
N_CHECKPOINTS = 6
SMALL = 1e-6
REFERENCE = "Influence"
LINEAR = ["blocks.*.qkv.*", "blocks.*.out.*", "blocks.*.up.*", "blocks.*.down.*", "head.*"]  # what EK-FAC knows
HEAD = ["head.*"]
Attributor = Callable[..., Any]


def trained(setting: Any, seed: int) -> list[Any]:
    """Recorded skorch nets after each stage, trained on all rows as those of the truth on halves."""
    from copy import deepcopy

    import torch
    from skorch import NeuralNet, NeuralNetClassifier

    from sktda.model.recorder import TrajectoryRecorder

    torch.manual_seed(seed)
    module, nets = setting.build(), []
    for stage in setting.stages:
        run, adam = stage.run, stage.run.momentum is None
        kind = NeuralNetClassifier if stage.y.ndim == 1 else NeuralNet
        own = {} if adam else {"optimizer__momentum": run.momentum}
        net = kind(
            deepcopy(module),
            criterion=torch.nn.CrossEntropyLoss,
            optimizer=torch.optim.AdamW if adam else torch.optim.SGD,
            optimizer__weight_decay=run.weight_decay,
            **own,
            lr=run.lr,
            max_epochs=run.epochs,
            batch_size=run.batch_size,
            iterator_train__shuffle=True,
            train_split=None,
            verbose=0,
            callbacks=[TrajectoryRecorder(n_checkpoints=3 if quick() else N_CHECKPOINTS, optimizer_state=adam)],
        )
        nets.append(net.fit(stage.X.numpy(), stage.y.numpy()))
        module = net.module_
    return nets


def unrecorded(net: Any) -> Any:
    """The same parameters, as of a net that nothing is known about."""
    import torch
    from sklearn.base import clone

    plain = clone(net).set_params(callbacks=None)
    plain.initialize()
    plain.module_.load_state_dict(net.module_.state_dict())
    assert isinstance(plain.module_, torch.nn.Module)
    return plain


def methods(nets: list[Any], setting: Any, seed: int) -> dict[str, Callable[[], np.ndarray]]:
    """What computes the values (n_query, n) of the rows of the first stage, by method."""
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import TRAK, Influence, InnerProduct, Source, Stage, TracIn
    from sktda.objectives import Margin

    common = {"objective": Margin() if setting.kind == "margin" else None, "random_state": seed}
    first = setting.stages[0]
    X, y = (np.concatenate([getattr(s, part).numpy() for s in setting.stages]) for part in ("X", "y"))
    asked = setting.X_query.numpy(), setting.y_query.numpy()
    n = len(first.X)

    def values(make: Attributor, net: Any, all_rows: bool = True, **kwargs: Any) -> np.ndarray:
        method = make(FrozenEstimator(net), **common, **kwargs)
        rows = slice(None) if all_rows else slice(n)
        return method.fit(X[rows], y[rows]).attribute(*asked)[:, :n]

    if len(nets) == 1:
        net = nets[0]
        head = (
            {}
            if setting.name != "bert"
            else {  # whose head is new
                "InnerProduct, head": partial(values, InnerProduct, net, parameters=HEAD),
                "Influence, head": partial(values, Influence, net, curvature="ekfac", parameters=HEAD),
            }
        )
        return {
            "InnerProduct": partial(values, InnerProduct, net),
            "InnerProduct, linear layers": partial(values, InnerProduct, net, parameters=LINEAR),
            "TracIn, linear layers": partial(values, TracIn, net, parameters=LINEAR),
            "TRAK": partial(values, TRAK, net),
            "Influence": partial(values, Influence, net, curvature="ekfac"),
            "Influence, small damping": partial(values, Influence, net, curvature="ekfac", damping=SMALL),
            "Source": partial(values, Source, net),
            **head,
        }
    plain = unrecorded(nets[-1])
    return {
        "InnerProduct": partial(values, InnerProduct, plain),
        "TracIn": partial(values, TracIn, nets[0], False),
        "TRAK": partial(values, TRAK, plain),
        "Influence": partial(values, Influence, plain, curvature="ekfac"),
        "Influence, small damping": partial(values, Influence, plain, curvature="ekfac", damping=SMALL),
        "Influence, end of first stage": partial(values, Influence, nets[0], False, curvature="ekfac"),
        "Source, first stage only": partial(values, Source, nets[0], False),
        "Source": partial(values, Source, nets[-1], stages=[Stage(nets[0])]),
    }


def part(name: str, mark: int, model: int) -> dict:
    """All methods on one model of a setting, trained until one of its marks."""
    import torch
    from shared.halves import load, shortened

    torch.set_num_threads(1)
    setting = shortened(load(name), mark)
    warnings.filterwarnings("ignore", "EK-FAC leaves out")  # embeddings and norms
    nets = trained(setting, FIRST_SEED + model)
    values, seconds = {}, {}
    for method, found in methods(nets, setting, model).items():
        if quick() and ", " in method:
            continue  # a variant of another
        start = time.process_time()
        values[method] = found()
        seconds[method] = time.process_time() - start
    return {"values": values, "method_seconds": seconds, "train_loss": nets[-1].history[-1, "train_loss"]}


def described(setting: Any, mark: int, kept: np.ndarray, told: np.ndarray, runs: list[dict], n_scored: int) -> list:
    """The rows of one mark, from what the models so far say."""
    from sktda.metrics import noise_ceiling

    methods = list(runs[0]["values"])
    values = {method: [run["values"][method] for run in runs] for method in methods}
    seconds = {method: [run["method_seconds"][method] for run in runs] for method in methods}
    common = {"setting": setting.name, "f": setting.kind, "epochs": mark, "ceiling": noise_ceiling(told)}
    common |= {"first_seed": FIRST_SEED, "n_models": len(runs), "n_scored": min(n_scored, len(runs))}
    common |= {"n_subsets": len(told), "n_retrains": told.shape[1], "n_train": kept.shape[1]}
    common |= {"n_queries": told.shape[2], "train_loss": float(np.mean([run["train_loss"] for run in runs]))}
    common["query"] = float(told.mean())
    return [common | row for row in compared(kept, told, values, seconds, common["n_scored"])]


def lds(values: np.ndarray, kept: np.ndarray, told: np.ndarray) -> np.ndarray:
    """(n_query,) of values (n_query, n)."""
    from sktda.metrics import linear_datamodeling_score

    return linear_datamodeling_score(values, kept, told)


def compared(
    kept: np.ndarray, told: np.ndarray, values: dict[str, list], seconds: dict[str, list], n_scored: int
) -> list[dict]:
    """One row per method: LDS of single models and of the average, and how they differ from the reference."""
    singles = {m: np.array([lds(each, kept, told) for each in found[:n_scored]]) for m, found in values.items()}
    averaged = {m: lds(np.mean(found, axis=0), kept, told) for m, found in values.items()}
    rows = []
    for method in values:
        row: dict[str, Any] = {"method": method, "seconds": float(np.median(seconds[method]))}
        row["single_sd"] = singles[method].mean(axis=1).std(ddof=1) if n_scored > 1 else None
        row |= interval("single", singles[method].mean(axis=0)) | interval("averaged", averaged[method])
        if method != REFERENCE:
            row |= interval("single_gain", (singles[method] - singles[REFERENCE]).mean(axis=0))
            row |= interval("averaged_gain", averaged[method] - averaged[REFERENCE])
        rows.append(row)
    return rows


def interval(name: str, scores: np.ndarray) -> dict[str, float]:
    """The mean of the scores (n_query,) and its bootstrap interval."""
    from sktda.metrics import bootstrap_interval

    low, high = bootstrap_interval(scores)
    return {name: float(scores.mean()), f"{name}_low": low, f"{name}_high": high}


def words_of(row: dict) -> str:
    """A row for the screen."""
    parts = [f"{row['setting']}, {row['epochs']} epochs (ceiling {row['ceiling']:.3f}), {row['method']}:"]
    for name in ("single", "averaged"):
        parts.append(f"{name} {row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]")
        if f"{name}_gain" in row:
            parts.append(f"({row[f'{name}_gain']:+.3f})")
    return " ".join([*parts, f"{row['seconds']:.1f} s"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of {', '.join(NAMES)}; default: all")
    parser.add_argument("--models", type=int, default=10, help="nets to train")
    parser.add_argument("--scored", type=int, default=5, help="of these, nets whose own LDS are averaged")
    parser.add_argument("--subsets", type=int, default=100, help="halves to retrain on")
    parser.add_argument("--truths", action="store_true", help="only make the truths")
    options = begin(parser, arguments, threads=1)
    names = options.names or NAMES
    if unknown := set(names) - set(NAMES):
        parser.error(f"unknown settings {', '.join(sorted(unknown))}; allowed are {', '.join(NAMES)}")
    if options.quick:
        options.models = options.scored = 1
    if not 1 <= options.scored <= options.models:
        parser.error(f"--scored {options.scored} must be between 1 and the number of models, {options.models}")
    set_threads(1)
    from shared.halves import load, truth

    for name in names:
        setting = load(name)
        known = truth(setting, options.subsets)
        runs: dict[int, list[dict]] = {mark: [] for mark in setting.marks}
        for model in range(0 if options.truths else options.models):
            for mark in setting.marks:
                runs[mark].append(measured(part, name, mark, model))
                rows = []
                for number, (each, found) in enumerate(runs.items()):
                    if found:
                        told = known["measured"][number]
                        rows += described(setting, each, known["kept"], told, found, options.scored)
                save(f"lds_transformers_{name}", rows)  # after every model: a run that is cut leaves what it has
                print(f"{name}: {mark} epochs, model {model + 1} of {options.models}", flush=True)
                for row in rows:
                    if row["epochs"] == mark:
                        print(words_of(row), flush=True)


if __name__ == "__main__":
    main()
