"""A pretrained net on a device: the features of the processor, in a quarter of the memory, one wait for a block."""

import numpy as np
import pytest
import torch
from torch import nn

from sktda import PretrainedEncoder
from tests.device.test_memory import within

D = "simulated"
PICTURES = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3)).astype(np.uint8)
SAME = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))


def test_features_are_those_of_the_processor_and_the_users_net_stays_there(device, net):
    found = PretrainedEncoder(net, device=device).fit_transform(PICTURES)
    np.testing.assert_allclose(found, PretrainedEncoder(net, device="cpu").fit_transform(PICTURES), **SAME)
    assert {parameter.device.type for parameter in net.parameters()} == {"cpu"}


def test_in_a_quarter_of_the_memory(counting, net):
    encoder = PretrainedEncoder(net, device=D).fit(PICTURES)
    plenty, few, emptied = within(counting, lambda: encoder.transform(PICTURES))
    np.testing.assert_allclose(few, plenty, **SAME)
    assert emptied


def test_a_block_is_sent_once_and_waited_for_once(counting, net):
    counts = []
    for batch_size in (64, 32):
        encoder = PretrainedEncoder(net, device=D, batch_size=batch_size).fit(PICTURES)
        with counting.watched() as seen:
            encoder.transform(PICTURES)
        counts.append([seen.counts[kind] for kind in ("uploads", "downloads", "syncs")])
    assert np.subtract(*counts[::-1]).tolist() == [1, 1, 1]
