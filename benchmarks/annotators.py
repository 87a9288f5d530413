"""One label from those of several people: majority, Dawid and Skene's model, and how far the stated quality holds.

    SKTDA_DATA=folder python benchmarks/annotators.py [--quick]

Reads folder/data/annotators/NAME/answer.csv (question, worker, answer) and truth.csv (question, truth), as the survey
"Truth Inference in Crowdsourcing" (Zheng et al., PVLDB 2017) publishes its collections; a NAME is a folder of it. Shown
are the share of right labels by majority (the first of equals) and by `consensus_labels`, its mean quality (which
should be that share), AUROC of the quality for right labels, and the rank correlation of the stated with the real
accuracy of annotators with at least ten labels.
Writes benchmarks/results/annotators.json (--quick: labels that are made, nothing is written).
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from shared.common import begin, data_folder, quick, save, set_threads

set_threads(1)

import pandas as pd  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

from sktda import consensus_labels  # noqa: E402

FEWEST = 10  # labels of an annotator whose accuracy is compared


def collections() -> dict[str, tuple[pd.DataFrame, pd.Series]]:
    """(one column per annotator, the truth where it is known) by name."""
    if quick():
        rng = np.random.default_rng(0)
        truth = rng.integers(0, 3, 200)
        wrong = rng.random((200, 5)) < [0.1, 0.2, 0.3, 0.4, 0.6]
        table = pd.DataFrame(np.where(wrong, (truth[:, None] + 1) % 3, truth[:, None]))
        return {"made": (table.mask(rng.random(table.shape) < 0.3).dropna(how="all"), pd.Series(truth))}
    folder = data_folder()
    places = sorted((folder / "annotators").glob("*/answer.csv")) if folder else []
    if not places:
        raise SystemExit("no SKTDA_DATA/data/annotators/NAME/answer.csv and truth.csv; see the head of this script")
    found = {}
    for place in places:
        answers = pd.read_csv(place, names=["row", "annotator", "label"], header=0)
        table = answers.drop_duplicates(["row", "annotator"]).pivot(index="row", columns="annotator", values="label")
        truth = pd.read_csv(place.with_name("truth.csv"), names=["row", "label"], header=0)
        found[place.parent.name] = table, truth.drop_duplicates("row").set_index("row")["label"]
    return found


def measured(table: pd.DataFrame, truth: pd.Series) -> dict:
    """The row of one collection."""
    known = truth.reindex(table.index)
    rows = known.notna().to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        consensus = consensus_labels(table)
    right = (consensus.labels == known.to_numpy())[rows]
    majority = (table.mode(axis=1)[0] == known)[rows]
    hits = table[rows].eq(known[rows], axis=0).sum()
    real = hits / table[rows].notna().sum()
    often = (consensus.n_labels >= FEWEST) & real.notna().to_numpy()
    return {
        "rows": len(table),
        "annotators": table.shape[1],
        "labels": int(consensus.n_labels.sum()),
        "classes": len(consensus.classes),
        "majority": float(majority.mean()),
        "consensus": float(right.mean()),
        "quality": float(consensus.quality[rows].mean()),
        "auroc": float(roc_auc_score(right, consensus.quality[rows])),
        "rank": float(spearmanr(real[often], consensus.accuracy[often])[0]),
        "compared": int(often.sum()),
    }


def main(arguments: list[str] | None = None) -> None:
    begin(argparse.ArgumentParser(description=__doc__.splitlines()[0]), arguments, threads=1)
    rows = []
    for name, (table, truth) in collections().items():
        rows.append({"collection": name, **measured(table, truth)})
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    save("annotators", rows)


if __name__ == "__main__":
    main()
