"""What the shell takes for the features of pictures."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from sktda.cli import pictures
from sktda.cli.commands import app

pytestmark = pytest.mark.usefixtures("few_trees")


@pytest.fixture
def folder(tmp_path):
    """80 rough and smooth surfaces in two folders, the first four of them in the other's; no pixel tells them apart."""
    rng = np.random.default_rng(0)
    for i in range(80):
        noise = rng.normal(size=(16, 16))
        smooth = (noise + np.roll(noise, 1, axis=0) + np.roll(noise, 1, axis=1)) / 3**0.5
        name = ["rough", "smooth"][i % 2 if i > 3 else 1 - i % 2]
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        pixels = np.clip(128 + 40 * (smooth if i % 2 else noise), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i:02d}.png")
    return tmp_path / "photos"


def test_photographs_are_judged_by_patches_and_the_shell_says_why(folder, tmp_path):
    command = ["score", str(folder), "-o", str(tmp_path / "s.csv"), "--size", "16"]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    assert "Note: the features are patches, by which the other images predict 9" in told.stdout
    assert "by pixels they predict " in told.stdout
    scores = pd.read_csv(tmp_path / "s.csv")
    assert set(scores["path"][:4]) == {"smooth/00.png", "rough/01.png", "smooth/02.png", "rough/03.png"}


@pytest.mark.parametrize("command", ["clean", "score"])
def test_that_no_output_is_named_is_said_before_a_picture_is_read(folder, monkeypatch, command):
    monkeypatch.setattr(Image, "open", lambda *given: pytest.fail("a picture was opened"))
    told = CliRunner().invoke(app, [command, str(folder)])
    assert told.exit_code == 2
    assert "name the output with --out" in told.stderr


def test_digits_are_judged_by_their_pixels(all_trees, tmp_path):
    X, y = load_digits(return_X_y=True)
    np.savez(tmp_path / "digits.npz", X=X[:300].reshape(-1, 8, 8), y=y[:300])
    told = CliRunner().invoke(app, ["score", str(tmp_path / "digits.npz"), "-o", str(tmp_path / "s.csv"), "--json"])
    assert told.exit_code == 0, told.output
    said = [note for note in json.loads(told.stdout)["notes"] if note.startswith("the features are")]
    assert len(said) == 1
    assert said[0].startswith("the features are pixels, by which the other images predict 9")


@pytest.mark.parametrize("kind", ["pixels", "patches"])
def test_what_is_asked_for_is_taken_without_a_look(kind, monkeypatch):
    monkeypatch.setattr(pictures, "known", None)
    shown = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    labels = pd.Series(list("ab") * 6)
    X, _, notes = pictures.of_pictures(shown, labels, "classification", kind, 0, lambda text: None)
    assert X.shape == {"pixels": shown.shape, "patches": (12, X.shape[1])}[kind]
    assert notes == []
    if kind == "pixels":  # and of numbers, as of anything that is not classes
        X, *_ = pictures.of_pictures(shown, pd.Series(range(12)), "regression", "auto", 0, lambda text: None)
        assert X.shape == shown.shape


@pytest.mark.parametrize(
    ("n_first", "n_second", "expected"), [(5, 0, True), (4, 0, False), (0, 9, False), (12, 7, False), (60, 30, True)]
)
def test_patches_must_know_clearly_more(n_first, n_second, expected):
    """A difference of a - b where a + b differ has the standard error sqrt(a + b)."""
    first, second = np.ones((2, 200), dtype=bool)
    second[:n_first] = first[n_first : n_first + n_second] = False
    assert pictures.clearly_more(first, second) == expected
    assert ("not clearly" in pictures._said("pixels", second.mean(), first.mean(), 200)) == (n_first > n_second)


def test_of_many_images_as_many_of_each_class_decide(monkeypatch):
    monkeypatch.setattr(pictures, "LOOKED_AT", 30)
    labels = pd.Series(["common"] * 200 + ["rare"] * 20 + ["single", None])
    rows = pictures.balanced(labels, 0)
    assert labels[rows].value_counts().to_dict() == {"common": 15, "rare": 14, "single": 1}
    assert rows.tolist() == sorted(set(rows))
