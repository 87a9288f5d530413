"""The part of the engine's benchmark that needs CUDA: ResNet-9 on many images, at three precisions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from shared.nets import SEED, Setting, agreement, images, timed
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

PRECISIONS = ("fp32", "TF32", "bf16")
QUERIES = 2_000
COMPARED = 1_000_000  # numbers of a result that correlations are taken over
COUNTED = 256  # rows of a plain pass on which floating point operations are counted


def gpu_part(n: int) -> dict:
    """Seconds, rows per second and share of the peak of a big matrix product in fp32, TF32 and bf16 autocast."""
    if not torch.cuda.is_available():
        raise RuntimeError("the part gpu needs a CUDA device, and torch sees none")
    warnings.filterwarnings("ignore", message="EK-FAC leaves out")  # the batch normalisations
    setting = images(n, QUERIES)
    setting.model.to(torch.device("cuda"))
    operations = plain_operations(setting) * n
    first: dict[str, Any] = {}
    rows = []
    for precision in PRECISIONS:
        with at(precision):
            peak = peak_rate(precision)
            for what, task in tasks(setting).items():
                task()  # warm-up: memory and algorithms are found
                torch.cuda.synchronize()
                seconds, result = timed(lambda task=task: synchronised(task))
                result = result.flatten()[:: max(1, result.numel() // COMPARED)]
                values = result.float().cpu().numpy()
                reference = first.setdefault(what, values)
                rows.append(
                    {"what": what, "precision": precision, "n": n, "seconds": seconds, "rate": n / seconds}
                    | {"share": operations / seconds / peak, "peak_tflops": peak / 1e12}
                    | agreement(values, reference)
                )
    return {"rows": rows}


def tasks(setting: Setting) -> dict[str, Callable[[], Tensor]]:
    """EK-FAC fit, self-influence, validation objective and pairs; each returns numbers to compare."""
    from sktda.engine.ekfac import EKFAC
    from sktda.engine.pairwise import EKFACQueries, Queries
    from sktda.engine.per_row import PerRow

    engine, rows = PerRow(setting.model), setting.rows
    kept: dict[str, EKFAC] = {}

    def fit() -> Tensor:
        kept["curvature"] = EKFAC(engine, rows, SEED)
        return torch.cat([values.flatten() for values in kept["curvature"].values.values()])

    def itself() -> Tensor:
        curvature = kept["curvature"]
        return curvature.quadratic(engine, rows, curvature.inverse(), 0, len(rows))

    def aggregated() -> Tensor:
        curvature = kept["curvature"]
        return engine.dots(rows, curvature.apply(curvature.inverse(), engine.mean_gradient(setting.validation)))

    def pairs() -> Tensor:
        curvature, device = kept["curvature"], setting.model.device
        source = EKFACQueries(curvature, curvature.inverse(), 0.02)
        source.choose_ranks(engine, setting.validation, rows, None)
        values = torch.empty(len(setting.validation), len(rows), device=device)
        for asked, ready in source.blocks(engine, setting.validation, None):

            def block(part: slice, ready: Queries = ready) -> Tensor:
                return ready.block(engine.capture(rows.block(part, device), None, curvature.own(engine))[1])

            for part, found in engine.computed(rows, block):
                values[asked, part] = found.to(values)
        return values

    return {"EK-FAC fit": fit, "EK-FAC self": itself, "aggregated": aggregated, f"pairs, {QUERIES} queries": pairs}


def plain_operations(setting: Setting) -> float:
    """Floating point operations of one row's forward and backward pass."""
    model = setting.model
    inputs, targets, _ = setting.rows.block(slice(0, COUNTED), model.device)
    with FlopCounterMode(display=False) as counter:
        model.likelihood.losses(model.module(inputs), targets).mean().backward()
    model.module.zero_grad(set_to_none=True)
    return counter.get_total_flops() / len(targets)


def peak_rate(precision: str, size: int = 8192, repeats: int = 10) -> float:
    """Operations per second of a (size, size) matrix product at this precision."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(size, size, device="cuda", dtype=kind)

    def work() -> None:
        for _ in range(repeats):
            a @ a

    synchronised(work)
    return 2 * size**3 * repeats / timed(lambda: synchronised(work))[0]


def synchronised(function: Callable[[], Any]) -> Any:
    """The result once the device has finished."""
    result = function()
    torch.cuda.synchronize()
    return result


@contextmanager
def at(precision: str) -> Iterator[None]:
    """Matrix products and convolutions at this precision."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "TF32"
    try:
        with torch.autocast("cuda", torch.bfloat16) if precision == "bf16" else nullcontext():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
