import csv
import gzip
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sktda.cli.formats import read_source, write_frame
from sktda.cli.formats.arrays import read_features
from sktda.cli.formats.base import Source, Table
from sktda.cli.formats.files import Input, write_bytes
from sktda.cli.formats.known import FORMATS, ending
from tests.in_turn import in_turn

ROWS = [
    ["id", "text", "label"],
    ["007", "plain", "a"],
    ["1e400", 'says "no"', "b"],
    ["2020-01-02", "two\nlines", "a"],
    ["NA", "", "b"],
    ["99999999999999999999", " padded ", "Größe"],
]
NOTHING = pd.DataFrame(index=range(5))


def opened(path):
    return Input.of(path).read()


def as_text(rows, delimiter=",", end="\n", quoting=csv.QUOTE_MINIMAL):
    class Lines(list):
        write = list.append

    lines = Lines()
    csv.writer(lines, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    return lines


@in_turn("format", FORMATS)
def test_every_line_of_the_formats_leads_to_a_source(format):
    source = format.load()
    assert issubclass(source, Source)
    assert issubclass(source, Table) == format.is_table


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.csv", ".csv"), ("a.b.CSV.gz", ".csv.gz"), ("a.parquet", ".parquet"), ("a", ""), ("a.gz", ".gz")],
)
def test_the_ending_names_the_format(tmp_path, name, kind):
    assert ending(tmp_path / name) == kind


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_frames_are_written_as_the_name_says(tmp_path, name):
    frame = pd.DataFrame({"a": ["007", "x,\t"], "b": [1.5, 2.0]})
    path = tmp_path / name
    write_frame(frame, path)
    if name == "a.parquet":
        read = pd.read_parquet(path)
    elif ".jsonl" in name:
        read = pd.read_json(path, lines=True, dtype={"a": str, "b": float})
    else:
        read = pd.read_csv(path, sep=None, engine="python", dtype={"a": str})
    pd.testing.assert_frame_equal(read, frame)


