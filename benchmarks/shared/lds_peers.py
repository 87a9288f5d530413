"""Other libraries in the LDS benchmark: their value of every training row for every query, brought to our convention.

Each function takes trained skorch nets, rows (n, d) and queries, and returns (n_query, n): the predicted rise of the
query's f when the row is removed. kind="margin": a net of class logits trained with cross-entropy, f = minus the
margin log p - log(1 - p) of the right class. kind="loss": a net of one number trained with the squared error
(y - t)^2, which is also f; y is (n,) or (n, 1).
"""

from __future__ import annotations

import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sktda.model.likelihood import Gaussian, Likelihood
from sktda.model.softmax import Categorical

BATCH = 256  # rows at a time: TRAK and captum hold the gradient of each
SEED = 0
PROJECTED = 2_048  # dimensions that TRAK projects a gradient to
RIDGE = 1.0  # of TRAK, in mean eigenvalues of what it inverts; at 0 that is singular where PROJECTED > n


@dataclass(frozen=True)
class Summed:
    """The sum over rows of a function of (outputs, targets); `reduction` tells captum that it is one."""

    per_row: Callable[[Tensor, Tensor], Tensor]
    reduction: str = "sum"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """0-d sum."""
        return self.per_row(outputs, targets).sum()


@dataclass(frozen=True)
class Problem:
    """A copy of the net's module for the peers to hook, rows and queries on its device, its loss and f."""

    module: nn.Module
    device: torch.device
    train: TensorDataset
    queries: TensorDataset
    likelihood: Likelihood
    loss: Summed
    f: Summed


def problem(net: Any, X: np.ndarray, y: np.ndarray, X_query: np.ndarray, y_query: np.ndarray, kind: str) -> Problem:
    """What all peers start from."""
    module = copy.deepcopy(net.module_).eval()
    device = next(module.parameters()).device
    likelihood: Likelihood = {"margin": Categorical(), "loss": Gaussian()}[kind]
    loss = Summed(likelihood.losses)
    f = Summed(lambda outputs, targets: -likelihood.margins(outputs, targets)) if kind == "margin" else loss

    def rows(inputs: np.ndarray, targets: np.ndarray) -> TensorDataset:
        x, t = torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device)
        if kind == "loss":  # (n, 1) less (n,) would be (n, n)
            t = t.reshape(len(t), *module(x[:1]).shape[1:])
        return TensorDataset(x, t)

    return Problem(module, device, rows(X, y), rows(X_query, y_query), likelihood, loss, f)


def kronfluence_ekfac(
    net: Any, X: np.ndarray, y: np.ndarray, X_query: np.ndarray, y_query: np.ndarray, kind: str
) -> np.ndarray:
    """EK-FAC influence at the final parameters; damping: kronfluence's heuristic, 0.1 times a layer's mean eigenvalue.

    kronfluence gives q' H^-1 g_i with q the gradient of f and H of the mean loss, without weight decay: our value
    times n. Labels of the factors are drawn from the model, one per row, for the squared error with variance 1/2.
    """
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    asked = problem(net, X, y, X_query, y_query, kind)

    class Explained(Task):
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            inputs, targets, noise = batch
            outputs = model(inputs)
            if sample:
                targets = asked.likelihood.draw(outputs.detach(), noise)
            return asked.loss(outputs, targets)

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return asked.f(model(batch[0]), batch[1])

    noise = asked.likelihood.noise(asked.train.tensors[1].shape, torch.Generator().manual_seed(SEED))
    train = TensorDataset(*asked.train.tensors, noise.to(asked.device))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # of torch's GradScaler
        task = Explained()
        model = prepare_model(asked.module, task)
        peer = Analyzer("peer", model, task, asked.device.type == "cpu", disable_tqdm=True, output_dir=folder)
        peer.fit_all_factors("ekfac", train, BATCH, factor_args=FactorArguments("ekfac"))
        damping = ScoreArguments(damping_factor=None)  # None is the heuristic
        peer.compute_pairwise_scores("pairs", "ekfac", asked.queries, train, BATCH, BATCH, score_args=damping)
        pairs = peer.load_pairwise_scores("pairs")["all_modules"]
    return pairs.double().cpu().numpy() / len(X)


