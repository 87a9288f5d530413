"""What the gradient engine costs: in plain forward and backward passes, and beside other libraries.

    python benchmarks/engine.py                       # everything; half an hour on two cores, most of it the peers
    python benchmarks/engine.py mlp cnn               # some parts
    python benchmarks/engine.py --quick               # few rows, nothing written: does it run?
    python benchmarks/engine.py gpu                   # needs CUDA, not among "everything" (see `make gpu`)
    python benchmarks/engine.py gpu --simulate        # counts on a simulated device instead of seconds

Every part runs in a process of its own (threads fixed), and every ratio is between two numbers of that process, taken
on the same rows in turns. A plain pass is one forward and backward pass of the mean loss over all rows, at the best
of several batch sizes. The peers (`shared/peers.py`) get the same parameters, damping and, for EK-FAC, the same drawn
labels, so their numbers can be compared with ours before the seconds are; each of them runs once, ours three times.
How to install them is said in docs/benchmarks/other-libraries.md. Writes benchmarks/results/engine_PART.json; the part
gpu writes gpu.json or gpu_simulated.json there, or in the folder of --out, after every row.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from functools import partial
from pathlib import Path

from shared.common import begin, measured, quick, save

CHECKPOINTS = 6
PEERS = ("kronfluence", "captum", "pydvl", "dattri")
PARTS = ("mlp", "cnn", "source", *PEERS)


def mlp_part(n: int, repeats: int) -> dict:
    """Fashion-MNIST and an MLP of 670,000 parameters."""
    from shared.nets import fashion
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import Influence

    setting = fashion(n, max(n // 10, 20))
    frozen = FrozenEstimator(setting.net)

    def public() -> None:
        Influence(frozen, curvature="ekfac").fit(setting.X, setting.y, X_val=setting.X_val, y_val=setting.y_val)

    limits = {"aggregated": 1.6, "EK-FAC fit": 4.0, "EK-FAC self": 2.2}
    extra = {"Influence(...).fit, validation objective": public}
    return {"rows": ratios(setting, repeats, (128, 256, 512, 1024), limits, extra)}


def cnn_part(n: int, repeats: int) -> dict:
    """ResNet-9 of width 32 on random images."""
    from shared.nets import images

    warnings.filterwarnings("ignore", message="EK-FAC leaves out")  # the batch normalisations, as stated on the page
    return {"rows": ratios(images(n, width=4 if quick() else 32), repeats, (32, 128), {"aggregated": 2.5}, {})}


def source_part(n: int, repeats: int) -> dict:
    """Source over the six checkpoints of one run, against one EK-FAC influence run at the final parameters."""
    from shared.nets import fashion, interleaved
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import Influence, Source

    setting = fashion(n, n // 20, n_checkpoints=CHECKPOINTS)
    frozen = FrozenEstimator(setting.net)
    methods = {
        "Influence": (Influence(frozen, curvature="ekfac"), None),
        "Source": (Source(frozen), 1.2 * CHECKPOINTS),
        "Source, fast": (Source(frozen, fast=True), None),
    }
    tasks: dict = {}
    for name, (method, _) in methods.items():
        held = {"X_val": setting.X_val, "y_val": setting.y_val}
        tasks["validation scores", name] = partial(method.fit, setting.X, setting.y, **held)
        tasks["pairs", name] = partial(pairs, method, setting)
    seconds = interleaved(tasks, repeats)
    return {
        "rows": [
            {
                "what": f"{name}, {what}",
                "n": n,
                "seconds": value,
                "ratio": value / seconds[what, "Influence"],
                "limit": methods[name][1],
                "unit": "Influence runs",
            }
            for (what, name), value in seconds.items()
        ]
    }


def pairs(method, setting) -> None:
    """Everything from a trained net to the values of all pairs."""
    from sklearn.base import clone

    clone(method).set_params(objective=None).fit(setting.X, setting.y).attribute(setting.X_val, setting.y_val)


def ratios(setting, repeats: int, sizes: tuple[int, ...], limits: dict[str, float], extra: dict) -> list[dict]:
    """Seconds of the engine's passes over those of a plain one."""
    from shared.nets import interleaved, plain_pass

    from sktda.engine.ekfac import EKFAC
    from sktda.engine.per_row import PerRow

    engine, rows = setting.engine, setting.rows
    curvature = EKFAC(engine, rows)
    inverse = curvature.inverse()
    tasks = {f"plain {size}": plain_pass(setting, size) for size in sizes}
    tasks |= {
        "losses": lambda: engine.losses(rows),
        "aggregated": lambda: engine.dots(rows, curvature.apply(inverse, engine.mean_gradient(setting.validation))),
        "TracIn self, one checkpoint": lambda: engine.square_norms(rows),
        "EK-FAC fit": lambda: EKFAC(PerRow(setting.model), rows),
        "EK-FAC self": lambda: curvature.quadratic(engine, rows, inverse, 0, len(rows)),
        **extra,
    }
    seconds = interleaved(tasks, repeats)
    plain = min(value for name, value in seconds.items() if name.startswith("plain"))
    return [
        {"what": name, "n": len(rows), "seconds": value, "ratio": value / plain, "limit": limits.get(name)}
        for name, value in seconds.items()
    ]


