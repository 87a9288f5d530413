"""Small transformers and two stages of training: the settings, and nets retrained on halves of the rows of a stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from shared.batched import cross_entropy, margin
from shared.common import data_folder, quick
from shared.nets import mlp
from shared.retraining import half_masks
from shared.sequences import Rows, Transformer, lines, sentences
from shared.stacked import Run, Stacked
from torch import Tensor, nn

OUT = Path(__file__).parents[1] / "truth"
GROUP = 5  # subsets whose nets are trained together; the file is written after each
BASE_SEED = 20_000  # of the one net that comes before all others
N_SUBSETS = 100
TURNED = 45.0  # degrees, of the images of the second stage


@dataclass(frozen=True)
class Stage:
    """Rows (X, y) and how a net is trained on them."""

    X: Tensor
    y: Tensor
    run: Run


@dataclass(frozen=True)
class Setting:
    """What is trained, attributed and asked about.

    build: an untrained net, or one with the weights of the pre-trained one. loss: (outputs, targets) -> losses of rows.
    kind: "margin" or "loss", what is predicted. marks: numbers of epochs of the last stage after which it is asked.
    The truth halves the rows of the first stage; those of a later one are all kept.
    """

    name: str
    kind: str
    build: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    stages: tuple[Stage, ...]
    X_query: Tensor
    y_query: Tensor
    marks: tuple[int, ...]
    n_retrains: int

    def measure(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Lower = better: minus the margin, or the loss."""
        return -margin(outputs, targets) if self.kind == "margin" else self.loss(outputs, targets)


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy (...,) of the tokens of each sequence; outputs (..., kinds, t), targets (..., t)."""
    return -outputs.log_softmax(-2).gather(-2, targets[..., None, :])[..., 0, :].mean(-1)


@cache
def load(name: str) -> Setting:
    """ "bert", "gpt" or "stages"; with --quick of few rows."""
    return {"bert": bert, "gpt": gpt, "stages": stages}[name]()


def bert() -> Setting:
    """Sentences: the encoder is pre-trained on other ones, the head is new."""
    n, n_query, length, kinds = (12, 4, 6, 12) if quick() else (1_000, 100, 24, 2_000)
    rows = sentences(n, n_query, length, kinds)
    net = untrained(rows, length, 2, causal=False)
    before = Run(lr=1e-3, epochs=1 if quick() else 3, batch_size=32, weight_decay=0.01, momentum=None)
    run = Run(lr=1e-3, epochs=2 if quick() else 3, batch_size=3 if quick() else 32, weight_decay=0.01, momentum=None)
    build = pretrained("bert", net, before, rows, cross_entropy, new="head.")
    stage = Stage(rows.X, rows.y, run)
    marks = (2,) if quick() else (1, 3)
    return Setting("bert", "margin", build, cross_entropy, (stage,), rows.X_query, rows.y_query, marks, 2)


def gpt() -> Setting:
    """Characters: pre-trained on the first four fifths of the text."""
    n, n_query, length = (12, 4, 6) if quick() else (1_000, 100, 32)
    rows = lines(n, n_query, length)
    net = untrained(rows, length, rows.kinds, causal=True)
    before = Run(lr=3e-3, epochs=1, batch_size=64, weight_decay=0.01, momentum=None)
    run = Run(lr=1e-3, epochs=2 if quick() else 4, batch_size=3 if quick() else 32, weight_decay=0.01, momentum=None)
    build = pretrained("gpt", net, before, rows, token_loss)
    stage = Stage(rows.X, rows.y, run)
    marks = (2,) if quick() else (1, 4)
    return Setting("gpt", "loss", build, token_loss, (stage,), rows.X_query, rows.y_query, marks, 2)


def untrained(rows: Rows, length: int, n_out: int, *, causal: bool) -> Callable[[], nn.Module]:
    """Four layers; with --quick one of width 8."""
    width, layers = (8, 1) if quick() else (32, 4)
    return lambda: Transformer(rows.kinds, length, n_out, causal=causal, width=width, layers=layers)


def pretrained(
    name: str, untrained: Callable[[], nn.Module], run: Run, rows: Rows, loss: Callable, new: str = "\n"
) -> Callable[[], nn.Module]:
    """Makes nets with the weights of one trained on the rows before, but for those whose names begin with `new`."""
    file = OUT / f"{name}_before.pt"
    if not quick() and file.exists():
        state = torch.load(file, weights_only=True)
    else:
        one = Stacked(untrained, [BASE_SEED])
        one.train(run, loss, rows.X_before, rows.y_before, torch.arange(len(rows.X_before))[None])
        state = {key: value[0].detach().clone() for key, value in one.parameters.items() if not key.startswith(new)}
        with torch.no_grad():
            mean = loss(one(rows.X_query, same=True), rows.y_query[None]).mean()
        print(f"{name}: loss {mean:.3f} of the queries after pre-training on {len(rows.X_before):,} rows", flush=True)
        if not quick():
            OUT.mkdir(parents=True, exist_ok=True)
            torch.save(state, file)

    def build() -> nn.Module:
        net = untrained()
        net.load_state_dict(state, strict=False)
        return net

    return build


def stages() -> Setting:
    """MNIST upright, then turned: half of the queries are upright, half turned."""
    from scipy.ndimage import rotate

    n, n_query = (20, 4) if quick() else (2_000, 100)
    X, y, X_test, y_test = (part[: 2 * n] for part in mnist())
    images, queries = (part.astype(np.float32) / 255 for part in (X, X_test[:n_query]))
    for each in (images[n:], queries[n_query // 2 :]):
        each[:] = rotate(each, TURNED, axes=(1, 2), reshape=False, order=1)
    inputs, asked = (torch.from_numpy(part.reshape(len(part), -1)) for part in (images, queries))
    targets = torch.from_numpy(y)
    runs = Run(0.02, 1, 4, 1e-4), Run(0.02, 2, 4, 1e-4)
    if not quick():
        runs = Run(0.02, 10, 64, 1e-4), Run(0.02, 6, 64, 1e-4)
    both = tuple(
        Stage(inputs[part], targets[part], run) for part, run in zip((slice(n), slice(n, 2 * n)), runs, strict=True)
    )
    marks = (2,) if quick() else (1, 6)
    build = lambda: mlp(784, 64, 64, 10)  # noqa: E731 (one line says it)
    return Setting("stages", "margin", build, cross_entropy, both, asked, torch.from_numpy(y_test[:n_query]), marks, 2)


def mnist() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(x_train (n, 28, 28), y_train, x_test, y_test) of SKTDA_DATA or OpenML; with --quick digits in this form."""
    if quick():
        from shared.common import fashion_mnist

        return fashion_mnist()
    if folder := data_folder():
        data = np.load(folder / "mnist.npz")
        return data["x_train"], data["y_train"].astype(int), data["x_test"], data["y_test"].astype(int)
    from sklearn.datasets import fetch_openml

    X, y = fetch_openml("mnist_784", version=1, as_frame=False, return_X_y=True)
    X, y = X.astype(np.uint8).reshape(-1, 28, 28), y.astype(int)
    return X[:60_000], y[:60_000], X[60_000:], y[60_000:]


