"""The examples run without a warning, find the mistakes that they plant, and print what their page says."""

import re

from PIL import Image

from tests.scripts import EXAMPLES, run_example

PAGE = EXAMPLES.parent / "docs" / "examples.md"


def numbers(text: str, name: str) -> list[float]:
    """The numbers behind this name, in its line."""
    line = re.search(rf"^ *{re.escape(name)}(?!,)(.*)$", text, flags=re.MULTILINE)
    assert line, f"no line {name!r} in\n{text}"
    return [float(number) for number in re.findall(r"(?<![\w.])-?\d+\.?\d*", line[1])]


def check_page(name: str, text: str) -> None:
    """The lines that the page shows of a script are printed, up to their numbers: these may differ by machine."""
    page = PAGE.read_text(encoding="utf-8")
    shown = re.search(rf"python examples/{name}\.py.*?```text\n(.*?)```", page, flags=re.DOTALL)
    assert shown, f"docs/examples.md shows nothing of {name}.py"
    printed = {masked(line) for line in text.splitlines()}
    for line in shown[1].splitlines():
        assert masked(line) in printed, line


def masked(line: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"-?\d+\.?\d*", "#", line)).replace(" chosen", "").strip()


def test_image_folder(tmp_path):
    text = run_example("image_folder", str(tmp_path))
    dropped, found = numbers(text, "dropped")
    assert dropped == 240
    assert found > 0.85 * dropped
    before, after = (numbers(text, f"trained on {rows}")[0] for rows in ("all files", "the rest"))
    assert after > before + 0.01
    worst = re.findall(r"^ +(\w+/\d{4}\.png) +(\w+) +(misplaced|right)$", text, flags=re.MULTILINE)
    assert len(worst) == 12
    assert sum(truth == "misplaced" for *_, truth in worst) >= 10
    assert all((tmp_path / "train" / path).exists() for path, *_ in worst)
    assert sum(path.split("/")[0] != said for path, said, _ in worst) >= 10  # the new net disagrees with the folder
    with Image.open(tmp_path / "suspects.png") as picture:
        assert min(picture.size) > 200
    check_page("image_folder", text)


def test_boosting_table():
    text = run_example("boosting_table")
    _, _, accuracy, loss = numbers(text, "all rows")
    dropped, wrong, cleaned, cleaned_loss = numbers(text, "logistic, curves: 20 % dropped")
    assert dropped == 400
    assert wrong > 0.65 * dropped
    assert cleaned > accuracy + 0.02
    assert cleaned_loss < loss
    assert numbers(text, "complexity gap: 20 % dropped")[2] > accuracy
    assert numbers(text, "logistic, lines: 20 % dropped")[1] < 0.65 * dropped  # the docstring's warning
    assert numbers(text, "logistic, lines: 20 % dropped")[3] > loss
    chosen = numbers(text, "logistic, curves: share by CV")
    assert chosen[2] > accuracy + 0.02
    assert chosen[0] / 2000 == float(re.search(r"^ +([\d.]+) .*chosen$", text, flags=re.MULTILINE)[1])
    curve = {share: numbers(text, share)[0] for share in ("0.00", "0.10", "0.20", "0.30")}
    assert curve["0.00"] == min(curve.values())
    check_page("boosting_table", text)


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
    check_page("sparse_text", text)


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
    check_page("multilabel", text)


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
    check_page("regression_outliers", text)


def test_trainer_run():
    text = run_example("trainer_run")
    for name in ("InnerProduct", "AUM", "Loss"):
        auroc, found = numbers(text, name)
        assert auroc > 0.8
        assert found > 0.5  # of all rows 0.15
    check_page("trainer_run", text)


def scores(text: str, name: str) -> list[float]:
    """The two columns of R2."""
    return numbers(text, name)[-2:]


def test_docstrings_say_how_to_run():
    for name in ("image_folder", "boosting_table", "sparse_text", "multilabel", "regression_outliers", "trainer_run"):
        first = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8").split('"""')[1]
        assert f"Run with `python examples/{name}.py`" in first
