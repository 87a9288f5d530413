"""Leave-one-out kernel ridge regression against its literal definition."""

import numpy as np
import pytest
import torch

from sktda.engine.kernel import arc_cosine, arc_cosine_gram, cholesky, leave_one_out_exact, leave_one_out_nystrom


def unit_rows(n, d, seed=0):
    rows = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)))
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)


def one_hot(n, c, seed=0):
    return torch.eye(c, dtype=torch.float64)[np.random.default_rng(seed).integers(c, size=n)]


def test_arc_cosine_kernel_is_the_expectation_over_random_relu_units():
    x = unit_rows(4, 3)
    w = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 400_000)))
    active = (x @ w > 0).double()
    expected = (x @ x.T) * (active @ active.T) / w.shape[1]  # E[x.x' 1(w.x >= 0) 1(w.x' >= 0)]
    assert torch.allclose(arc_cosine_gram(x), expected, atol=3e-3)


def test_kernel_diagonal_is_one_half_also_for_zero_rows():
    x = unit_rows(5, 3)
    x[2] = 0
    gram = arc_cosine_gram(x)
    assert (gram.diagonal() == 0.5).all()
    assert (gram[2, [0, 1, 3, 4]] == 0).all()


def test_cosines_beyond_one_by_rounding_do_not_make_nan():
    x = torch.ones(3, 7, dtype=torch.float32) / np.float32(7**0.5) * (1 + 1e-6)
    assert torch.isfinite(arc_cosine(x, x)).all()


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_exact_leave_one_out_equals_removing_each_row(ridge):
    n = 30
    gram, y = arc_cosine_gram(unit_rows(n, 4)), one_hot(n, 3)
    loo = leave_one_out_exact(gram, y, ridge)
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        alpha = torch.linalg.solve(gram[rest][:, rest] + ridge * torch.eye(n - 1, dtype=torch.float64), y[rest])
        assert torch.allclose(loo.residual[i], y[i] - gram[i, rest] @ alpha, atol=1e-9)
    precision = torch.linalg.inv(gram + ridge * torch.eye(n, dtype=torch.float64)).diagonal()
    assert torch.allclose(loo.precision, precision, rtol=1e-9)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_complexity_gap_equals_its_literal_definition(ridge):
    n = 25
    gram, y = arc_cosine_gram(unit_rows(n, 4)), one_hot(n, 3) - 0.3
    regular = gram + ridge * torch.eye(n, dtype=torch.float64)
    loo = leave_one_out_exact(gram, y, ridge)
    gap = loo.precision * loo.residual.square().sum(dim=1)
    whole = torch.sum(y * torch.linalg.solve(regular, y))
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        without = torch.sum(y[rest] * torch.linalg.solve(regular[rest][:, rest], y[rest]))
        assert gap[i].item() == pytest.approx((whole - without).item(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("cache", [0, 10**6])
@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_nystrom_with_every_row_as_landmark_is_exact(batch_size, cache, monkeypatch):
    monkeypatch.setattr("sktda.engine.kernel.CACHE_ELEMENTS", cache)
    n = 60
    x, y = unit_rows(n, 5), one_hot(n, 3)
    exact = leave_one_out_exact(arc_cosine_gram(x), y, 0.1)
    streamed = leave_one_out_nystrom(lambda rows: x[rows], x, y, 0.1, batch_size)
    # arccos near 1 loses half of the digits: the kernel of a row with itself is 1/2 only to 1e-8
    assert torch.allclose(streamed.precision, exact.precision, rtol=1e-6)
    assert torch.allclose(streamed.residual, exact.residual, atol=1e-6)


@pytest.mark.parametrize("m", [1, 12, 39])
def test_nystrom_equals_the_dense_kernel_with_a_share_of_the_unexplained_as_noise(m):
    n, ridge = 40, 0.1
    x, y = unit_rows(n, 5), one_hot(n, 3)
    across = arc_cosine(x, x[:m])
    low_rank = across @ torch.linalg.solve(arc_cosine_gram(x[:m]), across.T)
    kernel = low_rank + torch.diag(ridge + m / n * (0.5 - low_rank.diagonal()))
    loo = leave_one_out_nystrom(lambda rows: x[rows], x[:m], y, ridge, 16)
    assert torch.allclose(loo.precision, torch.linalg.inv(kernel).diagonal(), rtol=1e-9)
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        prediction = kernel[i, rest] @ torch.linalg.solve(kernel[rest][:, rest], y[rest])
        assert torch.allclose(loo.residual[i], y[i] - prediction, atol=1e-9)


@pytest.mark.parametrize("wrong", [0.0, 0.15, 0.4])
def test_more_landmarks_come_closer_to_the_exact_kernel_and_predict_no_worse(wrong):
    rng = np.random.default_rng(0)
    n, c = 600, 12
    centres = 1.5 * rng.normal(size=(3 * c, 6))  # three clumps a class: landmarks cannot replace the rows
    clump = rng.integers(3 * c, size=n)
    x = torch.from_numpy(centres[clump] + 0.6 * rng.normal(size=(n, 6)))
    x /= torch.linalg.vector_norm(x, dim=1, keepdim=True)
    given = np.where(rng.random(n) < wrong, rng.integers(c, size=n), clump % c)
    y = torch.eye(c, dtype=torch.float64)[given] - 1 / c
    exact = leave_one_out_exact(arc_cosine_gram(x), y, 0.03)
    away, error, spread = [], [], []
    for m in (50, 100, 200, 400, 600):
        loo = leave_one_out_nystrom(lambda rows: x[rows], x[:m], y, 0.03, 256)
        away.append((loo.residual - exact.residual).norm().item())
        error.append(loo.residual.square().sum(dim=1).mean().item())
        spread.append(torch.corrcoef(torch.stack([loo.precision, exact.precision]))[0, 1].item())
    assert away == sorted(away, reverse=True)
    assert np.diff(error).max() < 0.01 * error[0]
    assert spread[-1] > 0.9999
    assert away[-1] < 1e-4


@pytest.mark.parametrize("batch_size", [1, 7, 64, 200])
def test_float32_nystrom_does_not_depend_on_the_batch_size(batch_size):
    x, y = unit_rows(200, 5).float(), one_hot(200, 3)
    whole = leave_one_out_nystrom(lambda rows: x[rows], x[:50], y, 0.1, 200)
    parts = leave_one_out_nystrom(lambda rows: x[rows], x[:50], y, 0.1, batch_size)
    assert torch.allclose(parts.residual, whole.residual, atol=1e-5)
    assert torch.allclose(parts.precision, whole.precision, rtol=1e-5)


def test_nystrom_survives_duplicate_landmarks_and_zero_rows():
    x, y = unit_rows(30, 4), one_hot(30, 2)
    x[5] = x[6] = x[7]
    x[9] = 0
    loo = leave_one_out_nystrom(lambda rows: x[rows], x[:15], y, 0.1, 8)
    assert torch.isfinite(loo.residual).all()
    assert torch.isfinite(loo.precision).all()
    assert loo.precision[9].item() == pytest.approx(1 / 0.6)  # alone in its direction: 1/(1/2 + ridge)
    assert torch.allclose(loo.residual[9], y[9])


def test_singular_kernel_gets_jitter_and_an_indefinite_matrix_an_error():
    twin = torch.full((2, 2), 0.5, dtype=torch.float64)
    factor = cholesky(twin)
    assert torch.allclose(factor @ factor.T, twin, atol=1e-4)
    with pytest.raises(ValueError, match="ridge > 0"):
        cholesky(torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64))
