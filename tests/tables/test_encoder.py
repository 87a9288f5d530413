"""What the columns of a table hold, and the numbers that they become."""

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sktda import CoresetSelector, Holdout, InfluencePruner, NoisyLabelDetector, TableEncoder
from sktda.cleaning import GLISTER
from sktda.tables import encoder as encoder_module
from sktda.tables.cells import _floats, cells_of
from sktda.tables.columns import learn_column
from tests.in_turn import in_turn


def kind_of(cells):
    column = pd.Series(cells, name="c")
    return learn_column(column, cells_of(column)).kind


@in_turn(
    ("kind", "cells"),
    [
        ("number", ["1", " 2.5", "-3e2", "", "NA", "?"] * 4),
        ("number", ["1,5", "2", "1000,25", "3,75"] * 4),
        ("number", [str(i % 7) for i in range(99)] + ["oops"]),
        ("number", [30, 12, 55, 7, 8, 9, 1, 2, 100, 50, 3, 4]),
        ("number", [1.5, np.nan, 2.5] * 5),
        ("number", [f"{i % 50} %" for i in range(90)]),
        ("number", pd.array([1, None, 7] * 5, dtype="Int64")),
        ("number", pd.to_timedelta([1, 5, None] * 5, unit="h")),
        ("number", [*(f"{i}M" for i in range(80)), *["Varies"] * 20]),
        ("category", ["red", "green", "", "blue"] * 9),
        ("category", ["only", ""] * 9),
        ("category", pd.Categorical(["a", "b", None] * 5)),
        ("category", ["3 kg", "4 €"] * 9),
        ("category", ["1", "2", "3", "A", "B"] * 9),
        ("boolean", ["yes", "no"] * 9),
        ("boolean", [True, False] * 9),
        ("boolean", pd.array([True, None, False] * 5, dtype="boolean")),
        ("constant", ["x"] * 9),
        ("constant", ["5"] * 9),
        ("constant", ["", "NA"] * 9),
        ("constant", [np.nan] * 9),
        ("constant", [None] * 9),
        ("identifier", [f"id{i}" for i in range(30)]),
        ("identifier", [str(i) for i in range(100, 130)]),
        ("identifier", range(30, 0, -1)),
        ("identifier", [str(10**30 + 7 * i % 30) for i in range(30)]),
        ("identifier", [2**60 + 7 * i % 30 for i in range(30)]),
        ("identifier", [str(2**60 + 7 * i % 29) if i else "" for i in range(30)]),
        ("number", [6.02e23, 1.1e24, 3.3e22] * 9),
        ("date", [f"2020-01-{i:02d}" for i in range(1, 29)]),
        ("date", [f"{i}.2.2021" for i in range(1, 29)] * 9),
        ("date", ["2020-01-01T10:00:00", ""] * 9),
        ("date", ["3 Mar 2020", "14-Apr-21", "May 5, 2020"] * 9),
        ("number", [f"{i}:30" for i in range(24)]),
        ("date", pd.date_range("2020-01-01", periods=20, tz="Europe/Berlin")),
        ("date", list(pd.date_range("2020-01-01", periods=20).date)),
        ("text", [f"a sentence about {i}" for i in range(30)]),
        ("text", [f"これは文です{i}番" for i in range(30)]),
        ("other", [[1], [2]] * 9),
        ("other", [b"a", b"b"] * 9),
    ],
)
def test_what_a_column_holds(kind, cells):
    assert kind_of(cells) == kind


def test_numbers_categories_and_what_is_left_out():
    rng = np.random.default_rng(0)
    n = 400
    number = rng.normal(size=n).round(3).astype(str)
    number[5] = ""
    colour = rng.choice(["red", "green"], n).astype(object)
    colour[[1, 2]] = ["teal", "ochre"]
    colour[3:9] = ""
    frame = pd.DataFrame({"number": number, "id": [f"n{i}" for i in range(n)], "colour": colour}, dtype=str)
    encoder = TableEncoder()
    X = encoder.fit_transform(frame)
    assert encoder.notes_ == ["columns not used as features (identifiers): 'id'"]
    assert [(column.name, column.kind) for column in encoder.columns_] == [
        ("number", "number"),
        ("id", "identifier"),
        ("colour", "category"),
    ]
    names = ["number", "number_missing", "colour_green", "colour_red", "colour_missing", "colour_other"]
    assert encoder.get_feature_names_out().tolist() == names
    known = np.delete(number, 5).astype(float)
    assert X[5, 0] == np.median(known)
    np.testing.assert_array_equal(np.delete(X[:, 0], 5), known)
    np.testing.assert_array_equal(X[:, 1], np.arange(n) == 5)
    counts = [(colour == "green").sum(), (colour == "red").sum(), 6, 2]
    np.testing.assert_array_equal(X[:, 2:].sum(axis=0), counts)


