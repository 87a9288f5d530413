"""How well the default finds wrong labels by some features, beside cleanlab on the same features."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from shared.common import has


def measured_all(
    features: np.ndarray,
    given: np.ndarray,
    wrong: np.ndarray,
    about: dict,
    peer: bool = True,
    head: Callable[..., dict] | None = None,
) -> list[dict]:
    """A row for every method, behind what it is about; prints each. peer: whether cleanlab is one of them.

    head (scores, called_right=mask of rows) says what a model learns from the rows of the default.
    """
    rows = []
    for method, function in list(methods())[: 2 if peer else 1]:
        start = time.perf_counter()
        scores, estimate, called_right = function(features, given, about["seed"])
        seconds = time.perf_counter() - start
        row = {**about, "method": method, **quality(wrong, scores, estimate), "seconds": seconds}
        if head is not None and called_right is not None:
            row["head"] = head(scores=scores, called_right=called_right)
        rows.append(row)
        said = " ".join(str(value) for name, value in about.items() if not name.startswith("seconds"))
        print(
            f"{said} {method:20s} AUROC {row['auroc']:.4f} AP {row['ap']:.4f} "
            f"rate {wrong.mean():.3f} -> {estimate:.3f} {seconds:.1f} s",
            flush=True,
        )
    return rows


def methods():
    """(name, (features, labels, seed) -> (scores, higher = right; share of wrong labels; mask of right ones))."""
    yield "NoisyLabelDetector", of_sktda
    if has("cleanlab"):
        yield "cleanlab, logistic", of_cleanlab


def of_sktda(features: np.ndarray, given: np.ndarray, seed: int) -> tuple[np.ndarray, float, np.ndarray]:
    from sktda import NoisyLabelDetector

    detector = NoisyLabelDetector(random_state=seed).fit(features, given)
    return detector.scores_, detector.noise_rate_, detector.labels_ == 1


def of_cleanlab(features: np.ndarray, given: np.ndarray, seed: int) -> tuple[np.ndarray, float, None]:
    from cleanlab.count import num_label_issues
    from cleanlab.rank import get_label_quality_scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    probabilities = cross_val_predict(model, features, given, cv=folds, method="predict_proba")
    return get_label_quality_scores(given, probabilities), num_label_issues(given, probabilities) / len(given), None


def quality(wrong: np.ndarray, scores: np.ndarray, estimate: float) -> dict:
    """How well low scores find the wrong labels, and how many were estimated."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {
        "auroc": roc_auc_score(wrong, -scores),
        "ap": average_precision_score(wrong, -scores),
        "true_rate": wrong.mean(),
        "estimated_rate": float(estimate),
    }
