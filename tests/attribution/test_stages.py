"""A recorded training in segments: how it is cut, curvatures on disk and one in memory, directions of low rank."""

import gc
import tempfile
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from sktda.attribution import Source, Stage
from sktda.attribution.runs import stages
from sktda.attribution.runs.segments import segments
from sktda.engine import pairwise
from sktda.engine.curvature import DenseCurvature
from sktda.engine.ekfac import EKFAC
from sktda.engine.journal import Passes
from sktda.model.recorder import TrajectoryRecorder
from tests.in_turn import in_turn
from tests.model.nets import make_net, record, rows

# ---- how a run is cut ------------------------------------------------------------------------------------------------

RATES = [0.5, 0.25, 0.125, 1.0, 2.0, 4.0, 8.0]
RUN = record(*rows())[1]


def cut(n_segments=3, boundaries="auto", count=7, prefix=""):
    run = replace(RUN, steps=np.arange(count), group_effective_rate_sums=np.array(RATES[:count])[:, None])
    return segments(run, RUN.parameter_groups, n_segments, boundaries, prefix)


@in_turn(
    ("options", "expected"),
    [
        ({"n_segments": 1}, [[0, 1, 2, 3, 4, 5, 6]]),
        ({"n_segments": 3}, [[0, 1, 2], [3, 4], [5, 6]]),
        ({"n_segments": 7}, [[0], [1], [2], [3], [4], [5], [6]]),
        ({"boundaries": [2, 5]}, [[0, 1], [2, 3, 4], [5, 6]]),
        ({"boundaries": np.array([6])}, [[0, 1, 2, 3, 4, 5], [6]]),
        ({"boundaries": ()}, [[0, 1, 2, 3, 4, 5, 6]]),
        ({"boundaries": [1], "n_segments": 99}, [[0], [1, 2, 3, 4, 5, 6]]),
    ],
)
def test_every_checkpoint_is_in_one_segment_with_the_sum_of_its_rates(options, expected):
    found = cut(**options, prefix="stage 2 ")
    assert [segment.checkpoints for segment in found] == expected
    assert [segment.rates.size for segment in found] == [sum(RATES[c] for c in part) for part in expected]
    assert [segment.name for segment in found] == [f"stage 2 segment {k}" for k in range(1, len(expected) + 1)]


@in_turn("boundaries", [[0], [7], [3, 3], [4, 2], [2.5], [[2]], ["2"], [-1]])
def test_boundaries_that_are_no_numbers_of_checkpoints_are_named(boundaries):
    with pytest.raises(ValueError, match="rising whole numbers between 1 and 6"):
        cut(boundaries=boundaries)


def test_more_segments_than_checkpoints_name_both():
    with pytest.raises(ValueError, match=r"n_segments=8 needs as many checkpoints, and the recorded run has 7"):
        cut(8)


# ---- curvatures on disk ----------------------------------------------------------------------------------------------

WIDTH = 29
X, Y = rows(60)


@cache
def recorded(width=WIDTH, **options):
    torch.manual_seed(0)
    recorder = TrajectoryRecorder(optimizer_state="optimizer" in options)
    return make_net(recorder, module__width=width, **options).fit(X, Y)


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """A function that lists the temporary folders with their files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def listed():
        gc.collect()
        return [sorted(path.name for path in folder.iterdir()) for folder in tmp_path.glob("sktda-*")]

    return listed


def fitted(net=None, **params):
    settings = {"curvature": "ekfac", "random_state": 0} | params
    return Source(FrozenEstimator(net or recorded()), **settings).fit(X, Y)


def close(found, expected):
    """Equal but for rounding: what was on disk lies in memory in another order, and products in float32 see that."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


NAMES = [f"segment {k}.safetensors" for k in (1, 2, 3)]


@pytest.mark.parametrize("curvature", ["ekfac", "exact"])
def test_files_live_as_long_as_the_fitted_object(curvature, folders):
    source = fitted(curvature=curvature)
    assert folders() == [NAMES]
    values = source.attribute(X[:3], Y[:3])
    assert folders() == [NAMES]
    source.fit(X, Y)
    assert folders() == [NAMES], "those of the earlier fit are gone"
    np.testing.assert_array_equal(source.attribute(X[:3], Y[:3]), values)
    del source
    assert folders() == []


def test_every_stage_has_files_of_its_own(folders):
    last = recorded()
    source = Source(FrozenEstimator(last), stages=[Stage(recorded())], n_segments=2, curvature="ekfac", random_state=0)
    source.fit(X, Y)
    expected = [[f"stage {stage} segment {k}.safetensors" for k in (1, 2)] for stage in (1, 2)]
    assert sorted(folders()) == expected
    del source
    assert folders() == []


