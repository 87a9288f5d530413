"""Images and texts as the features of a pretrained net."""

from __future__ import annotations

import warnings
from importlib import import_module
from os import PathLike
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from sktda.data import read_features
from sktda.devices import out_of_memory, resolve_device
from sktda.pretrained.backbone import Backbone, encode, telling
from sktda.pretrained.names import LIBRARIES, read_name
from sktda.pretrained.rows import Pictures, read_texts
from sktda.pretrained.store import Store


def load(model: Any, device: Any = "auto") -> Backbone:
    """The model that is meant, on a device; nothing is downloaded.

    model: a name or path as in `PretrainedEncoder`, or a model that is loaded. Raises as `PretrainedEncoder.fit`.
    """
    place = resolve_device(device)
    if isinstance(model, str | PathLike):
        meant = read_name(str(model))
        file = import_module(f"sktda.pretrained.libraries.{LIBRARIES[meant.library].file}")
        try:
            backbone = file.load(meant, place)
        except (ValueError, OSError, ImportError, MemoryError):
            raise
        except Exception as error:  # whatever a library raises of a file that is damaged
            if out_of_memory(error):
                raise
            raise ValueError(f"{meant.text} cannot be loaded by {meant.library}: {error}") from error
        if backbone.note:
            warnings.warn(backbone.note, UserWarning, stacklevel=2)
        return backbone
    from torch import nn

    kind = type(model)
    if any(base.__name__ == "SentenceTransformer" for base in kind.__mro__):
        from sktda.pretrained.libraries import sentences

        return sentences.of_object(model.to(place), kind.__name__)
    if kind.__name__ == "StaticModel":
        from sktda.pretrained.libraries import static_words

        return static_words.of_object(model, kind.__name__)
    if isinstance(model, nn.Module):
        from sktda.pretrained.libraries import modules

        return modules.of_object(model, place)
    raise TypeError(
        f"model={model!r} is a {kind.__name__}; a name such as 'timm:resnet18', a path, a torch module, a "
        "SentenceTransformer or a StaticModel of model2vec is needed"
    )


class PretrainedEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Features of images or texts by a pretrained net that is on this machine.

    The net is frozen: nothing is trained, and `fit` learns nothing of the rows. Nothing is downloaded either: weights
    are taken from a path or from where the library that is named keeps them, and an error says how to get them.

    Parameters
    ----------
    model : str, path, torch.nn.Module, SentenceTransformer or StaticModel, default=None
        What makes the features; it has to be given. As text it is ``LIBRARY:NAME``, with

        - ``timm``, ``torchvision``: nets of images, by what their classifier is given;
        - ``open_clip``: ``open_clip:ViT-B-32/openai``, images and texts;
        - ``sentence-transformers``, ``model2vec``: texts;
        - ``transformers``: texts by the mean of their tokens, images as the model pools them,

        or the path of a folder in which one of these libraries saved a model, of a ``.onnx`` file (with
        ``tokenizer.json`` or ``preprocessor_config.json`` beside it) or of a TorchScript file. Pickles are not opened,
        and code that comes with a model is not run. A torch module is used as it is, in eval mode: images come to it as
        floats (b, 3, h, w) in [0, 1], other arrays as float32.
    device : str or torch.device, default="auto"
        Where the net runs; "auto" is CUDA where there is one, else the processor.
    batch_size : int, default=64
        Rows at a time. Where memory runs out, fewer are taken.
    cache : path, default=None
        Folder in which features are kept. A row is computed once for a model: its content, the weights and settings of
        the model, the code of a module's own classes, and versions of the libraries make the key. Any number of
        processes can use it at once.

    Attributes
    ----------
    n_features_in_ : int
        Size of the second axis of X; not set for texts.
    feature_names_in_ : ndarray of shape (n_features,)
        Only where X is a table whose columns are named by text.

    Raises
    ------
    ValueError
        In `fit` and `transform`, for a name that is not known, for rows of a kind that the model does not read, and for
        features that are not finite.
    FileNotFoundError
        Where the weights are not on this machine.
    ImportError
        Where the library that is named is not installed.

    Notes
    -----
    Images are prepared as the net's own configuration says (size, crop, mean and deviation of the colours). Texts that
    are longer than a model reads are cut, as their library does.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn.pipeline import make_pipeline
    >>> from sktda import NoisyLabelDetector, PretrainedEncoder
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(80) % 2
    >>> images = (rng.integers(0, 60, (80, 8, 8, 3)) + 150 * y[:, None, None, None]).astype(np.uint8)
    >>> y[:4] = 1 - y[:4]
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())  # a trained one
    >>> pipeline = make_pipeline(PretrainedEncoder(net), NoisyLabelDetector(random_state=0)).fit(images, y)
    >>> np.flatnonzero(pipeline[-1].labels_ == -1)
    array([0, 1, 2, 3])
    """

    def __init__(self, model=None, *, device="auto", batch_size=64, cache=None):
        self.model = model
        self.device = device
        self.batch_size = batch_size
        self.cache = cache

    def fit(self, X, y=None):
        """Load the model, and look at how many features it makes.

        Parameters
        ----------
        X : array-like of images (n_samples, height, width, 3), uint8 or floats in [0, 1], also grey ones without the
            last axis; texts (n_samples,) or (n_samples, 1); for a torch module any numbers (n_samples, ...)
        y : None
            Ignored.

        Returns
        -------
        self
        """
        backbone = self._loaded()
        kind, rows = self._read(backbone, X, reset=True)
        with telling(lambda text: None):
            self._n_features_out = self._encode(backbone, kind, rows[:1]).shape[1]
        return self

    def transform(self, X):
        """Features (n_samples, n_features_out) of rows as in `fit`, float32."""
        backbone = self._loaded()
        kind, rows = self._read(backbone, X, reset=False)
        return self._encode(backbone, kind, rows)

    def _encode(self, backbone: Backbone, kind: str, rows: Any) -> np.ndarray:
        store = Store(self.cache)
        try:
            return encode(backbone, kind, rows, batch_size=self.batch_size, store=store)
        finally:
            store.close()

    def _loaded(self) -> Backbone:
        """The model; it is loaded once, and neither pickled nor cloned where it has a name."""
        if self.model is None:
            raise ValueError(
                "PretrainedEncoder needs a model; name one, such as PretrainedEncoder('timm:resnet18'), or give a "
                "torch module"
            )
        if not isinstance(self.batch_size, int | np.integer) or self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size!r} is no number of rows; give 1 or more")
        of = (self.model, str(self.device))
        model, device, backbone = vars(self).get("_backbone", (None, None, None))
        if backbone is None or model is not self.model or device != of[1]:
            backbone = load(*of)
            self._backbone = (*of, backbone)
        return backbone

    def __getstate__(self):
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_backbone"}

    def _read(self, backbone: Backbone, X: Any, *, reset: bool) -> tuple[str, Any]:
        """(kind of rows, the rows as the model reads them)."""
        texts = read_texts(X)
        if texts is not None:
            _check_kind(backbone, "texts")
            return "texts", texts
        if sp.issparse(X):
            raise TypeError(
                "Sparse data was passed for X, but dense data is required: a net reads images or texts; use "
                "X.toarray() where it reads numbers"
            )
        if getattr(X, "ndim", 2) < 2:
            raise ValueError(
                f"Expected 2D array, got {X.ndim}D array instead: a row is an image, or several numbers. Reshape your "
                "data either using array.reshape(-1, 1) for one number a row or array.reshape(1, -1) for one row"
            )
        X = read_features(self, X, reset=reset)
        if "numbers" in backbone.readers and not (X.dtype == np.uint8 and X.ndim == 4 and X.shape[3] == 3):
            return "numbers", X
        _check_kind(backbone, "images")
        return "images", Pictures(X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []
        return tags


def _check_kind(backbone: Backbone, kind: str) -> None:
    if kind not in backbone.readers:
        reads = " and ".join(name for name in backbone.readers if name != "numbers") or "numbers"
        raise ValueError(f"{backbone.name} reads {reads}, and X holds {kind if kind == 'texts' else 'none'}")
