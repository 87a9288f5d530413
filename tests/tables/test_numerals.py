"""Numbers as people write them: rendered in many ways, and read back."""

import numpy as np
import pytest

from sktda.tables.numerals import learn
from sktda.tables.values import parse
from tests.in_turn import in_turn

STYLES = {  # decimal mark, between thousands, before, behind
    "program": (".", "", "", ""),
    "english": (".", ",", "", ""),
    "german": (",", ".", "", ""),
    "french": (",", " ", "", ""),
    "narrow": (",", "\u202f", "", ""),
    "swiss": (".", "'", "", ""),
    "swiss quote": (".", "’", "", ""),
    "russian": (",", "\u00a0", "", " ₽"),
    "dollar": (".", ",", "$", ""),
    "dollar code": (".", ",", "US$ ", ""),
    "euro": (",", ".", "€ ", ""),
    "euro behind": (",", ".", "", " €"),
    "euro code": (",", " ", "EUR ", ""),
    "krona": (",", " ", "", " kr"),
    "pound": (".", ",", "£", ""),
    "real": (",", ".", "R$ ", ""),
    "franc": (".", "'", "CHF ", ""),
    "zloty": (",", " ", "", " zł"),
    "yen": (".", ",", "¥", ""),
    "lost sign": (",", ".", "", " ?"),
    "per cent": (".", ",", "", "%"),
    "per cent apart": (",", ".", "", " %"),
    "kilogram": (".", ",", "", " kg"),
    "metre": (",", ".", "", "m"),
    "square metre": (",", ".", "", " m²"),
    "celsius": (".", "", "", " °C"),
    "speed": (".", "", "", " km/h"),
    "bytes": (".", "", "", "MB"),
    "words": (".", ",", "", " pieces"),
}
NEGATIVES = {"minus": "-{}", "sign": "−{}", "accountant": "({})", "behind": "{}-"}


def rendered(value, style, negative, decimals):
    mark, between, before, behind = STYLES[style]
    text = f"{abs(value):,.{decimals}f}".replace(",", "_").replace(".", mark).replace("_", between)
    text = before + text + behind
    return negative.format(text) if value < 0 else text


@in_turn("decimals", [0, 1, 3])
@in_turn("style", STYLES)
def test_numbers_come_back_however_they_are_written(style, decimals):
    rng = np.random.default_rng(decimals)
    for name, negative in NEGATIVES.items():
        values = np.round(rng.choice([-1, 1], 30) * 10.0 ** rng.uniform(-1, 7, 30), decimals)
        texts = [rendered(value, style, negative, decimals) for value in values]
        numerals, why = learn(texts, np.ones(30))
        assert numerals is not None, (why, texts[:3])
        np.testing.assert_allclose(numerals.read(texts), values, rtol=1e-12, err_msg=f"{name} {texts[:3]}")
        written = [numerals.write(value, digits=15) for value in values]
        np.testing.assert_allclose(numerals.read(written), values, rtol=1e-12, err_msg=f"{texts[:2]} {written[:2]}")


@in_turn(
    ("text", "value", "base", "factor"),
    [
        ("12 %", 12, "%", 1),
        ("3.4 kg", 3.4, "g", 1e3),
        ("250 ml", 250, "l", 1e-3),
        ("5 KG", 5, "g", 1e3),
        ("7 µm", 7, "m", 1e-6),
        ("$1.2M", 1.2, "USD", 1e6),
        ("€3k", 3, "EUR", 1e3),
        ("3 Mio. €", 3, "EUR", 1e6),
        ("19M", 19, "", 1e6),
        ("10,5 Std", 10.5, "Std", 1),
        ("2 hours", 2, "s", 3600),
        ("6'", 6, "m", 0.3048),
        ("12,- €", 12, "EUR", 1),
        ("1,5e3", 1500, "", 1),
        (".5", 0.5, "", 1),
        ("(7)", -7, "", 1),
        ("-$5", -5, "USD", 1),
        ("$-5", -5, "USD", 1),
        ("１２", 12, "", 1),
        ("١٢٣٫٥", 123.5, "", 1),
        ("12,34,567", 1234567, "", 1),
    ],
)
def test_one_cell(text, value, base, factor):
    cell = parse(text)
    assert cell.value(".") == pytest.approx(value)
    assert cell.unit.base == base
    assert cell.unit.factor == pytest.approx(factor)


