import json
import re
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse
from sklearn.datasets import load_diabetes, load_digits
from typer.testing import CliRunner

from sktda import NoisyLabelDetector
from sktda.cli.commands import app
from sktda.findings import inspect
from sktda.report import ReportInput, comparison, write_report
from sktda.report.judgement import Judgement
from tests.report.pages import Page, blobs_input, detected, frame_of
from tests.spies import noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees")


def written(path, data, **options):
    """(numbers, parsed page) of a report; few folds, since most tests are not about the comparison."""
    numbers = write_report(path, data, **{"cv": 2, **options})
    return numbers, Page(path.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def one_random_draw(monkeypatch):
    """Less work, in tests that are not about the comparison."""
    monkeypatch.setattr(comparison, "N_REPEATS", 1)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    notes = ("column 'comment' was skipped",)
    path = tmp_path_factory.mktemp("report") / "table.html"
    return written(path, blobs_input(notes=notes, reproduce="sktda clean trees.csv --target kind"), cv=3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    digits = load_digits(n_class=5)
    X, y = digits.images[:250], digits.target[:250].copy()
    y[:30] = (y[:30] + 1) % 5
    path = tmp_path_factory.mktemp("report") / "pictures.html"
    return written(path, detected(X, y, name="digits", image=lambda i: X[i]))


@pytest.mark.parametrize("kind", ["table", "pictures"])
def test_page_is_well_formed_and_accessible(kind, request):
    page = request.getfixturevalue(kind)[1]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) <= 1
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("table")
    assert len(page.all("table")) == len(page.all("caption"))
    assert all("scope" in attrs for attrs in page.all("th"))
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in page.all("svg"))
    for _, attrs in page.tags:
        assert attrs.get("aria-labelledby", ids[0]) in ids
        assert attrs.get("href", "#").removeprefix("#") in [*ids, ""]


@pytest.mark.parametrize("kind", ["table", "pictures"])
def test_page_asks_nothing_of_the_network(kind, request):
    page = request.getfixturevalue(kind)[1]
    for _, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "data", "srcset", "poster", "action"):
            assert re.match(r"#|data:image/(png|jpeg);base64,", attrs.get(name, "#"))
    assert not page.all("script", "link", "iframe", "object", "base", "form")
    assert not re.search(r"@import|url\((?!#)", page.source)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_pictures_are_data_uris_with_alternatives(pictures):
    numbers, page = pictures
    images = page.all("img")
    assert len(images) == 4 * min(24, numbers["n_noisy"] or 24)
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in images)
    assert all(re.match(r"Row \d+, (given )?label \d", attrs["alt"]) for attrs in images)


def test_numbers_on_the_page_are_those_returned(table):
    numbers, page = table
    assert json.loads(json.dumps(numbers)) == numbers
    data = blobs_input()
    assert numbers["n_rows"] == 120
    assert numbers["n_classes"] == 3
    assert numbers["n_noisy"] == data.frame["noisy"].sum() > 0
    assert numbers["noise_rate"] == data.noise_rate
    assert f"{100 * numbers['noise_rate']:.1f} % about {numbers['n_wrong']} rows" in page.text
    assert f"{numbers['n_noisy']} rows with the lowest scores are flagged" in page.text
    assert [row["model"] for row in numbers["models"]] == ["logistic regression", "random forest"]
    for row in numbers["models"]:
        cells = [f"{row[arm]:.3f} ± {row[f'{arm}_se']:.3f}" for arm in ("before", "random", "after")]
        cells += [f"{row[gain]:+.3f} ± {row[f'{gain}_se']:.3f}" for gain in ("gain", "gain_over_random")]
        assert " ".join([row["model"], *cells]) in page.text
    for arm in ("before", "after", "random"):
        assert numbers[f"accuracy_{arm}"] == numbers["models"][0][arm]
        assert numbers[f"accuracy_{arm}_se"] == numbers["models"][0][f"{arm}_se"]
    assert f"would reach only about {1 - numbers['noise_rate']:.3f}" in page.text
    visible = comparison.visible_gain(numbers["noise_rate"], 3)
    assert f"a true gain of 1 point shows as about {visible:.2f} points" in page.text
    for given, name, suggested in [(p["given"], p["count"], p["suggested"]) for p in numbers["pairs"]]:
        rows = (data.frame["given_label"] == given).sum()
        assert f'title="{name} of {rows} rows: {given} → {suggested}"' in page.source


def test_page_says_how_it_was_made(table):
    import sklearn
    import torch

    _, page = table
    assert "sktda clean trees.csv --target kind" in page.text
    assert "column 'comment' was skipped" in page.text
    assert repr(NoisyLabelDetector()) in page.text
    for name, version in {"scikit-learn": sklearn.__version__, "torch": torch.__version__}.items():
        assert f"{name} {version}" in page.text


