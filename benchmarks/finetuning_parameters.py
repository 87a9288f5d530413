"""Which parameters of a fine-tuned net should take part in a score: all, or those of its head?

    python benchmarks/finetuning_parameters.py            # ten minutes on one core
    python benchmarks/finetuning_parameters.py --quick    # few rows, one seed, nothing written: does it run?

1,000 sentences of SST-2 with 20 % of the labels flipped, a BERT and a GPT-2 of two layers with their heads for
classification, from a configuration and as they are, trained as a whole: after training on 3,000 other sentences with
right labels (with a new head), or from random weights. InnerProduct, TracIn and Influence at their defaults, with all
parameters and with those behind the base; AUROC of the wrong labels. The objective is the loss on half of the
validation part. Needs the folder in SKTDA_DATA, transformers and tokenizers. Writes
benchmarks/results/finetuning_parameters.json after every net.
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from typing import Any

from shared.common import begin, has, measured, save

SEEDS = (0, 1, 2)
RATE, ROWS = 0.2, 1_000
SETTINGS = {"full": (3e-4, 2), "scratch": (1e-3, 3)}
"""Learning rate and epochs by way of training, those of benchmarks/finetuning.py."""


def model(kind: str) -> Any:
    """A classifier of two classes with random weights."""
    import transformers
    from shared.text import HEADS, LAYERS, LENGTH, VOCABULARY, WIDTH

    common = {"vocab_size": VOCABULARY, "num_labels": 2, "pad_token_id": 0}
    if kind == "gpt2":
        sizes = {"n_positions": LENGTH, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_inner": 2 * WIDTH}
        config = transformers.GPT2Config(**common, **sizes, bos_token_id=None, eos_token_id=None)
        return transformers.GPT2ForSequenceClassification(config)
    config = transformers.BertConfig(
        **common,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=LENGTH,
    )
    return transformers.BertForSequenceClassification(config)


def trained(module: Any, X: Any, y: Any, lr: float, epochs: int, seed: int) -> Any:
    """A skorch net after AdamW, with a record of 6 checkpoints."""
    import torch
    from shared.text import BATCH
    from skorch import NeuralNet

    from sktda import LogitsLoss, TrajectoryRecorder

    torch.manual_seed(seed)
    settings = {"max_epochs": epochs, "batch_size": BATCH, "lr": lr, "train_split": None, "verbose": 0}
    return NeuralNet(
        module,
        criterion=LogitsLoss,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=0.01,
        iterator_train__shuffle=True,
        callbacks=[TrajectoryRecorder(optimizer_state=True)],
        **settings,
    ).fit(X, y)


def part(seed: int, kind: str, way: str, n: int | None) -> dict:
    """AUROC and seconds of all methods, with all parameters and with the head."""
    import torch
    from shared.nets import timed
    from shared.text import PRETRAIN_EPOCHS, PRETRAIN_RATE, sst2
    from sklearn.frozen import FrozenEstimator
    from sklearn.metrics import roc_auc_score

    from sktda import head_of
    from sktda.attribution import Influence, InnerProduct, TracIn

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "EK-FAC leaves out")
    text, module = sst2(RATE, seed, n), model(kind)
    if way == "full":
        before = trained(module, text.X_before, text.y_before, PRETRAIN_RATE, PRETRAIN_EPOCHS, seed).module_
        module = model(kind)
        module.base_model.load_state_dict(before.base_model.state_dict())
    net = trained(module, text.X, text.y, *SETTINGS[way], seed)
    parameters = {"all": ["*"], "head": head_of(net.module_)}
    found = {}
    for method in (InnerProduct, TracIn, Influence):
        for name, patterns in parameters.items():
            make = method(FrozenEstimator(net), objective="validation", parameters=patterns, random_state=seed)
            seconds, fitted = timed(partial(make.fit, text.X, text.y, X_val=text.X_val, y_val=text.y_val))
            found[f"{method.__name__}, {name}"] = {
                "auroc": roc_auc_score(text.wrong, -fitted.scores_),
                "seconds": seconds,
            }
    return {"scores": found}


def main(arguments: list[str] | None = None) -> None:
    """Every seed, architecture and way of training."""
    quick = begin(argparse.ArgumentParser(description=__doc__), arguments, threads=1).quick
    if not has("transformers", "tokenizers"):
        return
    rows = []
    for way in ("full", "scratch")[: 1 if quick else None]:
        for seed in SEEDS[:1] if quick else SEEDS:
            for kind in ("gpt2", "bert")[: 1 if quick else None]:
                found = measured(part, seed, kind, way, 30 if quick else ROWS)
                rows.append({"seed": seed, "kind": kind, "way": way, **found})
                for name, score in found["scores"].items():
                    ranks = f"AUROC {score['auroc']:.4f} {score['seconds']:6.1f} s"
                    print(f"seed {seed} {kind:5s} {way:8s} {name:19s} {ranks}", flush=True)
                save("finetuning_parameters", rows)


if __name__ == "__main__":
    main()
