"""Formats beside plain text: what goes in comes out, in the same format exactly and in another one cell by cell."""

import bz2
import datetime
import gzip
import io
import json
import lzma
import sqlite3
import zipfile
from decimal import Decimal

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.feather as pf
import pyarrow.parquet as pq
import pytest

from sktda.cli.formats import line_bytes, read_source, write_frame
from sktda.cli.formats.base import Reading
from sktda.cli.formats.escapes import unescaped, visible, write_for_spreadsheet
from sktda.cli.formats.files import Input, write_bytes
from sktda.cli.formats.known import COMPRESSIONS, FORMATS
from tests.in_turn import in_turn

NOTHING = pd.DataFrame(index=range(4))
LONG = 2**53 + 1
GOOD = b"a,label\n1,x\n2,y\n"
WRITTEN = [end for format in FORMATS if format.is_table and format.is_written for end in format.endings]
CELLS = pd.DataFrame(
    {
        "id": pd.array([LONG, LONG + 2, LONG + 4, LONG + 6], dtype="Int64"),
        "count": pd.array([3, None, 5, 7], dtype="Int64"),
        "value": [1.5, 2.25, -3.0, 1e-7],
        "text": ["007", "a,b", "=1+1", 'says "no"\nGröße'],
        "label": ["x", "y", "x", "y"],
    }
)


def texts(path, reading=None):
    """Cells as text, as a review or another program would see them."""
    frame = read_source(path, reading).frame
    return frame.astype(object).where(frame.notna(), "").map(lambda c: repr(c) if isinstance(c, float) else str(c))


def opened(path):
    return Input.of(path).read()


@pytest.mark.parametrize("end", WRITTEN)
def test_integers_with_gaps_and_beyond_floats_come_out_of_every_format(tmp_path, end):
    """Written in the format, read, written as it is and as every other one, and still the integers that they were."""
    write_frame(CELLS, tmp_path / f"in{end}")
    source = read_source(tmp_path / f"in{end}")
    for out in (f"same{end}", "out.csv", "out.jsonl", "out.parquet", "out.xlsx", "out.sqlite"):
        source.write(tmp_path / out, np.array([0, 1, 3]), "label", {}, NOTHING)
        cells = texts(tmp_path / out)
        assert cells["id"].tolist() == [str(LONG), str(LONG + 2), str(LONG + 6)], out
        assert [cell.removesuffix(".0") for cell in cells["count"]] == ["3", "", "7"], out
        assert cells["text"].tolist() == [CELLS["text"][i] for i in (0, 1, 3)], out
        assert cells["label"].tolist() == ["x", "y", "y"], out


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("end", [".csv", ".jsonl", ".xlsx", ".parquet", ".sqlite", ".arff"])
def test_every_format_may_be_compressed(tmp_path, end, compression):
    path = tmp_path / f"x{end}{compression}"
    write_frame(CELLS, path)
    assert opened(path) != path.read_bytes()
    source = read_source(path)
    source.write(tmp_path / f"y{end}{compression}", np.arange(4), "label", {1: "x"}, NOTHING)
    assert texts(tmp_path / f"y{end}{compression}")["label"].tolist() == ["x", "x", "x", "y"]


def test_the_table_beside_descriptions_is_read_from_an_archive(tmp_path):
    for name, table in {"a": ("d/x.jsonl", b'{"a": 1}\n'), "b": ("x.npz", None), "c": ("x.csv", GOOD)}.items():
        data = table[1]
        if data is None:
            file = io.BytesIO()
            np.savez(file, X=np.eye(3), y=[0, 1, 0])
            data = file.getvalue()
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for member in ("README.txt", "__MACOSX/._x", ".DS_Store", "licence.pdf"):
                archive.writestr(member, b"...")
            archive.writestr(table[0], data)
        source = read_source(tmp_path / f"{name}.zip")
        assert len(source.frame) >= 1
        assert source.notes[0] == f"{table[0]} of {name}.zip was read; it also holds README.txt, licence.pdf"


def test_stata_files_are_read_with_their_labels(tmp_path):
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None, 3], "Int32").astype(float),
            "label": pd.Categorical(["p", "q", "p"]),
            "text": list("äöü"),
        }
    )
    frame.to_stata(tmp_path / "x.dta", write_index=False, version=118)
    source = read_source(tmp_path / "x.dta")
    source.write(tmp_path / "y.csv", np.array([1, 2]), "label", {2: "q"}, NOTHING)
    assert (tmp_path / "y.csv").read_text() == "n,label,text\n,q,ö\n3.0,q,ü\n"
    source.write(tmp_path / "y.parquet", np.array([0]), "label", {}, NOTHING)
    assert pq.read_table(tmp_path / "y.parquet").to_pylist() == [{"n": 1.0, "label": "p", "text": "ä"}]


def test_the_same_data_give_the_same_compressed_file(tmp_path):
    for compression in COMPRESSIONS:
        for name in ("a", "b"):
            write_bytes(tmp_path / f"{name}.csv{compression}", b"a,b\n1,2\n")
        assert (tmp_path / f"a.csv{compression}").read_bytes() == (tmp_path / f"b.csv{compression}").read_bytes()


def test_json_arrays_keep_their_objects_as_they_stand(tmp_path):
    kept = '{"id": 9007199254740993,  "n": 1.50, "label": "a"}'
    (tmp_path / "x.json").write_text(f'[\n  {kept},\n  {{"label":"b","more":[1]}} ]')
    source = read_source(tmp_path / "x.json")
    source.write(tmp_path / "y.json", np.arange(2), "label", {1: "a"}, NOTHING)
    assert (tmp_path / "y.json").read_text() == f'[\n{kept},\n{{"label": "a", "more": [1]}}\n]\n'
    extra = pd.DataFrame({"flag": [True, False]})
    source.write(tmp_path / "z.json", np.array([0]), "label", {}, extra)
    assert json.loads((tmp_path / "z.json").read_text())[0]["flag"] is True


