"""distributional_lds: brute force with SciPy, planted answers, the floor of chance, errors."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from sktda.distributions import MEASURES, wasserstein, wasserstein_floor, wasserstein_gaussian
from sktda.metrics import distributional_lds, linear_datamodeling_score
from sktda.metrics.counterfactual import chance
from sktda.metrics.statistics import spearman
from tests.in_turn import in_turn

RUNS, QUERIES, ROWS, SUBSETS, RETRAINS = 9, 4, 12, 15, 6


def arrays(seed=0, runs=RUNS, retrains=RETRAINS, queries=QUERIES, rows=ROWS, subsets=SUBSETS):
    """(values, shifts, kept, measured) that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(runs, queries)),
        rng.normal(size=(runs, queries, rows)),
        rng.random((subsets, rows)) < 0.5,
        rng.normal(size=(subsets, retrains, queries)),
    )


def moved(values, shifts, kept):
    """(subsets, runs, queries): the runs, had they moved as predicted."""
    truth = np.empty((len(kept), *values.shape))
    for m, mask in enumerate(kept):
        truth[m] = values + shifts[:, :, ~mask].sum(axis=2)
    return truth


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("n_full", [None, 7], ids=["of the runs", "other models"])
def test_brute_force(measure, n_full):
    values, shifts, kept, measured = arrays()
    full = None if n_full is None else np.random.default_rng(1).normal(size=(n_full, QUERIES))
    found = distributional_lds(values, shifts, kept, measured, full, measure=measure)
    assert found.shape == (QUERIES,)
    full = values if full is None else full
    for q in range(QUERIES):
        predicted, true = [], []
        for m in range(SUBSETS):
            left_out = [i for i in range(ROWS) if not kept[m, i]]
            y = np.array([values[s, q] + sum(shifts[s, q, i] for i in left_out) for s in range(RUNS)])
            predicted.append(MEASURES[measure](values[:, q], y))
            true.append(MEASURES[measure](full[:, q], measured[m, :, q]))
            if measure.startswith("wasserstein"):
                floor = wasserstein_floor(len(full), RETRAINS, gaussian=measure == "wasserstein_gaussian")
                true[-1] -= floor * (np.var(full[:, q], ddof=1) + np.var(measured[m, :, q], ddof=1)) / 2
        assert found[q] == pytest.approx(spearmanr(predicted, true).statistic, abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_runs_that_move_as_predicted_score_one(measure):
    values, shifts, kept, _ = arrays(runs=20)
    if measure.startswith("wasserstein"):
        shifts = np.repeat(shifts[:1], 20, axis=0)  # all runs alike, so the floor is that of every subset
    truth = moved(values, shifts, kept)
    rng = np.random.default_rng(1)
    truth = np.stack([rng.permutation(each) for each in truth])  # which retrain is whose is not known
    np.testing.assert_allclose(distributional_lds(values, shifts, kept, truth, measure=measure), 1, atol=1e-12)
    opposite = distributional_lds(values, -shifts, kept, truth, measure=measure)
    if measure == "mean":
        np.testing.assert_allclose(opposite, -1, atol=1e-12)
    elif measure == "variance":
        assert (opposite < 0.9).all()


@pytest.mark.parametrize("measure", ["wasserstein", "wasserstein_gaussian"])
def test_distances_of_runs_that_each_move_by_themselves_score_nearly_one(measure):
    values, shifts, kept, _ = arrays(runs=200, queries=2)
    scores = distributional_lds(values, shifts, kept, moved(values, shifts, kept), measure=measure)
    assert scores.min() > 0.97


@pytest.mark.parametrize("measure", MEASURES)
def test_noise_scores_zero(measure):
    scores = distributional_lds(*arrays(queries=150, subsets=40), measure=measure)
    assert abs(scores.mean()) < 4.5 / np.sqrt(39 * 150)  # a rank correlation of m subsets deviates by 1 / sqrt(m - 1)
    assert scores.std() == pytest.approx(1 / np.sqrt(39), rel=0.3)


@pytest.mark.parametrize("measure", ["mean", "variance"])
def test_nothing_is_subtracted_from_means_and_variances(measure):
    values, shifts, kept, measured = arrays()
    function = MEASURES[measure]
    predicted = np.stack([function(values, y) for y in moved(values, shifts, kept)])
    true = np.stack([function(values, y) for y in measured])
    found = distributional_lds(values, shifts, kept, measured, measure=measure)
    np.testing.assert_array_equal(found, spearman(predicted, true))
    assert chance(function, values, measured[0]) == 0


@pytest.mark.parametrize("measure", [wasserstein, wasserstein_gaussian])
def test_distances_of_one_distribution_are_zero_on_average_without_chance(measure):
    rng = np.random.default_rng(0)
    x, y = 3 + 2 * rng.normal(size=(10, 20_000)), 3 + 2 * rng.normal(size=(20, 20_000))
    found = measure(x, y)
    left = found - chance(measure, x, y)
    assert abs(left.mean()) < 4.5 * left.std() / np.sqrt(20_000)
    assert found.mean() > 20 * abs(left.mean())


@pytest.mark.parametrize("measure", [wasserstein, wasserstein_gaussian])
def test_without_chance_it_shows_that_runs_come_closer_together(measure):
    """Each subset leaves out one row, which moves the runs and narrows them; 5 retrains of each."""
    rng = np.random.default_rng(0)
    n, queries = 40, 100
    x = rng.normal(size=(30, queries))
    move, spread = rng.uniform(0, 0.5, size=(queries, n)), rng.uniform(0.5, 1, size=(queries, n))
    shifts = move + (spread - 1) * x[:, :, None]
    kept = ~np.eye(n, dtype=bool)
    measured = move.T[:, None] + spread.T[:, None] * rng.normal(size=(n, 5, queries))
    scores = distributional_lds(x, shifts, kept, measured, measure=measure)
    predicted = np.stack([measure(x, y) for y in moved(x, shifts, kept)])
    without = spearman(predicted, np.stack([measure(x, y) for y in measured]))
    assert scores.mean() > without.mean() + 0.02


def test_of_means_it_is_the_linear_datamodeling_score_of_the_mean_shifts():
    values, shifts, kept, measured = arrays()
    found = distributional_lds(values, shifts, kept, measured, measure="mean")
    expected = linear_datamodeling_score(shifts.mean(axis=0), kept, measured)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_function_as_measure_and_the_variance_where_none_is_named():
    given = arrays()
    np.testing.assert_array_equal(
        distributional_lds(*given, measure=lambda x, y: y.mean(axis=0) - x.mean(axis=0)),
        distributional_lds(*given, measure="mean"),
    )
    np.testing.assert_array_equal(distributional_lds(*given), distributional_lds(*given, measure="variance"))
    assert not np.allclose(distributional_lds(*given), distributional_lds(*given, measure="mean"))


@pytest.mark.parametrize("measure", MEASURES)
def test_order_of_runs_retrains_rows_and_subsets_does_not_matter(measure):
    values, shifts, kept, measured = arrays()
    rng = np.random.default_rng(1)
    runs, rows, subsets, retrains = map(rng.permutation, (RUNS, ROWS, SUBSETS, RETRAINS))
    found = distributional_lds(
        values[runs],
        shifts[runs][:, :, rows],
        kept[subsets][:, rows],
        measured[subsets][:, retrains],
        values,
        measure=measure,
    )
    np.testing.assert_allclose(found, distributional_lds(values, shifts, kept, measured, measure=measure), atol=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_what_does_not_vary_scores_zero(measure):
    values, shifts, kept, measured = arrays()
    np.testing.assert_array_equal(distributional_lds(values, 0 * shifts, kept, measured, measure=measure), 0)
    same = np.repeat(measured[:1], SUBSETS, axis=0)
    np.testing.assert_array_equal(distributional_lds(values, shifts, kept, same, measure=measure), 0)


def broken(**changes):
    """Arguments with some of them changed by a function."""
    names = ("values", "shifts", "kept", "measured", "full")
    given = dict(zip(names, (*arrays(), arrays()[0]), strict=True))
    return given | {name: change(given[name]) for name, change in changes.items()}


def with_nan(array):
    array = array.copy()
    array.flat[3] = np.nan
    return array


@in_turn(
    "changes",
    [
        {"values": lambda a: a[:, 0]},
        {"values": lambda a: a[:-1]},
        {"values": lambda a: a[:, :-1]},
        {"shifts": lambda a: a[:, :, :-1]},
        {"shifts": lambda a: a[0]},
        {"shifts": lambda a: a[:-1]},
        {"kept": lambda a: a[:-1]},
        {"kept": lambda a: a[0]},
        {"kept": lambda a: a[:, :-1]},
        {"measured": lambda a: a[:, 0]},
        {"measured": lambda a: a[:, :, :-1]},
        {"measured": lambda a: a.mean(axis=1)},
        {"full": lambda a: a[:, :-1]},
        {"full": lambda a: a[:, 0]},
    ],
)
def test_shapes_that_do_not_match(changes):
    with pytest.raises(ValueError, match=r"expected \(n_members, n_query\)"):
        distributional_lds(**broken(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kept": lambda a: a[:2], "measured": lambda a: a[:2]}, "^2 subsets"),
        ({"measured": lambda a: a[:, :1]}, "and 1 retrains"),
        ({"values": lambda a: a[:1], "shifts": lambda a: a[:1]}, "1 runs"),
        ({"full": lambda a: a[:1]}, "1 models on all rows"),
        ({"values": with_nan}, "values"),
        ({"shifts": with_nan}, "shifts"),
        ({"measured": with_nan}, "measured"),
        ({"full": with_nan}, "full"),
        ({"full": lambda a: np.full_like(a, np.inf)}, "full"),
    ],
)
def test_too_few_and_not_finite(changes, message):
    with pytest.raises(ValueError, match=message):
        distributional_lds(**broken(**changes))


def test_unknown_measure():
    with pytest.raises(ValueError, match="measure='median' is not one of"):
        distributional_lds(*arrays(), measure="median")
