"""Blocks are halved whatever says that memory ran out, and after the failed one has let go of its own."""

import contextlib
import multiprocessing
import os
import pickle
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch
from joblib import Parallel, delayed
from skorch import NeuralNet

from sktda import devices, workers
from sktda.devices import for_blocks, in_blocks, in_pairs, out_of_memory, resolve_device, where_it_fits

SHORT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried ..."),
]
OTHER = [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), MemoryError()]


def short_above(most, error, log):
    """Work that takes at most so many rows."""

    def work(rows):
        size = rows.stop - rows.start
        log.append(size)
        if size > most:
            raise error
        return size

    return work


@pytest.mark.parametrize("error", SHORT, ids=str)
def test_a_block_that_does_not_fit_is_halved(error):
    log = []
    parts = list(in_blocks(20, 64, short_above(5, error, log)))
    assert parts == [(slice(start, start + 5), 5) for start in (0, 5, 10, 15)]
    assert log[:3] == [20, 10, 5]  # not of the 64 rows that there are not
    with pytest.raises(type(error)):
        for_blocks(4, 4, short_above(0, error, log))


@pytest.mark.parametrize("error", OTHER, ids=repr)
def test_other_errors_stay_what_they_are(error):
    assert not out_of_memory(error)
    log = []
    with pytest.raises(type(error)):
        for_blocks(20, 16, short_above(5, error, log))
    assert log == [16]


def test_memory_is_given_back_once_the_failed_block_is_gone(monkeypatch):
    held = []

    def work(rows):
        own = torch.zeros(rows.stop - rows.start)
        held.append(weakref.ref(own))
        if len(own) > 5:
            raise torch.OutOfMemoryError  # a new one: it holds what raised it

    monkeypatch.setattr(devices, "release", lambda: alive.append(held[-1]() is not None))
    alive = []
    for_blocks(20, 20, work)
    assert alive == [False, False]


def test_what_can_be_made_again_goes_first():
    log, kept = [], [1]

    def spare():
        found = bool(kept)
        kept.clear()
        return found

    assert len(list(in_blocks(8, 4, short_above(2, SHORT[0], log), spare=spare))) == 4
    assert log[:3] == [4, 4, 2]  # as it is, and then in halves


@pytest.mark.parametrize("most", [1, 6, 50])
def test_every_pair_comes_once(most):
    def compute(asked, rows):
        if (asked.stop - asked.start) * (rows.stop - rows.start) > most:
            raise SHORT[1]
        return asked

    seen = torch.zeros(7, 11)
    for asked, rows, _ in in_pairs((7, 4), lambda asked: asked, (11, 11), compute):
        seen[asked, rows] += 1
    assert (seen == 1).all()


def test_queries_are_fewer_where_they_alone_do_not_fit():
    def prepare(asked):
        if asked.stop - asked.start > 2:
            raise SHORT[0]
        return asked

    assert [asked for asked, _, _ in in_pairs((5, 5), prepare, (3, 3), lambda asked, rows: None)] == [
        slice(0, 2),
        slice(2, 3),
        slice(3, 5),
    ]


def test_what_fits_nowhere_else_is_computed_on_the_processor():
    def compute(place):
        if place.type != "cpu":
            raise SHORT[3]
        return 7

    assert where_it_fits(torch.device("meta"), compute) == 7


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MainProcess", "cuda"),
        ("LokyProcess-1", "cuda:0"),
        ("LokyProcess-4", "cuda:1"),
        ("SpawnPoolWorker-3", "cuda:2"),
    ],
)
def test_workers_take_the_cards_in_turn(name, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3 if expected != "cuda:1" else 2)
    monkeypatch.setattr(multiprocessing.current_process(), "name", name)
    assert resolve_device("auto") == torch.device(expected)
    assert resolve_device("cpu") == torch.device("cpu")


def test_workers_of_dask_take_the_cards_in_turn_where_nobody_has_given_them_some(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, expected in ((4, "cuda:1"), ("tcp://10.0.0.7:8786", "cuda")):
        worker = SimpleNamespace(name=name)
        monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(get_worker=lambda worker=worker: worker))
        assert resolve_device("auto") == torch.device(expected)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0,1")
    assert resolve_device("auto") == torch.device("cuda")


def test_what_a_worker_is_sent_runs_with_its_card_as_the_current_one(monkeypatch):
    entered = []

    @contextlib.contextmanager
    def current(place):
        entered.append(place)
        yield
        entered.append("left")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "device", current)

    code, arrays = workers.packed(len)
    sent = pickle.dumps(workers.Carried(NeuralNet(torch.nn.Linear(1, 1), torch.nn.MSELoss).initialize()))
    for name, card in (("MainProcess", None), ("LokyProcess-2", torch.device("cuda", 1))):
        entered.clear()
        monkeypatch.setattr(multiprocessing.current_process(), "name", name)
        workers._run(os.getpid(), code, len(arrays), *arrays, "rows")
        assert entered == ([] if card is None else [card, "left"])
        entered.clear()
        assert pickle.loads(sent).value  # a net arrives on that card, too
        assert entered == ([] if card is None else [card, "left"])


def test_workers_of_joblib_are_told_apart():
    names = Parallel(n_jobs=2)(delayed(called)(k) for k in range(4))
    assert all(name.startswith("LokyProcess-") for name in names)


def called(_):
    return multiprocessing.current_process().name
