"""The store of compressed gradients: shards as they were written, or refused; any size of number in float16."""

import numpy as np
import pytest
import torch

from sktda.engine import store as module
from sktda.engine.journal import Passes
from sktda.engine.store import GradientStore, Stored
from sktda.model import sealed
from tests.in_turn import in_turn

N, WIDTH = 10, 5


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD", 4)


def values(seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(N, WIDTH)))


def filled(folder, key="k", dtype="float32", gradients=None, weight=None):
    store = GradientStore(folder, {"rows": key, "params": {"dtype": dtype}}, {"curvature/a": torch.eye(2)}, N)
    store.begin()
    gradients = values() if gradients is None else gradients
    store.fill(Passes(), lambda start, stop: gradients[start:stop], weight)
    return store


def read(store):
    parts = [store.block(slice(start, min(start + 4, N))) for start in range(0, N, 4)]
    return torch.cat([part.values.double() * part.factor[:, None] for part in parts])


@in_turn("dtype", ["float16", "float32"])
@in_turn("size", [1e-300, 1e-12, 1.0, 1e30, 1e300])
def test_a_row_has_a_scale_of_its_own(dtype, size):
    gradients = values() * torch.logspace(0, -5, N).double()[:, None] * size
    gradients[3] = 0.0
    stored = Stored.of(gradients, None, module.DTYPES[dtype])
    found = stored.values.double() * stored.scale[:, None]
    torch.testing.assert_close(found, gradients, rtol=2.0 ** (-11 if dtype == "float16" else -24), atol=0)


def test_small_numbers_of_a_row_keep_their_digits_beside_large_ones():
    gradients = torch.tensor([[1.0, 1e-3, 1e-6, 1e-8]]).double()
    stored = Stored.of(gradients, None, torch.float16)
    torch.testing.assert_close(stored.values.double() * stored.scale[:, None], gradients, rtol=2.0**-11, atol=0)


def test_memory_disk_and_another_process_hold_the_same(tmp_path):
    weight = torch.rand(N)
    held, written = filled(None, weight=weight), filled(tmp_path, weight=weight)
    again = GradientStore.opened(tmp_path)
    assert again.about == written.about
    assert again.n == N
    assert torch.equal(again.named("curvature/")["a"], torch.eye(2))
    for store in (held, again):
        torch.testing.assert_close(read(store), values() * weight.double()[:, None], rtol=1e-6, atol=0)
    part = again.block(slice(5, 7))
    torch.testing.assert_close(part.values.double() * part.scale[:, None], values()[5:7], rtol=1e-6, atol=0)
    assert held.nbytes == N * (4 * WIDTH + 8 + 8)
    assert written.nbytes == 0


def test_only_what_is_missing_or_damaged_is_made_again(tmp_path):
    filled(tmp_path)
    (tmp_path / "rows-000001.safetensors").unlink()
    last = tmp_path / "rows-000002.safetensors"
    last.write_bytes(last.read_bytes()[:-1] + b"!")
    asked = []
    store = GradientStore.opened(tmp_path)
    store.fill(Passes(), lambda start, stop: (asked.append(start), values()[start:stop])[1], None)
    assert asked == [4, 8]
    torch.testing.assert_close(read(store), values(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("damage", ["missing", "cut", "changed", "foreign", "changed after it was read"])
def test_a_shard_that_is_not_as_it_was_written_is_refused(damage, tmp_path):
    store, path = filled(tmp_path / "a"), tmp_path / "a" / "rows-000001.safetensors"
    if damage == "changed after it was read":
        read(store)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
        with pytest.raises(ValueError, match=r"lacks 1 of 3 shards.*fit again with the same rows and work_dir"):
            GradientStore.opened(tmp_path / "a").check_complete()
    elif damage == "foreign":
        filled(tmp_path / "b", key="other")
        path.write_bytes((tmp_path / "b" / path.name).read_bytes())
    else:
        path.write_bytes(content[:-9] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="fit again with the same rows and work_dir, which makes this shard anew"):
        store.block(slice(4, 8))


def test_shards_of_other_projections_are_made_again(tmp_path):
    filled(tmp_path)
    asked = []
    store = GradientStore(tmp_path, {"rows": "k", "params": {"dtype": "float32"}}, {"curvature/a": torch.ones(2)}, N)
    store.fill(Passes(), lambda start, stop: (asked.append(start), values()[start:stop])[1], None)
    assert asked == [0, 4, 8]


def test_a_checksum_is_compared_once(tmp_path, monkeypatch):
    filled(tmp_path)
    store, checks = GradientStore.opened(tmp_path), []
    load = sealed.load
    monkeypatch.setattr(sealed, "load", lambda path, check: (checks.append(check), load(path, check))[1])
    read(store)
    read(store)
    assert checks == [True] * 3 + [False] * 3


def test_no_store_is_none_and_another_format_is_refused(tmp_path, monkeypatch):
    assert GradientStore.opened(tmp_path) is None
    filled(tmp_path)
    monkeypatch.setattr(module, "FORMAT", "0")
    with pytest.raises(ValueError, match="is a store of another version of sktda"):
        GradientStore.opened(tmp_path)


def test_a_gradient_that_is_no_number_is_named_by_its_row():
    gradients = values()
    gradients[6, 2] = torch.nan
    with pytest.raises(ValueError, match="the gradient of training row 6 is NaN or infinite"):
        filled(None, gradients=gradients)
