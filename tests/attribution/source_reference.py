"""Source (arXiv:2405.12186) a second time, for the tests: loops over rows, dense matrices, matrix exponentials.

Nothing of the library is used. Over a segment whose rates sum to x the parameters follow d theta / dt = -A theta + ...
with A = P H + w I (H curvature, P preconditioner, w decoupled decay; P = I and w = 0 for SGD), so that
S = exp(-x A), and a row's gradient is gathered by the integral of exp(-t A) P from 0 to x. One exponential of
[[-x A, x P], [0, 0]] holds both, without any eigenvector.
"""

from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.linalg import block_diag, expm
from torch import nn


@dataclass
class Eigen:
    """A curvature with its eigenvectors as columns, and the positions of each layer."""

    basis: np.ndarray
    values: np.ndarray
    layers: list


@dataclass
class Segment:
    """x, the two matrices that act on a query's gradient, and the rows that this segment trained on."""

    carry: np.ndarray  # (p, p), S: what is left of a change of the parameters at the end
    gather: np.ndarray  # (p, p), what a row's gradient adds up to
    gradients: np.ndarray  # (rows, p), averaged over the checkpoints
    rows: np.ndarray  # (rows,) their positions in the result
    n: int  # the N of this stage


def values(query, segments, n_rows):
    """(k, n_rows) from query gradients (k, p) at the final parameters."""
    total = np.zeros((len(query), n_rows))
    for segment in reversed(segments):
        moved = query @ segment.gather
        for position, gradient in zip(segment.rows, segment.gradients, strict=True):
            total[:, position] += moved @ gradient / segment.n
        query = query @ segment.carry
    return total


def propagators(x, curvature, precondition=None, decay=0.0):
    """(carry, gather) by one matrix exponential."""
    p = len(curvature)
    precondition = np.eye(p) if precondition is None else np.diag(precondition)
    corner = precondition @ curvature + decay * np.eye(p)
    both = expm(x * np.block([[-corner, precondition], [np.zeros((p, 2 * p))]]))
    return both[:p, :p], both[:p, p:]


def diagonal_propagators(x, eigen, precondition, decay=0.0):
    """(carry, gather) of the paper's form for Adam with EK-FAC: diagonal exponentials, and the inverse of EK-FAC.

    What the inverse adds to the eigenvalues: w / P (its diagonal in the basis) and a tenth of the layer's mean.
    """
    curvature = eigen.basis @ np.diag(eigen.values) @ eigen.basis.T
    kept = np.exp(-x * (precondition * np.diag(curvature) + decay))
    shifted = eigen.values + np.diag(eigen.basis.T @ np.diag(decay / precondition) @ eigen.basis)
    for layer in eigen.layers:
        shifted[layer] += 0.1 * shifted[layer].mean()
    inverse = eigen.basis @ np.diag(1 / shifted) @ eigen.basis.T
    return np.diag(kept), np.diag(1 - kept) @ inverse


# ---- gradients and curvatures ---------------------------------------------------------------------------------------


def at(module, state):
    """A float64 copy of the module with these parameters."""
    copy = deepcopy(module).double().eval()
    copy.load_state_dict(state)
    return copy


def loss(output, target):
    """Of one row: cross-entropy for a class, else the mean of the squared errors of its outputs."""
    if target.dtype == torch.int64:
        return nn.functional.cross_entropy(output, target)
    return (output - target).square().mean()


def tensors(X, y):
    y = torch.as_tensor(y)
    return torch.as_tensor(X).double(), y if y.dtype == torch.int64 else y.double()


def flat_gradient(value, module):
    found = torch.autograd.grad(value, list(module.parameters()), retain_graph=True, allow_unused=True)
    pairs = zip(found, module.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for g, w in pairs]).numpy()


def row_gradients(module, X, y):
    """(n, p) of each row's loss, one backward pass each."""
    X, y = tensors(X, y)
    return np.stack([flat_gradient(loss(module(X[i : i + 1])[0], y[i]), module) for i in range(len(X))])


def gauss_newton(module, X, y):
    """(p, p) mean over rows of J' F J, F the Hessian of a row's loss with respect to its outputs."""
    X, y = tensors(X, y)
    total = 0.0
    for i in range(len(X)):
        output = module(X[i : i + 1])[0]
        jacobian = np.stack([flat_gradient(each, module) for each in output])
        total = total + jacobian.T @ output_hessian(output, y[i]) @ jacobian
    return total / len(X)


def output_hessian(output, target):
    if target.dtype == torch.int64:
        p = output.detach().softmax(0).numpy()
        return np.diag(p) - np.outer(p, p)
    return 2 / len(output) * np.eye(len(output))