def test_same_input_same_page(tmp_path):
    pages = []
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, blobs_input(), cv=2)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_hostile_text_stays_text(tmp_path):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    X, y, _ = noisy_blobs()
    rows = pd.DataFrame(X, columns=[evil, "b", "{{ 7 * 7 }}", "d"]).assign(text=evil)
    data = detected(
        X,
        np.array([evil, "</svg><b>$x^2$", "{{ 7 * 7 }}"])[y],
        index=[f"{evil}{i}" for i in range(len(y))],
        rows=rows,
        name=evil,
        notes=(evil,),
        reproduce=f"sktda clean {evil}",
    )
    numbers, page = written(tmp_path / "page.html", data)
    assert not page.all("script", "img")
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert numbers["pairs"]
    assert evil in page.text
    assert "{{ 7 * 7 }}" in page.text


def unflagged():
    X, y, _ = noisy_blobs()
    return ReportInput(name="clean", frame=frame_of(y), noise_rate=0.0, task="classification",
                       detector=NoisyLabelDetector(contamination=0.0), features=X)  # fmt: skip


def one_flag(suggested=1):
    X, y, _ = noisy_blobs(rate=0)
    given = y.copy()
    given[3] = (y[3] + 1) % 3
    return ReportInput(name="one", frame=frame_of(given, y), noise_rate=1 / 120, task="classification",
                       detector=NoisyLabelDetector(contamination=0.01), features=X)  # fmt: skip


def whole_class_flagged():
    X, y, _ = noisy_blobs(rate=0)
    return ReportInput(name="class", frame=frame_of(y, np.where(y == 2, 1, y)), noise_rate=1 / 3,
                       task="classification", detector=NoisyLabelDetector(), features=X)  # fmt: skip


def booleans():
    X, y, _ = noisy_blobs(centers=2)
    return detected(X, y.astype(bool))


def unicode():
    return blobs_input(names=("Ä ö ß", "日本語 ラベル", "نص عربي"), name="Größe 漢字.csv")


def rare_class():
    X, y, _ = noisy_blobs()
    y[:2] = 3
    return detected(X, y)


def fifty_classes():
    X, y, _ = noisy_blobs(n=400, centers=50)
    return detected(X, np.array([f"class {c}" for c in range(50)])[y])


def sparse_rows():
    X, y, _ = noisy_blobs()
    return detected(sparse.csr_matrix(np.hstack([X, np.zeros((len(X), 200))])), y.astype(str))


def wide_table():
    X, y, _ = noisy_blobs()
    X = np.hstack([X, np.random.default_rng(0).normal(size=(len(X), 300))])
    return detected(X, y.astype(str), rows=pd.DataFrame(X).add_prefix("column "))


def no_features():
    return blobs_input(features=None)


def float_pictures():
    X, y, _ = noisy_blobs()
    return detected(X, y, image=lambda i: np.full((5, 7, 3), abs(X[i, 0]) % 1))


def pil_pictures():
    X, y, _ = noisy_blobs()
    return detected(X, y, image=lambda i: Image.new("RGB", (300, 200), (int(i), 80, 90)))


def blank_labels():
    return blobs_input(names=("", " ", "0"))


CASES = [unflagged, one_flag, whole_class_flagged, booleans, unicode, rare_class, fifty_classes, sparse_rows,
         wide_table, no_features, float_pictures, pil_pictures, blank_labels]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_every_kind_of_data_gets_a_page(case, tmp_path):
    data = case()
    numbers, page = written(tmp_path / "page.html", data)
    assert numbers["n_noisy"] == data.frame["noisy"].sum()
    assert len(page.all("article")) == min(24, numbers["n_noisy"] or numbers["n_rows"])
    assert ("models" in numbers) == (data.features is not None)
    assert numbers["left_out"].keys() == (set() if data.features is not None else {"comparison"})
    expected = {
        "unflagged": "These are the 24 rows whose labels the other rows support least",
        "one_flag": "The row with the lowest score is flagged",
        "no_features": "There is no comparison: the features that the scores came from are not at hand",
        "fifty_classes": "With 50 classes a full map would not be readable",
        "wide_table": "292 columns with smaller differences left out",
        "unicode": "日本語 ラベル",
        "blank_labels": "(blank: '')",
        "sparse_rows": "The models saw 50 principal components",
    }
    assert expected.get(case.__name__, "") in page.text


def test_regression_page(tmp_path):
    X, y = load_diabetes(return_X_y=True)
    y = y.copy()
    y[:20] += 5000
    numbers, page = written(tmp_path / "page.html", detected(X, y, task="regression"))
    assert numbers["metric"] == "r2"
    assert 20 <= numbers["n_noisy"] < 30
    assert {f"Row {row}" for row in range(20)} <= set(page.texts)
    assert numbers["r2_after"] > numbers["r2_random"]
    assert "n_classes" not in numbers
    assert "Given and suggested values" in page.text
    assert len(page.all("svg")) == 3


