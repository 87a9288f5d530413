"""What fitted cleaners say of themselves: numbers for a log, and HTML that shows any label as text and never fails."""

import json
import pickle
import warnings
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sktda import InfluencePruner, NoisyLabelDetector
from sktda.attribution import PrecomputedScores
from tests.spies import noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees")

HOSTILE = '</table><script>alert("1")</script><img src=x onerror=alert(1)>&'
OPEN_ENDED = {"br", "img", "rect", "line"}


class Elements(HTMLParser):
    """Tags, the attributes of each, and the text of what sktda adds."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        added = page[page.index('<div class="sktda-fitted"') :]
        self.size = len(added.encode())
        self.feed(added)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_data(self, data):
        self.text += f"{data}\n"


def detectors():
    """Of classes and numbers, with hostile names, without a noisy row, with rows that have no label."""
    X, y, _ = noisy_blobs()
    names = np.array([HOSTILE, " ", "x" * 300])[y]
    table = pd.DataFrame(X, index=[f"{HOSTILE}{i}" for i in range(len(y))])
    some = np.array(["a", HOSTILE, "c"], dtype=object)[y]
    some[::9] = None
    numbers = X[:, 0] * 3 + np.random.default_rng(0).normal(size=len(X)) / 9
    numbers[:3] += 40
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return {
            "texts": NoisyLabelDetector().fit(table, pd.Series(names, table.index)),
            "numbers": NoisyLabelDetector().fit(X, numbers),
            "none noisy": NoisyLabelDetector(contamination=0.0).fit(X, y),
            "without labels": NoisyLabelDetector(unlabelled="keep").fit(X, some),
            "cannot tell": NoisyLabelDetector().fit(X, np.random.default_rng(0).permutation(y)),
        }


@pytest.fixture(scope="module")
def fitted():
    X, y, _ = noisy_blobs()
    scores = PrecomputedScores(np.arange(len(y)) * 1.0)
    pruner = InfluencePruner(LogisticRegression(), scores).fit(X, pd.Series(np.array([HOSTILE, "b", "c"])[y], index=y))
    held = InfluencePruner(LogisticRegression(), validation=0.3, guard=1.0).fit(X, y)
    return {**detectors(), "pruner": pruner, "held out": held}


def test_a_fitted_cleaner_is_shown_below_its_diagram_with_any_label_as_text(fitted):
    for name, cleaner in fitted.items():
        page = cleaner._repr_html_()
        assert "sk-container" in page
        found = Elements(page)
        assert not set(found.tags) & {"script", "img"}, name
        assert not [attribute for attribute in found.attributes if attribute.startswith("on")], name
        assert {"svg", "rect", "table"} <= set(found.tags), name
        assert found.size < 20_000, name
        assert all(len(line) < 200 for line in found.text.splitlines()), name
        again = pickle.loads(pickle.dumps(cleaner))
        assert Elements(again._repr_html_()).text == found.text, name
        with config_context(display="text"):
            assert not hasattr(cleaner, "_repr_html_"), name
    assert "30.0%" not in Elements(fitted["none noisy"]._repr_html_()).text
    assert "cannot be told" in Elements(fitted["cannot tell"]._repr_html_()).text
    assert HOSTILE[:30] in Elements(fitted["texts"]._repr_html_()).text


def test_the_worst_rows_are_those_of_the_frame(fitted):
    for name, cleaner in fitted.items():
        rows = Elements(cleaner._repr_html_()).text.partition(" rows\n")[2]
        frame = cleaner.to_frame().sort_values("score", kind="stable").iloc[:5]
        for index in frame.index[frame["score"].notna()]:
            assert str(index)[:30] in rows, name
    assert Elements(fitted["texts"]._repr_html_()).tags.count("tr") == 6


def test_what_cannot_be_shown_leaves_the_diagram(fitted):
    broken = pickle.loads(pickle.dumps(fitted["texts"]))
    del broken._index
    for cleaner in (NoisyLabelDetector(), InfluencePruner(LogisticRegression()), broken):
        page = cleaner._repr_html_()
        assert "sk-container" in page
        assert "sktda-fitted" not in page
    assert "sk-container" in make_pipeline(fitted["pruner"])._repr_html_()


def test_the_summary_is_flat_and_all_numbers(fitted):
    for name, cleaner in fitted.items():
        summary = cleaner.summary()
        assert json.loads(json.dumps(summary, allow_nan=False)) == summary, name
        assert all(type(value) in (int, float) for value in summary.values()), name
        assert all(key.isidentifier() for key in summary), name
    summary = fitted["without labels"].summary()
    assert summary["n_labelled"] == summary["n_rows"] - len(range(0, summary["n_rows"], 9))
    assert summary["n_noisy"] == (fitted["without labels"].labels_ == -1).sum()
    assert fitted["cannot tell"].summary()["can_tell"] == 0
    assert {"guard_all_score", "guard_pruned_score"} <= fitted["held out"].summary().keys()
    assert fitted["pruner"].summary()["n_pruned"] == fitted["pruner"].n_pruned_