def trak(
    nets: Sequence[Any], X: np.ndarray, y: np.ndarray, X_query: np.ndarray, y_query: np.ndarray, kind: str
) -> np.ndarray:
    """TRAK with the nets as its checkpoints; gradients projected to `PROJECTED` dimensions, a ridge of `RIDGE`.

    TRAK predicts the fall of an output when a row is removed: the margin in classification, so the values are of f,
    but in no unit: it divides the inverse by its own mean. TRAK has no task for numbers, so its recipe is followed
    with the net's number as the output and 2 (number - y) as the gradient of the loss; by the chain rule the scores
    times the query's own 2 (number - t), the mean over the nets as TRAK takes it of the rows', are of f = (y - t)^2.
    """
    from trak import TRAKer
    from trak.modelout_functions import AbstractModelOutput, ImageClassificationModelOutput
    from trak.projectors import BasicProjector
    from trak.score_computers import BasicScoreComputer

    class Number(AbstractModelOutput):
        def __init__(self) -> None:
            pass

        @staticmethod
        def get_output(model: nn.Module, weights: Any, buffers: Any, inputs: Tensor, target: Tensor) -> Tensor:
            return torch.func.functional_call(model, (weights, buffers), (inputs[None],)).sum()

        def get_out_to_loss_grad(self, model: nn.Module, weights: Any, buffers: Any, batch: Any) -> Tensor:
            inputs, targets = batch
            outputs = torch.func.functional_call(model, (weights, buffers), (inputs,))
            return 2 * (outputs - targets).detach().reshape(len(inputs), 1)

    class Kept(BasicProjector):
        def free_memory(self) -> None:
            """Keep the matrix: it is not made again for the queries of the same net."""

    class Ridged(BasicScoreComputer):
        def get_x_xtx_inv(self, grads: Tensor, xtx: Tensor) -> Tensor:
            self.lambda_reg = RIDGE * float(xtx.diagonal().mean())
            return super().get_x_xtx_inv(grads, xtx)

    asked = problem(nets[0], X, y, X_query, y_query, kind)
    task = Number() if kind == "loss" else ImageClassificationModelOutput()
    queries = asked.queries.tensors
    n_parameters = sum(value.numel() for value in asked.module.parameters())
    # one block: with several, the whole matrix is drawn again for each batch, which takes longer than multiplying
    projector = Kept(n_parameters, PROJECTED, SEED, "normal", asked.device, block_size=PROJECTED)
    slopes = np.zeros((len(X_query), 1))
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):  # progress bars
        peer = TRAKer(
            asked.module, task, len(X), folder, device=str(asked.device), projector=projector, score_computer=Ridged,
            use_half_precision=False, logging_level=logging.WARNING,
        )  # fmt: skip
        for number, net in enumerate(nets):
            state = net.module_.state_dict()
            peer.load_checkpoint(state, number)
            for batch in DataLoader(asked.train, BATCH):
                peer.featurize(batch, num_samples=len(batch[0]))
            peer.finalize_features([number])
            peer.start_scoring_checkpoint("queries", state, number, len(X_query))
            peer.score(queries, num_samples=len(X_query))
            slopes += peer.gradient_computer.compute_loss_grad(queries).cpu().numpy() / len(nets)
        scores = np.array(peer.finalize_scores("queries"), dtype=float).T
    return slopes * scores if kind == "loss" else scores


def captum_tracin(
    net: Any, X: np.ndarray, y: np.ndarray, X_query: np.ndarray, y_query: np.ndarray, kind: str
) -> np.ndarray:
    """TracInCP over the checkpoints of the net's trajectory, each with the effective sum of its learning rates."""
    from captum.influence import TracInCP

    from sktda.model.recorder import find_trajectory

    asked = problem(net, X, y, X_query, y_query, kind)
    trajectory = find_trajectory(net)

    def load(model: nn.Module, checkpoint: str) -> float:
        model.load_state_dict(trajectory.state(int(checkpoint)))
        return float(trajectory.effective_rate_sums[int(checkpoint)])

    peer = TracInCP(
        asked.module, asked.train, [str(c) for c in range(len(trajectory))], load, loss_fn=asked.loss,
        test_loss_fn=asked.f, batch_size=BATCH, sample_wise_grads_per_batch=True,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Input Tensor 0 did not already require gradients")
        pairs = peer.influence(asked.queries.tensors)
    return pairs.detach().double().cpu().numpy() / len(X)