def test_large_data_stays_quick_and_small(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "MAX_ROWS", 600)  # the comparison's time is set by this, not by the data
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60_000, 10)), rng.integers(0, 10, 60_000)
    X[:, 0] += 3 * y
    frame = frame_of(y, (y + (rng.random(len(y)) < 0.2)) % 10)
    data = ReportInput(name="large", frame=frame, noise_rate=0.2, task="classification",
                       detector=NoisyLabelDetector(), features=X, rows=pd.DataFrame(X))  # fmt: skip
    start = time.perf_counter()
    numbers, page = written(tmp_path / "page.html", data)
    assert time.perf_counter() - start < 60
    assert (tmp_path / "page.html").stat().st_size < 500_000
    assert numbers["n_rows_compared"] == 600
    assert "600 of the 60,000 rows, drawn at random, were used" in page.text


def test_what_the_detector_refuses_is_said_on_the_page(tmp_path):
    class Refusing(NoisyLabelDetector):
        def fit(self, X, y):
            raise ValueError("not with <these> rows")

    data = blobs_input()
    object.__setattr__(data, "detector", Refusing())
    numbers, page = written(tmp_path / "page.html", data)
    assert numbers["left_out"] == {"comparison": "not with <these> rows"}
    assert "There is no comparison: not with <these> rows." in page.text


def test_a_chosen_share_is_not_called_an_estimate(tmp_path):
    _, page = written(tmp_path / "page.html", one_flag())
    assert "assumed wrong labels 0.8 %" in page.text
    assert "estimated" not in page.text


def test_page_says_that_nothing_was_removed(tmp_path):
    numbers, page = written(tmp_path / "page.html", unflagged())
    assert numbers["n_removed_per_fold"] == [0, 0]
    assert "The detector removed no row in any of them" in page.text
    assert all(row["gain"] == 0 for row in numbers["models"])


class Vandal(NoisyLabelDetector):
    """Drops all rows of a class but two."""

    def fit_resample(self, X, y):
        first = np.flatnonzero(y == y[0])
        self.sample_indices_ = np.setdiff1d(np.arange(len(y)), first[2:])
        return X[self.sample_indices_], y[self.sample_indices_]


def test_where_cleaning_makes_models_worse_the_page_says_keep_these_rows(tmp_path):
    X, y, _ = noisy_blobs(rate=0)
    frame = frame_of(y, np.where(y == y[0], (y + 1) % 3, y))
    data = ReportInput(name="x", frame=frame, noise_rate=0.3, task="classification", detector=Vandal(), features=X)
    numbers, page = written(tmp_path / "page.html", data, cv=3)
    assert numbers["verdict"] == "worse"
    assert len([attrs for attrs in page.all("p") if attrs.get("class") == "warning"]) == 2
    summary, rest = page.text.split("Which labels are confused")
    assert "Keep these rows. Models trained without them did worse" in summary
    assert "Keep these rows: the cleaned models are worse" in rest


def test_where_cleaning_helps_or_changes_nothing_no_row_is_defended(table, tmp_path):
    numbers, page = table
    words = {"better": "Cleaning helps:", "unclear": "No clear difference:"}
    assert words[numbers["verdict"]] in page.text
    assert "Keep these rows" not in page.text
    assert "class" not in page.all("p")[1] or page.all("p")[1]["class"] != "warning"
    assert numbers["can_tell"]


UNTOLD = Judgement(0.0, (0.0, 0.4), 0.51, 0.03, 0.5, can_tell=False, scale="standard")


def unpredicted(**options):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(120, 3)), rng.integers(0, 2, 120)
    options = {"frame": frame_of(y), "detector": NoisyLabelDetector(), **options}
    return ReportInput(name="noise", noise_rate=0.0, task="classification", features=X, **options)


@pytest.mark.parametrize("judgement", [UNTOLD, None], ids=["told", "from the folds"])
def test_features_that_do_not_predict_are_said_first(judgement, tmp_path):
    numbers, page = written(tmp_path / "page.html", unpredicted(judgement=judgement))
    assert numbers["can_tell"] is False
    first = page.text.split("flagged rows 0")[1]
    assert "The features do not predict the label" in first[:200]
    assert "No row is flagged." in first[:500]
    assert ("balanced accuracy 0.51 ± 0.03 out of sample, 0.50 is chance" in page.text) == (judgement is not None)
    assert "estimated wrong labels unknown" in page.text
    assert "scored by how well" not in page.text


