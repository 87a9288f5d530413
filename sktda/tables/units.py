"""Units of measure, currencies and words for large numbers, as people write them behind or before a number."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple


class Unit(NamedTuple):
    """What one of it is: `factor` of the unit `base`. Units of one base can be converted; "" is a bare number."""

    base: str
    factor: float = 1.0


BARE = Unit("")
PREFIXES = {
    "n": 1e-9,
    "u": 1e-6,
    "μ": 1e-6,
    "m": 1e-3,
    "c": 1e-2,
    "d": 0.1,
    "": 1,
    "h": 100,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
}
PREFIXES["T"] = 1e12
PREFIXED = {  # unit: prefixes in use; others would be mistakes for something else, such as MG for mg
    "g": "uμmk",
    "m": "nuμmcdk",
    "l": "uμmcdh",
    "L": "uμmcdh",
    "s": "nuμm",
    "W": "mkMG",
    "Wh": "kMG",
    "V": "mk",
    "A": "m",
    "J": "kMG",
    "Hz": "kMGT",
    "Pa": "hkMG",
    "bar": "m",
    "B": "kMGT",
    "bit": "kMGT",
    "cal": "k",
    "mol": "m",
}
IMPERIAL_LENGTH = {"inch": 0.0254, "foot": 0.3048, "yard": 0.9144, "mile": 1609.344}
POUND, SQUARE_FOOT = 453.59237, 0.09290304
COUNTS = {"k": 1e3, "K": 1e3, "thousand": 1e3, "Tsd": 1e3, "M": 1e6, "million": 1e6, "mn": 1e6, "mln": 1e6, "Mio": 1e6}
COUNTS |= {"bn": 1e9, "billion": 1e9, "Mrd": 1e9, "lakh": 1e5, "crore": 1e7}
OTHERS: dict[str, dict[str, float]] = {  # base: {spelling in the singular: factor}
    "%": {"%": 1, "‰": 0.1, "percent": 1, "per cent": 1, "pct": 1},
    "g": {"t": 1e6, "lb": POUND, "pound": POUND, "oz": POUND / 16, "gram": 1, "kilo": 1e3},
    "m": IMPERIAL_LENGTH
    | {"in": 0.0254, '"': 0.0254, "ft": 0.3048, "'": 0.3048, "feet": 0.3048, "yd": 0.9144, "mi": 1609.344}
    | {"meter": 1, "metre": 1, "kilometer": 1e3, "kilometre": 1e3},
    "m2": {"m2": 1.0, "sqm": 1, "sq m": 1, "sq meter": 1, "qm": 1, "cm2": 1e-4, "km2": 1e6, "ha": 1e4, "hectare": 1e4}
    | {"sqft": SQUARE_FOOT, "sq ft": SQUARE_FOOT, "ft2": SQUARE_FOOT, "sq yard": 9 * SQUARE_FOOT}
    | {"acre": 43560 * SQUARE_FOOT},
    "l": {"m3": 1e3, "cm3": 1e-3, "liter": 1, "litre": 1, "gal": 3.785411784, "gallon": 3.785411784},
    "s": {"sec": 1.0, "second": 1, "min": 60, "minute": 60, "h": 3600, "hr": 3600, "hour": 3600}
    | {"d": 86400, "day": 86400, "week": 604800, "wk": 604800},
    "year": {"year": 1, "yr": 1, "month": 1 / 12, "mo": 1 / 12},
    "km/h": {"km/h": 1, "kmh": 1, "kph": 1, "mph": 1.609344, "m/s": 3.6},
    "W": {"hp": 745.6998715822702, "PS": 735.49875},
    "": COUNTS,
}
BINARY = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "byte": 1}
MONEY_WORDS = COUNTS | {"cr": 1e7, "Cr": 1e7, "m": 1e6, "b": 1e9, "B": 1e9, "T": 1e12}  # beside a currency

CODES = (
    "AED|ARS|AUD|BDT|BGN|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EGP|EUR|GBP|GEL|HKD|HUF|IDR|ILS|INR|ISK|JPY|KES|KRW|KZT|MAD|"
    "MXN|MYR|NGN|NOK|NZD|PEN|PHP|PKR|PLN|QAR|RON|RSD|RUB|SAR|SEK|SGD|THB|TND|TRY|TWD|UAH|USD|VND|ZAR"
)
SAME = {
    "$": "USD",
    "US$": "USD",
    "€": "EUR",
    "euro": "EUR",
    "£": "GBP",
    "¥": "JPY",
    "₹": "INR",
    "Rs": "INR",
    "₽": "RUB",
}
SAME |= {
    "kr": "kr",
    "Kr": "kr",
    "zł": "PLN",
    "Kč": "CZK",
    "Ft": "HUF",
    "lei": "RON",
    "Fr": "CHF",
    "R$": "BRL",
    "₩": "KRW",
}
SYMBOLS = r"$¢£¤¥₠-⃏"  # the block of currency signs
CURRENCY = rf"[A-Z]{{0,3}}[{SYMBOLS}]|\b(?:{CODES}|Rs|[Kk]r|Fr|zł|Kč|Ft|lei|[Ee]uro)\b\.?"
_IS_CURRENCY = re.compile(CURRENCY)
_MONEY = re.compile(rf"(?P<word>[A-Za-z]*)\.?\s*(?P<currency>{CURRENCY})")
LOST = "?"  # a sign that an encoding did not have, mostly the euro's


@cache
def _table() -> dict[str, Unit]:
    table = {
        prefix + name: Unit("l" if name == "L" else name, factor)
        for name, used in PREFIXED.items()
        for prefix, factor in PREFIXES.items()
        if not prefix or prefix in used
    }
    table |= {name: Unit(base, factor) for base, names in OTHERS.items() for name, factor in names.items()}
    return table | {name: Unit("B", factor) for name, factor in BINARY.items()}


@cache
def _any_case() -> dict[str, Unit]:
    """Spellings in lower case that mean one thing: kw is kW, but mw could be mW or MW."""
    found: dict[str, set[Unit]] = {}
    for name, unit in _table().items():
        found.setdefault(name.lower(), set()).add(unit)
    return {name: next(iter(units)) for name, units in found.items() if len(units) == 1}


@cache
def unit_of(before: str, after: str) -> Unit | None:
    """The unit of a number from the texts before and behind it, "" where there are none; None for two currencies.

    A unit that is not known is its own base, so a column of one such unit is read, and of two is not.
    """
    after = " ".join(after.split()).rstrip(".") or ""
    if before:
        if not after:
            return Unit(_currency(before))
        return Unit(_currency(before), MONEY_WORDS[after]) if after in MONEY_WORDS else None
    if not after:
        return BARE
    if after == LOST or _IS_CURRENCY.fullmatch(after):
        return Unit(_currency(after))
    if (money := _MONEY.fullmatch(after)) and money["word"] in MONEY_WORDS:
        return Unit(_currency(money["currency"]), MONEY_WORDS[money["word"]])
    short = after.replace(". ", " ").replace(".", "")
    for name in (short, short[:-1] if short.endswith("s") and len(short) > 3 else short):
        if known := _table().get(name) or _any_case().get(name.lower()):
            return known
    return Unit(short[:-1].lower() if short.endswith("s") and len(short) > 3 else short)


def is_known(base: str) -> bool:
    """Whether the base of a unit is a measure, a share or a currency, and not just a word behind a number."""
    return base != "+" and (
        base.startswith("°") or is_money(base) or any(unit.base == base for unit in _table().values())
    )


def is_money(base: str) -> bool:
    """Whether the base of a unit is a currency."""
    return base in SAME.values() or base == LOST or bool(_IS_CURRENCY.fullmatch(base))


def _currency(text: str) -> str:
    text = text.rstrip(".")
    return SAME.get(text, SAME.get(text.lower(), text))