def truth(setting: Setting, n_subsets: int = N_SUBSETS) -> Mapping[str, np.ndarray]:
    """kept (n_subsets, n) bool over the rows of the first stage; measured (n_marks, n_subsets, n_retrains, n_query).

    Written to benchmarks/truth/NAME.npz after every group of subsets, and gone on with from there.
    """
    n, R = len(setting.stages[0].X), setting.n_retrains
    kept = half_masks(n, 4 if quick() else n_subsets)
    file = OUT / f"{setting.name}.npz"
    found: list[np.ndarray] = []
    if not quick() and file.exists():
        found = [np.load(file)["measured"][:, : len(kept)]]
    start, done = time.perf_counter(), sum(each.shape[1] for each in found)
    for first in range(done, len(kept), GROUP):
        group = kept[first : first + GROUP]
        found.append(retrained(setting, group, range(first * R, (first + len(group)) * R)))
        if not quick():
            OUT.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(file, measured=np.concatenate(found, axis=1))
        now = first + len(group)
        print(f"{setting.name}: {now} of {len(kept)} subsets, {time.perf_counter() - start:.0f} s", flush=True)
    return {"kept": kept, "measured": np.concatenate(found, axis=1)}


def retrained(setting: Setting, kept: np.ndarray, seeds: range) -> np.ndarray:
    """What nets trained on each of the halves (n_halves, n) say: (n_marks, n_halves, n_retrains, n_query)."""
    rows = torch.from_numpy(np.stack([np.flatnonzero(mask) for mask in kept]))
    nets = Stacked(setting.build, seeds)
    asked: list[Tensor] = []

    def ask(epoch: int) -> None:
        if epoch in setting.marks:
            with torch.no_grad():
                outputs = nets(setting.X_query, same=True)
                asked.append(setting.measure(outputs, setting.y_query.expand(len(outputs), *setting.y_query.shape)))

    last = setting.stages[-1]
    for stage in setting.stages:
        halves = stage is setting.stages[0]
        own = rows.repeat_interleave(setting.n_retrains, 0)
        if not halves:
            own = torch.arange(len(stage.X)).expand(len(seeds), -1)
        nets.train(stage.run, setting.loss, stage.X, stage.y, own, ask if stage is last else lambda epoch: None)
    found = torch.stack(asked).reshape(len(setting.marks), len(kept), setting.n_retrains, -1)
    return found.numpy()


def shortened(setting: Setting, mark: int) -> Setting:
    """The same with a last stage of `mark` epochs: no schedule depends on their number."""
    *earlier, last = setting.stages
    return replace(setting, stages=(*earlier, replace(last, run=replace(last.run, epochs=mark))), marks=(mark,))
