import numpy as np
import pytest

from sktda.cards.pairs import MAX_CLASSES, encode, flagged_pairs, heat_map, label_text
from sktda.displays.drawing import short
from tests.report.pages import frame_of

pytestmark = pytest.mark.usefixtures("few_trees")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["class 10", "class 2", "class 2", "b"], ["b", "class 2", "class 10"]),
        ([10, 9, -1, 9], [-1, 9, 10]),
        ([True, False, True, True], [False, True]),
        (["10", "9", "x", "9"], ["9", "10", "x"]),
        ([1, "1", "x", 2.5], [1, "1", 2.5, "x"]),
    ],
)
def test_classes_are_sorted_as_people_do(labels, classes):
    encoded = encode(frame_of(np.array(labels, dtype=object), np.array(labels, dtype=object)[::-1]))
    assert encoded.classes == classes
    assert [encoded.classes[code] for code in encoded.given] == labels
    assert [encoded.classes[code] for code in encoded.suggested] == labels[::-1]


def test_integers_and_the_same_numbers_as_floats_are_one_class():
    encoded = encode(frame_of([1, 2, 1], [1.0, 2.0, 3.0]))
    assert encoded.given.tolist() == [0, 1, 0]
    assert encoded.suggested.tolist() == [0, 1, 2]


def test_pairs_and_map_count_every_flagged_row():
    rng = np.random.default_rng(0)
    given, suggested, quality = rng.integers(0, 5, 500), rng.integers(0, 5, 500), rng.random(500)
    frame = frame_of(given, suggested, quality)
    noisy = quality < 0.5
    labels = encode(frame)
    pairs = flagged_pairs(labels, noisy)
    assert [pair["count"] for pair in pairs] == sorted((pair["count"] for pair in pairs), reverse=True)
    assert sum(pair["count"] for pair in pairs) == noisy.sum()
    table = heat_map(labels, noisy)
    for g, row in enumerate(table):
        assert row["rows"] == (given == g).sum()
        assert row["flagged"] == (noisy & (given == g)).sum()
        for s, cell in enumerate(row["cells"]):
            assert cell["count"] == (noisy & (given == g) & (suggested == s)).sum()
            assert cell["share"] == pytest.approx(cell["count"] / row["rows"])
    assert max(cell["heat"] for row in table for cell in row["cells"]) == 1


def test_no_map_of_too_many_classes_nor_of_no_flags():
    names = np.arange(MAX_CLASSES + 1)
    assert heat_map(encode(frame_of(names)), np.zeros(len(names), dtype=bool)) is None
    table = heat_map(encode(frame_of(names[1:])), np.zeros(MAX_CLASSES, dtype=bool))
    assert len(table) == MAX_CLASSES
    assert {cell["heat"] for row in table for cell in row["cells"]} == {0}
    assert flagged_pairs(encode(frame_of(names)), np.zeros(len(names), dtype=bool)) == []


def test_missing_suggestions_are_no_class():
    frame = frame_of(np.array(["a", "b", "a"], dtype=object), np.array(["b", None, "a"], dtype=object), [0.1, 0.2, 0.9])
    labels = encode(frame)
    assert labels.classes == ["a", "b"]
    assert [pair["count"] for pair in flagged_pairs(labels, np.array([True, True, False]))] == [1]


def test_texts():
    assert label_text(" ") == "(blank: ' ')"
    assert label_text(3) == "3"
    assert short("abcdefghij", 5) == "ab…ij"
    assert short("abcde", 5) == "abcde"
