"""Cells as people write them, read as what they mean, and what is no number kept from being one."""

import datetime
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sktda import TableEncoder
from sktda.cli.features import few_kinds, last_row_sums_up
from sktda.cli.labels import read_labels
from sktda.tables.cells import cells_of
from sktda.tables.clocks import learn_clocks
from sktda.tables.columns import learn_column
from tests.in_turn import in_turn


def learned(cells):
    column = pd.Series(cells, name="c", dtype=object)
    read = cells_of(column)
    reader = learn_column(column, read)
    return reader, reader.read("c", read) if reader.is_used else ()


NUMBERS = {  # cells and what they mean, in the unit of the note
    "hours and minutes": (["9:30", "0:45", "23:15"], [9.5, 0.75, 23.25], "'9:30' read as 9.5 h"),
    "with seconds": (["01:30:36", "12:00:00", "0:00:36"], [1.51, 12, 0.01], "read as 1.51 h"),
    "midnight behind a day": (["00:00", "24:00", "12:30"], [0, 24, 12.5], " h"),
    "before and after noon": (["12:30 AM", "1:15 pm", "12:00 p.m."], [0.5, 13.25, 12], " h"),
    "beyond a day": (["37:30", "9:15", "120:00"], [37.5, 9.25, 120], "'37:30' read as 37.5, behind the colon"),
    "hours beyond a day": (["37:30:00", "9:15:00", "120:00:00"], [37.5, 9.25, 120], " h"),
    "a race": (["21:03", "1:02:33", "00:45"], [1263, 3753, 45], "'21:03' read as 1263, '1:02:33' read as 3753 s"),
    "times that drop seconds of zero": (["21:03", "01:02:33", "00:45"], [21.05, 1.0425, 0.75], " h"),
    "laps": (["1:23.4", "0:59.9", "12:00.0"], [83.4, 59.9, 720], " s"),
    "a pace": (
        ["4:33 /km", "12:06 /km", "5:15/km"],
        [4.55, 12.1, 5.25],
        "read as 4.55, behind the colon being sixtieths",
    ),
    "spaces of the French": (
        ["1\u202f050,50\u00a0€", "999,00\u00a0€"],
        [1050.5, 999],
        "'1\\u202f050,50\\xa0€' read as 1050.5 €",
    ),
    "parts in words": (["1h 30m", "45 min", "2 h"], [5400, 2700, 7200], "'1h 30m' read as 5400 s"),
    "French": (["1h30", "2h05", "0h45"], [5400, 7500, 2700], " s"),
    "German": (["1 Std. 30 Min.", "2 Std. 5 Min.", "1 Tag 2 Std."], [5400, 7500, 93600], " s"),
    "ISO": (["PT1H30M", "PT45M", "P1DT1H"], [5400, 2700, 90000], " s"),
    "timedelta": (["1 days 06:00:00", "0 days 00:00:30", "-1 days +23:00:00"], [108000, 30, -3600], " s"),
    "fractions of hours": (["1,5 h 30 m", "1.25h 0m", "2h 0m"], [7200, 4500, 7200], " s"),
    "degrees": (["48° 8' N", "33°52'10.5\"S", "0°30'W"], [48 + 8 / 60, -33.8695833333, -0.5], " °"),
    "degrees with a side": (["48.5° N", "12.25° S", "7°N"], [48.5, -12.25, 7], " °"),
    "feet and inches": (["5'11\"", "6 ft 3 in", "5' 0\""], [5 + 11 / 12, 6.25, 5], " ft"),
    "powers of ten": (["1.5 × 10^3", "2x10^-2", "7·10⁴"], [1500, 0.02, 7e4], ""),
    "footnotes": (["1,234[1]", "56*", "7 **", "8 †"], [1234, 56, 7, 8], "read as 1234"),
    "millions of dollars": (["$2M", "$15M", "$0.5M"], [2, 15, 0.5], "'$2M' read as 2 $M"),
    "thousands": (["2k", "1.5k", "12k"], [2000, 1500, 12000], "'2k' read as 2000"),
}


@in_turn("case", NUMBERS)
def test_numbers_are_what_the_cells_mean_and_it_is_said(case):
    cells, expected, note = NUMBERS[case]
    reader, (read,) = learned(cells * 4)
    assert reader.kind == "number"
    np.testing.assert_allclose(read[: len(cells)], expected, rtol=1e-9)
    assert note in reader.note