def test_a_share_asked_for_in_vain_is_called_so(tmp_path):
    y = unpredicted().frame["given_label"].to_numpy()
    frame = frame_of(y, np.where(np.arange(120) < 12, 1 - y, y))
    data = unpredicted(frame=frame, judgement=UNTOLD, detector=NoisyLabelDetector(contamination=0.1))
    _, page = written(tmp_path / "page.html", data)
    assert (
        "The 12 rows that are flagged all the same, because a share was asked for, are no better than drawn"
        in page.text
    )


def test_equal_rows_with_different_labels_have_a_section_before_all_statistics(tmp_path):
    X, y, _ = noisy_blobs()
    names = np.array(["<ash>", "beech", "cedar"])
    X[100:115], y[100:115] = X[:15], (y[:15] + 1) % 3
    findings = tuple(inspect(X, names[y])[1])
    index = [f"tree-{i}" for i in range(len(y))]
    data = ReportInput(name="x", frame=frame_of(names[y], index=index), noise_rate=0.1, task="classification",
                       detector=NoisyLabelDetector(), findings=findings)  # fmt: skip
    numbers, page = written(tmp_path / "page.html", data)
    assert numbers["n_contradictions"] == 15
    assert page.text.index("at least one label of each group is wrong") < page.text.index("Which labels are confused")
    assert f"row tree-0: {names[y[0]]} , row tree-100: {names[y[100]]}" in page.text
    assert "The first 12 of 15 groups." in page.text
    assert "tree-114" not in page.text
    assert any(attrs.get("href") == "#contradictions" for attrs in page.all("a"))


def test_the_interval_of_the_estimate_is_on_the_page(tmp_path):
    judgement = Judgement(0.2, (0.153, 0.247), 0.8, 0.02, 1 / 3, can_tell=True)
    _, page = written(tmp_path / "page.html", blobs_input(features=None, judgement=judgement))
    assert "15.3\xa0% to 24.7\xa0%" in page.text or "15.3 % to 24.7 %" in page.text


def test_a_judgement_is_read_from_any_detector():
    class Inner:
        scale_, transform_ = "unit", "logarithm"

    class Fitted:
        noise_rate_, noise_rate_interval_ = np.float64(0.1), (np.float64(0.05), 0.2)
        predictability_, predictability_error_, chance_, can_tell_ = 0.61, 0.021, 0.0, np.True_
        attributor_ = Inner()

    judgement = Judgement.of(Fitted())
    assert json.loads(json.dumps(judgement.numbers())) == {
        "noise_rate_interval": [0.05, 0.2], "predictability": 0.61, "predictability_error": 0.021, "chance": 0.0,
        "can_tell": True, "scale": "unit", "transform": "logarithm",
    }  # fmt: skip
    assert judgement.evidence(regression=True) == "R² 0.61 ± 0.02 out of sample, 0.00 is chance"
    assert len(judgement.notes()) == 2
    assert judgement.notes()[1].endswith("its logarithm")
    old = type("Old", (), {"noise_rate_": 0.3})()
    assert Judgement.of(old) == Judgement(0.3, can_tell=True)
    assert (Judgement.of(old).evidence(regression=False), Judgement.of(old).notes()) == ("", [])


def test_a_failure_leaves_the_old_page(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")

    def image(row):
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        write_report(path, blobs_input(image=image), cv=2)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame": frame_of([0, 1]).drop(columns="score")}, r"frame lacks the columns \['score'\]"),
        ({"frame": frame_of([])}, "frame has no rows"),
        ({"features": np.ones((5, 2))}, "features has 5 rows but frame has 120"),
        ({"rows": pd.DataFrame(np.ones((3, 2)))}, "rows has 3 rows but frame has 120"),
        ({"task": "ranking"}, "task='ranking' is not one of"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message, tmp_path):
    data = blobs_input()
    for name, value in changes.items():
        object.__setattr__(data, name, value)
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "page.html", data)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["jinja2", "matplotlib"])
def test_a_missing_extra_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=re.escape(f'{name}, which is missing: pip install "sktda[report]"')):
        write_report(tmp_path / "page.html", blobs_input())


def test_the_page_lists_which_columns_were_used_how_and_which_were_not(tmp_path):
    rows = pd.DataFrame({"a": np.arange(30) % 7 + 0.5, "x<y": ["same"] * 30, "label": ["p", "q"] * 15})
    rows.to_csv(tmp_path / "d.csv", index=False)
    command = ["clean", str(tmp_path / "d.csv"), "-t", "label", "-o", str(tmp_path / "o.csv"), "--no-comparison"]
    done = CliRunner().invoke(app, [*command, "--report", str(tmp_path / "r.html")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Columns: 1 of 2 used" in page
    assert '<th scope="row">x&lt;y</th><td>constant</td><td>not used: one value only</td>' in page