@in_turn("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@in_turn("end", ["\n", "\r\n"])
@in_turn("delimiter", [",", ";", "\t", "|"])
@in_turn("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_kept_rows_are_the_same_bytes(tmp_path, encoding, delimiter, end, quoting):
    lines = as_text(ROWS, delimiter, end, quoting)
    path, out = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_bytes("".join(lines).encode(encoding))
    table = read_source(path)
    assert table.frame.columns.tolist() == ROWS[0]
    assert table.frame.to_numpy().tolist() == ROWS[1:]
    table.write(out, np.array([0, 2, 4]), "label", {}, NOTHING)
    assert out.read_bytes() == "".join(lines[i] for i in (0, 1, 3, 5)).encode(encoding)


def test_gzip_is_kept(tmp_path):
    lines = as_text(ROWS)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
    read_source(tmp_path / "in.csv.gz").write(tmp_path / "out.csv.gz", np.array([1]), "label", {}, NOTHING)
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()).decode() == lines[0] + lines[2]


def test_relabelled_rows_change_in_one_cell_and_added_columns_come_last(tmp_path):
    lines = as_text(ROWS, ";", "\r\n")
    path, out = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_bytes("".join(lines).removesuffix("\r\n").encode())  # the last line has no end
    table = read_source(path)
    table.write(out, np.arange(5), "label", {1: "new; label"}, NOTHING)
    expected = [row[:] for row in ROWS]
    expected[2][2] = "new; label"
    assert out.read_bytes().decode() == "".join(as_text(expected, ";", "\r\n")).removesuffix("\r\n")
    table.write(out, np.array([0, 4]), "label", {}, pd.DataFrame({"flag": [True, False, False, False, True]}))
    assert out.read_bytes().decode() == (
        lines[0].replace("\r\n", ";flag\r\n")
        + lines[1].replace("\r\n", ";True\r\n")
        + lines[5].replace("\r\n", ";True")
    )


@pytest.mark.parametrize(
    ("start", "columns", "end", "note"),
    [
        ("sep=;\r\na;b\r\n", ["a", "b"], "", "first line says that cells are separated by ';'"),
        ("a;b;;\r\n", ["a", "b"], ";;", "neither a name nor cells"),
        ("a;b\r\n", ["a", "b"], ";", "rows end with delimiters"),
        ('"b";"c"\r\n', ["", "b", "c"], ";7", "name of the row, as R writes it"),
    ],
)
def test_headers_of_other_tools_are_read_and_kept(tmp_path, start, columns, end, note):
    rows = [f"{i};{'xy'[i % 2]}{end}\r\n" for i in range(4)]
    path, out = tmp_path / "x.csv", tmp_path / "out.csv"
    path.write_bytes((start + "".join(rows)).encode())
    table = read_source(path)
    assert table.frame.columns.tolist() == columns
    assert table.frame.iloc[:, :2].to_numpy().tolist() == [[str(i), "xy"[i % 2]] for i in range(4)]
    assert any(note in said for said in table.notes)
    table.write(out, np.array([1, 3]), "b", {3: "x"}, pd.DataFrame(index=range(4)))
    assert out.read_bytes().decode() == start + rows[1] + rows[3].replace("y", "x")
    table.write(out, np.arange(4), "b", {}, pd.DataFrame({"flag": [1, 2, 3, 4]}))
    again = read_source(out)
    assert again.frame["flag"].tolist() == list("1234")
    assert again.frame["b"].tolist() == list("xyxy")


@pytest.mark.parametrize("text", ["a,b\n1,5,2\n2,5,3\n", '"a","b"\n1,5,2\n1,7,3\n', "my label\nx y z\nu v w\n"])
def test_longer_rows_are_not_taken_for_named_ones(tmp_path, text):
    """Decimal commas and words look like the name of a row."""
    (tmp_path / "x.csv").write_text(text)
    if "," in text:
        with pytest.raises(ValueError, match="line 2: 3 fields where the header has 2"):
            read_source(tmp_path / "x.csv")
    else:
        assert read_source(tmp_path / "x.csv").frame.columns.tolist() == ["my label"]


@in_turn(
    ("text", "columns"),
    [
        ("text;label\none, two, three;a\nfour, five;b\n", ["text", "label"]),
        ("a;b\n1,5;2,5\n3,5;4,5\n", ["a", "b"]),
        ("a,b\n1;2,3\n1;2,3\n", ["a", "b"]),
        ("label\nx\ny\n", ["label"]),
        ("my label\nx\ny\n", ["my label"]),
        ("a b\n1 2\n3 4\n", ["a", "b"]),
        ('"a,b";c\n"1,2";3\n', ["a,b", "c"]),
        ("\n\na,b\n\n1,2\n", ["a", "b"]),
    ],
)
def test_the_delimiter_is_found(tmp_path, text, columns):
    (tmp_path / "x.txt").write_text(text)
    assert read_source(tmp_path / "x.txt").frame.columns.tolist() == columns


@in_turn(
    ("text", "encoding"),
    [
        ("name,ort\nMüller,Köln\nJäger,Düsseldorf\n", "cp1252"),
        ("nom,ville\nHélène,Besançon\nRené,Orléans\n", "cp1252"),
        ("a,b\n20 °C,5 £\nit’s – fine,3\n", "cp1252"),
        ("имя,город\nИван,Москва\nПётр,Тверь\n", "cp1251"),
        ("名前,都市\n田中,東京\n鈴木,大阪\n", "cp932"),
        ("名字,城市\n李明,北京市\n王芳,上海市\n", "gb18030"),
    ],
)
def test_the_encoding_is_found(tmp_path, text, encoding):
    (tmp_path / "x.csv").write_bytes(text.encode(encoding))
    table = read_source(tmp_path / "x.csv")
    assert ["".join(row) for row in table.frame.to_numpy()] == [line.replace(",", "") for line in text.splitlines()[1:]]


@pytest.mark.parametrize(
    "data",
    [
        b"a,b\n1,\x81\x8d\x8f\xff\n2,\x90\xfe\n",
        "名前,b\n田中,東京\n鈴木,".encode("cp932") + b"\x87\x90\n",  # two codes for one character
    ],
    ids=["no encoding", "ambiguous"],
)
def test_bytes_are_kept_whatever_they_mean(tmp_path, data):
    (tmp_path / "x.csv").write_bytes(data)
    read_source(tmp_path / "x.csv").write(tmp_path / "y.csv", np.arange(2), "b", {}, pd.DataFrame(index=range(2)))
    assert (tmp_path / "y.csv").read_bytes() == data


@in_turn(
    ("name", "data", "message"),
    [
        ("x.csv", b"", "x.csv is empty"),
        ("x.csv", b"\n \n", "x.csv is empty"),
        ("x.csv", b"a,b\n", "has a header but no rows"),
        ("x.csv", b"a,b\n1,2\n1,2,3\n", r"line 3: 3 fields where the header has 2 \(delimiter ','\)"),
        ("x.csv", b'a,b\n"1\n2",2\n\n1\n', "line 5: 1 fields where the header has 2"),
        ("x.csv", b'a,b\n1,2\n1,"2\n', "line 3: unexpected end of data"),
        ("x.csv", b"a,a,a (1)\n1,2,3\n", "several columns named 'a'; give every column its own name"),
        ("x.csv", b"a\0,b\n1,2\n", "zero bytes"),
        ("x.csv", gzip.compress(b"a,b\n1,2\n", mtime=0), "x.csv is compressed by gzip; rename it to end with .gz"),
        ("x.csv", b"PK\3\4\0\0", "x.csv is a spreadsheet or ZIP archive; rename it to end with .xlsx"),
        ("x.csv", b"PAR1\0", "x.csv is a Parquet file; rename it"),
        ("x.csv", b"\xff\xfea", "begins like utf-16"),
        ("x.csv", b"," * 100_001 + b"\n", "more than 100,000 columns"),
        ("x.csv", ("a," * 100_001 + "\n").encode("utf-16"), "more than 100,000 columns"),
        ("x.csv.gz", b"a,b\n1,2\n", "not a whole compressed file"),
        ("x.csv.gz", gzip.compress(b"a,b\n1,2\n" * 999, mtime=0)[:50], "not a whole compressed file"),
        ("x.jsonl", b" \n", "x.jsonl is empty"),
        ("x.jsonl", b'{"a": 1}\n\n{"a": \n', "line 3: Expecting value"),
        ("x.jsonl", b'{"a": 1}\n[1]\n', "line 2: a JSON list; every line is one JSON object"),
        ("x.jsonl", b'{"a": "\xff"}\n', "line 1: .*UTF-8"),
        ("x.parquet", b"no", "cannot be read as Parquet"),
        ("x.npz", b"no", "cannot be read as arrays"),
        ("x.xlsx", b"no", "x.xlsx cannot be read as an Excel file"),
        ("x.png", b"no", "unknown ending '.png'; allowed are .csv"),
    ],
)
def test_a_bad_file_gives_one_clear_error(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_source(tmp_path / name)


def test_a_wide_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    path.write_bytes(b"," * 2_000_000)
    monkeypatch.setattr("sktda.cli.formats.text.decode", lambda *_: pytest.fail("the whole file was read"))
    with pytest.raises(ValueError, match="columns"):
        read_source(path)
    monkeypatch.setattr("sktda.cli.formats.base.MAX_COLUMNS", 9)
    pq.write_table(pa.table([[1]] * 10, list("abcdefghij")), tmp_path / "x.parquet")
    monkeypatch.setattr("pyarrow.parquet.ParquetFile.read", lambda *_: pytest.fail("the whole file was read"))
    with pytest.raises(ValueError, match="columns"):
        read_source(tmp_path / "x.parquet")


def parquet_table():
    return pa.table(
        {
            "big": pa.array([2**60, None, 3], pa.int64()),
            "day": pa.array([1, 2, None], pa.date32()),
            "list": pa.array([[1], [], None]),
            "label": pa.array(["a", "b", "a"]).dictionary_encode(),
            "small": pa.array([1, 2, 3], pa.int8()),
        }
    ).replace_schema_metadata({"who": "me"})


def test_parquet_keeps_schema_and_values(tmp_path):
    path, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(parquet_table(), path)
    table = read_source(path)
    table.write(out, np.array([0, 2]), "label", {}, pd.DataFrame(index=range(3)))
    assert pq.read_table(out).equals(pq.read_table(path).take([0, 2]), check_metadata=True)
    table.write(out, np.arange(3), "label", {0: "b"}, pd.DataFrame({"flag": [True, False, True]}))
    written = pq.read_table(out)
    assert written["label"].to_pylist() == ["b", "b", "a"]
    assert written["flag"].to_pylist() == [True, False, True]
    assert written.schema.field("label") == parquet_table().schema.field("label")
    table.write(out, np.arange(3), "small", {2: 1}, pd.DataFrame(index=range(3)))
    assert pq.read_table(out)["small"].equals(pa.chunked_array([pa.array([1, 2, 1], pa.int8())]))


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["", "mark"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_kept_lines_are_the_same_bytes(tmp_path, name, start):
    lines = [
        b'{"id": 9007199254740993,"n":1.50, "label": "a"}\r\n',
        b"\n",
        '{"label": "Größe"}\n'.encode(),
        b'{"id": null, "n": [1], "label": "a"}',
    ]
    path, out = tmp_path / name, tmp_path / f"out{name}"
    write_bytes(path, start + b"".join(lines))
    table = read_source(path)
    assert table.frame["label"].tolist() == ["a", "Größe", "a"]
    table.write(out, np.array([0, 2]), "label", {}, NOTHING)
    assert opened(out) == start + lines[0] + lines[3] + b"\n"
    table.write(out, np.array([1, 2]), "label", {2: "b"}, pd.DataFrame({"flag": [True, np.True_, False]}))
    assert opened(out).decode().splitlines() == [
        '{"label": "Größe", "flag": true}',
        '{"id": null, "n": [1], "label": "b", "flag": false}',
    ]


def test_integers_of_json_stay_integers_where_one_is_missing(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"id": 9007199254740993, "y": 1}\n{"id": null, "y": 2}\n')
    read_source(tmp_path / "x.jsonl").write(tmp_path / "x.csv", np.arange(2), "y", {}, pd.DataFrame(index=range(2)))
    assert (tmp_path / "x.csv").read_text() == "id,y\n9007199254740993,1\n,2\n"


@in_turn("type", [pa.int64(), pa.uint64(), pa.int8()])
@in_turn("values", [[100, 3], [100, None]])
def test_integers_of_parquet_are_written_as_integers(tmp_path, type, values):
    values = [2**type.bit_width // 2 - 1, *values]
    pq.write_table(pa.table({"id": pa.array(values, type), "label": list("aba")}), tmp_path / "x.parquet")
    read_source(tmp_path / "x.parquet").write(
        tmp_path / "x.csv", np.arange(3), "label", {}, pd.DataFrame(index=range(3))
    )
    cells = read_source(tmp_path / "x.csv").frame["id"].tolist()
    assert cells == ["" if value is None else str(value) for value in values]


@pytest.mark.parametrize("name", ["out.tsv", "out.jsonl", "out.parquet", "out.csv"])
def test_other_formats_get_the_same_cells(tmp_path, name):
    source = tmp_path / ("in.parquet" if name == "out.csv" else "in.csv")
    if name == "out.csv":
        pd.DataFrame(ROWS[1:], columns=ROWS[0]).to_parquet(source)
    else:
        source.write_text("".join(as_text(ROWS)), encoding="utf-8", newline="")
    read_source(source).write(tmp_path / name, np.array([0, 4]), "label", {4: "b"}, NOTHING)
    cells = read_source(tmp_path / name).frame.to_numpy().tolist()
    assert cells == [ROWS[1], [*ROWS[5][:2], "b"]]


def test_a_cell_may_hold_a_book(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n" + "word " * 50_000 + ",1\n2,3\n")
    assert len(read_source(tmp_path / "x.csv").frame["a"][0]) == 250_000


@pytest.mark.parametrize("cells", [["a", 1], [1, 2**70]], ids=["mixed", "too long"])
def test_what_parquet_cannot_hold_is_refused(tmp_path, cells):
    with pytest.raises(ValueError, match=r"cannot be written as Parquet .*write \.csv or \.jsonl instead"):
        write_frame(pd.DataFrame({"c": pd.Series(cells, dtype=object)}), tmp_path / "x.parquet")


def test_npz_labels_are_never_cut_off(tmp_path):
    np.savez(tmp_path / "x.npz", X=np.ones((3, 2)), y=np.array([1, 2, 3]))
    with pytest.raises(ValueError, match=r"y of x\.npz holds int64, which cannot take 2\.5"):
        read_source(tmp_path / "x.npz").write(tmp_path / "o.npz", np.arange(3), "y", {0: 2.5}, pd.DataFrame())


def test_npz_cuts_every_array_with_the_rows(tmp_path):
    path, out = tmp_path / "in.npz", tmp_path / "out.npz"
    rng = np.random.default_rng(0)
    arrays = {
        "X": rng.integers(0, 255, (5, 8, 8)).astype(np.uint8),
        "y": np.array([[0], [1], [0], [1], [1]], dtype=np.int8),
        "name": np.array(list("abcde")),
        "names": np.array(["zero", "one"]),
        "version": np.array(3),
        "file": np.array(list("vwxyz")),  # no name that numpy.savez takes
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.save(file, array)
    table = read_source(path)
    assert list(table.frame) == ["y", "name", "file"]
    assert table.picture(0).size == (8, 8)
    table.write(out, np.array([0, 3]), "y", {3: 0}, pd.DataFrame({"flag": [True] * 5}))
    with np.load(out) as written:
        assert set(written) == {*arrays, "flag"}
        assert written["X"].dtype == np.uint8
        np.testing.assert_array_equal(written["X"], arrays["X"][[0, 3]])
        np.testing.assert_array_equal(written["y"], np.array([[0], [0]], dtype=np.int8))
        assert written["name"].tolist() == ["a", "d"]
        assert written["names"].tolist() == ["zero", "one"]
        assert written["flag"].shape == (2,)
        assert written["version"] == 3
    assert arrays["y"][3] == table.arrays["y"][3] == 1  # the table itself is not changed


@in_turn(
    ("arrays", "message"),
    [
        ({"x_train": np.ones((3, 2))}, r"holds x_train \(3, 2\); X \(rows"),
        ({"X": np.array([[1, np.nan], [np.inf, 2], [1, 1]])}, "NaN or infinity in 2 rows, the first is row 0"),
        ({"X": np.array([["a"], ["b"]])}, "numbers are needed"),
        ({"X": np.array([[{}], [None]])}, "pickled objects are not read"),
        ({"X": np.ones((9, 2)), "y": np.eye(9)}, r"y of x.npz has shape \(9, 9\); 9 labels"),
        ({"X": np.ones((9, 2)), "y": np.ones(8)}, "9 labels"),
    ],
)
def test_bad_arrays_give_one_clear_error(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_source(tmp_path / "x.npz")


def test_features_are_aligned_by_their_paths(tmp_path):
    X = np.arange(6.0).reshape(3, 2)
    names = pd.Series(["a/1.png", "b/1.png"])
    np.savez(tmp_path / "e.npz", X=X, paths=["b/1.png", "x/9.png", "a/1.png"])
    np.testing.assert_array_equal(read_features(tmp_path / "e.npz", 2, names), X[[2, 0]])
    with pytest.raises(ValueError, match=r"no features for 1 images, the first is 'c/1.png'"):
        read_features(tmp_path / "e.npz", 2, pd.Series(["a/1.png", "c/1.png"]))
    np.savez(tmp_path / "e.npz", X=X, paths=["b/1.png", "b/1.png", "a/1.png"])
    with pytest.raises(ValueError, match="2 different paths for 3 rows"):
        read_features(tmp_path / "e.npz", 2, names)


def test_features_need_one_row_per_row(tmp_path):
    X = np.arange(6.0).reshape(3, 2)
    np.save(tmp_path / "e.npy", X)
    np.savez(tmp_path / "e.npz", embeddings=X)
    np.savez(tmp_path / "two.npz", a=X, b=X)
    for name in ("e.npy", "e.npz"):
        np.testing.assert_array_equal(read_features(tmp_path / name, 3), X)
    with pytest.raises(ValueError, match=r"shape \(3, 2\) but the data has 4 rows"):
        read_features(tmp_path / "e.npz", 4)
    with pytest.raises(ValueError, match="name the features X"):
        read_features(tmp_path / "two.npz", 3)
    with pytest.raises(FileNotFoundError, match=r"no.npz does not exist"):
        read_features(tmp_path / "no.npz", 3)