DATES = {
    "German": (["3. März 2021", "14. Okt. 2020", "1. Mai 99"], ["2021-03-03", "2020-10-14", "1999-05-01"]),
    "with a weekday": (["Mi, 3. März 2021", "Montag, 5. Juli 2021"], ["2021-03-03", "2021-07-05"]),
    "French": (["12 févr. 2020", "1er août 2021", "3 juillet 2019"], ["2020-02-12", "2021-08-01", "2019-07-03"]),
    "Spanish": (["3 de enero de 2020", "14 de dic de 2021", "7 ago 2019"], ["2020-01-03", "2021-12-14", "2019-08-07"]),
    "Italian": (["3 gennaio 2020", "14 giu 2021", "7 ott. 2019"], ["2020-01-03", "2021-06-14", "2019-10-07"]),
    "Portuguese": (["3 de fevereiro de 2020", "14 out 2021"], ["2020-02-03", "2021-10-14"]),
    "Dutch": (["3 maart 2020", "14 mei 2021"], ["2020-03-03", "2021-05-14"]),
    "English": (["March 3rd, 2020", "14-Apr-21", "1st of May 2019"], ["2020-03-03", "2021-04-14", "2019-05-01"]),
    "Japanese": (["2020年6月9日", "2021年12月31日"], ["2020-06-09", "2021-12-31"]),
    "servers": (["19/Mar/2021:10:00:00 +0200", "Wed Mar 10 10:30:00 2021"], ["2021-03-19 08:00", "2021-03-10 10:30"]),
    "e-mails": (["Mon, 01 Mar 2021 10:41 +0100", "2 Mar 2021 10:41 GMT"], ["2021-03-01 09:41", "2021-03-02 10:41"]),
    "months": (["Mar 2015", "Dez-18", "2019-07", "08/2020"], ["2015-03-01", "2018-12-01", "2019-07-01", "2020-08-01"]),
    "quarters": (["2019Q3", "Q4 2020", "2021-Q1"], ["2019-07-01", "2020-10-01", "2021-01-01"]),
    "three styles": (["2020-03-04", "31.12.2020", "5 Mar 2020"], ["2020-03-04", "2020-12-31", "2020-03-05"]),
    "years in front": (["2020/03/04", "2020.3.4", "31/12/2020"], ["2020-03-04", "2020-03-04", "2020-12-31"]),
    "long ago": (["1492-10-12", "1066-10-14"], ["1492-10-12", "1066-10-14"]),
    "short years": (["13/4/70", "1/2/68 9:30", "31/12/99"], ["1970-04-13", "2068-02-01 09:30", "1999-12-31"]),
    "short years in front": (["70-03-04", "99-12-31"], ["1970-03-04", "1999-12-31"]),
    "with a time": (["3. März 2021, 10:30", "March 3, 2021 at 1:05 PM"], ["2021-03-03 10:30", "2021-03-03 13:05"]),
}  # fmt: skip


@in_turn("case", DATES)
def test_dates_with_words_are_read(case):
    cells, expected = DATES[case]
    reader, (read,) = learned(cells * 4)
    assert reader.kind == "date"
    assert read[: len(cells)].tolist() == [pd.Timestamp(text) for text in expected]


@pytest.mark.parametrize("as_text", [True, False])
def test_a_day_that_stands_for_none_is_missing(as_text):
    cells = ["9999-12-31", *(f"2020-01-{day:02d}" for day in range(1, 29))] + ["0000-00-00"] * as_text
    reader, (read,) = learned(cells if as_text else [datetime.datetime.fromisoformat(cell) for cell in cells])
    assert reader.kind == "date"
    assert reader.note == "column 'c': 1 cells are 9999-12-31, taken as missing"
    assert read.isna().tolist() == [True] + [False] * 28 + [True] * as_text


def test_a_column_of_both_orders_says_how_the_others_are_read():
    reader, (read,) = learned(["25/12/2020", "31/12/2020", "12/26/2020", "3/4/2020"] * 3)
    assert read[3] == pd.Timestamp("2020-04-03")
    assert "both orders of day and month occur ('25/12/2020', '12/26/2020'); read with the day first" in reader.note