def ekfac(modules, X, y):
    """Eigen of one segment, of nets that are nn.Sequential with biases.

    The labels of the factors are those given (the empirical Fisher matrix), so that nothing is random. Factors are
    averaged over the modules, decomposed once, and the eigenvalues in that basis averaged.
    """
    pairs = [factor_rows(module, X, y) for module in modules]  # [module][layer] -> list over rows of (a, delta)
    bases, eigenvalues, layers, start = [], [], [], 0
    for k in range(len(pairs[0])):
        everything = [pair for parts in pairs for pair in parts[k]]
        q_in = np.linalg.eigh(sum(np.outer(a, a) for a, _ in everything) / len(everything))[1]
        q_out = np.linalg.eigh(sum(np.outer(d, d) for _, d in everything) / len(everything))[1]
        lam = sum((q_out.T @ np.outer(d, a) @ q_in) ** 2 for a, d in everything) / len(everything)
        bases.append(np.kron(q_out, q_in)[weight_then_bias(*lam.shape)])
        eigenvalues.append(lam.flatten())
        layers.append(slice(start, start + lam.size))
        start += lam.size
    return Eigen(block_diag(*bases), np.concatenate(eigenvalues), layers)


def factor_rows(module, X, y):
    """Of each Linear layer and row: (its input with a 1, the gradient of the row's loss at its output)."""
    X, y = tensors(X, y)
    found = [[] for layer in module if isinstance(layer, nn.Linear)]
    for i in range(len(X)):
        value, inputs, outputs = X[i], [], []
        for layer in module:
            if isinstance(layer, nn.Linear):
                inputs.append(np.append(value.detach().numpy(), 1.0))
                value = layer(value)
                outputs.append(value)
            else:
                value = layer(value)
        deltas = torch.autograd.grad(loss(value, y[i]), outputs)
        for layer, a, delta in zip(found, inputs, deltas, strict=True):
            layer.append((a, delta.numpy()))
    return found


def weight_then_bias(out, width):
    """Positions in an (out, in + 1) matrix, row by row, of the flat weight followed by the bias."""
    places = np.arange(out * width).reshape(out, width)
    return np.concatenate([places[:, :-1].flatten(), places[:, -1]])


# ---- a recorded training --------------------------------------------------------------------------------------------


def segments_of(module, trajectory, cuts, rates, X, y, *, rows=None, curvature="exact", decay=0.0, adam=None):
    """The segments of one stage, first to last.

    cuts: checkpoints after which a new segment begins. rates: sum of the learning rates that each checkpoint stands
    for, 1 / (1 - momentum) included. decay: in the gradient, so part of the curvature.
    adam: None, or {"betas", "eps", "decoupled": decoupled decay}.
    """
    edges = [0, *cuts, len(rates)]
    rows = np.arange(len(X)) if rows is None else rows
    segments = []
    for start, stop in pairwise(edges):
        modules = [at(module, trajectory.state(c)) for c in range(start, stop)]
        gradients = sum(row_gradients(each, X, y) for each in modules) / len(modules)
        x = sum(rates[start:stop])
        if curvature == "exact":
            matrix = sum(gauss_newton(each, X, y) for each in modules) / len(modules) + decay * np.eye(len(gradients.T))
        else:
            eigen = ekfac(modules, X, y)
            single = sum(isinstance(each, nn.Linear) for each in modules[0].modules()) == 1
            eigen.values = eigen.values + (decay if single else 0.0)  # of more layers EK-FAC has no penalty
            matrix = eigen.basis @ np.diag(eigen.values) @ eigen.basis.T
        if adam is None:
            pair = propagators(x, matrix)
        else:
            scale = adam_preconditioner(modules[0], trajectory, range(start, stop), adam)
            decoupled = adam.get("decoupled", 0.0)
            if curvature == "exact":
                pair = propagators(x, matrix, scale, decoupled)
            else:
                pair = diagonal_propagators(x, eigen, scale, decoupled)
        segments.append(Segment(*pair, gradients, rows, len(X)))
    return segments


def adam_preconditioner(module, trajectory, checkpoints, adam):
    """(p,) 1 / (sqrt(v) + eps), v bias-corrected and averaged over the checkpoints."""
    mean = 0.0
    for c in checkpoints:
        state = trajectory.optimizer_state(c)
        parts = [
            state[name]["exp_avg_sq"].double().flatten() / (1 - adam["betas"][1] ** float(state[name]["step"]))
            for name, _ in module.named_parameters()
        ]
        mean = mean + torch.cat(parts).numpy() / len(checkpoints)
    return 1 / (np.sqrt(mean) + adam["eps"])
