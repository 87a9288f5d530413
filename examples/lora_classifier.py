"""Wrong labels in the data of a LoRA fine-tuning: a small BERT from a configuration, and what to leave out.

A BERT learns on 600 made sentences what is said of films; then only LoRA adapters and a new head learn from 300
others whether these are praise, and a fifth of the labels is wrong. `InnerProduct` and `TracIn` compare the gradients
of the rows with that of 100 right ones: of what is trained, some thousand numbers, and not of the whole model.
`InfluencePruner` drops the worst fifth and fine-tunes again, from the same start.

The model goes into skorch as it is, peft's wrapper around it: `LogitsLoss` finds the logits in what it returns, and
`predict_nonlinearity` makes probabilities of them. For a real model see docs/finetuning.md.

Run with `python examples/lora_classifier.py`. About 12 seconds on one thread.
"""

import warnings
from copy import deepcopy

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from skorch import NeuralNetClassifier
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from sktda import Holdout, InfluencePruner, LogitsLoss, TrajectoryRecorder
from sktda.attribution import InnerProduct, TracIn

SEED = 0
WORDS, LONGEST = 60, 10
GOOD, BAD = range(1, 11), range(11, 21)  # words that praise and that blame; the others say nothing
NOISE = 0.2

Inputs = dict[str, np.ndarray]
warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers, about a name that peft uses


def make_texts(n: int, rng: np.random.Generator) -> tuple[Inputs, np.ndarray]:
    """Sentences of 5 to 10 words, two of which praise (class 1) or blame, and one the other way round."""
    y = rng.integers(0, 2, n)
    length = rng.integers(5, LONGEST + 1, n)
    ids = rng.integers(21, WORDS, (n, LONGEST))
    for row, label in enumerate(y):
        places = rng.choice(length[row], 3, replace=False)
        ids[row, places[:2]] = rng.choice(GOOD if label else BAD, 2)
        ids[row, places[2]] = rng.choice(BAD if label else GOOD)
    mask = (np.arange(LONGEST) < length[:, None]).astype(int)
    return {"input_ids": ids * mask, "attention_mask": mask}, y


def make_net(model: nn.Module, lr: float, epochs: int) -> NeuralNetClassifier:
    """A net around a model of transformers or peft."""
    return NeuralNetClassifier(
        model,
        criterion=LogitsLoss,
        predict_nonlinearity=lambda output: output.logits.softmax(-1),
        optimizer=torch.optim.AdamW,
        lr=lr,
        max_epochs=epochs,
        batch_size=32,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints=4, optimizer_state=True)],
    )


def with_adapters(model: nn.Module) -> nn.Module:
    """The model with LoRA adapters at its queries and values; all but these and the head stays as it is."""
    torch.manual_seed(SEED)
    config = LoraConfig(r=4, lora_alpha=16, target_modules=["query", "value"], modules_to_save=["classifier"])
    return get_peft_model(deepcopy(model), config)


def main() -> None:
    """Train before, adapt to wrong labels, find them, adapt again."""
    rng = np.random.default_rng(SEED)
    (X_before, y_before), (X, truth), (X_val, y_val), (X_test, y_test) = (
        make_texts(n, rng) for n in (600, 300, 100, 500)
    )
    wrong = rng.choice(len(truth), round(NOISE * len(truth)), replace=False)
    y = truth.copy()
    y[wrong] = 1 - y[wrong]

    torch.manual_seed(SEED)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=WORDS, max_position_embeddings=LONGEST, **sizes)
    before = make_net(BertForSequenceClassification(config), lr=2e-3, epochs=8).fit(X_before, y_before).module_

    net = make_net(with_adapters(before), lr=5e-3, epochs=10)
    n_trained = sum(value.numel() for value in net.module.parameters() if value.requires_grad)
    n_all = sum(value.numel() for value in net.module.parameters())
    print(f"{n_trained:,} of {n_all:,} parameters trained; {len(wrong)} of {len(y)} labels are wrong")
    print(f"{'':34s}of which wrong  accuracy")
    for name, method in {"all rows": None, "InnerProduct": InnerProduct(), "TracIn": TracIn()}.items():
        torch.manual_seed(SEED)
        if method is None:
            fitted, dropped = make_net(with_adapters(before), lr=5e-3, epochs=10).fit(X, y), np.array([], dtype=int)
        else:
            held = Holdout(X_val, y_val)
            pruner = InfluencePruner(net, method, prune_ratio=NOISE, validation=held, guard=False, random_state=SEED)
            fitted = pruner.fit(X, y)
            dropped = np.flatnonzero(~fitted.support_)
        row = name if method is None else f"{name}: {len(dropped)} dropped"
        print(f"{row:34s}{np.isin(dropped, wrong).sum():14d}{fitted.score(X_test, y_test):10.3f}")


if __name__ == "__main__":
    main()
