"""What is taken for the features of pictures: their pixels, or patches where these predict the labels better."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sktda.cli.features import of_arrays

if TYPE_CHECKING:
    from sktda.findings import Finding

LOOKED_AT = 2_000  # pictures that decide
CLEARLY = 2.0  # standard errors


def of_pictures(
    pixels: np.ndarray, given: pd.Series, task: str, kind: str, seed: int, progress: Callable[[str], None]
) -> tuple[np.ndarray, list[Finding], list[str]]:
    """(features, findings, notes) of pictures (n, height, width[, channels]) with the labels that they have.

    kind: "pixels", "patches" (of `PatchFeatures`), or "auto": patches, if by them the predictor of the default knows
    clearly more labels of pictures that it is not told the labels of; never where labels are numbers.
    """
    X, findings, notes = of_arrays(pixels, given, task)
    if kind == "pixels" or (kind == "auto" and task == "regression"):
        return X, findings, notes
    from sktda import PatchFeatures

    progress("learning patches")
    patches = PatchFeatures(random_state=seed).fit(pixels)
    if kind == "auto":
        rows = balanced(given, seed)
        features = patches.transform(pixels[rows])
        labels = given.iloc[rows].astype(str).to_numpy(dtype=object)
        progress(f"comparing pixels and patches on {len(rows):,} images")
        by_pixels, by_patches = (known(some, labels, seed) for some in (pixels[rows], features))
        kind = "patches" if clearly_more(by_patches, by_pixels) else "pixels"
        notes.append(_said(kind, float(by_pixels.mean()), float(by_patches.mean()), len(rows)))
        if kind == "pixels":
            return X, findings, notes
        if len(rows) == len(pixels):  # in their order
            return features, findings, notes
    progress(f"looking for patches in {len(pixels):,} images")
    return patches.transform(pixels), findings, notes


def balanced(given: pd.Series, seed: int) -> np.ndarray:
    """Positions of at most LOOKED_AT labels, drawn, of each class as many as there are of the others if it has them."""
    order = np.random.RandomState(seed).permutation(np.flatnonzero(given.notna()))
    turn = given.iloc[order].groupby(given.iloc[order].astype(str).to_numpy()).cumcount().to_numpy()
    return np.sort(order[np.argsort(turn, kind="stable")[:LOOKED_AT]])


def known(features: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Whether the predictor of the default knows a label (n,) without being told it."""
    from sktda.attribution import KernelForest

    forest = KernelForest(task="classification", random_state=seed).fit(features, labels)
    return forest.classes_[forest.loo_decision_.argmax(axis=1)] == labels


def clearly_more(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether the first of two masks (n,) holds more rows, by two standard errors of how many more (McNemar's test)."""
    only_first, only_second = (first & ~second).sum(), (second & ~first).sum()
    return bool(only_first - only_second > CLEARLY * (only_first + only_second) ** 0.5)


def _said(kind: str, by_pixels: float, by_patches: float, n: int) -> str:
    shares = {"pixels": by_pixels, "patches": by_patches}
    other = "pixels" if kind == "patches" else "patches"
    return (
        f"the features are {kind}, by which the other images predict {shares[kind]:.1%} of the labels of {n:,} images; "
        f"by {other} they predict {shares[other]:.1%}"
        + (", which is not clearly more" if shares[other] > shares[kind] else "")
    )
