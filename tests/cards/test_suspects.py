import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse

from sktda.cards.cells import MAX_COLUMNS, MAX_TEXT, Cells, number_text
from sktda.cards.neighbours import nearest_agreeing
from sktda.cards.pairs import encode
from sktda.cards.pictures import SIDE, data_uri
from sktda.cards.suspects import suspect_cards
from tests.in_turn import in_turn
from tests.report.pages import blobs_input, frame_of

pytestmark = pytest.mark.usefixtures("few_trees")


def test_suspects_stand_beside_clean_rows_with_the_suggested_label():
    data = blobs_input()
    cards = suspect_cards(data, encode(data.frame), 10)
    assert len(cards) == 10
    assert [card["quality"] for card in cards] == sorted(data.frame["label_quality"])[:10]
    for card in cards:
        row = data.frame.loc[card["index"]]
        assert (card["given"], card["suggested"]) == (row["given_label"], row["suggested_label"])
        assert len(card["neighbours"]) == 3
        for near in card["neighbours"]:
            assert near["given"] == card["suggested"] == data.frame.loc[near["index"], "given_label"]
            assert not data.frame.loc[near["index"], "noisy"]
        height = next(column for column in card["columns"] if column["name"] == "height")
        indices = [card["index"], *(near["index"] for near in card["neighbours"])]
        assert height["values"] == [data.rows["height"].iloc[data.frame.index.get_loc(i)] for i in indices]


def test_a_flagged_row_is_no_witness():
    data = blobs_input()
    labels = encode(data.frame)
    first = suspect_cards(data, labels, 1)[0]
    near = [data.frame.index.get_loc(neighbour["index"]) for neighbour in first["neighbours"]]
    data.frame.loc[data.frame.index[near], "noisy"] = True  # their labels stay as they are
    again = suspect_cards(data, labels, 1)[0]
    assert again["index"] == first["index"]
    assert len(again["neighbours"]) == 3
    assert not {row["index"] for row in again["neighbours"]} & {row["index"] for row in first["neighbours"]}


@pytest.mark.parametrize("scale", ["standard", "unit"])
@pytest.mark.parametrize("kind", ["table", "pictures", "sparse"])
def test_neighbours_are_the_nearest_in_the_detectors_space(kind, scale, monkeypatch):
    monkeypatch.setattr("sktda.cards.neighbours.block_rows", lambda X: 7)  # several blocks, the last a short one
    X = np.random.default_rng(0).normal(size=(60, 12)) * np.geomspace(1, 1000, 12)
    unit = np.column_stack([(X - X.mean(0)) / X.std(0), np.ones(60)]) if scale == "standard" else X
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    features = {"table": X, "pictures": X.reshape(60, 4, 3), "sparse": sparse.coo_matrix(X)}[kind]
    suspects, odd, even = np.array([4, 11, 30]), np.arange(31, 60, 2), np.arange(32, 60, 2)
    found = nearest_agreeing(features, suspects, [odd, even, odd], scale)
    for suspect, allowed, near in zip(suspects, [odd, even, odd], found, strict=True):
        distances = np.linalg.norm(unit[allowed] - unit[suspect], axis=1)
        assert near.tolist() == allowed[np.argsort(distances)[:3]].tolist()


def test_few_or_no_agreeing_rows():
    X = np.random.default_rng(0).normal(size=(9, 2))
    found = nearest_agreeing(X, np.array([0, 1]), [np.array([5]), np.array([], dtype=int)])
    assert [near.tolist() for near in found] == [[5], []]


def test_cells_that_differ_are_marked():
    rows = pd.DataFrame(
        {
            "same": ["1.0", "1.1", "0.9", "5"] * 10,
            "far": ["9", "1", "1", "1"] * 10,
            "text": ["oak", "elm", "elm", "ash"] * 10,
            "shared": ["oak", "elm", "oak", "ash"] * 10,
            "empty": [None, "1", "2", "3"] * 10,
            "constant": [7] * 40,
            "when": pd.to_datetime(["2020-01-01", "2020-01-02"] * 20),
        }
    )
    columns, left_out = Cells(rows, np.arange(4)).compare(0, np.array([1, 2, 3]))
    assert left_out == 0
    marked = {column["name"]: column["differs"] for column in columns}
    assert marked == {"same": False, "far": True, "text": True, "shared": False, "empty": True, "constant": False,
                      "when": False}  # fmt: skip
    values = {column["name"]: column["values"] for column in columns}
    assert values["far"] == ["9", "1", "1", "1"]
    assert values["empty"] == ["–", "1", "2", "3"]


