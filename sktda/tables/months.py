"""Dates with words in them, in the languages that most tables come in, as ISO writes them."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

NAMES = """
january february march april may june july august september october november december
januar februar marz april mai juni juli august september oktober november dezember
janner feber maerz april mai juno julei august september oktober november dezember
janvier fevrier mars avril mai juin juillet aout septembre octobre novembre decembre
enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre
gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre
janeiro fevereiro marco abril maio junho julho agosto setembro outubro novembro dezembro
januari februari maart april mei juni juli augustus september oktober november december
"""
SHORT = {"mrz": 3, "mrt": 3}
WORD = r"(?P<month>[^\W\d_]{3,10})\.?"
DAY = r"(?P<day>\d{1,2})(?:\.|st|nd|rd|th|er|º|°)?"
YEAR = r"(?P<year>\d{4})"
REST = r"(?P<rest>(?:,? (?:at |um |à )?|,|T|:)\d{1,2}:\d\d.*)?"
WEEKDAY = r"(?:[^\W\d_]{2,10}[.,]{0,2} )?"
FORMS = [
    re.compile(form)
    for form in (
        rf"{WEEKDAY}{DAY}[ /-]*(?:de |of )?{WORD},?[ /-]*(?:de |del |of )?(?P<year>\d{{4}}|\d\d){REST}",
        rf"{WEEKDAY}{WORD} {DAY},? {YEAR}{REST}",
        rf"{WEEKDAY}{WORD} {DAY} (?P<rest>\d\d?:\d\d(?::\d\d)?)(?: [A-Z]{{3,4}})? {YEAR}",
        rf"{WORD},?(?: |/|-)(?:de |del |of )?{YEAR}",
        rf"{WORD}[-'’](?P<year>\d\d)",
        rf"{YEAR}[ /-]{WORD}(?:[ /-]{DAY})?{REST}",
        rf"{YEAR}[ /-]?[Qq](?P<quarter>[1-4])",
        rf"[Qq](?P<quarter>[1-4])[ /-]?{YEAR}",
        r"(?P<year>(?:19|20)\d\d)[-/](?P<number>0[1-9]|1[0-2])",
        r"(?P<number>0?[1-9]|1[0-2])[-/](?P<year>(?:19|20)\d\d)",
        rf"{YEAR}[年년] ?(?P<number>\d\d?)[月월] ?(?:{DAY}[日일])?{REST}",
    )
]


@cache
def months() -> dict[str, int]:
    """Month by every beginning of its names that is no beginning of another's."""
    found: dict[str, set[int]] = {}
    for line in NAMES.split("\n"):
        for month, name in enumerate(line.split(), 1):
            for end in range(3, len(name) + 1):
                found.setdefault(name[:end], set()).add(month)
    return {beginning: next(iter(own)) for beginning, own in found.items() if len(own) == 1} | SHORT


def iso(text: str) -> str | None:
    """ "2021-03-03 10:00" for "Mi, 3. März 2021, 10:00"; the first day where only the month or quarter is said."""
    for form in FORMS:
        if found := form.fullmatch(text):
            part = found.groupdict()
            if word := part.get("month"):
                month = months().get(_plain(word))
            else:
                month = 3 * int(part["quarter"]) - 2 if part.get("quarter") else int(part["number"])
            if month is None:
                continue
            year = in_full(part["year"])
            rest = re.sub(r"^\D+", "", part.get("rest") or "")
            return f"{year:04d}-{month:02d}-{int(part.get('day') or 1):02d} {rest}".rstrip()
    return None


def in_full(year: str) -> int:
    """The year of two digits or four, as POSIX has it: 69 is 1969, and 68 is 2068, in whatever year it is read."""
    return int(year) + (0 if len(year) > 2 else 1900 if int(year) >= 69 else 2000)


def _plain(word: str) -> str:
    letters = unicodedata.normalize("NFKD", word.casefold())
    return "".join(c for c in letters if not unicodedata.combining(c))