def messy(n=60, seed=0):
    rng = np.random.default_rng(seed)
    words = ["soil", "rose", "oven", "flour", "chain", "brake"]
    frame = pd.DataFrame(
        {
            "weight": [f"{value:.1f} kg" for value in rng.uniform(1, 90, n)],
            "colour": rng.choice(["red", "blue", "green"], n),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, n), "D"),
            "paid": rng.random(n) < 0.5,
            "note": [" ".join(rng.choice(words, 4)) + f" {i}" for i in range(n)],
            "score": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
        }
    )
    return frame, rng.integers(0, 2, n)


def test_all_kinds_at_once_and_rows_that_were_never_seen():
    frame, _ = messy()
    encoder = clone(TableEncoder())
    X = encoder.fit_transform(frame)
    assert X.dtype == np.float64
    assert np.isfinite(X).all()
    assert X.shape[1] == len(encoder.get_feature_names_out()) == len(set(encoder.get_feature_names_out()))
    np.testing.assert_allclose(encoder.transform(frame), X, atol=1e-12)
    new = frame.iloc[:3].copy()
    new["colour"] = ["violet", None, "red"]
    new["weight"] = ["1200 g", "many", "7"]
    new["day"] = pd.NaT
    new["note"] = [None, "unheard words", ""]
    Z = pd.DataFrame(encoder.transform(new), columns=encoder.get_feature_names_out())
    assert np.isfinite(Z.to_numpy()).all()
    assert Z["weight"].tolist() == [1.2, np.median(X[:, 0]), 7.0]
    assert Z.filter(like="colour").to_numpy().tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_columns_named_by_numbers_keep_their_order():
    frame = pd.DataFrame({0: [1.5, 2, 4], 1: [10, 25, 30]})
    encoder = TableEncoder().fit(frame)
    with pytest.raises(ValueError, match=r"columns of `fit` in another order; give X\[\[0, 1\]\]"):
        encoder.transform(frame[[1, 0]])
    assert encoder.transform(frame.to_numpy()).tolist() == encoder.transform(frame).tolist() == frame.values.tolist()


@pytest.mark.parametrize("as_other", [pa.Table.from_pandas, lambda frame: frame.astype({"colour": "category"})])
def test_the_container_does_not_matter(as_other):
    frame, _ = messy()
    np.testing.assert_array_equal(TableEncoder().fit_transform(as_other(frame)), TableEncoder().fit_transform(frame))


def test_polars_is_read_as_pandas():
    polars = pytest.importorskip("polars")
    frame, _ = messy()
    np.testing.assert_array_equal(
        TableEncoder().fit_transform(polars.from_pandas(frame)), TableEncoder().fit_transform(frame)
    )


def test_it_stands_in_a_pipeline_with_names():
    frame, y = messy()
    model = make_pipeline(TableEncoder().set_output(transform="pandas"), DecisionTreeClassifier()).fit(frame, y)
    assert model[-1].feature_names_in_[0] == "weight"
    assert len(model.predict(frame.iloc[:5])) == 5
    pruner = InfluencePruner(make_pipeline(TableEncoder(), StandardScaler(), LogisticRegression()), prune_ratio=0.1)
    assert pruner.fit(frame, y).predict(frame).shape == (60,)


def test_what_was_read_is_said_once_with_an_example():
    frame = pd.DataFrame(
        {
            "part": ["1,5 %", "20 %", "3 %"] * 9,
            "sum": ["1.234", "22.100", "9.870"] * 9,
            "mixed": ["3 kg", "4 €", "5 kg"] * 9,
            "a": [str(i % 7) for i in range(26)] + ["oops"],
        }
    )
    encoder = TableEncoder().fit(frame)
    assert encoder.notes_ == [
        "column 'part': '1,5 %' read as 1.5 %",
        "column 'sum': '1.234' read as 1234; the point taken for one of thousands",
        "column 'mixed': cannot be one number: its units are mixed (g, EUR)",
        "column 'a': 1 cells are no numbers ('oops'), taken as missing",
    ]
    assert encoder.transform(frame)[:3, 1].tolist() == [1234, 22100, 9870]