def test_wide_tables_show_the_columns_that_differ_most():
    X = np.random.default_rng(0).normal(size=(50, 40)).round(2)
    X[0, [3, 17, 39]] = 50.0
    columns, left_out = Cells(pd.DataFrame(X).add_prefix("c"), np.arange(4)).compare(0, np.array([1, 2, 3]))
    names = [column["name"] for column in columns]
    assert len(names) == MAX_COLUMNS
    assert left_out == 40 - MAX_COLUMNS
    assert {"c3", "c17", "c39"} <= set(names)
    assert names == sorted(names, key=lambda name: int(name[1:]))


def test_long_cells_are_cut():
    columns, _ = Cells(pd.DataFrame({"text": ["word " * 100, "b"]}), np.arange(2)).compare(0, np.array([1]))
    assert len(columns[0]["values"][0]) == MAX_TEXT
    assert columns[0]["values"][0].endswith("…")


def pixels_of(uri):
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image)


@in_turn(
    ("picture", "expected"),
    [
        (np.array([[0, 128], [255, 7]], dtype=np.uint8), [[0, 128], [255, 7]]),
        (np.array([[0.0, 0.5], [1.0, 0.2]]), [[0, 128], [255, 51]]),
        (np.array([[0, 8], [16, 4]]), [[0, 128], [255, 64]]),
        (np.array([[-1.0, 0.0], [1.0, 0.0]]), [[0, 128], [255, 128]]),
        (np.array([[[0.0], [1.0]], [[np.nan], [1.0]]]), [[0, 255], [0, 255]]),
        (np.zeros((2, 2)), [[0, 0], [0, 0]]),
        (np.array([[True, False], [False, True]]), [[255, 0], [0, 255]]),
        (Image.fromarray(np.array([[0, 4000], [8000, 0]], dtype=np.uint16)), [[0, 128], [255, 0]]),
        (Image.fromarray(np.array([[0.0, 1.0]], dtype=np.float32)), [[0, 255]]),
    ],
)
def test_pictures_keep_their_shades(picture, expected):
    assert pixels_of(data_uri(picture)).tolist() == expected


def test_photographs_become_small():
    photograph = np.random.default_rng(0).integers(0, 255, (900, 600, 3), dtype=np.uint8)
    uri = data_uri(Image.fromarray(photograph))
    assert uri.startswith("data:image/jpeg;base64,")
    assert pixels_of(uri).shape == (SIDE, round(SIDE * 600 / 900), 3)
    assert len(uri) < 30_000
    assert pixels_of(data_uri(Image.new("RGBA", (200, 100), (9, 9, 9, 0)))).shape == (64, 128, 4)
    assert pixels_of(data_uri(Image.new("CMYK", (20, 10)))).shape == (10, 20, 3)
    palette = Image.new("P", (4, 4))
    palette.info["transparency"] = 0
    assert pixels_of(data_uri(palette)).shape == (4, 4, 4)


@pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (2, 4, 4, 3)])
def test_arrays_that_are_no_picture_are_refused(shape):
    with pytest.raises(ValueError, match="cannot be shown; allowed are"):
        data_uri(np.zeros(shape))


def test_no_neighbours_without_features():
    data = blobs_input(features=None)
    cards = suspect_cards(data, encode(data.frame), 5)
    assert [card["neighbours"] for card in cards] == [[]] * 5
    assert all(len(column["values"]) == 1 for card in cards for column in card["columns"])
    assert suspect_cards(data, encode(frame_of([0, 1])), 0) == []


@in_turn(
    ("number", "digits", "text"),
    [
        (74_500.0, None, "74500"),
        (0.1, None, "0.1"),
        (1_234_567.8, None, "1234567.8"),
        (1_234_567.8, 6, "1234568"),
        (74_499.98712, 6, "74500"),
        (-0.00012345678, 6, "-0.000123457"),
        (0.0, 6, "0"),
        (1e300, None, "1e+300"),
        (np.nan, 6, "nan"),
    ],
)
def test_numbers_are_written_as_people_write_them(number, digits, text):
    assert number_text(number, digits) == text
