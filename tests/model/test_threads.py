"""Fits in several threads at a time give what they give one after the other."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator

import sktda
from sktda.attribution import AUM, Source, TracIn
from tests.model.nets import Mlp, make_net, rows

X, Y = rows(24)
METHODS = [TracIn, AUM, partial(Source, curvature="exact", n_segments=2)]
NET = make_net(module__dropout=0.5, batch_size=4)


def scores(k):
    return METHODS[k % 3](NET, random_state=k).fit(X, Y).scores_


def test_scores_of_a_seed_are_the_same_in_four_threads():
    expected = [scores(k) for k in range(6)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(scores, range(6)))
    np.testing.assert_array_equal(found, expected)


def test_a_fitted_net_that_threads_share_is_left_as_it_is():
    net = make_net(module=Mlp, module__dropout=0.5).fit(X, Y)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: TracIn(FrozenEstimator(net)).fit(X, Y).scores_, range(8)))
    assert all(np.array_equal(each, found[0]) for each in found)
    assert net.module_.training


@pytest.mark.parametrize("call", ["fork_rng", "set_rng_state(", "np.random.set_state"])
def test_generators_of_all_threads_are_put_back_in_one_place(call):
    folder = Path(sktda.__file__).parent
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.py") if call in path.read_text()}
    assert found <= {"model/settings.py", *(["model/side_by_side.py"] if call == "set_rng_state(" else [])}