@in_turn(
    ("cells", "kind"),
    [
        (["01067", "10115", "80331"], "category"),
        ([f"{number:05d}" for number in range(900, 960)], "identifier"),
        ([f"0{number}" for number in range(171234567, 171234590, 3)], "identifier"),
        (["007", "012", "123"], "category"),
        (['="01067"', '="10115"'], "category"),
        (["01", "02", "12"], "number"),  # months
        (["0", "0.50", "0.125"], "number"),
        (["000", "100", "00.5"], "number"),
        (["0", "10", "100"], "number"),
        ([f"+49 171 {number}" for number in range(2000000, 2000500, 7)], "identifier"),
        ([f"+49171{number}" for number in range(2000000, 2000500, 7)], "identifier"),
        ([f"(0{number}) 555-{number}" for number in range(200, 280)], "identifier"),
        ([f"{number:08x}-{number * 7:04x}" for number in range(4000, 4080)], "identifier"),
        ([f"order_{number}_de" for number in range(80)], "identifier"),
        ([f"{a};{b}{c}" for a in ("red", "blue") for b in ("big", "small") for c in (";", ";;", ";;;")] * 1, "text"),
        ([f"{name}{i}@{host}.com" for i, (name, host) in enumerate([("a", "x"), ("b", "y")] * 9)], "text"),
        (["10-20", "20-30"], "category"),
    ],
)  # fmt: skip
def test_what_is_no_number_is_none(cells, kind):
    reader, read = learned(cells * (1 if len(cells) > 5 else 4))
    assert reader.kind == kind
    if kind == "category" and cells[0].strip('="').startswith("0"):
        assert "has zeros in front, so it is no number" in reader.note
        assert read[0].iloc[0] == cells[0].strip('="')


@in_turn(
    ("form", "first"),
    [
        ("{a}.25, {b}.5", "-7.25"), ("({a}.25, {b}.5)", "-7.25"), ("POINT ({a}.25 {b}.5)", "-7.25"),
        ("{a}.25; {b}.5", "-7.25"), ("{b}/{c}", "4"), ("{b} x {c}", "4"), ("{b} - {c}", "4"), ("{b} to {c}", "4"),
    ],
)  # fmt: skip
def test_two_numbers_in_a_cell_are_two_columns(form, first):
    reader, read = learned([form.format(a=i - 7, b=i + 4, c=2 * i + 90) for i in range(60)])
    assert reader.kind == "number"
    assert [column.name for column in read] == ["c (1)", "c (2)"]
    assert float(read[0].iloc[0]) == float(first)
    assert np.isfinite(read[1]).all()
    assert "read as two numbers" in reader.note


@in_turn("mark", ["#N/A", "#DIV/0!", "–", ".", "k.A.", "n.d.", "\\N", "(null)", "..."])
def test_marks_of_missing_cells_do_not_cost_a_column(mark):
    reader, (read,) = learned([mark if i % 4 == 0 else f"{i / 7:.3f}" for i in range(60)])
    assert reader.kind == "number"
    assert read.isna().sum() == 15


@pytest.mark.parametrize("mark", ["<5", "> 100", "below limit", "$ -"])
def test_words_among_measurements_are_a_category_beside_them(mark):
    reader, read = learned([mark if i % 4 == 0 else f"{i / 7:.3f}" for i in range(60)])
    assert reader.kind == "number"
    assert [column.name for column in read] == ["c", "c (words)"]
    assert f"15 cells are no numbers ({mark!r}), a category" in reader.note


def test_zeros_in_front_stay_in_rows_that_were_never_seen():
    frame = pd.DataFrame({"zip": ["01067", "10115", "80331"] * 4})
    encoder = TableEncoder().fit(frame)
    assert encoder.get_feature_names_out().tolist() == ["zip_01067", "zip_10115", "zip_80331"]
    for rows in ([0], [1, 2], [0, 1, 2]):
        np.testing.assert_array_equal(encoder.transform(frame.iloc[rows]), np.eye(3)[rows])


@pytest.mark.parametrize("texts", [["21:03", "1:02:33", "0:45"], ["9:30", "23:05", "0:00"], ["37:30:05", "0:00:10"]])
def test_times_are_written_as_they_are_read(texts):
    clock = learn_clocks(texts)
    assert [clock.write(value) for value in clock.read(texts)] == texts


