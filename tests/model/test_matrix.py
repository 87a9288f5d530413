"""Every kind of module with every kind of loss: right to 1e-6, or refused by the library; there is no third outcome."""

import pytest
import torch

from tests.in_turn import in_turn
from tests.model.matrix import (
    LOSSES,
    MODULES,
    REFUSED_LOSSES,
    REFUSED_MODULES,
    WEIGHTS,
    X,
    expected,
    found,
    is_own,
    net_of,
)


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def outcome(net, y, reduction, weight=None):
    """What is wrong with a cell, "" if nothing."""
    try:
        cells = found(net, X, y, weight)
    except Exception as error:
        return f"refused: {error}" if is_own(error) else f"{type(error).__name__}: {error}"
    loss, true = expected(net, X, y, reduction)
    for (losses, gradients), own in zip(cells, (None, weight), strict=False):
        scale = torch.ones(len(X)) if own is None else torch.from_numpy(own)
        total = getattr(losses / scale, reduction)()
        if not torch.isclose(total, loss, rtol=1e-6, atol=1e-9):
            return f"loss {total:.6g} for {loss:.6g}"
        error = (gradients - scale[:, None] * true).abs().max() / true.abs().max().clamp(min=1e-3)
        if not error <= 1e-6:
            return f"gradients off by {error:.2g}"
    return ""


# whose mean over rows is not that of a criterion of one's own around them
NO_MEAN = {("tuple of outputs", name, "mean") for name in ("CrossEntropy, class weights", "CrossEntropy, ignored")}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss:UserWarning")  # of KLDivLoss
@pytest.mark.parametrize("kind", MODULES)
def test_every_loss_is_right(kind):
    """A loss knows of outputs and not of the module behind them: every loss for two modules, which give outputs in one
    piece and in several, as a mean and as a sum; for any other module every third, so that each loss meets a dozen.

    As a mean or a sum, with weights or without, by turns over modules and losses.
    """
    wrong = {}
    torch.manual_seed(0)
    both = kind in {"MLP", "tuple of outputs"}
    index = list(MODULES).index(kind)
    for k, (name, loss) in enumerate(LOSSES.items(), start=index):
        if not both and (k + index // len(LOSSES)) % 3:
            continue
        for reduction in ("mean", "sum") if both else (("mean", "sum")[k // 3 % 2],):
            net = net_of(MODULES[kind], loss, reduction, kind)
            said = outcome(net, loss[2], reduction, WEIGHTS if both or k // 6 % 2 else None)
            if (said.startswith("refused") if (kind, name, reduction) in NO_MEAN else not said) is False:
                wrong[name, reduction] = said
    assert not wrong


@in_turn("kind", REFUSED_MODULES)
def test_a_module_without_rows_of_their_own_is_refused(kind):
    torch.manual_seed(0)
    for name in ("CrossEntropy", "MSE", "quantile"):
        net = net_of(REFUSED_MODULES[kind], LOSSES[name], "mean", kind)
        said = outcome(net, LOSSES[name][2], "mean")
        assert said.startswith("refused"), (name, said)


@in_turn("name", REFUSED_LOSSES)
@in_turn("reduction", ["mean", "sum"])
def test_a_loss_that_is_no_mean_over_rows_is_refused(name, reduction):
    torch.manual_seed(0)
    for kind in ("MLP", "LSTM", "tied weights", "tuple of outputs"):
        loss = REFUSED_LOSSES[name]
        said = outcome(net_of(MODULES[kind], loss, reduction, kind), loss[2], reduction)
        assert said.startswith("refused"), (kind, said)
