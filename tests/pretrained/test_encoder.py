"""PretrainedEncoder around modules: what is computed, what is not computed again, and what is refused."""

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from torch import nn

from sktda import InfluencePruner, NoisyLabelDetector, PretrainedEncoder, TableEncoder
from sktda.attribution import ComplexityGap
from sktda.pretrained.backbone import telling
from tests.pretrained.models import Pixels

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 16, 16, 3)).astype(np.uint8)
SEEN = []  # how many rows each forward pass had


class Counting(Pixels):
    """Pixels, with a weight and an attribute; tells of its passes."""

    def __init__(self, weight=1.0, power=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.power = power

    def forward(self, images):
        SEEN.append(len(images))
        return self.weight * super().forward(images) ** self.power


@pytest.fixture(autouse=True)
def nothing_seen():
    SEEN.clear()


def pooled(images):
    """What Pixels makes of images, in NumPy."""
    blocks = images.reshape(len(images), 2, 8, 2, 8, 3).mean(axis=(2, 4))
    return blocks.transpose(0, 3, 1, 2).reshape(len(images), -1) / 255


# ---- features -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_features_are_those_of_the_net_whatever_the_batch(batch_size):
    features = PretrainedEncoder(Counting(), batch_size=batch_size).fit_transform(IMAGES)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, pooled(IMAGES), atol=1e-5)
    assert max(SEEN) == min(batch_size, len(IMAGES))


def as_memmap(X, path):
    X.tofile(path)
    return np.memmap(path, dtype=X.dtype, mode="r", shape=X.shape)


def test_containers_of_images_and_numbers(tmp_path):
    expected = PretrainedEncoder(Pixels()).fit_transform(IMAGES)
    same = PretrainedEncoder(Pixels()).fit_transform(as_memmap(IMAGES, tmp_path / "X"))
    np.testing.assert_array_equal(same, expected)
    first = IMAGES.transpose(0, 3, 1, 2) / 255  # of any other array the module gets what there is
    np.testing.assert_allclose(PretrainedEncoder(Pixels()).fit_transform(first), expected, atol=1e-6)
    table = pd.DataFrame(RNG.normal(size=(5, 2)), columns=["a", "b"])
    linear = nn.Linear(2, 3).requires_grad_(False)
    found = PretrainedEncoder(linear).set_output(transform="pandas").fit_transform(table)
    assert found.columns.tolist() == [f"pretrainedencoder{j}" for j in range(3)]
    np.testing.assert_allclose(found, linear(torch.tensor(table.to_numpy()).float()), atol=1e-6)


@pytest.mark.parametrize("shape", [(12, 4, 4), (4, 12)])
def test_features_by_place_are_averaged(shape):
    net = nn.Unflatten(1, shape)
    found = PretrainedEncoder(net).fit_transform(IMAGES.reshape(20, -1)[:, : np.prod(shape)] / 255.0)
    places = (2, 3) if len(shape) == 3 else 1
    expected = IMAGES.reshape(20, -1)[:, : np.prod(shape)].reshape(20, *shape).mean(axis=places) / 255
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_users_module_is_not_changed():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.BatchNorm1d(768, momentum=1.0)).train()
    before = pickle.dumps(net.state_dict())
    first = PretrainedEncoder(net).fit_transform(IMAGES)
    np.testing.assert_array_equal(PretrainedEncoder(net).fit_transform(IMAGES), first)  # neither drawn nor learned
    assert net.training
    assert pickle.dumps(net.state_dict()) == before


class OutOfMemory(Pixels):
    def forward(self, images):
        if len(images) > 3:
            raise torch.OutOfMemoryError("out of memory")
        SEEN.append(len(images))
        return super().forward(images)


def test_blocks_are_halved_where_memory_runs_out():
    np.testing.assert_allclose(PretrainedEncoder(OutOfMemory()).fit_transform(IMAGES), pooled(IMAGES), atol=1e-5)
    assert max(SEEN) == 2


def test_it_tells_how_far_it_is():
    told = []
    with telling(told.append):
        PretrainedEncoder(Pixels(), batch_size=8).transform(IMAGES)
    assert told == ["encoding by Pixels", *(f"encoding, {n} of 20 rows" for n in (8, 16, 20))]


