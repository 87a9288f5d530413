"""An attributor's fit, looked up in a cache on disk: what is damaged or foreign there is computed again."""

from __future__ import annotations

import pickle
import warnings
from hashlib import blake2b
from typing import Any

import joblib
import numpy as np
from sklearn.utils.validation import _num_samples, check_memory

import sktda
from sktda.attribution.base import checked_scores


class _Sealed:
    """A fitted attributor under its key. Its pickle has a checksum: one that is not as it was written is not read."""

    def __init__(self, key: str, attributor: Any) -> None:
        self.key = key
        self.attributor = attributor

    def __getstate__(self) -> dict[str, Any]:
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps((self.key, self.attributor), protocol=5, buffer_callback=buffers.append)
        parts = [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]  # arrays, without a copy
        return {"head": head, "parts": parts, "checksum": _checksum(head, parts)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["checksum"] != _checksum(state["head"], state["parts"]):
            raise ValueError("the entry is damaged: its checksum is another")  # joblib says so and computes it again
        self.key, self.attributor = pickle.loads(state["head"], buffers=state["parts"])


def _checksum(head: bytes, parts: list[np.ndarray]) -> str:
    code = blake2b(repr([len(head), *map(len, parts)]).encode(), digest_size=12)
    code.update(head)
    for part in parts:
        code.update(part.data)
    return code.hexdigest()


def _fit_attributor(key: str, attributor: Any, X: Any, y: Any, params: dict) -> _Sealed:
    return _Sealed(key, attributor.fit(X, y, **params))


def fit_attributor(attributor: Any, X: Any, y: Any, params: dict, memory: Any = None) -> Any:
    """attributor.fit(X, y, **params), looked up in `memory` (None, a path or joblib.Memory) where one is given.

    The key hashes the attributor's parameters, the rows and the metadata. What cannot be hashed, and an entry that is
    damaged or of another key, is computed again, with a warning. Raises ValueError if there is not one finite score per
    row, or the folder of the cache is damaged so that joblib cannot read it.
    """
    key = None if memory is None else _key(attributor, X, y, params)
    if key is None:
        attributor = attributor.fit(X, y, **params)
    else:
        cached = check_memory(memory).cache(_fit_attributor, ignore=["attributor", "X", "y", "params"])
        _check(cached, key, attributor, X, y, params)
        found = cached(key, attributor, X, y, params)
        if getattr(found, "key", None) != key:
            warnings.warn(
                f"an entry of memory is not that of {type(attributor).__name__} on these rows, and is computed again; "
                "was the folder changed by hand?",
                UserWarning,
                stacklevel=3,
            )
            cached.call_and_shelve(key, attributor, X, y, params).clear()
            found = cached(key, attributor, X, y, params)
        attributor = found.attributor
    checked_scores(attributor, _num_samples(X))
    return attributor


def _check(cached: Any, *call: Any) -> None:
    """Let joblib read what it keeps about the function before the fit, whose errors are other ones."""
    try:
        cached.check_call_in_cache(*call)
    except (ValueError, OSError) as error:
        raise ValueError(f"the folder of memory is damaged ({error}); delete it, or give another one") from error


def _key(attributor: Any, X: Any, y: Any, params: dict) -> str | None:
    try:
        return str(joblib.hash((sktda.__version__, type(attributor).__qualname__, attributor, X, y, params)))
    except Exception as error:  # whatever pickling raises: PicklingError, TypeError, AttributeError
        warnings.warn(
            f"{type(attributor).__name__} or its data cannot be hashed ({error}), so its scores are computed again "
            "although memory is set; replace lambdas and open files by module-level functions",
            UserWarning,
            stacklevel=4,
        )
        return None