def test_a_fit_that_fails_leaves_no_files(folders, monkeypatch):
    def broken(self, *args):
        assert len(folders()) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(Source, "_self_scores", broken)
    with pytest.raises(KeyboardInterrupt):
        fitted()
    assert folders() == []


@pytest.mark.parametrize("lost", [NAMES, NAMES[1:2]])
def test_files_that_were_cleared_away_are_made_again(lost, folders, tmp_path):
    source = fitted()
    values = source.attribute(X[:3], Y[:3])
    for path in list(tmp_path.rglob("*.safetensors")):
        if path.name in lost:
            path.unlink()
    close(source.attribute(X[:3], Y[:3]), values)
    assert folders() == [NAMES]


@pytest.mark.parametrize("options", [{}, {"optimizer": torch.optim.Adam, "lr": 0.01}], ids=["SGD", "Adam"])
@pytest.mark.parametrize("curvature", ["ekfac", "exact"])
def test_a_flow_from_disk_is_the_flow_that_was_fitted(curvature, options):
    source = fitted(recorded(**options), curvature=curvature, objective=None)
    (run,) = source._fitted().stages.runs
    given = {name: torch.ones_like(value) for name, value in run.model.parameters.items()}
    for segment in run.segments:
        first, second = (run.flow(segment, 0, Passes()) for _ in range(2))
        assert first.curvature is not second.curvature
        for name in ("gathered", "remaining"):
            mine, theirs = getattr(first, name)(given), getattr(second, name)(given)
            assert mine.keys() == theirs.keys()
            for key, value in mine.items():
                close(theirs[key].cpu(), value.cpu())


# ---- one curvature in memory -----------------------------------------------------------------------------------------

SIZES = {"ekfac": ((WIDTH, WIDTH), EKFAC), "exact": ((6 * WIDTH + 2, 6 * WIDTH + 2), DenseCurvature)}


@pytest.fixture
def alive(monkeypatch, request):
    """How many bases of the kind's largest shape were in memory, at every moment when there was a new one."""
    shape, kind = SIZES[request.param]
    counts = []

    def count():
        tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
        bases = [each for each in tensors if each.shape == shape]
        counts.append(len({each.untyped_storage().data_ptr() for each in bases}))

    init, restored, without_penalty = kind.__init__, kind.restored, stages.without_penalty

    def first(self, *args, **kwargs):
        init(self, *args, **kwargs)
        count()

    def fitted(*args):  # EK-FAC, which is fitted in steps
        found = without_penalty(*args)
        count()
        return found

    def again(self, tensors):
        found = restored(self, tensors)
        if any(each.shape == shape for each in tensors.values()):
            count()
        return found

    monkeypatch.setattr(kind, "__init__", first)
    monkeypatch.setattr(stages, "without_penalty", fitted)
    monkeypatch.setattr(kind, "restored", again)
    gc.collect()
    gc.freeze()  # what was there before is not looked at again with every count
    return request.param, counts


def watched(alive, work):
    """Counts of the bases that were in memory during the work."""
    alive[1].clear()
    work()
    return list(alive[1])


@pytest.mark.parametrize("alive", SIZES, indirect=True)
@pytest.mark.parametrize("options", [{}, {"optimizer": torch.optim.Adam, "lr": 0.01}], ids=["SGD", "Adam"])
def test_one_curvature_at_a_time_is_in_memory(alive, options):
    """In the fit, for values of one direction, of the rows' own and of pairs."""
    settings = {"curvature": alive[0], "objective": None, "device": "cpu", "random_state": 0}
    source = Source(FrozenEstimator(recorded(**options)), **settings)
    assert watched(alive, lambda: source.fit(X, Y)) == [1] * 6  # of three segments, fitted and from the disk
    assert watched(alive, lambda: source.attribute(X[:3], Y[:3])) == [1] * 3
    source.set_params(objective="auto")
    assert watched(alive, lambda: source.fit(X, Y)) == [1] * 9
    assert watched(alive, lambda: source.fit(X, Y, X_val=X[:9], y_val=Y[:9])) == [1] * 9
    assert watched(alive, gc.collect) == []


# ---- directions of low rank ------------------------------------------------------------------------------------------

IMAGES, DIGITS = load_digits(return_X_y=True)
IMAGES, DIGITS = (IMAGES / 16).astype(np.float32).reshape(-1, 1, 8, 8), DIGITS.astype(np.int64)
TRAIN, ASKED = slice(0, 300), slice(300, 340)


class Dense(nn.Sequential):
    """Linear layers on flat digits."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 40), nn.ReLU(), nn.Linear(40, 10))


class Convolutional(nn.Sequential):
    """A convolution before two Linear layers."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 40), nn.ReLU(), nn.Linear(40, 10)
        )


