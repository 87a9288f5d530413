"""Patch features on a device: those of the processor, in a quarter of the memory, without float64, and how it waits."""

import numpy as np
import pytest
from sklearn.base import clone

from sktda import PatchFeatures
from sktda.patches import bank, filters
from tests.device.test_memory import within

D = "simulated"
SMALL = PatchFeatures(5, patch_size=3, max_side=8)
PICTURES = np.random.default_rng(0).integers(0, 256, (40, 10, 12, 3)).astype(np.uint8)
SAME = {"rtol": 1e-4, "atol": 1e-4}  # the roots of small sums


@pytest.fixture(scope="module", autouse=True)
def few_patches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "DRAWN", 1_000)
        yield


def test_they_are_those_of_the_processor(device):
    found = clone(SMALL).set_params(device=device).fit_transform(PICTURES)
    np.testing.assert_allclose(found, clone(SMALL).set_params(device="cpu").fit_transform(PICTURES), **SAME)


def test_in_a_quarter_of_the_memory(counting):
    fitted = clone(SMALL).set_params(device=D).fit(PICTURES)
    plenty, few, emptied = within(counting, lambda: fitted.transform(PICTURES))
    np.testing.assert_allclose(few, plenty, **SAME)
    assert emptied


def test_without_float64(counting):
    with counting.without_float64():
        found = clone(SMALL).set_params(device=D).fit_transform(PICTURES)
    np.testing.assert_allclose(found, clone(SMALL).set_params(device="cpu").fit_transform(PICTURES), **SAME)


def test_a_block_is_sent_once_and_waited_for_once(counting, monkeypatch):
    fitted = clone(SMALL).set_params(device=D).fit(PICTURES)
    counts = []
    for n_blocks in (1, 2):
        monkeypatch.setattr(bank, "DEVICE_BYTES", fitted_bytes(fitted) // n_blocks)
        with counting.watched() as seen:
            fitted.transform(PICTURES)
        counts.append([seen.counts[kind] for kind in ("uploads", "downloads", "syncs")])
    assert np.subtract(*counts[::-1]).tolist() == [1, 1, 1]


def fitted_bytes(fitted):
    """What DEVICE_BYTES must be for all pictures at once."""
    layout = fitted._layout
    n_places = layout.places[0] * layout.places[1]
    return 8 * n_places * (layout.n_values + 2 * len(fitted.filters_)) * len(PICTURES)