def test_a_number_that_stands_for_a_missing_one_is_missing():
    values = np.random.default_rng(0).normal(size=100).round(2)
    values[:20] = -999
    encoder = TableEncoder().fit(pd.DataFrame({"a": values}))
    assert "-999 stands for a missing value" in encoder.columns_[0].how
    assert encoder.transform(pd.DataFrame({"a": [-999.0, 0.5]})).tolist() == [[np.median(values[20:]), 1], [0.5, 0]]


def test_a_kind_can_be_said():
    frame = pd.DataFrame({"code": ["1", "2", "3"] * 9, "id": [f"n{i}" for i in range(27)], "x": range(0, 54, 2)})
    encoder = TableEncoder(kinds={"code": "category", "id": "text", "x": "number"}).fit(frame)
    assert [column.kind for column in encoder.columns_] == ["category", "text", "number"]
    encoder = TableEncoder(kinds={"code": "ignore", "x": "number"}).fit(frame)
    assert encoder.columns_[0] == ("code", "ignore", "not used: as asked", "")
    with pytest.raises(ValueError, match="kinds names the column 'y', which is not there"):
        TableEncoder(kinds={"y": "text"}).fit(frame)
    with pytest.raises(ValueError, match="kinds says 'words' of the column 'x'; known are number, category"):
        TableEncoder(kinds={"x": "words"}).fit(frame)


@in_turn(
    ("kind", "cells", "what"),
    [
        ("number", [True, False, True], "such as 'true'"),
        ("number", ["yes", "no", None], "such as 'yes'"),
        ("number", pd.date_range("2020", periods=3), "they are dates"),
        ("number", [{}, {}, {}], "neither numbers, dates nor text"),
        ("date", [20200131, 20200401, 20200510], "they are numbers (20200131), which pandas.to_datetime"),
        ("date", ["20200131", "20200401", "20200510"], "they are numbers (20200131)"),
    ],
)
def test_a_kind_that_no_cell_is_of_is_refused(kind, cells, what):
    with pytest.raises(ValueError, match=f"kinds says '{kind}' of the column 'c', and none.*{re.escape(what)}"):
        TableEncoder(kinds={"c": kind}).fit(pd.DataFrame({"c": cells, "x": [1.5, 2, 4]}))


def test_times_and_missing_cells_can_be_said_to_be_numbers():
    frame = pd.DataFrame({"t": ["9:30", "21:45", "0:15"], "no": [None] * 3, "some": ["4 kg", "3 €", "2"]})
    encoder = TableEncoder(kinds=dict.fromkeys(frame, "number")).fit(frame)
    assert encoder.transform(frame)[:, 0].tolist() == [9.5, 21.75, 0.25]
    assert encoder.columns_[2].note == "column 'some': cells that are no plain numbers ('4 kg') are taken as missing"


def test_dates_become_what_varies():
    day = pd.to_datetime(["2020-01-01", "2021-03-05", "2022-02-27"] * 5)
    encoder = TableEncoder().fit(pd.DataFrame({"d": day, "t": ["1:30", "14:00", "2:15 pm"] * 5}))
    assert encoder.get_feature_names_out().tolist() == ["d_days", "d_year", "d_month", "d_weekday", "t"]
    assert encoder.transform(pd.DataFrame({"d": day[:1], "t": ["12:00 am"]})).tolist() == [[18262, 2020, 1, 2, 0]]
    written = pd.DataFrame({"d": ["13/02/2020", "01/03/2020", "05/06/2020"] * 5})
    assert TableEncoder().fit_transform(written)[1, 1] == 3  # the first cell shows that days come first


def test_what_cannot_become_numbers_is_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"column 'a' holds infinity in row 1 \(counted from 0\)"):
        TableEncoder().fit(pd.DataFrame({"a": ["1", "-inf", "3"]}))
    with pytest.raises(ValueError, match=r"column 'a' holds 1e\+308, beyond what can be compared, in row 2"):
        TableEncoder().fit(pd.DataFrame({"a": [1, -3, 1e308]}))
    with pytest.raises(ValueError, match=r"no column can be used as a feature .*identifiers.*--embeddings"):
        TableEncoder().fit(pd.DataFrame({"a": [f"n{i}" for i in range(9)]}))
    with pytest.raises(ValueError, match="none beside the labels"):
        TableEncoder().fit(pd.DataFrame(index=range(9)))
    with pytest.raises(ValueError, match="several columns named 'a'"):
        TableEncoder().fit(pd.DataFrame([[1, 2]] * 3, columns=["a", "a"]))
    encoder = TableEncoder().fit(pd.DataFrame({"a": [1, 5, 3]}))
    with pytest.raises(ValueError, match="feature names"):
        encoder.transform(pd.DataFrame({"b": [1, 5, 3]}))
    monkeypatch.setattr(encoder_module, "MAX_CELLS", 1000)
    with pytest.raises(ValueError, match=r"90 rows x 60 features after encoding"):
        TableEncoder().fit(pd.DataFrame({f"c{j}": [f"v{i % 30}" for i in range(90)] for j in range(2)}))


