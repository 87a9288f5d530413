"""What a long fit will cost, measured on a few rows before it is started."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from sklearn.base import clone

from sktda.model.given import GivenModel, GivenRows

ACTIVATIONS = 3  # values, gradients and products of a batch, in units of the values alone
PROBE_SECONDS = 1.0  # trial fits grow until one takes as long: shorter ones say little


def estimate_fit(attributor: Any, X: Any, y: Any, validation: dict[str, Any]) -> dict[str, float]:
    """{"rows", "seconds", "bytes"} that fitting the attributor on (X, y) will take.

    Trial fits on more and more rows, until one takes a second, give the time per row and what does not depend on the
    rows; bytes is the sum of the parameters, the curvature, the activations of a batch and the scores.
    Raises ValueError unless the attributor's estimator is frozen: the time of a training is not known beforehand.
    """
    if not GivenModel.of(attributor.estimator).fixed:
        raise ValueError(
            "the estimate is of scoring with a model that is already trained; wrap it: estimator=FrozenEstimator(model)"
        )
    rows = GivenRows(X, y)
    n = len(rows)
    trial = clone(attributor).set_callbacks().set_params(work_dir=None)
    few = np.arange(min(n, 8))
    fitted = trial.fit(*rows.take(few), **validation)._fitted()
    fitted.engine.prepare(fitted.rows)
    batch = fitted.engine.batch_size
    size, seconds, slope = min(batch, n), 0.0, 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # layers that are left out are named by the fit itself
        while True:
            start = time.perf_counter()
            trial.fit(*rows.take(np.arange(size)), **validation)
            before, seconds = seconds, time.perf_counter() - start
            slope = (seconds - before) / (size - size // 2) if before else seconds / size
            if seconds > PROBE_SECONDS or size == n:
                break
            size = min(2 * size, n)
    return {
        "rows": n,
        "seconds": seconds + max(slope, 0.0) * (n - size),
        "bytes": ACTIVATIONS * fitted.engine.row_bytes * batch + trial._fixed_bytes(fitted) + 16 * n,
    }