@pytest.mark.parametrize("keys", [["data"], ["result", "records"]])
def test_objects_within_an_object_are_rows_and_what_is_around_them_stays(tmp_path, keys):
    before, after = '{ "ok":true, "n": {"m": [1, 2]}, ', ', "more": [{"page": 2}] }\n'
    for key in keys[:-1]:
        before, after = f'{before}"{key}": {{', f"}}{after}"
    objects = [f'{{"a": {i}.0, "label": "{"xy"[i % 2]}"}}' for i in range(4)]
    text = f'{before}"{keys[-1]}": [{", ".join(objects)}]{after}'
    (tmp_path / "x.json").write_text(text)
    source = read_source(tmp_path / "x.json")
    assert source.frame["label"].tolist() == ["x", "y", "x", "y"]
    assert f"{'.'.join(keys)!r}; what stands around them stays" in source.notes[0]
    source.write(tmp_path / "y.json", np.array([1, 3]), "label", {3: "x"}, NOTHING)
    changed = objects[3].replace('"y"', '"x"')
    assert (tmp_path / "y.json").read_text() == f'{before}"{keys[-1]}": [\n{objects[1]},\n{changed}\n]{after}'


@pytest.mark.parametrize("end", [".jsonl", ".json"])
def test_objects_in_cells_are_columns_and_come_out_as_they_were(tmp_path, end):
    rows = [{"id": i, "at": {"city": "pq"[i % 2], "geo": {"lat": i / 2}}, "a.b": 1, "a": {"b": 2}} for i in range(4)]
    rows[2]["at"] = None
    texts_of = [json.dumps(row, indent=None) for row in rows]
    (tmp_path / f"x{end}").write_text("\n".join(texts_of) if end == ".jsonl" else f"[{','.join(texts_of)}]")
    source = read_source(tmp_path / f"x{end}")
    assert source.frame.columns.tolist() == ["id", "at.city", "at.geo.lat", "a.b", "a"]
    assert source.frame["at.geo.lat"].tolist() == [0, 0.5, None, 1.5]
    rows[1]["at"]["city"], rows[2]["at"] = "p", {"city": "q"}
    for out in ("y.jsonl", "y.json", "y.parquet"):
        source.write(tmp_path / out, np.array([0, 1, 2]), "at.city", {1: "p", 2: "q"}, NOTHING)
    assert [json.loads(line) for line in (tmp_path / "y.jsonl").read_text().splitlines()] == rows[:3]
    assert json.loads((tmp_path / "y.json").read_text()) == rows[:3]
    assert pq.read_table(tmp_path / "y.parquet")["at"].to_pylist()[:2] == [row["at"] for row in rows[:2]]
    source.write(tmp_path / "z.jsonl", np.arange(4), "at.city", {}, NOTHING)
    assert (tmp_path / "z.jsonl").read_text().splitlines() == texts_of or end == ".json"
    with pytest.raises(ValueError, match="'a' holds lists or records"):
        source.write(tmp_path / "y.csv", np.arange(4), "at.city", {}, NOTHING)


def test_json_of_lines_is_read_and_kept_as_lines(tmp_path):
    text = '{"a": 1, "label": "x"}\n{"a":2, "label": "y"}\n'
    (tmp_path / "x.json").write_text(text)
    read_source(tmp_path / "x.json").write(tmp_path / "y.json", np.arange(2), "label", {}, NOTHING)
    assert (tmp_path / "y.json").read_text() == text


ARFF = """% made by hand
@relation 'a b'
@attribute 'the size' NUMERIC
@attribute colour {red, 'dark blue'} % of the bike
@attribute day date "yyyy-MM-dd"
@ATTRIBUTE class {p,q}
@DATA
1.50,red,2020-01-01,p
% a comment
?,'dark blue',2020-01-02,q
3, red ,2020-01-03,p
"""


def test_arff_lines_stay_and_changed_ones_are_valid(tmp_path):
    (tmp_path / "x.arff").write_text(ARFF)
    source = read_source(tmp_path / "x.arff")
    assert source.frame["the size"].isna().tolist() == [False, True, False]
    assert source.frame["colour"].tolist() == ["red", "dark blue", "red"]
    source.write(tmp_path / "y.arff", np.array([0, 2]), "class", {}, NOTHING)
    lines = ARFF.splitlines(keepends=True)
    assert (tmp_path / "y.arff").read_text() == "".join([*lines[:8], lines[10]])
    flags = pd.DataFrame({"flag": [True, False, True]})
    source.write(tmp_path / "z.arff", np.arange(3), "class", {1: "p"}, flags)
    again = read_source(tmp_path / "z.arff").frame
    assert again["class"].tolist() == ["p", "p", "p"]
    assert again["colour"].tolist() == ["red", "dark blue", "red"]
    assert again["flag"].tolist() == ["True", "False", "True"]


def test_feather_keeps_schema_and_values(tmp_path):
    table = pa.table({"n": pa.array([1, None], pa.int8()), "label": pa.array(["a", "b"]).dictionary_encode()})
    pf.write_feather(table, tmp_path / "x.feather")
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    for name in ("x.feather", "x.arrow"):
        source = read_source(tmp_path / name)
        source.write(tmp_path / f"out-{name}", np.array([1]), "label", {1: "a"}, NOTHING)
        written = pf.read_table(tmp_path / f"out-{name}")
        assert written.schema == table.schema
        assert written.to_pylist() == [{"n": None, "label": "a"}]


