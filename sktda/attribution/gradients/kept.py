"""What a store of gradients says of the model and the rows that it was made of, and how it is found again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from pickle import PicklingError
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor

from sktda.engine.store import GradientStore
from sktda.model.adapters import differentiable
from sktda.model.fingerprint import module_fingerprint, row_fingerprints
from sktda.model.given import GivenModel, GivenRows
from sktda.model.likelihood import Likelihood
from sktda.model.sealed import digest


def identity(given: GivenModel, rows: GivenRows, records: list[str | bytes]) -> dict[str, Any]:
    """Digests of the model and of the rows, and the shape of a row."""
    weight = b"" if rows.sample_weight is None else np.asarray(rows.sample_weight, dtype=float).tobytes()
    shape = getattr(rows.X, "shape", None)
    return {
        "model": model_digest(given, len(rows)),
        "rows": digest([row_fingerprints(rows.X, rows.y).tobytes(), weight, *records]),
        "row_shape": None if shape is None else [int(each) for each in shape[1:]],
    }


def model_digest(given: GivenModel, n: int) -> str:
    """What tells a trained model, what is frozen in it and the transformers before it, from others."""
    model = differentiable(given, n)
    # the state holds frozen parameters like all others: the second are the names of those that take part
    texts = [json.dumps(module_fingerprint(model.module)), json.dumps(list(model.parameters))]
    try:
        before = joblib.hash(given.transformers)
    except PicklingError as error:
        raise TypeError(
            f"a store on disk must tell the transformers before the model from others, and these cannot be pickled "
            f"({error}); give functions that have names, or work_dir=None"
        ) from error
    return digest([*texts, before, *model.module.state_dict().values()])


def earlier_store(folder: Path, about: Mapping[str, Any]) -> GradientStore | None:
    """That of a folder, if it says all of this of itself; a damaged one counts as none, and is made anew."""
    try:
        store = GradientStore.opened(folder)
    except ValueError:
        return None
    # a store that was begun also says what its compression found, which the fit does not know yet
    return store if store is not None and about.items() <= store.about.items() else None


def store_of(folder: Path, given: GivenModel) -> GradientStore:
    """The one store of a model in the folder itself or in the folders of it; ValueError for none, or several."""
    opened = [GradientStore.opened(each) for each in (folder, *sorted(folder.glob("gradients-*")))]
    stores = [store for store in opened if store is not None]
    found = [store for store in stores if store.about["model"] == model_digest(given, store.n)]
    if not found:
        raise ValueError(
            f"{folder} holds {len(stores)} stores, and none is of this model; give the very model that was fitted, "
            "or fit again"
        )
    if len(found) > 1:
        names = ", ".join(str(store.folder) for store in found)
        raise ValueError(f"{folder} holds {len(found)} stores of this model; name the folder of one: {names}")
    return found[0]


def labelled(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the prefix before every name."""
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def listed(patterns: Any) -> Any:
    """Patterns of parameters as JSON has them."""
    return patterns if patterns is None or isinstance(patterns, str) else list(patterns)


def unread(part: Any) -> Any:
    """In place of the rows of a store that was loaded."""
    raise ValueError("a store that was loaded has no rows; fit again for what needs them")


def settled_numbers(likelihood: Any) -> dict[str, Tensor]:
    """The fields of a likelihood that are numbers, of which some may follow from the training targets."""
    values = {field.name: getattr(likelihood, field.name) for field in fields(likelihood)}
    return {name: torch.as_tensor(v) for name, v in values.items() if isinstance(v, bool | int | float | Tensor)}


def as_stored(store: GradientStore, likelihood: Any) -> Likelihood:
    """The likelihood of queries with what the training rows told theirs. ValueError for one of another kind."""
    if (kind := type(likelihood).__name__) != (due := store.about["likelihood"]):
        raise ValueError(
            f"the queries have targets of another kind than the rows of the store: {due} is the likelihood of those, "
            f"{kind} that of the queries"
        )
    numbers = store.named("likelihood/")
    return replace(likelihood, **{name: value if value.ndim else value.item() for name, value in numbers.items()})
