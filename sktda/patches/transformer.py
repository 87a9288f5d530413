"""The transformer that turns pictures into features of patches."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from sktda.data import read_features
from sktda.devices import in_blocks, resolve_device
from sktda.patches.bank import Bank
from sktda.patches.filters import Filters, draw
from sktda.patches.layout import Layout
from sktda.seeds import random_of


class PatchFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """How much of each of some small patterns is in each part of a picture, with no labels and no trained net.

    Photographs of one kind differ in every pixel, and what they share are patterns: fur, sky, a wheel. Patterns are
    learned from the pictures themselves: patches of 6 x 6 pixels are drawn, freed of their brightness and contrast,
    whitened, and gathered into clusters, whose centres are the filters. The features of a picture are how strongly its
    patches agree with each filter, and with its opposite, on the average over each of 3 x 3 parts of the picture. Put
    it before `NoisyLabelDetector` in a Pipeline for photographs; digits and other drawings are often as well told apart
    by their pixels.

    Parameters
    ----------
    n_filters : int, default=200
        Patterns. There are 18 features of each.
    patch_size : int, default=6
        Height and width of a patch in pixels; at most the picture's.
    mirror : bool, default=True
        Whether a picture and its mirror image have the same features, as is right for photographs: each filter is
        averaged with its mirror image. False where left and right make a difference, as for letters.
    max_side : int or None, default=32
        Larger pictures are averaged down in proportion until neither side is longer. None takes them as they are.
    shape : tuple of int or None, default=None
        (height, width) or (height, width, channels) of pictures that are given as flat rows.
    device : str or torch.device, default="auto"
        Where features are computed; "auto" is CUDA where there is one, else the processor. Filters are learned on the
        processor, so that they are the same for all.
    random_state : int, RandomState instance or None, default=None
        Draws the patches. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    filters_ : ndarray of shape (n_filters, channels * patch_height * patch_width)
        Centres of length 1, in the space of whitened patches. Fewer where there are no more different patches.
    mean_ : ndarray of shape (channels * patch_height * patch_width,)
        Of normalised patches.
    whitening_ : ndarray of shape (channels * patch_height * patch_width, channels * patch_height * patch_width)
        What normalised patches without their mean are multiplied by.
    shape_ : tuple of int
        (height, width, channels) of the pictures.
    n_features_in_ : int
        Size of the second axis of X.
    feature_names_in_ : ndarray of shape (n_features,)
        Only where X is a table whose columns are named by text.

    Raises
    ------
    ValueError
        In `fit` and `transform`, for arrays that hold no pictures, for NaN or infinity, and for pictures of another
        shape than those of `fit` or with values out of all proportion to theirs.

    Notes
    -----
    A patch p of d values becomes z = W ((p - mean p) / sqrt(var p + c) - m), with the mean m and the ZCA whitening W
    of patches and a hundredth of their mean variance as c. Filters f of length 1 respond to it by max(0, r - 0.2) and
    max(0, -r - 0.2) with r = f.z / sqrt(z.z + d / 20), and the features are the roots of the means over parts. The soft
    threshold in both directions is that of Coates and Ng 2011 (The importance of encoding versus training with sparse
    coding and vector quantization, eq. 6), the rest that of Coates, Lee and Ng 2011 (An analysis of single-layer
    networks in unsupervised feature learning), but for the mirror images and the parts; k-means is spherical.
    Neither the unit of the pixels nor the order of rows plays a part. benchmarks/photographs.py measures what is found.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from sktda import NoisyLabelDetector, PatchFeatures
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(80) % 2
    >>> noise = rng.normal(size=(80, 16, 16))  # rough and smooth surfaces: no pixel tells them apart
    >>> smooth = (noise + np.roll(noise, 1, axis=1) + np.roll(noise, 1, axis=2)) / 3**0.5
    >>> images = np.where(y[:, None, None] == 0, noise, smooth)
    >>> y[:4] = 1 - y[:4]
    >>> pipeline = make_pipeline(PatchFeatures(20, patch_size=3), NoisyLabelDetector(random_state=0)).fit(images, y)
    >>> np.flatnonzero(pipeline[-1].labels_ == -1)
    array([0, 1, 2, 3])
    """

    _parameter_constraints: dict = {
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "patch_size": [Interval(Integral, 1, None, closed="left")],
        "mirror": ["boolean"],
        "max_side": [Interval(Integral, 1, None, closed="left"), None],
        "shape": [tuple, list, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_filters=200,
        *,
        patch_size=6,
        mirror=True,
        max_side=32,
        shape=None,
        device="auto",
        random_state=None,
    ):
        self.n_filters = n_filters
        self.patch_size = patch_size
        self.mirror = mirror
        self.max_side = max_side
        self.shape = shape
        self.device = device
        self.random_state = random_state

    def fit(self, X, y=None):
        """Learn the filters.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, height, width)
            Numbers in any unit; with `shape` also flat rows (n_samples, n_features).
        y : None
            Ignored.

        Returns
        -------
        self
        """
        self._validate_params()
        pictures = self._pictures(X, reset=True)
        random = random_of(self.random_state)
        self.shape_ = pictures.shape[1:]
        self._layout = Layout.of(self.shape_, self.patch_size, self.max_side)
        patches = draw(pictures, self._layout, random)
        mirror_of = self._layout if self.mirror else None
        self._filters = Filters.learn(patches, self.n_filters, random, mirror_of)
        self.mean_, self.whitening_ = self._filters.mean, self._filters.whitening
        self.filters_ = self._filters.directions
        self._n_features_out = 2 * len(self.filters_) * int(np.prod(self._layout.grid))
        return self

    def transform(self, X):
        """Features (n_samples, n_features_out), float32, of pictures of the shape of those in `fit`.

        By part, row by row, then by filter: the responses to the filters, and behind them those to their opposites.
        """
        check_is_fitted(self, "filters_")
        import torch

        pictures = self._pictures(X, reset=False)
        bank = Bank(self._filters, self._layout, resolve_device(self.device), mirror=self.mirror)
        found = np.empty((len(pictures), self._n_features_out), dtype=np.float32)
        with torch.inference_mode():
            for rows, block in in_blocks(len(pictures), bank.n_rows, lambda rows: bank(pictures[rows])):
                found[rows] = block
        return found

    def _pictures(self, X: Any, *, reset: bool) -> np.ndarray:
        """X as pictures (n, height, width, channels). Raises ValueError where it holds none."""
        if sp.issparse(X):
            raise TypeError(
                "Sparse data was passed for X, but dense data is required: pictures have a value everywhere"
            )
        if not reset and np.ndim(X) > 2:
            height, width, *channels = np.shape(X)[1:]
            if (height, width, *(channels or [1])) != self.shape_:
                raise ValueError(
                    f"X has pictures of shape {np.shape(X)[1:]}, and PatchFeatures was fitted on {self.shape_}; resize "
                    "them"
                )
        X = read_features(self, X, reset=reset)
        if self.shape is not None and X.ndim == 2:
            if X.shape[1] != int(np.prod(self.shape)):
                raise ValueError(f"X has rows of {X.shape[1]} numbers, and shape={self.shape} has not as many")
            X = X.reshape(len(X), *self.shape)
        if X.ndim == 4 and X.shape[3] > 4 and X.shape[1] in (1, 3, 4):
            raise ValueError(f"X of shape {X.shape} has its channels first; give X.transpose(0, 2, 3, 1)")
        if X.ndim not in (3, 4):
            raise ValueError(
                f"X of shape {X.shape} holds no pictures; (n, height, width, channels) is needed, or (n, height, "
                "width) of grey ones, or flat rows and their shape, such as shape=(32, 32, 3)"
            )
        return X if X.ndim == 4 else X[..., None]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # but with a shape, of which scikit-learn's checks know nothing
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags
