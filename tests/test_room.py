"""Many rows: what a method holds of them does not grow with them, or it says so before it starts."""

import inspect
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression

import sktda
from sktda import (
    CoresetSelector,
    InfluencePruner,
    InfluencePrunerCV,
    InfluenceReweighter,
    NoisyLabelDetector,
    ResampledEstimator,
    attribution,
    data,
    mapped_rows,
    noise,
    room,
)
from sktda.attribution import (
    ComplexityGap,
    InnerProduct,
    KNNShapley,
    LabelPosterior,
    PrecomputedScores,
    SelfConfidence,
)
from sktda.attribution.base import Attributor
from sktda.attribution.features import complexity_gap, kernel_forest, knn_shapley
from sktda.attribution.predictions.out_of_sample import OutOfSample
from sktda.cleaning.coreset import STRATEGIES
from sktda.findings import copies
from sktda.model import proxy

WIDTH = 96


def rows_of(n, folder):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, WIDTH)).astype(np.float32)
    np.save(folder / f"{n}.npy", X)
    return mapped_rows(folder / f"{n}.npy", X[:, 0] > 0)


@pytest.fixture
def small_blocks(monkeypatch):
    """As if a few hundred rows were many."""
    monkeypatch.setattr(data, "BLOCK_BYTES", 2**15)
    monkeypatch.setattr(room, "HELD", 2**14)
    for module in (room, kernel_forest):
        monkeypatch.setattr(module, "CELLS", 2**12)
    monkeypatch.setattr(copies, "BLOCK", 2**12)
    monkeypatch.setattr(complexity_gap, "BLOCK_ROWS", 100)
    monkeypatch.setattr(kernel_forest, "TREE_ROWS", 100)
    monkeypatch.setattr(kernel_forest, "BLOCK", 100)
    monkeypatch.setattr(kernel_forest, "SPREAD_ROWS", 200)
    monkeypatch.setattr(kernel_forest, "EXACT_ROWS", 100)
    monkeypatch.setattr(kernel_forest, "LANDMARKS", 20)
    monkeypatch.setattr(kernel_forest, "KERNEL_ROWS", 1e9)


def test_the_default_holds_no_array_of_all_cells(tmp_path, small_blocks):
    peaks = []
    for n in (1_000, 4_000):
        X, y = rows_of(n, tmp_path)
        tracemalloc.start()
        NoisyLabelDetector(LabelPosterior(kernel_forest.KernelForest(n_estimators=4))).fit(X, y)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 3_000 * 300, peaks  # of a row 384 bytes are cells, 768 as float64


def test_what_is_judged_in_blocks_and_in_files_is_what_is_judged_at_once(small_blocks, monkeypatch):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 2_000)
    decision = rng.dirichlet([1, 1, 1], 2_000)
    decision[np.arange(2_000), np.where((codes == 0) & (rng.random(2_000) < 0.4), 1, codes)] += 2
    found = noise.judge_labels(decision, codes), noise.label_noise(decision, codes)
    assert isinstance(found[0].posterior, np.memmap)
    assert found[0].is_corrected
    monkeypatch.setattr(room, "HELD", 2**40)
    monkeypatch.setattr(room, "CELLS", 2**40)
    whole = noise.judge_labels(decision, codes), noise.label_noise(decision, codes)
    np.testing.assert_allclose(found[0].scores, whole[0].scores, rtol=1e-10)
    np.testing.assert_allclose(found[0].posterior, whole[0].posterior, rtol=1e-10)
    assert found[1] == pytest.approx(whole[1]) or found[1] == whole[1]


def test_distances_in_a_file_are_those_in_memory(small_blocks, monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(500, 3)), rng.integers(0, 2, 500)
    given = {"X_val": X[:70] + 0.1, "y_val": y[:70]}
    before = KNNShapley().fit(X, y, **given).scores_
    monkeypatch.setattr(knn_shapley, "BLOCK_BYTES", 1)
    np.testing.assert_allclose(KNNShapley().fit(X, y, **given).scores_, before, rtol=1e-12, atol=1e-15)


