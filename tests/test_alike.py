"""Copies, near copies and strange rows: planted among others, in any order, and told from what coincides by nature."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from sktda import alike
from sktda.alike import NEIGHBOURS, compare_rows, first_of_near, isolated, nearest, points_of
from sktda.cli.commands import app

RNG = np.random.default_rng(0)
CLOUD = RNG.normal(size=(300, 6))


def planted(X, near=0.003):
    """X with row 20 equal to 3, rows 21 and 22 nearly equal to 4, and row 23 unlike all others."""
    X = X.astype(float)
    spread = X.std(axis=0)
    X[20] = X[3]
    X[21], X[22] = (X[4] + near * spread * RNG.normal(size=X.shape[1]) for _ in range(2))
    X[23] = X.mean(axis=0) + 5 * spread * RNG.choice([-1, 1], X.shape[1])
    return X


COUNTS = np.abs(RNG.normal(size=(200, 300))) * (RNG.random((200, 300)) < 0.2)
KINDS = {
    "numbers": planted(CLOUD),
    "skewed columns of any unit": np.exp(2 * planted(CLOUD)) * np.array([1e-6, 1, 1, 1, 1, 1e6]),
    "pictures": planted(load_digits().data[:400]).reshape(400, 8, 8),
    "wide": planted(RNG.normal(size=(200, 500))),
    "sparse": sp.csr_matrix(planted(COUNTS)),
}


@pytest.mark.parametrize("X", KINDS.values(), ids=KINDS)
def test_what_was_planted_is_found_and_nothing_else(X):
    found = compare_rows(X)
    assert {row: found.duplicate_of[row] for row in np.flatnonzero(found.duplicate_of >= 0)} == {20: 3}
    assert {row: found.near_duplicate_of[row] for row in np.flatnonzero(found.near_duplicate_of >= 0)} == {21: 4, 22: 4}
    assert np.flatnonzero(found.is_outlier).tolist() == [23]
    assert found.isolation.argmax() == 23
    assert found.isolation[20] == found.isolation[3]
    assert (found.by_nature, found.is_compared) == (False, True)


@pytest.mark.parametrize("X", KINDS.values(), ids=KINDS)
def test_the_order_of_rows_decides_only_which_one_is_first(X):
    order = RNG.permutation(X.shape[0])
    found, again = compare_rows(X), compare_rows(X[order])
    for name in ("duplicate_of", "near_duplicate_of"):
        groups = [
            {frozenset((names[row], names[first])) for row, first in enumerate(getattr(result, name)) if first >= 0}
            for result, names in ((found, np.arange(len(order))), (again, order))
        ]
        union = [set().union(*pairs) for pairs in groups]
        assert union[0] == union[1]
    np.testing.assert_array_equal(again.is_outlier, found.is_outlier[order])
    np.testing.assert_allclose(again.isolation, found.isolation[order], rtol=1e-4)


def test_neighbours_are_those_of_brute_force(monkeypatch):
    monkeypatch.setattr(alike, "BLOCK", 1000)  # several blocks
    points = points_of(CLOUD, np.arange(300))
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    distance, at = nearest(points)
    np.testing.assert_array_equal(at, np.argsort(gaps, axis=1)[:, :NEIGHBOURS])
    np.testing.assert_allclose(distance, np.sort(gaps, axis=1)[:, :NEIGHBOURS], rtol=1e-12)
    expected = distance.mean(axis=1) / np.median(distance.mean(axis=1)[at], axis=1)
    np.testing.assert_allclose(isolated(distance, at), expected)


def test_the_distance_within_pixels_is_that_of_pixels():
    """Projected ones are right to some per cent."""
    X = load_digits().data[:50]
    gaps = [
        np.linalg.norm(points[:, None] - points[None], axis=2)
        for points in (points_of(X, np.arange(50)), points_of(np.tile(X, 3), np.arange(50)), X)
    ]
    np.testing.assert_allclose(gaps[0] / gaps[0].max(), gaps[2] / gaps[2].max(), atol=1e-12)
    pairs = np.triu_indices(50, 1)
    assert np.abs(gaps[1][pairs] / gaps[0][pairs] - 1).mean() < 0.1


@pytest.mark.parametrize("n_columns", [2, 5, 20])
def test_near_pairs_by_chance_are_rare(n_columns):
    """Of independent rows about one set in ten has a pair; few columns bring rows near to each other, too."""
    found = [
        (compare_rows(np.random.default_rng(seed).normal(size=(400, n_columns))).near_duplicate_of >= 0).sum()
        for seed in range(10)
    ]
    assert np.mean(found) <= 0.4


def test_rows_that_are_near_by_nature_are_no_copies():
    """A price beside categories: whole clouds of rows that differ in one number. Equal rows of a coarse table."""
    for n_kinds in (2, 4, 8):
        kinds = RNG.integers(0, 2, (600, n_kinds))
        assert (compare_rows(np.column_stack([kinds, RNG.random((600, 1))])).near_duplicate_of >= 0).mean() < 0.01
    coarse = compare_rows(RNG.integers(0, 3, (600, 4)).astype(float))
    assert coarse.by_nature
    assert (coarse.duplicate_of >= 0).sum() > 400
    assert [finding.kind for finding in coarse.findings()] in ([], ["outlier"])


def test_copies_in_validation_rows():
    X_val = np.random.default_rng(1).normal(size=(50, 6))
    X_val[2], X_val[5] = CLOUD[17], CLOUD[30] + 1e-4
    found = compare_rows(CLOUD, X_val)
    assert {row: found.copy_of[row] for row in np.flatnonzero(found.copy_of >= 0)} == {2: 17, 5: 30}
    assert len(found.duplicate_of) == len(found.is_outlier) == 300
    assert (found.duplicate_of == -1).all()
    sparse = compare_rows(sp.csr_matrix(CLOUD), sp.csr_matrix(X_val))
    np.testing.assert_array_equal(sparse.copy_of, found.copy_of)


@pytest.mark.parametrize("n", [1, 29])
def test_of_few_rows_only_equal_ones_are_found(n):
    found = compare_rows(np.vstack([CLOUD[:n], CLOUD[:n]]))
    assert found.duplicate_of.tolist() == [-1] * n + list(range(n))
    assert not found.is_compared
    assert np.isnan(found.isolation).all()


def test_of_many_rows_only_equal_ones_are_found(monkeypatch):
    monkeypatch.setattr(alike, "MOST_ROWS", 298)
    found = compare_rows(planted(CLOUD))
    assert not found.is_compared
    assert [finding.kind for finding in found.findings()] == ["duplicate"]


def test_degenerate_rows():
    """One point many times, and distances of zero: nothing is divided by."""
    found = compare_rows(np.vstack([np.zeros((60, 3)), RNG.normal(size=(40, 3)) * 1e-200, np.eye(3)]))
    assert np.isfinite(found.isolation).all()
    assert first_of_near(np.zeros((40, NEIGHBOURS)), np.zeros((40, NEIGHBOURS), dtype=int)).tolist() == list(range(40))


def test_findings_say_how_many_have_another_label():
    codes = np.zeros(300, dtype=int)
    codes[[20, 22]] = 1
    codes[3] = -1  # no label
    duplicate, near, outlier = compare_rows(planted(CLOUD)).findings(codes)
    assert duplicate.message == "1 row is equal to an earlier one in all features, with the same label"
    assert near.message == "2 rows are nearly equal to an earlier one, 1 of them with another label"
    assert (duplicate.rows.tolist(), duplicate.detail["of"].tolist()) == ([20], [3])
    assert outlier.message.startswith("1 row is unlike all others: at least ")
    assert outlier.rows.tolist() == [23]


def test_scores_and_report_have_them_and_nothing_is_dropped(tmp_path):
    X = planted(RNG.normal(size=(240, 4)) + 6 * (np.arange(240) % 2)[:, None])
    labels = np.array(["low", "high"])[(X.mean(axis=1) > 3).astype(int)].astype(object)
    labels[21], labels[9] = "high" if labels[21] == "low" else "low", ""
    frame = pd.DataFrame(X, columns=list("abcd")).assign(label=labels)
    frame.to_csv(tmp_path / "data.csv", index=False)
    outputs = "-o", tmp_path / "out.csv", "--scores", tmp_path / "s.csv", "--report", tmp_path / "r.html"
    options = "--no-comparison", "--json", "-t", "label", "--drop", "0"
    result = CliRunner().invoke(app, [*map(str, ("clean", tmp_path / "data.csv", *outputs, *options))])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert [finding["kind"] for finding in summary["findings"]] == ["duplicate", "near_duplicate", "outlier"]
    message = "2 rows are nearly equal to an earlier one, 1 of them with another label"
    assert f"{message}; nothing was done about that" in summary["notes"]
    assert summary["n_written"] == 240
    scores = pd.read_csv(tmp_path / "s.csv").set_index("row").sort_index()
    assert scores["duplicate_of"].dropna().to_dict() == {20: 3}
    assert scores["near_duplicate_of"].dropna().to_dict() == {21: 4, 22: 4}
    assert scores["outlier"][scores["outlier"]].index.tolist() == [23]
    page = (tmp_path / "r.html").read_text()
    assert "Rows that are alike, and rows unlike all others" in page
    assert "unlike all others (1)" in page
    again = "report", tmp_path / "s.csv", "-d", tmp_path / "data.csv", "-o", tmp_path / "again.html", *options
    result = CliRunner().invoke(app, [*map(str, again)])
    assert result.exit_code == 0, result.output
    section = page[page.index('<section id="alike"') : page.index('<section id="pairs"')]
    assert section in (tmp_path / "again.html").read_text()


def test_cells_that_cannot_be_read_have_no_copies():
    alike = compare_rows(sp.csr_array(np.ones((3, 2), dtype=complex)))
    assert (alike.duplicate_of == -1).all()
    assert (alike.near_duplicate_of == -1).all()
