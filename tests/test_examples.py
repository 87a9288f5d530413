"""The examples find the mistakes that they plant, and their text says no more than they print.

That they run without a warning is what the build of their pages says; here they run if it was not made from this code.
"""

import ast
import re

import pytest

from tests.scripts import EXAMPLES, run_example

ROOT = EXAMPLES.parent


def numbers(text: str, name: str) -> list[float]:
    """The numbers behind this name, in its line."""
    line = re.search(rf"^ *{re.escape(name)}(?!,)(.*)$", text, flags=re.MULTILINE)
    assert line, f"no line {name!r} in\n{text}"
    return [float(number) for number in re.findall(r"(?<![\w.])-?\d+\.?\d*", line[1])]


def test_image_folder():
    text = run_example("image_folder")
    dropped, found = numbers(text, "dropped")
    assert dropped == 200
    assert found > 0.85 * dropped
    before, after = (numbers(text, f"trained on {rows}")[0] for rows in ("all files", "the rest"))
    assert after > before + 0.01
    worst = re.findall(r"^ +(\w+/\d{4}\.png) +(\w+) +(misplaced|right)$", text, flags=re.MULTILINE)
    assert len(worst) == 12
    assert sum(truth == "misplaced" for *_, truth in worst) >= 10
    assert sum(path.split("/")[0] != said for path, said, _ in worst) >= 10  # the new net disagrees with the folder


def test_boosting_table():
    text = run_example("boosting_table")
    _, _, accuracy, loss = numbers(text, "all rows")
    dropped, wrong, cleaned, cleaned_loss = numbers(text, "logistic, curves: 20 % dropped")
    assert dropped == 400
    assert wrong > 0.65 * dropped
    assert cleaned > accuracy + 0.02
    assert cleaned_loss < loss
    assert numbers(text, "complexity gap: 20 % dropped")[2] > accuracy
    assert numbers(text, "logistic, lines: 20 % dropped")[1] < 0.65 * dropped  # as the text warns
    assert numbers(text, "logistic, lines: 20 % dropped")[3] > loss
    chosen = numbers(text, "logistic, curves: share by CV")
    assert chosen[2] > accuracy + 0.02
    assert chosen[0] / 2000 == float(re.search(r"^ +([\d.]+) .*chosen$", text, flags=re.MULTILINE)[1])
    curve = {share: numbers(text, share)[0] for share in ("0.00", "0.10", "0.20", "0.30")}
    assert curve["0.00"] == min(curve.values())


def test_sparse_text():
    text = run_example("sparse_text")
    estimated, true = numbers(text, "estimated share of wrong topics")
    assert abs(estimated - true) < 0.05
    noisy, wrong = numbers(text, "called noisy")
    assert wrong > 0.8 * noisy
    before, after, if_known = (
        numbers(text, row)[0] for row in ("trained on all", "without those called noisy", "without the wrong, if known")
    )
    assert before + 0.02 < after <= if_known + 0.02
    worst = re.findall(r"^doc-\d{4} +(\w+) +(\w+) +[\d.]+ +(\w+)", text, flags=re.MULTILINE)
    assert len(worst) == 8
    assert sum(given != truth for given, _, truth in worst) >= 7
    assert sum(suggested == truth for _, suggested, truth in worst) >= 7


def test_multilabel():
    text = run_example("multilabel")
    n_wrong, precision, f1 = numbers(text, "all rows")
    assert n_wrong == 250
    for name in ("EL2N", "LogitMargin"):
        left, cleaned_precision, cleaned_f1 = numbers(text, f"without the worst by {name}")
        assert left < 0.2 * n_wrong
        assert cleaned_precision > precision
        assert cleaned_f1 > f1
    assert len(re.findall(r"^  row +\d+ .*wrong$", text, flags=re.MULTILINE)) >= 9


def test_regression_outliers():
    text = run_example("regression_outliers")
    noisy, wrong = numbers(text, "called noisy")
    assert wrong > 0.9 * noisy
    assert wrong > 20
    for line in re.findall(r"^row-\d{4} +(.*)$", text, flags=re.MULTILINE):
        given, suggested, _, truth = map(float, line.split())
        assert abs(suggested - truth) < 0.1 * abs(given - truth)
    before = numbers(text, "all rows")
    for name in (
        "noisy rows dropped",
        "worst 5 % dropped",
        "worst 10 % dropped",
        "weighted by rank",
    ):
        for dirty, cleaned, known in zip(
            before, scores(text, name), scores(text, "wrong rows dropped, if known"), strict=True
        ):
            assert dirty + 0.5 < cleaned <= known + 0.02


def test_trainer_run():
    text = run_example("trainer_run")
    for name in ("InnerProduct", "AUM", "Loss"):
        auroc, found = numbers(text, name)
        assert auroc > 0.8
        assert found > 0.5  # of all rows 0.15


def test_language_model():
    pytest.importorskip("transformers")
    text = run_example("language_model")
    known, asked = numbers(text, "74 texts; homes that the model knows:")
    first, among = numbers(text, "the text that tells it comes first:")
    assert known > 0.8 * asked
    assert first > 0.6 * known
    assert among > 0.8 * known
    said = re.search(r"says: (person00 lives in (\w+)) \(the truth is (\w+)\)", text)
    assert said[2] != said[3]
    rows = re.findall(r"^  (person\d\d .*?)  .* (-?[\d.]+)$", text, flags=re.MULTILINE)
    assert [row for row, _ in rows[:2]] == [said[1]] * 2
    assert rows[-1][0] == f"person00 lives in {said[3]}"
    assert float(rows[-1][1]) < 0 < float(rows[0][1])


