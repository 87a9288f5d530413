"""The pages as a reader has them: review and report, in one browser for all tests."""

import csv
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from sktda.cli.commands import app
from sktda.report import write_report
from tests.browser import MISSING, complaints, look, started
from tests.report.pages import blobs_input, frame_of
from tests.spies import noisy_blobs

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

HOSTILE = "</script><script>document.title='stolen'</script>"
NAMES = np.array(["ash, green", HOSTILE, "beech"])


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads):
    browser = started(downloads)
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV with wrong labels, as lines; its page of review beside it."""
    path = tmp_path_factory.mktemp("table") / "trees.csv"
    X, y, _ = noisy_blobs()
    cells = np.column_stack([X.round(3).astype(str), np.where(X[:, 0] > 0, "<img src=x onerror=alert(1)>", "sand")])
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(["height", "girth", "age", "crown", "soil", "label"])
        writer.writerows([*row, label] for row, label in zip(cells.tolist(), NAMES[y].tolist(), strict=True))
    run("review", path, "-t", "label", "-o", path.with_suffix(".html"))
    return path


def run(*args):
    result = CliRunner().invoke(app, list(map(str, args)))
    assert result.exit_code == 0, result.stderr


def exported(browser, downloads):
    """The rows of the file that a click on Save brings."""
    browser.find_element("id", "export").click()
    path = downloads / "decisions.csv"
    for _ in range(100):
        if path.exists():
            break
        time.sleep(0.05)
    text = path.read_text(encoding="utf-8")
    path = path.rename(downloads / f"decisions{len(list(downloads.iterdir()))}.csv")
    return path, list(csv.DictReader(text.splitlines()))


def press(browser, keys):
    browser.find_element("tag name", "body").send_keys(keys)


def current(browser):
    return int(browser.execute_script("return current"))


def test_ten_rows_are_reviewed_by_click_and_key_and_the_cleaned_file_is_what_was_decided(
    browser, downloads, table, tmp_path
):
    look(browser, table.with_suffix(".html"))
    browser.execute_script("localStorage.clear()")
    look(browser, table.with_suffix(".html"))
    assert browser.title == "Review: trees.csv"
    shown = browser.execute_script("return data.rows.map((card) => [card.row, card.given, card.suggested])")
    given, suggested = {row: a for row, a, _ in shown}, {row: b for row, _, b in shown}
    assert len(shown) >= 12
    expected = {}

    def decided(decision, label=""):
        expected[current(browser)] = (decision, label)

    decided("keep")
    browser.find_element("id", "keep").click()
    decided("drop")
    browser.find_element("id", "drop").click()
    decided("relabel", suggested[current(browser)])
    browser.find_element("id", "relabel").click()
    decided("keep")
    press(browser, "k")
    decided("drop")
    press(browser, "d")
    decided("relabel", suggested[current(browser)])
    press(browser, "r")
    row = current(browser)
    press(browser, "d")
    press(browser, "u")
    assert current(browser) == row
    labels = browser.execute_script("return data.classes.map((entry) => entry[0])")
    decided(*(("keep", "") if given[row] == labels[2] else ("relabel", labels[2])))
    press(browser, "3")
    decided("", "")
    press(browser, "s")
    press(browser, "\ue014")  # the row to the right
    decided("keep")
    press(browser, "k")
    left = 10 - len(expected)
    boxes = browser.find_elements("css selector", "#tiles input")
    pair = (given[current(browser)], suggested[current(browser)])
    for box in boxes[left - 1 :]:
        box.click()
    for row in [current(browser), *(int(box.get_attribute("value")) for box in boxes[: left - 1])]:
        assert (given[row], suggested[row]) == pair
        expected[row] = ("drop", "")
    browser.find_element("id", "drop-all").click()
    assert browser.find_element("id", "count").text == f"{len(expected)} of {len(shown)} decided"
    look(browser, table.with_suffix(".html"))
    assert browser.find_element("id", "count").text == f"{len(expected)} of {len(shown)} decided"

    path, rows = exported(browser, downloads)
    assert {int(row["row"]): (row["decision"], row["new_label"]) for row in rows} == expected
    assert {row["given_label"] for row in rows} <= set(NAMES)
    run("clean", table, "-t", "label", "--decisions", path, "-o", tmp_path / "clean.csv")
    lines = table.read_bytes().splitlines(keepends=True)
    result = [lines[0]]
    for row, line in enumerate(lines[1:]):
        decision, label = expected.get(row, ("", ""))
        if decision == "relabel":
            cells = next(csv.reader([line.decode()]))
            result.append((",".join([*cells[:-1], f'"{label}"' if "," in label else label]) + "\r\n").encode())
        elif decision == "keep" or (decision == "" and row not in given):
            result.append(line)
    assert (tmp_path / "clean.csv").read_bytes() == b"".join(result)
    assert complaints(browser) == []


def test_rows_are_found_and_filtered_and_a_new_page_begins_with_what_was_decided(browser, downloads, table, tmp_path):
    look(browser, table.with_suffix(".html"))
    browser.execute_script("localStorage.clear()")
    look(browser, table.with_suffix(".html"))
    shown = browser.execute_script("return data.rows.map((card) => card.row)")
    browser.find_element("id", "order").send_keys("by pair")
    pairs = browser.execute_script("return visible().map((card) => card.given + '>' + card.suggested)")
    assert pairs == sorted(pairs, key=lambda pair: (-pairs.count(pair), pairs.index(pair)))
    browser.find_element("id", "find").send_keys("kkdd")  # keys are letters in a field
    assert browser.execute_script("return [decided.size, current]") == [0, None]
    assert "No row to show" in browser.find_element("id", "card").text
    browser.find_element("id", "find").clear()
    browser.find_element("id", "find").send_keys("sand")
    assert browser.execute_script("return visible().every((card) => contains(card, 'sand'))")
    browser.find_element("id", "find").clear()
    browser.execute_script("show(arguments[0]); document.activeElement.blur()", shown[0])
    for key in "kr":
        press(browser, key)
    made = browser.execute_script("return [...decided]")
    path, _ = exported(browser, downloads)
    browser.execute_script("localStorage.clear()")
    run("review", table, "-t", "label", "--decisions", path, "-o", tmp_path / "again.html")
    look(browser, tmp_path / "again.html")
    assert sorted(browser.execute_script("return [...decided]")) == sorted(made)
    assert current(browser) not in dict(made)
    assert browser.execute_script("return data.rows.length") >= len(made) + 1


def test_numbers_are_given_other_values(browser, downloads, tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=80)
    y = (74_500 + 9_000 * x + random.normal(size=80)).round()
    y[::20] += 60_000
    lines = [f"{a:.4f},{b:.0f}" for a, b in zip(x, y, strict=True)]
    (tmp_path / "prices.csv").write_text("\n".join(["area,price", *lines, ""]))
    options = ["--target", "price", "--task", "regression", "--drop", "0.05"]
    run("review", tmp_path / "prices.csv", *options, "-o", tmp_path / "prices.html")
    look(browser, tmp_path / "prices.html", width=390, dark=True)
    row = current(browser)
    assert row % 20 == 0
    assert f"{y[row]:.0f}" in browser.find_element("id", "card").text
    assert "e+0" not in browser.find_element("tag name", "body").text
    browser.find_element("id", "value").send_keys("74500", "\ue007")
    path, rows = exported(browser, downloads)
    assert [(cells["row"], cells["decision"], cells["new_label"]) for cells in rows] == [(str(row), "relabel", "74500")]
    run("clean", tmp_path / "prices.csv", *options, "--decisions", path, "-o", tmp_path / "clean.csv")
    assert f"{x[row]:.4f},74500" in (tmp_path / "clean.csv").read_text().splitlines()


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
@pytest.mark.parametrize("kind", ["review", "report", "nothing flagged"])
def test_no_page_is_wider_than_its_window_and_all_of_it_has_a_name(browser, table, tmp_path, kind, width, dark):
    path = table.with_suffix(".html")
    if kind != "review":
        path = tmp_path / "page.html"
        long = "x" * 300
        given = [long, "b", long, "b"] * 30
        options = {"frame": frame_of(given), "noise_rate": 0.0} if kind == "nothing flagged" else {}
        data = blobs_input(names=(long, "beech", "cedar"), notes=(long,), reproduce=f"sktda clean {long}")
        for name, value in options.items():
            object.__setattr__(data, name, value)
        write_report(path, data, comparison=False)
    look(browser, path, width, dark)
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(21, 24, 27)" if dark else "rgb(255, 255, 255)")
    nameless = browser.execute_script(
        "return [...document.querySelectorAll('button, select, input, a, img, progress, section, article')].filter(e =>"
        " !(e.textContent.trim() || e.ariaLabel || e.alt || e.title || e.labels?.[0]?.textContent.trim() ||"
        " e.getAttribute('aria-labelledby') || e.id === 'large')).map((e) => e.outerHTML)"
    )
    assert nameless == []
    assert complaints(browser) == []