def show(part: str, rows: list[dict]) -> None:
    """The rows of one part as a table."""
    print(f"\n{part}")
    for row in rows:
        if "peer_seconds" in row:
            chance = f" (two seeds of ours: r {row['own_seeds']:.5f})" if "own_seeds" in row else ""
            print(
                f"  {row['what']:52s} ours {row['seconds']:9.4f} s, {row['peer']} {row['peer_seconds']:9.4f} s: "
                f"{row['ratio']:7.1f} x | r {row['pearson']:.5f}, rho {row['spearman']:.5f}, "
                f"relative error {row['relative_error']:.2g}{chance}"
            )
        elif "value" in row:
            print(f"  {row['what']:52s} {row['value']:.4g}")
        else:
            limit = f" (limit {row['limit']})" if row["limit"] else ""
            unit = row.get("unit", "plain passes")
            print(f"  {row['what']:52s} {row['seconds']:9.4f} s {row['ratio']:6.2f} {unit}{limit}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"some of {', '.join(PARTS)}, gpu")
    parser.add_argument("--rows", type=int, help="rows of Fashion-MNIST (10,000), or of the images of the part gpu")
    parser.add_argument("--simulate", action="store_true", help="gpu: counts on a simulated device")
    parser.add_argument("--out", type=Path, help="gpu: the folder to write into")
    parser.add_argument("--seconds", type=float, help="gpu: what is not measured by then is left out")
    options = begin(parser, arguments)
    if unknown := set(options.parts) - {*PARTS, "gpu"}:
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; allowed are {', '.join(PARTS)}, gpu")
    from shared import gpu, peers

    n = 180 if options.quick else options.rows or 10_000
    repeats = 1 if options.quick else 5
    jobs = {
        "mlp": (mlp_part, n, repeats),
        "cnn": (cnn_part, 16 if options.quick else 512, 1 if options.quick else 3),
        "source": (source_part, n // 2, 1 if options.quick else 2),
        "kronfluence": (peers.kronfluence_part, n, 50 if options.quick else 500),
        "captum": (peers.captum_part, n, 20 if options.quick else 100),
        "pydvl": (peers.pydvl_part, repeats),
        "dattri": (peers.dattri_part, repeats),
    }
    for part in options.parts:
        if part == "gpu":
            print("\ngpu", flush=True)
            gpu.gpu_part(options.simulate, options.out, options.seconds or gpu.TOTAL_SECONDS, options.rows)
            continue
        needed = (part, "distributed") if part == "pydvl" else (part,)  # which pyDVL's influence imports
        if part in PEERS and any(importlib.util.find_spec(name) is None for name in needed):
            print(f"\n{part}: not installed, left out; docs/benchmarks/other-libraries.md says how")
            continue
        rows = measured(*jobs[part])["rows"]
        show(part, rows)
        save(f"engine_{part}", rows)


if __name__ == "__main__":
    main()