def test_the_order_of_rows_decides_nothing():
    frame, _ = messy()
    order = np.random.default_rng(1).permutation(len(frame))
    frame = frame.drop(columns="note")
    shuffled = TableEncoder().fit_transform(frame.iloc[order])
    np.testing.assert_array_equal(shuffled, TableEncoder().fit_transform(frame)[order])


# ---- in the detector ------------------------------------------------------------------------------------------------


def topics(n=300, wrong=12):
    rng = np.random.default_rng(0)
    words = {"garden": "soil roses prune bloom hedge", "kitchen": "oven flour whisk simmer butter"}
    label = rng.choice(list(words), n)
    note = [
        " ".join([*rng.choice(words[k].split(), 4), *rng.choice(["the", "a", "my", "new", "old"], 3)]) for k in label
    ]
    label[:wrong] = ["kitchen" if k == "garden" else "garden" for k in label[:wrong]]
    price = [f"€ {value:,.0f}" for value in rng.uniform(100, 9000, n)]
    return pd.DataFrame({"note": note, "price": price}, index=[f"r{i}" for i in range(n)]), label


def assert_most_are_found(detector, n=12):
    """Of the first n rows, which have the wrong label, at least two thirds, and no others."""
    found = np.flatnonzero(detector.labels_ == -1)
    assert len(found) >= 2 * n / 3
    assert found.max() < n


def test_the_detector_takes_a_messy_table():
    frame, y = topics()
    detector = NoisyLabelDetector().fit(frame, y)
    assert_most_are_found(detector)
    assert [column.kind for column in detector.encoder_.columns_] == ["text", "number"]
    assert detector.feature_names_in_.tolist() == ["note", "price"]
    assert detector.to_frame().index[0] in frame.index[:12]
    X, _ = NoisyLabelDetector().fit_resample(frame, y)
    assert X.index.tolist() == frame.index[detector.sample_indices_].tolist()


def test_other_cleaners_encode_what_only_the_attributor_reads():
    frame, y = topics()
    pruner = InfluencePruner(HistGradientBoostingClassifier(max_iter=5), prune_ratio=0.04)
    table = frame.assign(note=[len(text) for text in frame["note"]], price=np.where(y == "garden", np.nan, 1.0))
    assert pruner.fit(table, y).support_.sum() == 288
    kept, _ = CoresetSelector(n_samples=30, random_state=0).fit_resample(frame, y)
    assert kept.columns.tolist() == ["note", "price"]
    assert len(kept) == 30


def test_validation_rows_of_a_strategy_are_encoded_as_the_rows_are():
    frame, y = messy()
    encoder = TableEncoder().fit(frame)
    chosen = [
        CoresetSelector(strategy=GLISTER(validation=Holdout(rows(frame[:20]), y[:20])), n_samples=20, random_state=0)
        .fit(rows(frame), y)
        .sample_indices_.tolist()
        for rows in (encoder.transform, lambda part: part)
    ]
    assert chosen[0] == chosen[1]


def test_numbers_are_taken_as_they_are():
    X = np.random.default_rng(0).normal(size=(40, 2))
    y = (X[:, 0] > 0).astype(int)
    detector = NoisyLabelDetector().fit(pd.DataFrame(X, columns=["a", "b"]), y)
    assert detector.encoder_ is None
    np.testing.assert_allclose(detector.scores_, NoisyLabelDetector().fit(X, y).scores_)


def test_what_gives_the_label_away_is_left_out_of_a_messy_table():
    frame, y = topics()
    frame.insert(0, "id", range(len(frame)))
    frame["code"] = np.where(y == "garden", "g", "k")
    detector = NoisyLabelDetector().fit(frame, y)
    assert [finding.positions for finding in detector.findings_ if finding.kind == "leak"] == [(3,)]
    assert [column.kind for column in detector.encoder_.columns_] == ["identifier", "text", "number", "leak"]


def test_one_of_two_numbers_in_a_cell_may_give_the_label_away():
    frame, y = topics()
    frame["pair"] = [f"{i * 7 % 101 + 10}/{200 + (label == 'garden')}" for i, label in enumerate(y)]
    column = NoisyLabelDetector().fit(frame, y).encoder_.columns_[-1]
    assert (column.kind, column.how) == ("number", "as it is; 'pair (2)' not used: they give the label away")


