"""TracIn against another library, where it is installed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn
from torch.utils.data import TensorDataset

from sktda.attribution import TracIn
from tests.model.nets import record, rows

X, Y = rows(24)
QUERIES = slice(0, 5)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients:UserWarning")
def test_tracin_is_that_of_captum(tmp_path):
    """Its TracInCP sums learning rate x gradient dot product over checkpoints; ours divides by n."""
    influence = pytest.importorskip("captum.influence")
    net, trajectory = record(X, Y, n_checkpoints=3)
    files = [str(tmp_path / f"{c}.pt") for c in range(len(trajectory))]
    for c, file in enumerate(files):
        torch.save(trajectory.state(c), file)

    def load(model, file):
        model.load_state_dict(torch.load(file))
        return float(trajectory.effective_rate_sums[int(Path(file).stem)])

    train = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    loss = nn.CrossEntropyLoss(reduction="sum")
    peer = influence.TracInCP(
        net.module_, train, files, load, loss_fn=loss, batch_size=len(X), sample_wise_grads_per_batch=True
    )
    theirs = peer.influence((torch.from_numpy(X[QUERIES]), torch.from_numpy(Y[QUERIES]))).detach().numpy()
    own = peer.self_influence().detach().numpy()
    load(net.module_, files[-1])
    found = TracIn(FrozenEstimator(net), objective=None).fit(X, Y).attribute(X[QUERIES], Y[QUERIES])
    np.testing.assert_allclose(len(X) * found, theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(-len(X) * TracIn(FrozenEstimator(net)).fit(X, Y).scores_, own, rtol=1e-4, atol=1e-6)
