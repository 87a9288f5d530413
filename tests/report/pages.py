"""Inputs for report pages, and a reader that checks a page while it parses it."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd

from sktda import NoisyLabelDetector
from sktda.report import ReportInput
from tests.spies import noisy_blobs

VOID = {"meta", "img", "br", "link", "input", "hr"}


def frame_of(given, suggested=None, quality=None, index=None):
    """A report frame; without a quality the rows with given != suggested are the noisy ones."""
    suggested = given if suggested is None else suggested
    if quality is None:
        quality = np.where(np.asarray(given) == np.asarray(suggested), 0.9, 0.1)
    columns = {"given_label": given, "suggested_label": suggested, "label_quality": quality, "score": quality}
    return pd.DataFrame({**columns, "noisy": np.asarray(quality) < 0.5}, index=index)


def detected(X, y, index=None, task="classification", **options):
    """ReportInput of labels that a NoisyLabelDetector looked at."""
    detector = NoisyLabelDetector()
    fitted = NoisyLabelDetector().fit(X, y)
    assert fitted.task_ == task
    frame = frame_of(y, fitted.suggested_labels_, fitted.label_quality_, index)
    options = {"name": "blobs", "features": X, **options}
    return ReportInput(frame=frame, noise_rate=fitted.noise_rate_, task=task, detector=detector, **options)


def blobs_input(names=("ash", "beech", "cedar"), **options):
    """Three well separated classes, 24 of 120 labels wrong, as a table with one column of text."""
    X, y, _ = noisy_blobs()
    rows = pd.DataFrame(X.round(3), columns=["height", "girth", "age", "crown"]).astype(str)
    rows["soil"] = np.where(X[:, 0] > 0, "clay", "sand")
    options = {"rows": rows, "index": [f"tree-{i}" for i in range(len(y))], **options}
    return detected(X, np.array(names)[y], **options)


class Page(HTMLParser):
    """Tags, texts and addresses of a page; raises AssertionError where tags do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.source, self.tags, self.open, self.texts = text, [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)

    def all(self, *names):
        return [attrs for tag, attrs in self.tags if tag in names]

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))
