"""`--features` of the shell: folders of images, arrays and texts by a pretrained model, and what is told."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from sktda.cli.commands import app
from sktda.cli.learned import learned
from sktda.cli.settings import Settings
from tests.pretrained import models

pytestmark = pytest.mark.usefixtures("few_trees")

N = 48
CLASSES = np.arange(N) % 2
FLIPPED = {3, 10, 20, 41}


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "sktda"


@pytest.fixture
def net(tmp_path):
    return models.save_torchscript(tmp_path / "net")


@pytest.fixture
def passes(monkeypatch):
    """How many rows the model was given."""
    from sktda.pretrained.backbone import Backbone

    seen = []
    encode = Backbone.__call__
    monkeypatch.setattr(
        Backbone, "__call__", lambda self, kind, rows: seen.append(len(rows)) or encode(self, kind, rows)
    )
    return seen


def pictures():
    """Brighter left or right, by the class."""
    images = np.random.default_rng(0).integers(0, 90, (N, 16, 16, 3)).astype(np.uint8)
    images[CLASSES == 0, :, :8] += 100
    images[CLASSES == 1, :, 8:] += 100
    return images


def given():
    return np.where(np.isin(np.arange(N), list(FLIPPED)), 1 - CLASSES, CLASSES)


@pytest.fixture
def photos(tmp_path):
    for row, (pixels, label) in enumerate(zip(pictures(), given(), strict=True)):
        folder = tmp_path / "photos" / f"kind{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{row:02d}.png")
    return tmp_path / "photos"


def noisy(table):
    return set(pd.read_csv(table).query("noisy").iloc[:, 1].astype(str).str.extract(r"(\d+)\.png")[0].astype(int))


def test_a_folder_of_images_by_a_model_and_a_second_time(photos, net, tmp_path, passes, cache):
    command = ("score", photos, "--features", net, "--size", 16, "--out", tmp_path / "scores.csv", "--force")
    first = run(*command)
    assert first.exit_code == 0, first.output
    assert f"Note: images and texts are compared by {net}; features are kept in {cache} for another run" in first.output
    assert noisy(tmp_path / "scores.csv") == FLIPPED
    assert sum(passes) == N
    before = (tmp_path / "scores.csv").read_bytes()
    assert run(*command).exit_code == 0
    assert sum(passes) == N  # nothing is computed again
    assert (tmp_path / "scores.csv").read_bytes() == before
    Image.fromarray(pictures()[0] // 2).save(photos / "kind0" / "00.png")
    assert run(*command).exit_code == 0
    assert sum(passes) == N + 1


def test_a_report_of_a_folder_computes_nothing_again(photos, net, tmp_path, passes):
    options = ("--features", net, "--size", 16)
    assert run("score", photos, *options, "--out", tmp_path / "scores.csv").exit_code == 0
    told = run(
        "report", tmp_path / "scores.csv", "--data", photos, *options, "--no-comparison", "--out", tmp_path / "r.html"
    )
    assert told.exit_code == 0, told.output
    assert sum(passes) == N
    assert f"--features {net}" in (tmp_path / "r.html").read_text()


def test_images_that_cannot_be_read_are_left_out(photos, net, tmp_path, monkeypatch):
    monkeypatch.setattr("sktda.images.AT_ONCE", 10)
    (photos / "kind0" / "x.png").write_bytes(b"")
    told = run("score", photos, "--features", net, "--size", 16, "--out", tmp_path / "scores.csv", "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["n_rows"] == N
    assert "kind0/x.png" not in (tmp_path / "scores.csv").read_text()
    assert noisy(tmp_path / "scores.csv") == FLIPPED
    assert any("1 of 49 images cannot be read" in note for note in json.loads(told.stdout)["notes"])


@pytest.mark.parametrize(("save", "size", "expected"), [("onnx", None, 16), ("onnx", 8, 8), ("torchscript", None, 64)])
@pytest.mark.filterwarnings("ignore:net.onnx does not say how images are prepared")
def test_images_are_read_at_the_size_that_the_model_is_made_for(save, size, expected, photos, tmp_path):
    model = getattr(models, f"save_{save}")(tmp_path / save)
    _, reading, _ = learned(Settings(photos, features=str(model), size=size))
    assert reading.size == expected


def test_images_of_an_array_file(net, tmp_path, passes):
    np.savez(tmp_path / "data.npz", X=pictures(), y=given())
    told = run("score", tmp_path / "data.npz", "--features", net, "--out", tmp_path / "scores.csv")
    assert told.exit_code == 0, told.output
    assert set(pd.read_csv(tmp_path / "scores.csv").query("noisy")["row"]) == FLIPPED
    assert sum(passes) == N


def test_a_folder_of_caches_that_cannot_be_written_is_told_and_no_failure(photos, net, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    told = run("score", photos, "--features", net, "--size", 16, "--out", tmp_path / "scores.csv")
    assert told.exit_code == 0, told.output
    assert "features are not kept, as the folder of caches cannot be written" in told.output


def reviews(folder):
    draw = np.random.default_rng(0)
    texts = [" ".join([("bad", "good")[kind], *draw.choice(["a", "film"], 2)]) for kind in CLASSES]
    pd.DataFrame({"review": texts, "number": 1, "label": given()}).to_csv(folder / "reviews.csv", index=False)
    return folder / "reviews.csv"


def test_a_column_of_texts_by_a_model(tmp_path, passes):
    model = models.save_static(tmp_path / "static")
    data = reviews(tmp_path)
    options = (data, "--target", "label", "--text", "review", "--features", model)
    listed = run("clean", *options, "--columns")
    assert listed.exit_code == 0, listed.output
    assert f"review  6 features by {model}" in listed.output
    told = run("score", *options, "--out", tmp_path / "scores.csv")
    assert told.exit_code == 0, told.output
    worst = pd.read_csv(tmp_path / "scores.csv")["row"][:5]
    assert len(FLIPPED.intersection(worst)) >= 3  # many texts are equal
    assert sum(passes) == len(set(pd.read_csv(data)["review"]))  # once for both commands


@pytest.mark.parametrize(
    ("features", "code", "message"),
    [
        ("patchs", 2, "--features 'patchs' is unknown; did you mean patches?"),
        ("tim:resnet18", 2, "did you mean timm:resnet18?"),
        ("resnet18", 2, "--features is none of auto, pixels, patches, and 'resnet18' names no model"),
        ("transformers:./nowhere", 2, "./nowhere does not exist; check the path"),
    ],
)
def test_what_is_no_model_is_said_before_anything_is_read(features, code, message, tmp_path):
    told = run("clean", tmp_path / "none.csv", "--features", features, "--out", tmp_path / "o.csv")
    assert told.exit_code == code
    assert message in told.output


def test_a_library_that_is_not_installed_is_said_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("sktda.pretrained.names.find_spec", lambda module: None)
    told = run("clean", tmp_path / "none.csv", "--features", "timm:resnet18", "--out", tmp_path / "o.csv")
    assert told.exit_code == 2
    assert "timm:resnet18 needs timm, which is not installed; install it with: pip install timm" in told.output


def test_rows_of_another_kind_than_the_model_reads(net, photos, tmp_path):
    data = reviews(tmp_path)
    np.savez(tmp_path / "numbers.npz", X=np.zeros((N, 4)), y=given())
    out = ("--out", tmp_path / "scores.csv")
    target = (data, "--target", "label")
    cases = [
        (*target, "--text", "review", "--features", net),
        (*target, "--as-category", "review", "--features", net),
        (tmp_path / "numbers.npz", "--features", models.save_static(tmp_path / "static")),
        (photos, "--features", tmp_path / "static"),
        (photos, "--features", net, "--embeddings", tmp_path / "numbers.npz"),
    ]
    messages = [
        "reads images, and X holds texts",
        "no column is taken for text, which",
        "reads texts, and X holds none",
        "reads texts, and {photos} is a folder of images; name a model of images",
        "--features and --embeddings both say what rows are compared by",
    ]
    for case, message in zip(cases, messages, strict=True):
        told = run("score", *case, *out)
        assert told.exit_code in {1, 2}
        assert message.format(photos=photos) in told.output, told.output