def test_a_file_of_an_array_is_gone_with_it(tmp_path, small_blocks, monkeypatch):
    monkeypatch.setattr(room.tempfile, "tempdir", str(tmp_path))
    array = room.room((5_000, 3))
    array[:] = 1
    assert array.sum() == 15_000
    assert len(list(tmp_path.iterdir())) == 1
    del array
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_said_before_anything_is_written(tmp_path, small_blocks, monkeypatch):
    monkeypatch.setattr(room.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OSError, match=r"GB are needed there \(TMPDIR names another folder\)"):
        room.room((2**47, 3))
    assert not list(tmp_path.iterdir())


class Untouched(LogisticRegression):
    def fit(self, X, y, sample_weight=None):
        raise AssertionError("it was trained before it was said that the memory is too small")


ATTRIBUTORS = {
    name: kind
    for name, kind in ((name, getattr(attribution, name)) for name in attribution.__all__)
    if inspect.isclass(kind) and issubclass(kind, Attributor)
}
CLEANERS = {
    "NoisyLabelDetector": lambda attributor: NoisyLabelDetector(attributor),
    "InfluencePruner": lambda attributor: InfluencePruner(Untouched(), attributor),
    "InfluencePrunerCV": lambda attributor: InfluencePrunerCV(Untouched(), attributor),
    "InfluenceReweighter": lambda attributor: InfluenceReweighter(Untouched(), attributor),
    "CoresetSelector": lambda attributor: CoresetSelector(attributor),
    "ResampledEstimator": lambda attributor: ResampledEstimator(Untouched(), NoisyLabelDetector(attributor)),
}
BLOCK_BY_BLOCK = {
    *("Influence", "InnerProduct", "TracIn", "Source", "DiffIn", "MoSo", "SGDInfluence"),
    *("EL2N", "GraNd", "Loss", "LogitMargin"),
    *("KernelForest", "KNNShapley", "LabelPosterior"),  # large results of these lie in files
    *("PrecomputedScores", "PrecomputedProbabilities"),  # which are there already
    *("stratified", "top", "hardest", "random", "ccs"),  # of a coreset: by scores alone
}
"""What holds nothing of all rows beside their scores."""
TRAINED = {"TRAK", "OutlierGradient", "LoGra"}  # of which only a trained model says how much it is


def holder(name):
    """Around a model that must not be trained, where it is known before how much will be held."""
    if name in CLEANERS:
        return CLEANERS[name](SelfConfidence(Untouched()))
    if name in STRATEGIES:
        return CoresetSelector(PrecomputedScores(np.arange(300.0)), strategy=name, n_samples=20)
    kind = ATTRIBUTORS[name]
    if name in TRAINED:
        return kind(LogisticRegression())
    return kind(Untouched()) if issubclass(kind, OutOfSample) else kind()


@pytest.mark.parametrize("name", sorted({*ATTRIBUTORS, *STRATEGIES, *CLEANERS} - BLOCK_BY_BLOCK))
def test_what_holds_all_rows_says_so_before_it_starts(tmp_path, monkeypatch, name):
    X, y = rows_of(300, tmp_path)
    monkeypatch.setattr(room, "free_memory", lambda: 1_000)
    monkeypatch.setattr(proxy.DefaultNet, "fit", Untouched.fit)
    with pytest.raises(ValueError, match=r"would hold at least \S+ GB of all rows in memory, and 1e-06 GB are free"):
        holder(name).fit(X, X[:, 0].copy() if name == "RobustResidual" else y)


def test_every_cleaner_is_among_those_that_are_asked():
    exported = (getattr(sktda, name) for name in sktda.__all__)
    kinds = {kind for kind in exported if inspect.isclass(kind) and issubclass(kind, BaseEstimator)}
    assert {kind.__name__ for kind in kinds if kind.__module__.startswith("sktda.cleaning.")} == set(CLEANERS)


def test_what_goes_block_by_block_needs_no_such_room(tmp_path, monkeypatch):
    X, y = rows_of(300, tmp_path)
    monkeypatch.setattr(room, "free_memory", lambda: 20_000)
    with pytest.raises(ValueError, match="RobustResidual would hold"):
        LabelPosterior().fit(X, np.array(X[:, 0]))
    for method in (ComplexityGap(mode="nystrom", n_landmarks=20), InnerProduct(LogisticRegression())):
        method.fit(X, y)


def test_free_memory_is_told_where_the_system_tells_it():
    assert (room.free_memory() is None) != Path("/proc/meminfo").exists()