@pytest.mark.parametrize(
    ("unlabelled", "missing"), [("keep", None), ("drop", np.nan), ("predict", pd.NA), ("keep", "")]
)
def test_rows_without_a_label_are_not_judged(unlabelled, missing):
    frame, y = topics()
    y = y.astype(object)
    y[[20, 100]] = missing
    detector = NoisyLabelDetector(unlabelled=unlabelled).fit(frame, y)
    assert detector.labels_[[20, 100]].tolist() == [0, 0]
    assert_most_are_found(detector)
    assert np.isnan(detector.label_quality_[[20, 100]]).all()
    assert np.isnan(detector.scores_[[20, 100]]).all()
    assert sorted(detector.classes_) == ["garden", "kitchen"]
    assert np.isin([20, 100], detector.sample_indices_).all() == (unlabelled != "drop")
    true = topics(wrong=0)[1][[20, 100]].tolist()
    assert detector.suggested_labels_[[20, 100]].tolist() == (true if unlabelled == "predict" else [None, None])
    assert len(detector.to_frame()) == 300


def test_numbers_without_a_label():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    y = X @ [1, 2, 3]
    y[7] = np.nan
    detector = NoisyLabelDetector(unlabelled="predict").fit(X, y)
    assert detector.suggested_labels_[7] == pytest.approx(X[7] @ [1, 2, 3], abs=2)
    assert detector.task_ == "regression"
    with pytest.raises(ValueError, match="1 rows have no label, the first is row 7"):
        NoisyLabelDetector().fit(X, y)
    with pytest.raises(ValueError, match="no row of y has a label"):
        NoisyLabelDetector(unlabelled="keep").fit(X, np.full(200, np.nan))


def test_findings_name_the_rows_of_the_data_where_some_have_no_label():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(100, 4)))
    y = np.where(X[0] > 0, "a", "b").astype(object)
    X.iloc[60] = X.iloc[50]
    y[[50, 60]] = "a", "b"
    y[[3, 55]] = None
    finding = next(f for f in NoisyLabelDetector(unlabelled="keep").fit(X, y).findings_ if f.kind == "contradiction")
    assert finding.rows.tolist() == [50, 60]
    assert "row 50 has 'a' and row 60 has 'b'" in finding.message


def test_other_columns_say_what_1_234_is():
    doubtful = ["1.234", "22.100", "9.870"] * 9
    for other, value, notes in (
        (["1,5", "2,5", "3"] * 9, 1234, ["'1,5' read as 1.5", "'1.234' read as 1234; the point taken for one of"]),
        (["1.5", "2.5", "3"] * 9, 1.234, []),
        (["a", "b", "c"] * 9, 1.234, ["'1.234' read as 1.234; the point taken for the decimal mark"]),
    ):
        frame = pd.DataFrame({"other": other, "sum": doubtful})
        encoder = TableEncoder().fit(frame)
        assert encoder.transform(frame)[0, -1] == value
        assert len(encoder.notes_) == len(notes)
        assert all(part in note for part, note in zip(notes, encoder.notes_, strict=True))


@in_turn("n", [20, 10_000])
def test_what_comes_after_many_other_cells_is_read_as_among_few(n):
    thousands = ["1.234", "2.500", "3.125"] * 5
    column = TableEncoder().fit(pd.DataFrame({"c": [str(i % 99) for i in range(n)] + thousands})).columns_[0]
    assert "'1.234' read as 1234" in column.note
    frame = pd.DataFrame({"c": [None] * n + ["345", "123", "123"] * 5})
    assert TableEncoder().fit_transform(frame)[n:, 0].tolist() == [345, 123, 123] * 5


def test_dates_that_cannot_be_read_are_said_and_not_only_missing():
    days = [*(f"{day}. {month} 2021" for month in ("März", "April") for day in range(1, 16)), "neulich"]
    column = TableEncoder().fit(pd.DataFrame({"when": days})).columns_[0]
    assert column.kind == "date"
    assert "1 cells are no dates that can be read ('neulich'), taken as missing" in column.note


@in_turn(
    "odd", [" 12", "1_000", "-Infinity", "nan", "1e400", "1e-400", "+5", "5.", "１２", None, 3.5, "0x1A", "1,5", ""]
)
def test_numbers_are_read_fast_as_python_reads_them(odd):
    cells = np.array(["1.5", "123456789.123456789", "2.2250738585072011e-308", odd], dtype=object)

    def read(function):
        try:
            return function(cells)
        except ValueError:
            return np.empty(0)

    np.testing.assert_array_equal(read(_floats), read(lambda each: each.astype(float)))