ARROW_COLUMNS = {
    "binary": pa.array([b"p", b"q", b"p"]),
    "dictionary": pa.array(["p", "q", "p"]).dictionary_encode(),
    "string_view": pa.array(["p", "q", "p"], pa.string_view()),
    "large": pa.array(["p", "q", "p"], pa.large_string()),
    "int8": pa.array([1, 2, 1], pa.int8()),
    "bool": pa.array([True, False, True]),
}


@pytest.mark.parametrize("name", ARROW_COLUMNS)
def test_labels_of_every_type_of_arrow_keep_their_type(tmp_path, name):
    column = ARROW_COLUMNS[name]
    pq.write_table(pa.table({"label": column, "x": [1, 2, 3]}), tmp_path / "x.parquet")
    source = read_source(tmp_path / "x.parquet")
    cells = source.frame["label"].tolist()
    assert cells[0] == cells[2] != cells[1]
    assert cells[0] in ("p", 1, True)
    source.write(tmp_path / "y.parquet", np.arange(3), "label", {1: cells[0]}, NOTHING)
    written = pq.read_table(tmp_path / "y.parquet")["label"]
    assert written.type == pq.read_table(tmp_path / "x.parquet")["label"].type
    assert written.to_pylist() == [column[0].as_py()] * 3


