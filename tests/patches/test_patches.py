"""Patch features: the formula by hand, what they tell apart, and what they do not depend on."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from sktda import NoisyLabelDetector, PatchFeatures
from sktda.attribution import KernelForest
from sktda.patches import bank, filters
from sktda.patches.filters import Filters, centres
from sktda.patches.layout import Layout, averages
from tests.in_turn import in_turn

RNG = np.random.default_rng(0)
COLOURED = RNG.integers(0, 256, (12, 8, 11, 3)).astype(np.uint8)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module", autouse=True)
def few_patches():
    """A tenth of those that users' filters are learned from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "DRAWN", 2_000)
        yield


def textures(n, side=16, seed=0):
    """(pictures, labels): rough and smooth surfaces of equal mean and variance in every pixel."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    noise = rng.normal(size=(n, side, side))
    smooth = (noise + np.roll(noise, 1, axis=1) + np.roll(noise, 1, axis=2)) / 3**0.5
    return np.where(y[:, None, None] == 0, noise, smooth), y


# ---- the formula ----------------------------------------------------------------------------------------------------


def by_hand(picture, learned, cut, mirror):
    """Features of one picture (height, width, channels) patch by patch, in float64, straight from the docstring."""
    (high, wide), (tall, broad) = cut, np.array(picture.shape[:2]) - cut + 1
    grid = (min(3, tall), min(3, broad))
    by_place = np.empty((tall, broad, 2, len(learned.directions)))
    for i in range(tall):
        for j in range(broad):
            p = picture[i : i + high, j : j + wide].transpose(2, 0, 1).ravel()
            p = (p - learned.centre) / learned.unit
            p = (p - p.mean()) / np.sqrt(p.var(ddof=1) + learned.contrast)
            z = learned.whitening @ (p - learned.mean)
            cosine = learned.directions @ z / np.sqrt(z @ z + len(z) / 20)
            by_place[i, j] = np.maximum(0, cosine - 0.2), np.maximum(0, -cosine - 0.2)
    parts = [
        by_place[rows][:, columns].mean(axis=(0, 1))
        for rows in np.array_split(np.arange(tall), grid[0])
        for columns in np.array_split(np.arange(broad), grid[1])
    ]
    return np.array(parts).reshape(*grid, 2, -1)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(("pictures", "cut"), [(COLOURED, 3), (COLOURED[:, :4, :9, :1], 4)])  # 6 x 9 and 1 x 6 places
def test_the_features_are_those_of_the_formula(pictures, cut, mirror):
    made = PatchFeatures(4, patch_size=cut, mirror=mirror).fit(pictures)
    expected = by_hand(pictures[0].astype(float), made._filters, (cut, cut), mirror)
    if mirror:
        other = by_hand(pictures[0, :, ::-1].astype(float), made._filters, (cut, cut), mirror)
        expected = (expected + other) / 2
    assert (expected > 0).mean() > 0.2
    np.testing.assert_allclose(made.transform(pictures)[0], np.sqrt(expected).ravel(), **CLOSE)


def test_a_picture_that_is_one_patch_of_known_filters():
    layout = Layout.of((1, 2, 1), patch_size=6, max_side=None)
    learned = Filters(0.0, 1.0, 0.5, np.zeros(2), np.eye(2), np.array([[1.0, -1.0], [-1.0, 1.0]]) / 2**0.5)
    place = bank.Bank(learned, layout, torch.device("cpu"), mirror=False)
    # (3, 1) is (1, -1) / sqrt(2.5) without its brightness and contrast; its squared length is 0.8, and d / 20 is 0.1
    response = 2 / 5**0.5 / 0.9**0.5 - 0.2
    np.testing.assert_allclose(
        place(np.array([3.0, 1.0]).reshape(1, 1, 2, 1))[0] ** 2, [response, 0, 0, response], 1e-6
    )


@pytest.mark.parametrize(
    ("n", "parts", "expected"),
    [
        (4, 2, [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]),
        (5, 2, [[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]]),
        (3, 3, np.eye(3)),
    ],
)
def test_parts_are_equal(n, parts, expected):
    np.testing.assert_allclose(averages(n, parts), expected, atol=1e-15)


def test_patches_are_white_and_centres_are_those_of_clusters():
    corners = np.array([[3.0, 0, 0], [0, 2, 0], [0, 0, -1]])
    rows = np.repeat(corners, 30, axis=0) + 0.01 * RNG.normal(size=(90, 3))
    found = centres(rows, 3, np.random.RandomState(1))
    np.testing.assert_allclose(np.abs(found @ corners.T / [3, 2, 1]).max(axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(np.square(found).sum(axis=1), 1)
    mixed = RNG.normal(size=(4_000, 6)) @ RNG.normal(size=(6, 6))
    learned = Filters.learn(mixed, 2, np.random.RandomState(0), None)
    patches = (mixed - learned.centre) / learned.unit
    patches -= patches.mean(axis=1, keepdims=True)
    patches /= np.sqrt(patches.var(axis=1, ddof=1, keepdims=True) + learned.contrast)
    variances = np.linalg.eigvalsh(np.cov((patches - learned.mean) @ learned.whitening, rowvar=False))
    assert variances[0] < 1e-9  # brightness was taken out
    assert 0.4 < variances[1] <= variances[-1] < 1.0


# ---- what they tell apart -------------------------------------------------------------------------------------------


def test_patches_tell_textures_apart_whose_pixels_are_alike():
    pictures, y = textures(100)
    share = {
        name: (KernelForest(n_estimators=20).fit(features, y).loo_decision_.argmax(axis=1) == y).mean()
        for name, features in {
            "pixels": pictures,
            "patches": PatchFeatures(16, patch_size=3).fit_transform(pictures),
        }.items()
    }
    assert share["pixels"] < 0.7
    assert share["patches"] > 0.97


def test_wrong_labels_of_textures_are_found_in_a_pipeline():
    pictures, y = textures(100)
    y[:8] = 1 - y[:8]
    detector = NoisyLabelDetector(KernelForest(n_estimators=20))
    flat = make_pipeline(PatchFeatures(16, patch_size=3, shape=(16, 16)), detector).fit(pictures.reshape(100, -1), y)
    assert flat[-1].labels_[:8].tolist() == [-1] * 8
    assert (flat[-1].labels_ == -1).sum() <= 10


# ---- what they do not depend on -------------------------------------------------------------------------------------

SMALL = PatchFeatures(5, patch_size=3)


@pytest.fixture(scope="module")
def fitted(few_patches):
    return clone(SMALL).fit(COLOURED)


@pytest.fixture(scope="module")
def expected(fitted):
    return fitted.transform(COLOURED)


@pytest.mark.parametrize(
    "changed",
    [
        lambda X: X / 255.0,
        lambda X: X.astype(np.float32) - 128,
        lambda X: X * 1e200,
        lambda X: X.astype(np.int64) * 1_000 + 10**9,
    ],
    ids=["of one", "centred", "huge", "far from zero"],
)
def test_neither_unit_nor_offset_of_the_pixels(changed, expected):
    np.testing.assert_allclose(clone(SMALL).fit_transform(changed(COLOURED)), expected, **CLOSE)


def test_neither_the_order_of_rows_nor_their_container(expected):
    order = RNG.permutation(len(COLOURED))
    np.testing.assert_allclose(clone(SMALL).fit_transform(COLOURED[order]), expected[order], **CLOSE)
    flat = clone(SMALL).set_params(shape=COLOURED.shape[1:]).fit_transform(COLOURED.reshape(len(COLOURED), -1).tolist())
    np.testing.assert_allclose(flat, expected, **CLOSE)
    grey = COLOURED[..., 0]
    np.testing.assert_array_equal(clone(SMALL).fit_transform(grey), clone(SMALL).fit_transform(grey[..., None]))


@pytest.mark.parametrize("n_bytes", [1, 100_000, 2**30])
def test_not_how_many_are_taken_at_a_time(n_bytes, fitted, expected, monkeypatch):
    monkeypatch.setattr(bank, "CACHE_BYTES", n_bytes)
    np.testing.assert_allclose(fitted.transform(COLOURED), expected, **CLOSE)


def test_mirror_images_are_alike_unless_that_is_not_wanted(fitted, expected):
    np.testing.assert_allclose(fitted.transform(COLOURED[:, :, ::-1]), expected, **CLOSE)
    strict = clone(SMALL).set_params(mirror=False).fit(COLOURED)
    assert np.abs(strict.transform(COLOURED[:, :, ::-1]) - strict.transform(COLOURED)).max() > 0.1


def test_larger_pictures_are_averaged_down(expected):
    larger = np.kron(COLOURED, np.ones((1, 2, 2, 1)))
    made = clone(SMALL).set_params(max_side=11).fit(COLOURED)
    made.n_features_in_, made.shape_ = 16, larger.shape[1:]
    made._layout = Layout.of(made.shape_, 3, 11)
    np.testing.assert_allclose(made.transform(larger), expected, **CLOSE)
    assert Layout.of((40, 100, 3), 6, 20).size == (8, 20)
    assert Layout.of((40, 100, 3), 6, None).size == (40, 100)
    assert Layout.of((1, 100, 3), 6, 20).size == (1, 20)


# ---- edges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 1, 1), (2, 1, 7), (2, 7, 1, 3), (4, 2, 2, 5)])
def test_small_and_plain_pictures(shape):
    for pictures in (np.zeros(shape), np.full(shape, 7, dtype=np.uint8), RNG.normal(size=shape)):
        found = PatchFeatures(50).fit_transform(pictures)
        assert np.isfinite(found).all()
    assert PatchFeatures(50).fit(np.zeros(shape)).filters_.shape[0] == 1  # no more different patches


@in_turn(
    ("X", "options", "error", "match"),
    [
        (np.zeros((4, 3, 9, 9)), {}, ValueError, r"channels first; give X\.transpose\(0, 2, 3, 1\)"),
        (np.zeros((4, 12)), {}, ValueError, r"\(4, 12\) holds no pictures.* such as shape=\(32, 32, 3\)"),
        (np.zeros((4, 12)), {"shape": (3, 5)}, ValueError, r"rows of 12 numbers, and shape=\(3, 5\)"),
        (sp.eye_array(4).tocsr(), {"shape": (2, 2)}, TypeError, "Sparse data was passed"),
        (np.full((4, 5, 5), np.nan), {}, ValueError, "NaN"),
        (np.zeros((4, 5, 5)), {"n_filters": 0}, ValueError, "n_filters"),
    ],
)
def test_what_holds_no_pictures_is_refused(X, options, error, match):
    with pytest.raises(error, match=match):
        PatchFeatures(**options).fit(X)


def test_other_pictures_than_those_of_fit_are_refused(fitted):
    with pytest.raises(ValueError, match=r"shape \(11, 8, 3\), and PatchFeatures was fitted on \(8, 11, 3\)"):
        fitted.transform(COLOURED.transpose(0, 2, 1, 3))
    wild = COLOURED.astype(float)
    wild[3, 2, 2] = 1e20
    with pytest.raises(ValueError, match=r"lies .*e\+18 times as far out"):
        fitted.transform(wild)


@in_turn(
    "check",
    [
        "check_estimator_cloneable",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_mixin_order",
        "check_estimator_tags_renamed",
    ],
)
def test_those_of_scikit_learns_checks_that_need_no_table(check):
    getattr(estimator_checks, check)("PatchFeatures", PatchFeatures())


def test_conventions_of_transformers(fitted, expected):
    before = COLOURED.copy()
    again = clone(fitted).fit(before)
    np.testing.assert_array_equal(again.transform(before), expected)
    np.testing.assert_array_equal(before, COLOURED)
    assert expected.dtype == np.float32
    assert expected.shape == (12, 2 * 5 * 9)
    names = fitted.get_feature_names_out()
    assert names[0] == "patchfeatures0"
    frame = clone(fitted).set_output(transform="pandas").fit_transform(COLOURED)
    assert frame.columns.tolist() == names.tolist()