FORMS = {
    "MLP": (Dense, {"lr": 0.1, "optimizer__momentum": 0.9}),
    "MLP with decay": (Dense, {"lr": 0.1, "optimizer__momentum": 0.9, "optimizer__weight_decay": 0.01}),
    "MLP, a short training": (Dense, {"lr": 1e-5}),
    "CNN": (Convolutional, {"lr": 0.1, "optimizer__momentum": 0.9}),
    "MLP by Adam": (Dense, {"lr": 0.003, "optimizer": torch.optim.Adam}),
    "CNN by AdamW": (Convolutional, {"lr": 0.003, "optimizer": torch.optim.AdamW, "optimizer__weight_decay": 0.05}),
}
by_form = pytest.mark.parametrize("form", FORMS)


@cache
def digits_source(form):
    """Fitted around a net that was trained on digits; do not change it but for `tolerance`."""
    module, options = FORMS[form]
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        max_epochs=6,
        batch_size=50,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(optimizer_state=True)],
        **options,
    ).fit(IMAGES[TRAIN], DIGITS[TRAIN])
    source = Source(FrozenEstimator(net), curvature="ekfac", objective=None, random_state=0)
    return source.fit(IMAGES[TRAIN], DIGITS[TRAIN])


def digits_values(form, tolerance, asked=ASKED):
    return digits_source(form).set_params(tolerance=tolerance).attribute(IMAGES[asked], DIGITS[asked])


@cache
def exact_values(form):
    return digits_values(form, 0)


@pytest.fixture
def many_pairs(monkeypatch):
    """So many that low rank is taken; yields the terms of what was multiplied, one dict per segment and portion."""
    monkeypatch.setattr("sktda.attribution.runs.source.EXACT_WORK", 0)
    seen = []

    def noted(*args):
        found = pairwise.truncated(*args)
        seen.append(found.terms)
        return found

    monkeypatch.setattr("sktda.attribution.runs.source.truncated", noted)
    return seen


@by_form
@pytest.mark.parametrize("tolerance", [0.02, 0.002])
def test_values_of_many_pairs_are_within_the_tolerance(form, tolerance, many_pairs):
    expected = exact_values(form)
    assert not many_pairs
    found = digits_values(form, tolerance)
    assert len(many_pairs) == 3
    linear = {"1", "3", "5"} if FORMS[form][0] is Dense else {"3", "5"}
    assert all(set(terms) <= linear for terms in many_pairs)
    assert any(many_pairs) or ("Adam" in form and tolerance == 0.002)  # there too many terms may be needed
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert (error > 0) == any(many_pairs)
    assert error <= tolerance


def test_few_pairs_are_exact_and_many_are_not(monkeypatch):
    pairs = 40 * 300 * sum(value.numel() for value in Dense().parameters())
    monkeypatch.setattr("sktda.attribution.runs.source.EXACT_WORK", pairs)
    np.testing.assert_array_equal(digits_values("MLP", 0.02), exact_values("MLP"))
    monkeypatch.setattr("sktda.attribution.runs.source.EXACT_WORK", pairs - 1)
    assert (digits_values("MLP", 0.02) != exact_values("MLP")).any()


@pytest.mark.parametrize("form", ["MLP", "CNN by AdamW"])
def test_one_query_and_portions_of_queries_are_within_the_tolerance(form, many_pairs, monkeypatch):
    expected = exact_values(form)
    alone = digits_values(form, 0.02, slice(300, 301))
    assert np.linalg.norm(alone - expected[:1]) <= 2 * 0.02 * np.linalg.norm(expected[0])
    many_pairs.clear()
    for place in ("runs.source", "gradients.fitted"):
        monkeypatch.setattr(f"sktda.attribution.{place}.QUERY_BYTES", 2**20)
    parts = digits_values(form, 0.02)
    assert len(many_pairs) > 3
    assert np.linalg.norm(parts - expected) <= 0.02 * np.linalg.norm(expected)


def test_values_of_low_rank_are_repeated_and_leave_the_random_state_alone(many_pairs):
    digits_source("MLP")  # trained by now
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = digits_values("MLP", 0.05)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    np.testing.assert_array_equal(digits_values("MLP", 0.05), first)


def test_top_k_is_of_the_same_values(many_pairs):
    values = digits_values("MLP", 0.02)
    found, best = digits_source("MLP").top_k(IMAGES[ASKED], DIGITS[ASKED], 5)
    np.testing.assert_array_equal(best, np.take_along_axis(values, found, axis=1))
    np.testing.assert_allclose(best[:, 0], values.max(axis=1))