# ---- what was computed before ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "rows", "passes"),
    [
        (Counting(), IMAGES, 0),
        (Counting(), IMAGES[::-2], 0),
        (Counting(), np.concatenate([IMAGES, IMAGES[:3] // 2]), 3),
        (Counting(weight=2.0), IMAGES, 20),
        (Counting(power=2.0), IMAGES, 20),
        (nn.Sequential(Counting(), nn.ReLU()), IMAGES, 20),
        (nn.Sequential(Counting(), nn.GELU()), IMAGES, 20),
    ],
    ids=["same", "some in another order", "new rows", "weight", "attribute", "layer", "other layer"],
)
def test_a_row_is_computed_once_for_a_model(net, rows, passes, tmp_path):
    PretrainedEncoder(Counting(), cache=tmp_path).fit_transform(IMAGES)
    if isinstance(net, nn.Sequential) and isinstance(net[1], nn.GELU):
        PretrainedEncoder(nn.Sequential(Counting(), nn.ReLU()), cache=tmp_path).fit_transform(IMAGES)
    SEEN.clear()
    found = PretrainedEncoder(net, cache=tmp_path).fit_transform(rows)
    assert sum(SEEN) == passes
    np.testing.assert_array_equal(found, PretrainedEncoder(net).fit_transform(rows))


def test_other_code_of_a_class_computes_again(tmp_path, monkeypatch):
    PretrainedEncoder(Counting(), cache=tmp_path).fit_transform(IMAGES)
    SEEN.clear()
    monkeypatch.setattr("inspect.getsource", lambda cls: f"another {cls.__name__}")
    PretrainedEncoder(Counting(), cache=tmp_path).fit_transform(IMAGES)
    assert sum(SEEN) == 20


def test_equal_rows_have_equal_features_and_are_computed_once():
    found = PretrainedEncoder(Counting()).transform(IMAGES[[0, 1, 0, 2, 1]])
    assert sum(SEEN) == 3
    np.testing.assert_array_equal(found[[0, 1]], found[[2, 4]])


def test_folds_of_a_search_compute_a_row_once(tmp_path):
    model = make_pipeline(PretrainedEncoder(Counting(), cache=tmp_path), LogisticRegression())
    cross_val_predict(model, IMAGES, np.arange(20) % 2, cv=5)
    assert sum(SEEN) == 20


class Stopping(Counting):
    def forward(self, images):
        if len(SEEN) == 3:
            raise KeyboardInterrupt
        return super().forward(images)


def test_what_a_killed_job_had_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("sktda.pretrained.backbone.KEPT_EVERY", 4)
    with pytest.raises(KeyboardInterrupt):
        PretrainedEncoder(Stopping(), batch_size=4, cache=tmp_path).transform(IMAGES)
    monkeypatch.setattr(Stopping, "forward", Counting.forward)
    SEEN.clear()
    PretrainedEncoder(Stopping(), batch_size=4, cache=tmp_path).transform(IMAGES)
    assert sum(SEEN) == 20 - 12


@pytest.mark.parametrize("content", [b"no database" * 100, b"SQLite format 3\0" + bytes(200)])
def test_a_damaged_store_is_named(tmp_path, content):
    (tmp_path / "features.sqlite3").write_bytes(content)
    with pytest.raises(ValueError, match=r"features\.sqlite3 is damaged or no store of features .*; delete it"):
        PretrainedEncoder(Pixels(), cache=tmp_path).fit(IMAGES)


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        PretrainedEncoder(Pixels(), cache=tmp_path / "file").fit(IMAGES)


# ---- refusals -------------------------------------------------------------------------------------------------------


class Returning(nn.Module):
    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, rows):
        return self.made(rows)


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda rows: (rows, rows), TypeError, "returns tuple, and one tensor of features per row"),
        (lambda rows: rows.sum(dim=1).sum(dim=1).sum(dim=1), ValueError, r"shape \(1,\) of 1 rows"),
        (lambda rows: rows[:0], ValueError, r"shape \(0, .* of 1 rows"),
        (lambda rows: rows.flatten(1) / 0, ValueError, "NaN or infinite"),
    ],
    ids=["tuple", "one number", "no rows", "infinite"],
)
def test_outputs_that_are_no_features_are_refused(made, error, message):
    with pytest.raises(error, match=message):
        PretrainedEncoder(Returning(made)).fit(IMAGES)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (["a", "b"], ValueError, "Pixels reads images, and X holds texts"),
        (sp.eye(4, format="csr"), TypeError, "Sparse data was passed"),
        (np.where(np.isin(IMAGES, 7), np.nan, IMAGES), ValueError, "NaN"),
        (np.array([["a", "b"]]), ValueError, "numbers"),
        ([np.zeros((2, 2)), np.zeros((3, 2))], ValueError, "differ in length"),
    ],
    ids=["texts", "sparse", "NaN", "table of text", "ragged"],
)
def test_rows_that_the_model_does_not_read_are_refused(X, error, message):
    with pytest.raises(error, match=message):
        PretrainedEncoder(Pixels()).fit(X)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({}, ValueError, "needs a model"),
        ({"model": 3}, TypeError, "is a int; a name such as"),
        ({"model": Pixels(), "batch_size": 0}, ValueError, "batch_size=0 is no number of rows"),
    ],
)
def test_parameters_are_checked_in_fit(parameters, error, message):
    with pytest.raises(error, match=message):
        PretrainedEncoder(**parameters).fit(IMAGES)