def test_decimals_and_dates_of_arrow_are_written_as_they_are(tmp_path):
    table = pa.table(
        {
            "price": pa.array([Decimal("1.10"), None, Decimal("12345678901234567.89")], pa.decimal128(20, 2)),
            "day": pa.array([datetime.date(2020, 1, 2), None, datetime.date(1800, 1, 1)]),
            "label": ["a", "b", "a"],
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    source = read_source(tmp_path / "x.parquet")
    source.write(tmp_path / "y.csv", np.arange(3), "label", {}, NOTHING)
    assert (tmp_path / "y.csv").read_text() == (
        "price,day,label\n1.10,2020-01-02,a\n,,b\n12345678901234567.89,1800-01-01,a\n"
    )
    source.write(tmp_path / "y.parquet", np.arange(3), "label", {}, NOTHING)
    assert pq.read_table(tmp_path / "y.parquet").equals(table)


@pytest.mark.parametrize("out", ["y.csv", "y.tsv", "y.xlsx", "y.ods", "y.arff", "y.sqlite"])
@pytest.mark.parametrize("nested", [pa.array([[1], [2, 3]]), pa.array([{"a": 1}, {"a": 2}])], ids=["list", "record"])
def test_nested_cells_are_refused_by_name_where_there_is_no_place_for_them(tmp_path, nested, out):
    pq.write_table(pa.table({"words": nested, "label": ["a", "b"]}), tmp_path / "x.parquet")
    source = read_source(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"'words' holds lists or records.*\.jsonl|lists and records cannot"):
        source.write(tmp_path / out, np.arange(2), "label", {}, NOTHING)
    assert not (tmp_path / out).exists()
    source.write(tmp_path / "y.parquet", np.arange(2), "label", {}, NOTHING)
    assert pq.read_table(tmp_path / "y.parquet")["words"].to_pylist() == nested.to_pylist()
    source.write(tmp_path / "y.jsonl", np.arange(2), "label", {}, NOTHING)
    again = [json.loads(line)["words"] for line in (tmp_path / "y.jsonl").read_text().splitlines()]
    assert again == nested.to_pylist()


@pytest.mark.parametrize("name", ["x.parquet", "x.feather"])
def test_fields_of_records_are_columns_and_the_records_stay(tmp_path, name):
    rows = [{"n": i, "at": {"city": "pq"[i % 2], "geo": {"lat": i / 2}}} for i in range(4)]
    table = pa.Table.from_pylist(rows)
    {"x.parquet": pq.write_table, "x.feather": pf.write_feather}[name](table, tmp_path / name)
    source = read_source(tmp_path / name)
    assert source.frame.columns.tolist() == ["n", "at.city", "at.geo.lat"]
    source.write(tmp_path / f"y-{name}", np.array([1, 2]), "at.city", {}, NOTHING)
    assert {"x.parquet": pq.read_table, "x.feather": pf.read_table}[name](tmp_path / f"y-{name}") == table.slice(1, 2)
    source.write(tmp_path / "y.jsonl", np.array([1, 2]), "at.city", {}, NOTHING)
    assert [json.loads(line) for line in (tmp_path / "y.jsonl").read_text().splitlines()] == rows[1:3]
    with pytest.raises(ValueError, match=r"'at\.city' is within another, where labels cannot be changed"):
        source.write(tmp_path / f"z-{name}", np.arange(4), "at.city", {1: "p"}, NOTHING)


def test_texts_that_are_no_utf8_are_refused_when_they_are_read(tmp_path):
    text = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], "i4")), pa.py_buffer(b"\xffa")]
    )
    pq.write_table(pa.table({"a": text, "label": ["x", "y"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet cannot be read as Parquet .*UTF8"):
        read_source(tmp_path / "x.parquet")


def test_bytes_that_are_no_text_are_refused_by_name(tmp_path):
    pq.write_table(pa.table({"blob": [b"\xff\x00", b"\xfe"], "label": ["a", "b"]}), tmp_path / "x.parquet")
    source = read_source(tmp_path / "x.parquet")
    for out, message in (("y.csv", "'blob' holds bytes.*write the format"), ("y.jsonl", "'blob' holds bytes")):
        with pytest.raises(ValueError, match=message):
            source.write(tmp_path / out, np.arange(2), "label", {}, NOTHING)


def workbook(path, **sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)


TABLE = [["size", "day", "label"], [1, datetime.date(2020, 1, 2), "a"], [2.5, None, "b"], [None, None, "a"]]


def test_a_sheet_is_read_with_its_types_and_written_with_its_name(tmp_path):
    workbook(tmp_path / "x.xlsx", Data=[["My table"], [], *TABLE], Notes=[["nothing here"]])
    source = read_source(tmp_path / "x.xlsx")
    assert source.frame["size"].tolist()[:2] == [1.0, 2.5]
    assert source.frame["day"].tolist() == [datetime.date(2020, 1, 2), None, None]
    assert any("sheet 'Data' was read" in note for note in source.notes)
    assert any("'My table'" in note for note in source.notes)
    source.write(tmp_path / "y.xlsx", np.array([0, 2]), "label", {2: "b"}, pd.DataFrame({"flag": [1, 2, 3]}))
    sheet = openpyxl.load_workbook(tmp_path / "y.xlsx")["Data"]
    rows = [[cell for cell in row if cell is not None] for row in sheet.iter_rows(values_only=True)]
    assert rows[0] == ["My table"]
    assert rows[-3:] == [["size", "day", "label", "flag"], [1, datetime.datetime(2020, 1, 2), "a", 1], ["b", 3]]


def test_hidden_sheets_are_not_asked_for(tmp_path):
    book = openpyxl.Workbook()
    for sheet in (book.active, book.create_sheet("hidden")):
        for row in TABLE:
            sheet.append(row)
    book["hidden"].sheet_state = "hidden"
    book.save(tmp_path / "x.xlsx")
    assert read_source(tmp_path / "x.xlsx").notes == ()
    assert read_source(tmp_path / "x.xlsx", Reading(part="hidden")).name == "hidden"


def test_the_sheet_of_several_is_asked_for(tmp_path):
    workbook(tmp_path / "x.xlsx", One=TABLE, Two=[["u", "label"], [5, "p"], [6, "q"]])
    with pytest.raises(ValueError, match="several sheets: 'One', 'Two'; name one with --sheet"):
        read_source(tmp_path / "x.xlsx")
    for part in ("Two", "2"):
        assert read_source(tmp_path / "x.xlsx", Reading(part=part)).frame["u"].tolist() == [5, 6]
    with pytest.raises(ValueError, match="no sheet 'Three'; it has 'One', 'Two'"):
        read_source(tmp_path / "x.xlsx", Reading(part="Three"))


@pytest.mark.parametrize("name", ["y.xlsx", "y.ods"])
def test_spreadsheets_never_get_formulas(tmp_path, name):
    formulas = ["=1+1", "+1", "-a", "@x", "\tx", "plain"]
    write_frame(pd.DataFrame({"text": formulas, "=A1": list("abcdef")}), tmp_path / name)
    assert texts(tmp_path / name)["text"].tolist() == formulas if name == "y.xlsx" else True
    if name == "y.xlsx":
        cells = [cell for row in openpyxl.load_workbook(tmp_path / name).active.iter_rows() for cell in row]
        assert {cell.data_type for cell in cells} == {"s"}
        assert all(cell.quotePrefix == cell.value.startswith(("=", "+", "-", "@", "\t")) for cell in cells)
    else:
        content = zipfile.ZipFile(tmp_path / name).read("content.xml")
        assert b"formula" not in content


@pytest.mark.parametrize("name", ["s.csv", "s.tsv", "s.txt.gz"])
def test_text_for_spreadsheets_has_quotes_before_formulas_and_gives_them_back(tmp_path, name):
    cells = ["=1+1", "+1 2", "-5", "-5 x", "@x", "\tx", "'=1", "'plain", "1.5", "\r=x"]
    frame = pd.DataFrame({"text": cells, "-score": np.arange(len(cells)) - 5.0})
    write_for_spreadsheet(frame, tmp_path / name)
    written = read_source(tmp_path / name).frame
    assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in written["text"])
    assert written["text"].tolist()[2] == "-5"
    assert written.iloc[0, 1] == "-5.0"
    again = unescaped(written)
    assert again["text"].tolist() == cells
    assert again.columns.tolist() == ["text", "-score"]


@in_turn(
    ("text", "shown"),
    [
        ("\x1b]0;pwned\x07", "\\x1b]0;pwned\\x07"),
        ("a\x9b31mb", "a\\x9b31mb"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("a\r\x08b\x7f", "a\\r\\x08b\\x7f"),
        ("Größe 日本 👩\u200d🔬\nnext", "Größe 日本 👩\u200d🔬\nnext"),
        ("a\u00a0b\u2028", "a\u00a0b\\u2028"),
    ],
)
def test_what_terminals_act_upon_is_shown(text, shown):
    assert visible(text) == shown


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute('CREATE TABLE people (id INTEGER, "the name" TEXT, label VARCHAR(3))')
    connection.executemany("INSERT INTO people VALUES (?, ?, ?)", [(LONG, "a", "x"), (None, "b", "y"), (3, None, "x")])
    connection.execute("CREATE TABLE other (a, b)")
    connection.commit()
    connection.close()
    return path


def test_a_table_of_a_database_is_read_and_written_with_its_types(database, tmp_path):
    before = database.read_bytes()
    with pytest.raises(ValueError, match="has the tables 'other', 'people'; name one with --table"):
        read_source(database)
    with pytest.raises(ValueError, match="has no table 'dogs'; it has 'other', 'people'"):
        read_source(database, Reading(part="dogs"))
    source = read_source(database, Reading(part="people"))
    assert source.frame["id"].tolist() == [LONG, None, 3]
    source.write(tmp_path / "y.db", np.array([0, 1]), "label", {1: "x"}, NOTHING)
    connection = sqlite3.connect(tmp_path / "y.db")
    assert connection.execute("SELECT * FROM people").fetchall() == [(LONG, "a", "x"), (None, "b", "x")]
    assert [column[2] for column in connection.execute("PRAGMA table_info(people)")] == [
        "INTEGER",
        "TEXT",
        "VARCHAR(3)",
    ]
    connection.close()
    assert database.read_bytes() == before


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT nowhere FROM people", "no such column: nowhere"),
        ("DROP TABLE people", "returns no rows; give a SELECT"),
        ("SELECT 1; SELECT 2", "cannot be read as SQLite"),
        ("SELECT * FROM other", "the query of x.db has no rows"),
    ],
)
def test_queries_that_return_nothing_are_refused_and_change_nothing(database, query, message):
    before = database.read_bytes()
    with pytest.raises(ValueError, match=message):
        read_source(database, Reading(query=query))
    assert database.read_bytes() == before


def test_a_query_is_a_table(database):
    found = read_source(database, Reading(query='SELECT id + 1 AS next, label FROM people WHERE "the name" = "a"'))
    assert found.frame.to_dict("list") == {"next": [LONG + 1], "label": ["x"]}


def test_a_database_that_is_in_use_is_refused(database):
    connection = sqlite3.connect(database)
    connection.execute("INSERT INTO other VALUES (1, 2)")
    connection.commit()
    try:
        with pytest.raises(ValueError, match=r"is in use: x\.db-wal holds changes"):
            read_source(database, Reading(part="people"))
    finally:
        connection.close()


HEADERS = {
    "numbers below names": ("a,b\n1,x\n2,y\n", ["a", "b"]),
    "years beside a name": ("country,2019,2020\nFrance,1.5,2\nChad,3,4\n", ["country", "2019", "2020"]),
    "numbers that count up": ("0,1,2\n0.5,2,7\n0.25,3,9\n", ["0", "1", "2"]),
    "only words": ("colour,size\nred,big\nblue,big\n", ["colour", "size"]),
    "a class named like its column": ("a,y\n1,y\n2,n\n3,y\n", ["a", "y"]),
    "a number sign": ("#,Name,Attack\n1,Bulbasaur,49\n2,Ivysaur,62\n", ["#", "Name", "Attack"]),
    "a comment above": ("# made by hand\n# in 2020\nid,label\n1,x\n2,y\n", ["id", "label"]),
    "names in a comment": ("# id label\n1 5\n2 6\n", ["id", "label"]),
    "a title above": ("Results of May\n\nid,size,label\n1,5,x\n2,6,y\n", ["id", "size", "label"]),
    "an empty title row": ("Results,,\n,,\nid,size,label\n1,5,x\n2,6,y\n", ["id", "size", "label"]),
    "aligned": ("id   size  label\n1     5.5  x\n22   -6    y\n", ["id", "size", "label"]),
    "R's tabs": ("size\tlabel\ng1\t5\tx\ng2\t6\ty\n", ["", "size", "label"]),
    "twice": ("a,b,a\n1,2,x\n3,4,y\n", ["a (1)", "b", "a (2)"]),
    "more delimiters in some rows": ("a,b\n1,x,,\n2,y,\n3,z\n", ["a", "b"]),
    "iris.data": ("5.1,3.5,setosa\n4.9,3.0,setosa\n6.3,2.5,virginica\n", None),
    "haberman.data": ("30,64,1,1\n30,62,3,1\n31,59,2,2\n", None),
    "mushrooms": ("p,x,s\ne,x,s\np,b,y\ne,x,y\n", None),
    "SMS": ("ham\tGo until jurong point crazy\nspam\tFree entry in a comp\nham\tOk lar joking wif u\n", None),
    "missing cell first": ("?,3.5,a\n4.9,3.0,a\n6.3,2.5,b\n", None),
    "times beside numbers": ("1 10:30 5\n2 11:45 7\n4 9:15 8\n", None),
    "dates": ("2020-01-01,5.5,x\n2020-01-02,6.5,x\n2020-01-03,7.5,y\n", None),
}


@in_turn("case", HEADERS)
def test_the_header_is_found_or_said_to_be_missing(tmp_path, case):
    text, names = HEADERS[case]
    (tmp_path / "x.csv").write_text(text)
    source = read_source(tmp_path / "x.csv")
    n_lines = len([line for line in text.splitlines() if line.strip(" ,")])
    if names is None:
        assert source.frame.columns.tolist() == [f"column {i + 1}" for i in range(source.frame.shape[1])]
        assert len(source.frame) == n_lines
        assert any("'column 1' and so on" in note for note in source.notes)
    else:
        assert source.frame.columns.tolist() == names
    kept = np.arange(1, len(source.frame))
    source.write(tmp_path / "y.csv", kept, source.frame.columns[-1], {}, pd.DataFrame(index=range(len(source.frame))))
    lines = text.splitlines(keepends=True)
    first = lines.index(source.records[0])
    assert (tmp_path / "y.csv").read_text() == "".join(lines[:first] + lines[first + 1 :])


BELOW = {
    "units": ("a,b,label\n", "kg,€,\n", "1,2.5,x\n2,3.5,y\n3,4,x\n"),
    "units in brackets": ("a;b;label\n", "[kg];(m/s);[-]\n", "1;2,5;x\n2;3,5;y\n3;4;x\n"),
    "units above words": ("a,b,label\n", "mg/dl,,\n", "<5,2.5,x\n2,n.d.,y\n3,4,x\n5,6,x\n"),
    "types": ("a,b,label\n", "int,float,string\n", "1,2.5,x\n2,3.5,y\n3,4,x\n"),
    "a line": ("a    b label\n", "---- - -----\n", "1    2 x\n2    3 y\n"),
    "Markdown": ("| a | label |\n", "|---|:---:|\n", "| 1 | x |\n| 2 | y |\n"),
    "two lines of names": (",g,g,label\n", ",a,b,\n", "0,1,5,x\n1,2,7,y\n2,3,9,x\n"),
    "a missing cell is no unit": ("a,b,label\n", "", "n/a,2.5,x\n2,3.5,y\n3,4,x\n"),
    "nor is a word": ("a,b,label\n", "", "low,2.5,x\n2,3.5,y\n3,4,x\n"),
    "nor a label": ("a,label\n", "", "m,x\n2,x\n3,y\n"),
    "nor in a column of words": ("a,label\n", "", "kg,x\nm,y\nl,x\n"),
}


@in_turn("case", BELOW)
def test_units_and_the_like_under_the_header_are_no_row_and_stay(tmp_path, case):
    header, below, rows = BELOW[case]
    (tmp_path / "x.csv").write_text(header + below + rows)
    source = read_source(tmp_path / "x.csv")
    assert [len(source.frame), source.line_numbers[0]] == [rows.count("\n"), 2 + bool(below)]
    assert any("is no row, and stays" in note for note in source.notes) == bool(below)
    extra = pd.DataFrame(index=range(len(source.frame)))
    source.write(tmp_path / "y.csv", np.array([1]), "label", {}, extra)
    assert (tmp_path / "y.csv").read_text() == header + below + rows.splitlines(keepends=True)[1]


def test_units_under_the_header_of_a_sheet_are_no_row_and_stay(tmp_path):
    rows = [
        ("Report", "2021"),
        (),
        ("a", "b", "label"),
        ("kg", "m", None),
        *((i, i / 3, "xy"[i % 2]) for i in range(9)),
    ]
    workbook(tmp_path / "x.xlsx", Data=rows)
    source = read_source(tmp_path / "x.xlsx")
    assert source.frame["a"].tolist() == list(range(9))
    assert source.line_numbers[0] == 5
    assert [note.split("(")[0] for note in source.notes] == [
        "rows above the header are no rows, and stay ", "the row below the header, 'kg, m', is no row, and stays"
    ]  # fmt: skip
    source.write(tmp_path / "y.xlsx", np.array([3]), "label", {}, pd.DataFrame(index=range(9)))
    assert read_source(tmp_path / "y.xlsx", Reading(header=False)).frame.to_numpy().tolist()[-3:] == [
        ["a", "b", "label"], ["kg", "m", None], [3, 1, "y"]
    ]  # fmt: skip


DELIMITED = {
    "spaces behind commas": 'a, "b, c", label\n1, "x, y", p\n2, "z", q\n',
    "spaces around bars": "a | b, c | label\n1 | x, y | p\n2 | z | q\n",
    "carets": "a^b, c^label\n1^x, y^p\n2^z^q\n",
    "tildes": "a~b, c~label\n1~x, y~p\n2~z~q\n",
    "control characters": "a\x01b, c\x01label\n1\x01x, y\x01p\n2\x01z\x01q\n",
    "names in spaces": " a ;b, c; label\n1;x, y;p\n2;z;q\n",
}


@pytest.mark.parametrize("case", DELIMITED)
def test_cells_are_found_whatever_stands_between_them(tmp_path, case):
    (tmp_path / "x.txt").write_text(DELIMITED[case])
    source = read_source(tmp_path / "x.txt")
    assert source.frame.columns.tolist() == ["a", "b, c", "label"]
    assert [cell.strip() for cell in source.frame["b, c"]] == ["x, y", "z"]
    source.write(tmp_path / "y.txt", np.arange(2), "label", {0: "q"}, pd.DataFrame({"flag": [1, 2]}))
    again = read_source(tmp_path / "y.txt").frame
    assert [[cell.strip() for cell in row] for row in again.to_numpy()] == [
        ["1", "x, y", "q", "1"],
        ["2", "z", "q", "2"],
    ]


def test_the_user_decides_about_the_header(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,x\n2,y\n")
    assert read_source(tmp_path / "x.csv", Reading(header=False)).frame["column 1"].tolist() == ["a", "1", "2"]
    (tmp_path / "x.csv").write_text("1.5,x\n2.5,x\n3.5,y\n")
    assert read_source(tmp_path / "x.csv", Reading(header=True)).frame["1.5"].tolist() == ["2.5", "3.5"]
    (tmp_path / "x.csv").write_text("p,y\ny,y\nn,y\ny,p\np,n\n")  # looks like rows, but the user names a column
    assert list(read_source(tmp_path / "x.csv", Reading(named=("y",))).frame) == ["p", "y"]


def test_relabelled_rows_of_aligned_and_ragged_text_stay_readable(tmp_path):
    for text in ("id   size  label\n1     5.5  x\n22   -6    y\n", "id,size,label\n1,5.5,x,,\n22,-6,y\n"):
        (tmp_path / "x.csv").write_text(text)
        source = read_source(tmp_path / "x.csv")
        flags = pd.DataFrame({"flag": ["p", "q"]})
        source.write(tmp_path / "y.csv", np.arange(2), "label", {0: "y"}, flags)
        again = read_source(tmp_path / "y.csv").frame
        assert again["label"].tolist() == ["y", "y"]
        assert again["flag"].tolist() == ["p", "q"]
        assert again["size"].tolist() == ["5.5", "-6"]


def test_rows_know_their_lines(tmp_path):
    """From 1, as editors and spreadsheets count them, whatever stands between and above."""
    texts = {
        "plain.csv": "a,label\n1,x\n\n2,y\n",
        "quotes.csv": '\n\n"a",label\n"1\n",x\n\n2,y\n',
        "title.csv": "Results\n\na,label\r\n1,x\r\n\r\n2,y",
        "x.jsonl": '\n{"label": "x"}\n\n{"label": "y"}',
        "x.arff": "@relation x\n@attribute label {x,y}\n\n@data\n% no row\nx\n\ny\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
        found = [text.splitlines()[line - 1] for line in read_source(tmp_path / name).line_numbers]
        assert found[0] in ("1,x", '"1', '{"label": "x"}', "x"), name
        assert found[1] in ("2,y", '{"label": "y"}', "y"), name
    book = openpyxl.Workbook()
    for at, value in {"B3": "Title", "B5": "a", "C5": "label", "B7": 1, "C7": "x", "B9": 2, "C9": "y"}.items():
        book.active[at] = value
    book.save(tmp_path / "x.xlsx")
    assert read_source(tmp_path / "x.xlsx").line_numbers.tolist() == [7, 9]


@pytest.mark.parametrize("encodings", [("utf-8",), ("cp1252",), ("utf-8", "cp1252")], ids="+".join)
def test_files_of_two_encodings_stay_as_they_are_and_it_is_said(tmp_path, encodings):
    lines = [f"größe {i},{'xy'[i % 2]}\n".encode(encodings[i % len(encodings)]) for i in range(8)]
    (tmp_path / "x.csv").write_bytes(b"a,label\n" + b"".join(lines))
    source = read_source(tmp_path / "x.csv")
    assert any("some letters are wrong" in note for note in source.notes) == (len(encodings) == 2)
    source.write(tmp_path / "y.csv", np.arange(8), "label", {}, pd.DataFrame(index=range(8)))
    assert (tmp_path / "y.csv").read_bytes() == (tmp_path / "x.csv").read_bytes()


def zipped(**members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return data.getvalue()


BAD = {
    "cut.csv.gz": (gzip.compress(GOOD * 99)[:40], "cut.csv.gz is not a whole compressed file"),
    "cut.csv.bz2": (bz2.compress(GOOD * 99)[:40], "not a whole compressed file"),
    "cut.csv.xz": (lzma.compress(GOOD * 99)[:60], "not a whole compressed file"),
    "no.csv.zst": (GOOD, "not a whole compressed file"),
    "no.csv.zip": (GOOD, "not a whole ZIP archive"),
    "new.csv.zip": (zipped(a_csv=GOOD).replace(b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\xe1"), "version 22.5"),
    "new.xlsx": (zipped(a_csv=GOOD).replace(b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\xe1"), "as an Excel file"),
    "two.zip": (zipped(a_csv=GOOD, b_csv=GOOD), r"holds 2 files \(a.csv, b.csv\); one table is read: extract it"),
    "none.zip": (zipped(), "holds 0 files"),
    "doc.zip": (zipped(a_pdf=b"%PDF-1.4"), "a PDF file; export its table as CSV"),
    "x": (b"%PDF-1.4 ...", "x is a PDF file"),
    "page": (b"<!DOCTYPE html><table>", "a web page or XML file"),
    "pickle.data1": (b"\x80\x05\x95", "a pickle, which is never read"),
    "array": (b"\x93NUMPY\x01", "a single array; write X and y with numpy.savez"),
    "h5": (b"\x89HDF\r\n", "an HDF5 file"),
    "x.png": (b"\x89PNG", r"unknown ending '\.png'; allowed are \.csv"),
    "x.pdf": (b"%PDF-1.4", "a document; export its table as .csv"),
    "x.docx": (zipped(a_xml=b"x"), "a document; export its table as .csv"),
    "x.sav": (b"$FL2@(#)", "an SPSS file; save it there as .csv or .dta"),
    "x.sas7bdat": (b"\0" * 99, r"a SAS file; write pandas.read_sas\(...\) as .csv or .parquet"),
    "x.XPT": (b"HEADER RECORD*******LIBRARY", "a SAS file"),
    "x.RData": (b"RDX3\n", r"a file of R's; write the table there with write\.csv"),
    "x.pkl.gz": (gzip.compress(b"\x80"), "a pickle, which is never read"),
    "x.npy": (b"\x93NUMPY\x01", "write X and y with numpy.savez as .npz"),
    "x.svm": (b"1 1:0.5\n", "a LIBSVM file; read it with sklearn.datasets.load_svmlight_file"),
    "svm.txt": (b"-1 3:0.5 7:1\n+1 1:.5\n" * 9, "a LIBSVM file; read it with sklearn.datasets.load_svmlight_file"),
    "x.tar.gz": (gzip.compress(GOOD), "an archive of a kind that is not read; extract it"),
    "x.7z": (b"7z", "an archive of a kind that is not read; extract it"),
    "x.dta": (b"<stata_dta>", "cannot be read as a Stata file .*export it as .csv"),
    "x.csv.": (b"\x00\x01\x02\x03zz", "in no format that is known here|zero bytes"),
    "x.json": (b"[1, 2]", r"element 0 \(counted from 0\): a JSON int; every element"),
    "cut.json": (b'[{"a": 1}, ', "ends within its array; was it cut off"),
    "comma.json": (b'[{"a": 1} {"a": 2}]', "where a comma or ] is needed"),
    "more.json": (b'[{"a": 1}] x', "goes on after the end of its array"),
    "word.json": (b'"hello"', "begins with '\"'; an array of objects is needed"),
    "object.json": (b'{"data": [\n1]}', "one object, and no array of objects is in it"),
    "columns.json": (b'{"a": {"0": 1}, "y": {"0": 2}}', r"as pandas writes it by default; .*orient='records'"),
    "split.json": (b'{"columns": ["a"], "data": [[1], [2]]}', r"as pandas writes it by default; .*orient='records'"),
    "lists.json": (b'{"meta": {"columns": [{"a": 1}, {"a": 2}]}, "data": [[1], [2]]}', "arrays without names .'data'"),
    "several.json": (
        b'{"a": [{"x": 1}, {"x": 2}], "b": [{"x": 1}, {"x": 2}]}',
        "several arrays: 'a', 'b'; write the one",
    ),
    "broken.json": (b'{"data": [{"a": 1}, {', "neither an array of objects nor one object per line"),
    "empty.json": (b" ", "empty.json is empty"),
    "none.json": (b"[]", "none.json is empty"),
    "latin.json": (b'[{"a": "\xff"}]', "save it as UTF-8"),
    "x.xlsx": (zipped(a=b"x"), "cannot be read as an Excel file"),
    "x.ods": (GOOD, "cannot be read as an OpenDocument spreadsheet"),
    "x.xls": (GOOD, "it holds text; rename it to end with .csv"),
    "web.xls": (b"<html><table>", "it is a web page or XML file; export its table as CSV"),
    "cut.xlsx": (b"PK\x03\x04zz", "cannot be read as an Excel file .*save it again"),
    "x.feather": (GOOD, "cannot be read as Feather"),
    "x.arff": (b"@relation x\n@attribute a numeric\n", "no line @data"),
    "rows.arff": (b"@relation x\n@attribute a numeric\n@data\n% nothing\n", "no rows below @data"),
    "sparse.arff": (b"@relation x\n@attribute a numeric\n@data\n{0 1}\n", "sparse rows"),
    "type.arff": (b"@relation x\n@attribute a what\n@data\n1\n", "cannot be read as ARFF: Bad @ATTRIBUTE"),
    "value.arff": (b"@relation x\n@attribute a {p}\n@data\nq\n", "cannot be read as ARFF"),
    "x.sqlite": (b"SQLite format 3\0" + b"\0" * 100, "cannot be read as SQLite"),
    "text.db": (GOOD, "cannot be read as SQLite"),
    "ragged": (b"a,b\n1,2\n1,2,3\n", "line 3: 3 fields where the header has 2"),
    "noheader.data": (b"1.5,2.5\n3.5\n4.5,1.5\n", "line 2: 1 fields where the first row has 2"),
}


@in_turn("name", BAD)
def test_a_bad_file_gives_one_clear_sentence(tmp_path, name):
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        read_source(tmp_path / name)
    assert name in str(caught.value)
    assert (tmp_path / name).read_bytes() == data


@pytest.mark.parametrize("name", ["x.parquet", "x.feather"])
def test_duplicate_names_of_arrow_are_told_apart(tmp_path, name):
    table = pa.Table.from_arrays([pa.array([1, 2]), pa.array(["x", "y"]), pa.array(["p", "q"])], names=["a", "b", "b"])
    if name == "x.parquet":
        pq.write_table(table, tmp_path / name)
    else:
        with pa.OSFile(str(tmp_path / name), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    source = read_source(tmp_path / name)
    assert list(source.frame) == ["a", "b (1)", "b (2)"]
    source.write(tmp_path / f"y-{name}", np.array([1]), "b (2)", {1: "p"}, NOTHING)
    assert read_source(tmp_path / f"y-{name}").frame.to_numpy().tolist() == [[2, "y", "p"]]


@pytest.mark.parametrize("reading", [{"part": "x"}, {"query": "SELECT 1"}, {"level": 2}], ids=str)
def test_options_that_would_do_nothing_are_refused(tmp_path, reading):
    (tmp_path / "x.csv").write_bytes(GOOD)
    with pytest.raises(ValueError, match=r"x\.csv (has one table|is none|is a file)"):
        read_source(tmp_path / "x.csv", Reading(**reading))


@in_turn("end", ["\n", "\r\n"])
@in_turn("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@in_turn("start", ["", "\n\n", "# größer\n", "sep=;\n"])
def test_lines_without_quotes_are_read_as_those_with_them(tmp_path, start, encoding, end):
    """Two ways of reading, one of them fast; a quote at the end decides."""
    lines = ["größe;b;label", "1;;x", "", " 2 ;NA;y", "007;ä\x0b\x1c;x", ";;"]
    frames = []
    for last in ("3;q;y", '3;"q";y'):
        text = start.replace("\n", end) + end.join([*lines, last])
        (tmp_path / "x.csv").write_bytes(text.encode(encoding))
        source = read_source(tmp_path / "x.csv")
        frames.append(source.frame)
        assert list(source.records) == [f"{line}{end}" for line in lines[1:] if line] + [last]
        source.release()
        pd.testing.assert_frame_equal(source.frame, frames[-1])
        source.write(tmp_path / "y.csv", np.arange(5), "label", {}, pd.DataFrame(index=range(5)))
        assert opened(tmp_path / "y.csv") == text.replace(f"{end}{end} 2", f"{end} 2").lstrip("\r\n").encode(encoding)
    pd.testing.assert_frame_equal(*frames)


@pytest.mark.parametrize(
    "text", ["", "a", "a\n", "\n", "a\n\nb", "\r\na\r\n\r\nbc\r\n", "é\n\n\r\nß\n", "ab\n\r\n"], ids=repr
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_lines_are_those_that_are_not_blank(text, size, monkeypatch):
    monkeypatch.setattr(line_bytes, "BLOCK", size)
    found = line_bytes.Lines.of(text.encode())
    expected = [line for line in text.splitlines(keepends=True) if line.strip("\r\n")]
    assert list(found) == found[:] == expected
    for rows in (np.arange(len(found)), np.arange(0, len(found), 2), np.arange(len(found))[1:]):
        assert found.joined(rows) == "".join(expected[row] for row in rows).encode()
    assert len(found) == len(expected)