def test_lora_classifier():
    pytest.importorskip("peft")
    text = run_example("lora_classifier")
    _, before = numbers(text, "all rows")
    for name in ("InnerProduct", "TracIn"):
        dropped, wrong, after = numbers(text, f"{name}:")
        assert wrong > 0.8 * dropped
        assert after > before + 0.01


def scores(text: str, name: str) -> list[float]:
    """The two columns of R2."""
    return numbers(text, name)[-2:]


def test_table_labels():
    text = run_example("table_labels")
    estimated, low, high = numbers(text, "estimated share of wrong labels:")
    true = float(re.search(r"wrong label \(([\d.]+)%\)", text)[1])
    assert low < true < high
    assert abs(estimated - true) < 4
    noisy, found, n_wrong = numbers(text, "called noisy")
    assert found > 0.7 * max(noisy, n_wrong)
    all_rows, cleaned, right = (
        numbers(text, f"trained on {rows}")[0] for rows in ("all", "rows not called noisy", "right")
    )
    assert all_rows <= cleaned <= right + 0.02


def test_how_many():
    text = run_example("how_many")
    lowest, random = {}, {}
    for share, *each in re.findall(r"^ +(\d+)% +([\d.]+) +([\d.]+)$", text, flags=re.MULTILINE):
        lowest[int(share)], random[int(share)] = map(float, each)
    assert max(lowest, key=lowest.get) == 20  # the curve rises while wrong rows go and falls when right ones do
    assert lowest[20] - lowest[30] < 0.02 < lowest[20] - lowest[40]  # flat to 30 %
    assert all(lowest[share] > random[share] + 0.03 for share in lowest if share)
    assert abs(numbers(text, "NoisyLabelDetector estimates")[0] - 0.2) < 0.05
    assert numbers(text, "InfluencePrunerCV drops") == [0.2]
    before, after = numbers(text, "accuracy on right labels:")
    assert after > before + 0.1


def test_pipeline_search():
    text = run_example("pipeline_search")
    few, many, found, detected = (
        numbers(text, name)[0]
        for name in (
            "1 neighbour, all rows",
            "15 neighbours, all rows",
            "best of the search",
            "1 neighbour, rows by the detector",
        )
    )
    assert re.search(r"prune_ratio': 0\.[123]", text)
    assert found > many > few
    assert detected > few + 0.1


def test_why_prediction():
    text = run_example("why_prediction")
    found, asked = map(int, re.search(r"^(\d+) of the (\d+) strongest rows", text, flags=re.MULTILINE).groups())
    assert found > asked / 2
    seen, corrected = map(int, re.search(r"(\d+) rows looked at, (\d+) labels", text).groups())
    assert corrected > 0.6 * seen
    before, after = numbers(text, "before")[0], numbers(text, "after")[0]
    assert before > 0
    assert after < before


def test_every_example_is_a_story_that_its_page_lists():
    """A title, cells with prose, a picture, a decision; and its place on the page of examples."""
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    faults = []
    for path in sorted(EXAMPLES.glob("*.py")):
        name, script = path.name, path.read_text(encoding="utf-8")
        if name == "demo.py":  # of `make demo`
            continue
        title, rule, *_ = ast.get_docstring(ast.parse(script)).splitlines()
        if len(title) > 72 or rule != "=" * len(title):
            faults.append(f"{name}: its docstring must begin with a title of at most 72 characters and a line of =")
        if page.count(f"../examples/{name}\n") != 1:
            faults.append(f"{name}: docs/examples.md must list it once")
        if name == "diffusion.py":  # four minutes: its page shows a picture made before
            continue
        if script.count("\n# %%\n") < 3 or "**The decision**" not in script:
            faults.append(f"{name}: at least three cells, and a decision at the end")
        if ("Display" not in script and "subplots" not in script) or "plt.show()\n" not in script:
            faults.append(f"{name}: a picture, and plt.show() at the end for those who run the script")
        if titles := [each for each in re.findall(r"^# ([^\n]+)\n# -+$", script, flags=re.MULTILINE) if len(each) > 60]:
            faults.append(f"{name}: a heading is long: {titles}")
    assert not faults, "\n".join(faults)


def test_pictures_of_the_pages_are_small_are_described_and_are_shown():
    """Those that docs/pictures.py draws from the pages, and the others that are committed."""
    pages = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", EXAMPLES / "diffusion.py"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages if "_build" not in page.parts)
    faults = [
        f"a picture without a description: {line}" for line in re.findall(r"^!\[.{0,15}\]\(.*", text, re.MULTILINE)
    ]
    for path in sorted((ROOT / "docs" / "_static").glob("*.png")):
        if f"_static/{path.name}" not in text:
            faults.append(f"{path.name} is shown nowhere")
        if not 1_000 < path.stat().st_size < 150_000:
            faults.append(f"{path.name} has {path.stat().st_size:,} bytes")
    assert not faults, "\n".join(faults)