# ---- with the tools around it ---------------------------------------------------------------------------------------


def test_clones_and_pickles_encode_alike():
    encoder = PretrainedEncoder(Pixels()).fit(IMAGES)
    for same in (clone(encoder), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_array_equal(same.transform(IMAGES), encoder.transform(IMAGES))
    assert "_backbone" not in encoder.__getstate__()
    encoder.set_params(model=Counting(weight=2.0))  # and not the one that was loaded
    np.testing.assert_allclose(encoder.transform(IMAGES), 2 * pooled(IMAGES), atol=1e-5)


def planted(n=120):
    """(images that are brighter left or right, the class, labels with flips, the flipped rows)."""
    rng = np.random.default_rng(1)
    classes = np.arange(n) % 2
    images = rng.integers(0, 100, (n, 16, 16, 3)).astype(np.uint8)
    images[classes == 0, :, :8] += 100
    images[classes == 1, :, 8:] += 100
    flipped = rng.choice(n, n // 10, replace=False)
    labels = classes.copy()
    labels[flipped] = 1 - labels[flipped]
    return images, classes, labels, set(flipped.tolist())


def test_flips_are_found_behind_an_encoder():
    images, _, labels, flipped = planted()
    pipeline = make_pipeline(PretrainedEncoder(Pixels()), NoisyLabelDetector(random_state=0))
    assert set(np.flatnonzero(pipeline.fit(images, labels)[-1].labels_ == -1)) == flipped


def test_a_cleaner_around_the_pipeline_scores_the_features(tmp_path):
    images, classes, labels, flipped = planted()
    model = make_pipeline(PretrainedEncoder(Pixels(), cache=tmp_path), LogisticRegression())
    pruner = InfluencePruner(model, ComplexityGap(), prune_ratio=0.1).fit(images, labels)
    assert set(np.flatnonzero(~pruner.support_)) == flipped
    assert pruner.score(images, classes) == 1


class Letters(PretrainedEncoder):
    """A transformer of texts without a library: how often each vowel is there."""

    def fit(self, X, y=None):
        self._n_features_out = 5
        return self

    def transform(self, X):
        return np.array([[text.count(vowel) for vowel in "aeiou"] for text in X], dtype=np.float32)


def test_texts_of_a_table_are_encoded_by_what_is_given():
    texts = ["some words of it", "and other words", "nothing more to say", None, "once more the same"]
    table = pd.DataFrame({"text": texts, "number": [1.0, 2.0, 3.0, 4.0, 5.0]})
    encoder = TableEncoder(kinds={"text": "text"}, text=Letters())
    found = encoder.fit_transform(table)
    assert encoder.get_feature_names_out().tolist() == [*(f"text_letters{j}" for j in range(5)), "number"]
    np.testing.assert_array_equal(found[0], [0, 1, 1, 3, 0, 1])
    assert found[3].tolist() == [0, 0, 0, 0, 0, 4]
    np.testing.assert_array_equal(encoder.transform(table), found)
    assert encoder.columns_[0].how == "5 features by Letters()"
