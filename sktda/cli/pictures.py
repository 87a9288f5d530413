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


def of_pictures(
    pixels: np.ndarray, given: pd.Series, task: str, kind: str, seed: int, progress: Callable[[str], None]
) -> tuple[np.ndarray, list[Finding], list[str]]:
    """(features, findings, notes) of pictures (n, height, width[, channels]) with the labels that they have.

    kind: "pixels", "patches" (of `PatchFeatures`), or "auto": those by which the predictor of the default knows more
    labels of pictures that it is not told the labels of; pixels where neither knows more, or labels are numbers.
    """
    X, findings, notes = of_arrays(pixels, given, task)
    if kind == "pixels" or (kind == "auto" and task == "regression"):
        return X, findings, notes
    from sktda import PatchFeatures

    progress("learning patches")
    patches = PatchFeatures(random_state=seed).fit(pixels)
    if kind == "auto":
        rows = balanced(given, seed)
        labels = given.iloc[rows].astype(str).to_numpy(dtype=object)
        progress(f"comparing pixels and patches on {len(rows):,} images")
        shares = {
            "pixels": predicted(pixels[rows], labels, seed),
            "patches": predicted(patches.transform(pixels[rows]), labels, seed),
        }
        kind, other = sorted(shares, key=lambda name: -shares[name])  # of equals, pixels stay first
        notes.append(
            f"the features are {kind}, by which the other images predict {shares[kind]:.1%} of the labels of "
            f"{len(rows):,} images; by {other} they predict {shares[other]:.1%}"
        )
    if kind == "pixels":
        return X, findings, notes
    progress(f"looking for patches in {len(pixels):,} images")
    return patches.transform(pixels), findings, notes


def balanced(given: pd.Series, seed: int) -> np.ndarray:
    """Positions of at most LOOKED_AT labels, drawn, of each class as many as there are of the others if it has them."""
    order = np.random.RandomState(seed).permutation(np.flatnonzero(given.notna()))
    turn = given.iloc[order].groupby(given.iloc[order].astype(str).to_numpy()).cumcount().to_numpy()
    return np.sort(order[np.argsort(turn, kind="stable")[:LOOKED_AT]])


def predicted(features: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Share of the labels (n,) that the predictor of the default knows without being told them."""
    from sktda.attribution import KernelForest

    forest = KernelForest(task="classification", random_state=seed).fit(features, labels)
    return float((forest.classes_[forest.loo_decision_.argmax(axis=1)] == labels).mean())
