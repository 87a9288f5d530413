"""Compressed gradients of many rows, in memory or in a folder: written shard by shard, read as they were or refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sktda.data import slices
from sktda.engine.journal import Passes
from sktda.model import sealed

SHARD = 4_096  # rows of a file
HEAD = "store"
FORMAT = "1"
LARGEST = 2.0**15  # that the numbers of a row are scaled to: half the largest of float16
DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass
class Stored:
    """Some rows: the gradient of row i's loss is scale[i] * values[i], without the row's weight."""

    values: Tensor
    """(m, width) in the dtype of the store."""
    scale: Tensor
    """(m,) powers of two, float64."""
    weight: Tensor | None

    @classmethod
    def of(cls, gradients: Tensor, weight: Tensor | None, dtype: torch.dtype) -> Stored:
        """Rows (m, width) of any size in a dtype whose range is small."""
        # float16 ends at 65504 and at 6e-8, and rows may differ by more: each has a power of two, which costs no digit
        values = gradients.cpu().double()
        largest = values.abs().amax(dim=1) if values.shape[1] else values.new_zeros(len(values))
        # largest = m 2^e with 1/2 <= m < 1, 0 for a row without a gradient
        exponent = torch.where(largest > 0, torch.frexp(largest)[1], 0)
        scale = torch.ldexp(torch.ones_like(largest), exponent) / LARGEST
        return cls((values / scale[:, None]).to(dtype), scale, None if weight is None else weight.cpu().double())

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        own = {"values": self.values, "scale": self.scale}
        return own if self.weight is None else {**own, "weight": self.weight}

    @property
    def factor(self) -> Tensor:
        """(m,) that values of pairs are multiplied with: scale and weight."""
        return self.scale if self.weight is None else self.scale * self.weight

    def __getitem__(self, part: slice) -> Stored:
        weight = None if self.weight is None else self.weight[part]
        return Stored(self.values[part], self.scale[part], weight)


class GradientStore:
    """Compressed gradients of n rows, in shards.

    folder: where they lie, a file a shard and one that says what they are (`head`); None = in memory.
    about: texts that name the model, the rows and how gradients were compressed; a file of another store is refused,
        also of one whose projections are other numbers, as another machine may find them.
    A file is checked against its checksum when it is read for the first time, and again if it changes.
    """

    def __init__(
        self,
        folder: Path | None,
        about: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        n: int,
        shard: int | None = None,
    ) -> None:
        self.folder = folder
        self.about = dict(about)
        self.tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        self.n = n
        self.shard = shard or SHARD
        self._dtype = DTYPES[self.about["params"]["dtype"]]
        shape = json.dumps([self.about, self.n, self.shard, sorted(self.tensors)], sort_keys=True)
        # what a shard was made of stands in it: one of another fit in the same folder is refused and not mixed in
        self._mark = sealed.digest([shape, *(self.tensors[name] for name in sorted(self.tensors))])
        self._held: dict[int, Stored] = {}  # in memory
        self._seen: dict[int, tuple[int, int]] = {}  # size and time of files that were checked

    @classmethod
    def opened(cls, folder: Path) -> GradientStore | None:
        """What lies in a folder; None where there is no store. ValueError for a damaged one or another format."""
        try:
            tensors, texts = sealed.load(folder / f"{HEAD}.safetensors")
        except FileNotFoundError:
            return None
        if texts.get("format") != FORMAT:
            raise ValueError(f"{folder} is a store of another version of sktda; make it again with this one")
        return cls(folder, json.loads(texts["about"]), tensors, int(texts["n"]), int(texts["shard"]))

    def begin(self) -> None:
        """Write what the store is."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            texts = {"format": FORMAT, "about": json.dumps(self.about), "n": str(self.n)}
            texts["shard"] = str(self.shard)
            sealed.save(self.folder / f"{HEAD}.safetensors", self.tensors, texts)

    def fill(self, passes: Passes, compute: Callable[[int, int], Tensor], weight: Tensor | None) -> None:
        """compute(start, stop) -> (stop - start, width) for the shards that are missing or damaged."""
        for k, part in passes.shards("gradients", self.n, self.shard):
            if not self._whole(k):
                self.put(k, compute(part.start, part.stop), None if weight is None else weight[part])

    def put(self, k: int, gradients: Tensor, weight: Tensor | None = None) -> None:
        """Keep the rows of shard k."""
        stored = Stored.of(gradients, weight, self._dtype)
        if not bool(stored.values.isfinite().all()):
            row = k * self.shard + int((~stored.values.isfinite().all(dim=1)).nonzero()[0])
            raise ValueError(
                f"the gradient of training row {row} is NaN or infinite: X or y holds NaN or infinity there, or a "
                "number too large for the model's precision; impute, scale or drop it"
            )
        if self.folder is None:
            self._held[k] = stored
        else:
            sealed.save(self._path(k), stored.tensors, self._label(k))

    def block(self, part: slice) -> Stored:
        """Rows of one shard, or of a part of it. ValueError for a shard that is missing or damaged."""
        k = part.start // self.shard
        start = k * self.shard
        assert part.stop <= start + self.shard
        return self._read(k)[part.start - start : part.stop - start]

    def named(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, without that."""
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}

    def check_complete(self) -> None:
        """ValueError unless all shards are there."""
        missing = [k for k, _ in enumerate(slices(self.n, self.shard)) if not self._there(k)]
        if missing:
            raise ValueError(
                f"the store {self.folder} lacks {len(missing)} of {-(-self.n // self.shard)} shards: the fit that made "
                "it was ended before; fit again with the same rows and work_dir, which goes on where it was"
            )

    @property
    def nbytes(self) -> int:
        """Bytes that are held in memory."""
        return sum(value.nbytes for each in self._held.values() for value in each.tensors.values())

    def _path(self, k: int) -> Path:
        assert self.folder is not None
        return self.folder / f"rows-{k:06d}.safetensors"

    def _label(self, k: int) -> dict[str, str]:
        return {"store": self._mark, "shard": str(k)}

    def _there(self, k: int) -> bool:
        return k in self._held if self.folder is None else self._path(k).exists()

    def _whole(self, k: int) -> bool:
        try:
            self._read(k)
        except (KeyError, ValueError):
            return False
        return True

    def _read(self, k: int) -> Stored:
        if self.folder is None:
            return self._held[k]
        path = self._path(k)
        remedy = "fit again with the same rows and work_dir, which makes this shard anew"
        try:
            found = os.stat(path)
            stamp = found.st_size, found.st_mtime_ns
            tensors, label = sealed.load(path, check=self._seen.get(k) != stamp)
        except FileNotFoundError:
            raise ValueError(f"the store lacks {path}; {remedy}") from None
        except ValueError as error:
            raise ValueError(f"the store has a damaged shard; {remedy} ({error})") from error
        # whole, and of other rows or another shard: its checksum does not tell
        if label != self._label(k):
            raise ValueError(f"{path} belongs to another store; {remedy}")
        self._seen[k] = stamp
        return Stored(tensors["values"], tensors["scale"], tensors.get("weight"))
