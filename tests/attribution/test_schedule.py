"""Which checkpoints of a run are taken, and the rates there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import LRScheduler

from sktda.attribution import DiffIn
from sktda.attribution.runs.schedule import moments, recorder, visited
from sktda.model.recorder import TrajectoryRecorder
from tests.attribution import run_reference as runs
from tests.attribution.run_reference import ONE_RATE, STEPS, X, Y, run_of, trained
from tests.in_turn import in_turn

RUN = run_of(trained("tanh"))
NAMES = list(RUN.parameter_groups)


def numbers(*args):
    return [moment.checkpoint for moment in moments(RUN, NAMES, *args)]


@in_turn("name", ONE_RATE)
def test_steps_and_rates_are_those_of_the_schedule(name):
    found = moments(run_of(trained(name)), run_of(trained(name)).parameter_groups, "auto", "even", None)
    assert [(each.step, pytest.approx(each.rates.size, rel=1e-12)) for each in found] == runs.weights_of(name)
    assert [each.checkpoint for each in found] == list(range(6))


def test_the_last_rate_is_the_one_before_the_scheduler_moved_on():
    run = run_of(trained("tanh, dampening"))
    assert run.n_steps == STEPS
    last = moments(run, NAMES, 1, "even", None)[0]
    shares = (1 + np.cos(np.pi * 23 / 24)) / 2
    assert last.rates.size == pytest.approx(0.2 * shares * 0.7 / 0.3)
    assert last.rates.size > 0


@in_turn(
    ("count", "expected"),
    [("auto", [0, 1, 2, 3, 4, 5]), (6, [0, 1, 2, 3, 4, 5]), (3, [1, 3, 5]), (2, [2, 5]), (1, [5]), (4, [1, 2, 3, 5])],
)
def test_even_checkpoints_end_with_the_last_one(count, expected):
    assert numbers(count, "even", None) == expected


@in_turn("recorded", range(1, 30))
def test_even_checkpoints_are_different_and_evenly_spaced(recorded):
    run = replace(
        RUN,
        steps=np.arange(1, recorded + 1),
        **{
            name: np.ones((recorded, 1))
            for name in ("group_learning_rates", "group_rate_sums", "group_effective_rate_sums")
        },
    )
    for count in range(1, recorded + 1):
        found = [each.checkpoint for each in moments(run, NAMES, count, "even", None)]
        gaps = np.diff([-1, *found])
        assert len(found) == count
        assert found[-1] == recorded - 1
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1


def test_random_checkpoints_are_different_sorted_and_the_seeds():
    for seed in range(20):
        found = numbers(4, "random", seed)
        assert found == sorted(set(found))
        assert len(found) == 4
        assert set(found) <= set(range(6))
        assert numbers(4, "random", seed) == found
        assert numbers(4, "random", np.random.RandomState(seed)) == found
    assert len({tuple(numbers(4, "random", seed)) for seed in range(30)}) > 8
    assert len(numbers("auto", "random", 0)) == 5
    assert numbers(6, "random", 0) == list(range(6))


@pytest.mark.parametrize("spacing", ["even", "random"])
def test_too_few_checkpoints(spacing):
    with pytest.raises(
        ValueError, match=r"n_checkpoints=7 needs as many checkpoints, and the recorded run has 6; train"
    ):
        moments(RUN, NAMES, 7, spacing, 0)


def test_a_momentum_that_was_cycled_is_averaged_over_the_interval():
    cycle = LRScheduler(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.3, total_steps=STEPS + 1, step_every="batch")
    net = runs.untrained(optimizer__momentum=0.9, callbacks=[TrajectoryRecorder(), cycle]).fit(X, Y)
    run = run_of(net)
    for c, each in enumerate(moments(run, NAMES, "auto", "even", None)):
        share = run.effective_rate_sums[c] / run.rate_sums[c]
        assert each.rates.size == pytest.approx(run.learning_rates[c] * share)
        assert 1 / (1 - 0.85) < share < 1 / (1 - 0.95)


def test_a_rate_of_zero_counts_nothing():
    warm = LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda epoch: float(epoch > 0))
    net = runs.untrained(optimizer__momentum=0.5, callbacks=[TrajectoryRecorder(), warm]).fit(X, Y)
    rates = [each.rates.size for each in moments(run_of(net), NAMES, "auto", "even", None)]
    assert rates == pytest.approx([0, *5 * [0.4]])


def test_groups_keep_rates_of_their_own():
    run = run_of(trained("groups"))
    for each, rates in zip(moments(run, NAMES, "auto", "even", None), run.group_learning_rates, strict=True):
        for name in NAMES:
            expected = rates[run.parameter_groups[name]] / (1 - 0.5)
            assert each.rates.size * each.rates.roots[name] ** 2 == pytest.approx(expected)


def test_every_checkpoint_in_turn_and_the_final_parameters_after_the_last():
    live = DiffIn(FrozenEstimator(trained("tanh")), objective=None).fit(X, Y)._ready()

    def holds(c):
        return all(torch.equal(v, RUN.state(c)[name]) for name, v in live.model.module.state_dict().items())

    for moment in visited(live, moments(RUN, NAMES, 3, "even", None)):
        assert holds(moment.checkpoint)
        assert moment.checkpoint == 5 or not holds(-1)
    assert holds(-1)


def test_what_is_recorded_for_it():
    for count, spacing, expected in (("auto", "even", 5), (3, "even", 3), ("auto", "random", 20), (3, "random", 12)):
        assert recorder(count, spacing).n_checkpoints == expected