@in_turn(
    "text",
    ["", "-", "$", "abc", "A12", "12:30", "2020-01-02", "120/80", "1,2,3", "1.2.3", "1 2", "3-4", "5 (about)", "--5"]
    + ["(5", "5)", "(-5)", "€5 $", "1_000", "0x1F", "<5", "3 x 4", "12 rooms in the house by the sea"],
)
def test_what_is_no_number(text):
    assert parse(text) is None


@in_turn(
    ("texts", "hint", "values"),
    [
        (["1,234", "5,678"], "", [1234, 5678]),
        (["1,234", "5,678"], ",", [1.234, 5.678]),
        (["1,234", "5,6"], "", [1.234, 5.6]),
        (["1.234", "5.678"], "", [1.234, 5.678]),
        (["1.234", "5.678"], ",", [1234, 5678]),
        (["1.234", "5,5"], "", [1234, 5.5]),
        (["1.234 €", "5.678 €"], "", [1234, 5678]),
        (["€1,234", "€5,678"], ",", [1234, 5678]),
        (
            [*(f"{i}.23{i}" for i in range(1, 10)), "9.999", "5", "17"],
            "",
            [*(i * 1000 + 230 + i for i in range(1, 10)), 9999, 5, 17],
        ),
        (["1.5", "2,5", "1.234"], "", [1.5, 2.5, np.nan]),
    ],
)
def test_the_column_decides_what_a_cell_leaves_open(texts, hint, values):
    numerals, _ = learn(texts, np.ones(len(texts)), hint)
    np.testing.assert_allclose(numerals.read(texts), values)
    assert numerals.note or not any(parse(text).mark == "?" for text in texts) or numerals.shown


@in_turn(
    ("texts", "values", "note"),
    [
        (["1 kg", "500 g", "2 kg"], [1, 0.5, 2], "units converted"),
        (["5 %", "7%", "9"], [5, 7, 9], "1 cells without a unit taken as %"),
        (["5 %", "7%", "0.09"], [5, 7, 9], "1 cells without a unit taken as shares of 1"),
        (["$5", "6 USD", "US$7"], [5, 6, 7], ""),
        (["1.2M", "300k", "950"], [1.2e6, 3e5, 950], "units converted"),
        (["0+", "10,000+", "0"], [0, 10000, 0], ""),
        # a word for a large number is no unit, and counts beside one
        (["$2M", "$3M", "300K"], [2, 3, 0.3], "units converted"),
        (["$1200", "$3000", "3K"], [1200, 3000, 3000], "units converted"),
        (["€5", "€6", "2k", "7"], [5, 6, 2000, 7], "1 cells without a unit taken as €"),
    ],
)
def test_units_of_one_kind_become_one_number(texts, values, note):
    numerals, _ = learn(texts, np.ones(len(texts)))
    np.testing.assert_allclose(numerals.read(texts), values)
    assert note in numerals.note


@pytest.mark.parametrize(
    "texts",
    [
        ["3 kg", "4 €"],
        ["$5", "€6"],
        ["5 kg", "6", "7"],
        ["20 °C", "68 °F"],
        ["1.234", "5,678"],
        ["1.2B", "3B", "300M"],
        ["1.5m", "2m", "300k"],
    ],
)
def test_what_cannot_be_one_number_is_none_and_says_so(texts):
    numerals, why = learn(texts, np.ones(len(texts)))
    assert numerals is None
    assert why.startswith("cannot be one number")


def test_a_few_units_among_bare_numbers_are_not_taken_for_bare():
    texts = [*map(str, range(1000, 1099)), "34.5 kg"]
    numerals, _ = learn(texts, np.ones(100))
    assert np.isnan(numerals.read(["34.5 kg"])[0])
    assert numerals.read(["1000"])[0] == 1000
