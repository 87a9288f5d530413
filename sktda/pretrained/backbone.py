"""A pretrained model, frozen: rows in, features out, in blocks that fit into memory, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from typing import Any

import numpy as np

from sktda.devices import in_blocks
from sktda.pretrained.store import Store

KEPT_EVERY = 512  # rows, from where on they are put away: what a killed job loses

_progress: ContextVar[Callable[[str], None]] = ContextVar("progress", default=lambda text: None)


@contextmanager
def telling(progress: Callable[[str], None]) -> Iterator[None]:
    """What is encoded meanwhile, in this thread, tells how far it is."""
    before = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(before)


@dataclass(frozen=True, eq=False)
class Backbone:
    """A model that turns rows into numbers, on the device where it is.

    name: as the user gave it. readers: of the kinds of rows that it takes ("images": (b, h, w, 3) uint8, "texts": list
    of str, "numbers": any array), rows -> (b, ...) tensor or array. identity: all that the features depend on, as
    bytes. side: pixels of the images that it is best given, None for any. note: what a user should know of it.
    """

    name: str
    readers: Mapping[str, Callable[[Any], Any]]
    identity: Callable[[], Iterable[bytes]]
    side: int | None = None
    note: str = ""

    @cached_property
    def key(self) -> bytes:
        """What tells this model, with these weights and this preparation of rows, from all others."""
        digest = blake2b(digest_size=16)
        for part in self.identity():
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.digest()

    def __call__(self, kind: str, rows: Any) -> np.ndarray:
        """Features (b, d), float32, of one block of rows. Raises ValueError where some are not finite."""
        import torch

        with torch.inference_mode():
            found = self.readers[kind](rows)
            if not isinstance(found, torch.Tensor | np.ndarray):
                raise TypeError(
                    f"{self.name} returns {type(found).__name__}, and one tensor of features per row is needed; wrap "
                    "it in a module that returns that"
                )
            features = torch.as_tensor(found)
            if features.ndim < 2 or len(features) != len(rows):
                raise ValueError(
                    f"{self.name} makes features of shape {tuple(features.shape)} of {len(rows)} rows; "
                    f"({len(rows)}, n_features) is needed"
                )
            features = features.float()
            if features.ndim == 3:  # tokens
                features = features.mean(dim=1)
            elif features.ndim > 3:  # channels, at each place
                features = features.flatten(2).mean(dim=2)
            found = features.cpu().numpy()  # the only wait for the device
        if not np.isfinite(found).all():
            raise ValueError(f"{self.name} makes features that are NaN or infinite; its weights may be damaged")
        return found


def encode(backbone: Backbone, kind: str, rows: Any, *, batch_size: int, store: Store) -> np.ndarray:
    """Features (n, d), float32, of rows (n, ...): those in the store are taken from it, the others put into it.

    Equal rows get equal features, whatever stands beside them. A block is halved where memory runs out. O(n d) memory.
    """
    n = len(rows)
    keys = [row_key(rows[i]) for i in range(n)]
    found = store.get(backbone.key, list(dict.fromkeys(keys)))
    first: dict[bytes, int] = {}
    for i, key in enumerate(keys):
        if key not in found:
            first.setdefault(key, i)
    missing = np.array(list(first.values()), dtype=int)
    if kind == "texts":  # those of a length are padded alike, and the longest, which need most memory, come first
        missing = missing[np.argsort([-len(rows[i]) for i in missing], kind="stable")]
    waiting: list[int] = []
    done = n - len(missing)

    def put(least: int) -> None:
        if len(waiting) >= max(1, least):
            names = [keys[i] for i in waiting]
            store.put(backbone.key, names, np.stack([found[name] for name in names]))
            waiting.clear()

    _progress.get()(f"encoding by {backbone.name}")
    for block, features in in_blocks(len(missing), batch_size, partial(_of_block, backbone, kind, rows, missing)):
        for i, vector in zip(missing[block].tolist(), features, strict=True):
            found[keys[i]] = vector
            waiting.append(i)
        put(KEPT_EVERY)
        done += len(features)
        _progress.get()(f"encoding, {done:,} of {n:,} rows")
    put(1)
    return np.stack([found[key] for key in keys])


def _of_block(backbone: Backbone, kind: str, rows: Any, chosen: np.ndarray, block: slice) -> np.ndarray:
    return backbone(kind, rows[chosen[block]])


def row_key(row: Any) -> bytes:
    """What tells a row from all others: a text, or an array with its shape and kind of numbers."""
    if isinstance(row, str):
        return blake2b(row.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    array = np.ascontiguousarray(row)
    kind = f"{array.dtype.str}{array.shape}".encode()
    return blake2b(array.tobytes(), digest_size=16, person=blake2b(kind, digest_size=16).digest()).digest()
