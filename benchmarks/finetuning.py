"""Selection for fine-tuning: which wrong labels are found, and the accuracy after training again on what is kept.

    python benchmarks/finetuning.py            # about a quarter of an hour on two cores
    python benchmarks/finetuning.py --quick    # few rows, one seed, nothing written: does it run?

SST-2, a BERT of two layers from a configuration. Nothing is downloaded: the encoder is trained on 3,000 of the training
sentences with right labels, and then fine-tuned on the other 3,920, of whose labels 20 % are flipped, in two ways: head
with LoRA adapters, and all parameters. The third way trains all parameters on these from random weights. (Masked-
language modelling of the few sentences as pre-training was tried and served none of them.) Training rows are scored on
the fine-tuned net; half of the validation part, with right labels, is the objective. The best 70 % of the rows by each
score train the classifier again, from the same start, with the same seed. Every seed has a process of its own, two at a
time. Needs the folder in SKTDA_DATA, and transformers, tokenizers and peft. Writes
benchmarks/results/finetuning.json; `python benchmarks/tables.py` makes the tables from it.
"""

from __future__ import annotations

import argparse
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from shared.common import begin, has, measured, save

SEEDS = (0, 1, 2)
SIDE_BY_SIDE = 2  # processes, with one thread each: the products are small
RATE, KEPT = 0.2, 0.7
SETTINGS: dict[str, dict[str, float]] = {
    "lora": {"lr": 3e-3, "epochs": 2},
    "full": {"lr": 3e-4, "epochs": 2},
    "scratch": {"lr": 1e-3, "epochs": 3},
}
"""Learning rate and epochs by way of fine-tuning, chosen on the spare half of the validation part."""


def attributors(frozen: Any, seed: int) -> dict[str, Any]:
    """The methods, at their defaults."""
    from sktda.attribution import Influence, InnerProduct, Source, TracIn

    makers = {"InnerProduct": InnerProduct, "TracIn": TracIn, "Influence": Influence, "Source": Source}
    found = {name: make(frozen, objective="validation", random_state=seed) for name, make in makers.items()}
    head = InnerProduct(frozen, objective="validation", parameters="*classifier.*", random_state=seed)
    return {"InnerProduct": found.pop("InnerProduct"), "InnerProduct, head only": head} | found


def seed_part(seed: int, n: int | None) -> dict:
    """All ways of training, on one draw; of few rows (n) the first two: from random weights is the second again."""
    import torch
    from shared.nets import timed
    from shared.text import pretrained, sst2

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers, about names that peft uses
    text = sst2(RATE, seed, n)
    seconds, model = timed(partial(pretrained, text.X_before, text.y_before, seed))
    common = {"seed": seed, "n": len(text.y), "before": len(text.y_before), "rate": RATE, "kept": KEPT}
    common["before_seconds"] = seconds
    ways = list(SETTINGS)[: 2 if n else None]
    return {"rows": [common | row for way in ways for row in way_part(text, model, way, seed)]}


def way_part(text: Any, model: Any, way: str, seed: int) -> list[dict]:
    """One row per score: how it ranks the wrong labels, and the test accuracy on what it keeps."""
    from shared.nets import timed
    from shared.text import finetuned, start, taken
    from sklearn.frozen import FrozenEstimator
    from sklearn.metrics import average_precision_score, roc_auc_score

    module = start(model, way, seed)
    train = partial(finetuned, module, seed=seed, lr=SETTINGS[way]["lr"], epochs=int(SETTINGS[way]["epochs"]))
    train_seconds, net = timed(partial(train, text.X, text.y))
    scores: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    with warnings.catch_warnings():
        # embeddings and norms, where they are trained; Influence and Source then are those of the linear layers
        warnings.filterwarnings("ignore", "EK-FAC leaves out")
        for name, method in attributors(FrozenEstimator(net), seed).items():
            fit = partial(method.fit, text.X, text.y, X_val=text.X_val, y_val=text.y_val)
            seconds[name], fitted = timed(fit)
            scores[name] = fitted.scores_
    seconds["loss"], scores["loss"] = timed(lambda: -losses(net, text))
    seconds["random"], scores["random"] = 0.0, np.random.default_rng([seed, 1]).random(len(text.y))
    common = {
        "way": way,
        **SETTINGS[way],
        "trainable": sum(value.numel() for value in module.parameters() if value.requires_grad),
        "parameters": sum(value.numel() for value in module.parameters()),
        "train_seconds": train_seconds,
        "agreement": net.score(text.X, text.y),
    }
    rows = [
        common | {"method": "all rows", "accuracy": net.score(text.X_test, text.y_test), "wrong": text.wrong.mean()}
    ]
    for name, values in scores.items():
        kept = np.sort(np.argsort(-values, kind="stable")[: round(KEPT * len(values))])
        again = train(taken(text.X, kept), text.y[kept])
        rows.append(
            common
            | {
                "method": name,
                "auroc": roc_auc_score(text.wrong, -values),
                "ap": average_precision_score(text.wrong, -values),
                "seconds": seconds[name],
                "accuracy": again.score(text.X_test, text.y_test),
                "wrong": text.wrong[kept].mean(),
            }
        )
    return rows


def losses(net: Any, text: Any) -> np.ndarray:
    """Of each row, under its given label."""
    probability = net.predict_proba(text.X)[np.arange(len(text.y)), text.y]
    return -np.log(np.maximum(probability, np.finfo(probability.dtype).tiny))


def show(row: dict) -> None:
    """One line."""
    ranks = f"AUROC {row['auroc']:.4f} AP {row['ap']:.4f} {row['seconds']:6.1f} s" if "auroc" in row else " " * 34
    print(
        f"seed {row['seed']} {row['way']:5s} {row['method']:23s} {ranks} accuracy {row['accuracy']:.4f} "
        f"({row['wrong']:.1%} wrong)",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    quick = begin(parser, arguments).quick
    if not has("transformers", "tokenizers", "peft"):
        return
    seeds = SEEDS[:1] if quick else SEEDS
    rows: list[dict] = []
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for found in pool.map(lambda seed: measured(seed_part, seed, 100 if quick else None), seeds):
            rows += found["rows"]
            for row in found["rows"]:
                show(row)
            print(f"{found['seconds']:.0f} s, {found['peak_gib']:.1f} GiB", flush=True)
    save("finetuning", rows)


if __name__ == "__main__":
    main()