def test_labels_may_be_times_where_they_are_no_classes():
    times = pd.Series([f"{minute // 60}:{minute % 60:02d}:00" for minute in range(50, 110)], name="t")
    labels = read_labels(times, "auto")
    assert labels.task == "regression"
    assert labels.given.iloc[10] == 1
    assert labels.notes == ("labels: '0:50:00' read as 0.833333 h",)
    slots = pd.Series(["9:00", "9:30", "10:00"] * 20, name="t")
    assert read_labels(slots, "auto").task == "classification"
    assert read_labels(slots, "regression").given.tolist()[:3] == [9, 9.5, 10]


@in_turn("task", ["auto", "regression"])
@in_turn("word", ["-", "on request", "?"])
@in_turn("number", ["${}.50", "{}", "{} %"])
def test_words_among_numbers_to_predict_are_named_with_the_remedy(task, word, number):
    labels = pd.Series([word if i % 9 == 4 else number.format(i + 200) for i in range(60)], name="y", dtype=object)
    with pytest.raises(ValueError, match=f"--na-values .?{re.escape(word)}.? says that these are no labels"):
        read_labels(labels, task)
    assert read_labels(labels, task, frozenset({"", word})).task == "regression"


def test_words_in_a_sheet_of_numbers_to_predict_are_named_with_the_remedy():
    with pytest.raises(ValueError, match=r"'sold' in row 1 .* beside 1.5 in row 0; .*--na-values sold says"):
        read_labels(pd.Series([1.5, "sold", *range(50)], name="y", dtype=object), "auto")


@pytest.mark.parametrize(
    ("last", "is_total"), [("Total", True), ("Grand total:", True), ("Summe", True), ("i3", False)]
)
def test_a_last_row_that_sums_up_is_said(last, is_total):
    frame = pd.DataFrame({"weight": range(9), "item": [*(f"i{i}" for i in range(8)), last]})
    assert bool(last_row_sums_up(frame)) == is_total
    frame.loc[3, "item"] = last
    assert not last_row_sums_up(frame)


def test_features_that_tell_few_kinds_of_rows_apart_are_said():
    X = np.repeat(np.eye(4)[:, :3], 50, axis=0)
    assert "only 4 kinds of rows apart" in few_kinds(X)[0]
    assert not few_kinds(X[::20])
    assert not few_kinds(np.random.default_rng(0).normal(size=(200, 1)))


@pytest.mark.parametrize(
    ("cells", "kind", "first"),
    [
        ([["p", "q"], ["p"], [], None] * 5, "category", "p; q"),
        ([np.array(["p", "q"]), np.array(["q"])] * 5, "category", "p; q"),
        ([datetime.time(9, 30), datetime.time(18, 0, 36), None] * 5, "number", 9.5),
        ([datetime.timedelta(hours=1), datetime.timedelta(days=2), None] * 5, "number", 3600),
    ],
    ids=["lists", "arrays", "times", "durations"],
)
def test_objects_of_python_are_read(cells, kind, first):
    reader, (read,) = learned(cells)
    assert (reader.kind, read.iloc[0]) == (kind, first)
    assert read.isna().sum() == sum(cell is None or len(np.atleast_1d(cell)) == 0 for cell in cells)


@in_turn(
    ("cells", "kind"),
    [
        (pd.period_range("2020-01", periods=20, freq="M"), "date"),
        (pd.cut(np.arange(20.0), 3), "category"),
        (pd.Categorical([1, 2, None, 5] * 5), "number"),
        (pd.array([datetime.date(2020, 1, 1 + i) for i in range(20)], dtype=pd.ArrowDtype(pa.date32())), "date"),
        ([*(datetime.date(2020, 1, 1 + i) for i in range(20)), "2020-02-03", None], "date"),
        (np.array([2**63 + i % 7 for i in range(20)], dtype=np.uint64), "identifier"),
        (np.array([*(2**53 + i % 7 for i in range(20)), None], dtype=object), "identifier"),
        (pd.Categorical([*(2**53 + i % 7 for i in range(20)), None]), "identifier"),
        (["5", "6"] * 5 + [datetime.datetime(2020, 1, 2), datetime.date(2020, 3, 2), None] * 4, "category"),
        (np.arange(20) % 7 - 3, "number"),
    ],
)
def test_types_of_pandas_are_what_they_hold(cells, kind):
    column = pd.Series(cells, name="c")
    read = cells_of(column)
    reader = learn_column(column, read)
    assert reader.kind == kind
    assert not reader.is_used or reader.read("c", read)[0].notna().sum() == column.notna().sum()
