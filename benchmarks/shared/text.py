"""SST-2 as numbers, a small transformer classifier for it, and its training, for the benchmark of fine-tuning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from shared.common import data_folder, flip, quick
from torch import nn

LENGTH = 40  # words; the few longer sentences are cut
VOCABULARY = 8_000  # most frequent words of the training part
SPECIAL = ["[PAD]", "[UNK]"]
WIDTH, LAYERS, HEADS, RANK = 64, 2, 4, 4
BATCH = 64
BEFORE_ROWS = 3_000  # that an encoder is trained on before
VALIDATION_ROWS = 436  # half of the validation part; the other half chose the learning rates
PRETRAIN_RATE, PRETRAIN_EPOCHS = 1e-3, 3

Inputs = dict[str, np.ndarray]
TRAINED = {  # patterns of the parameters that each way of fine-tuning trains
    "lora": ["*.lora_*", "classifier.*"],
    "full": ["*"],
    "scratch": ["*"],
}


@dataclass(frozen=True)
class Text:
    """Sentences to fine-tune on with the labels as given, which of these are wrong, and others with right labels."""

    X_before: Inputs
    y_before: np.ndarray
    X: Inputs
    y: np.ndarray
    wrong: np.ndarray
    X_val: Inputs
    y_val: np.ndarray
    X_test: Inputs
    y_test: np.ndarray


def sst2(rate: float, seed: int, n: int | None = None, spare: bool = False) -> Text:
    """Movie reviews, good (1) or bad: 3,000 training sentences come before, the (first n) others are fine-tuned on.

    Of these a share `rate` gets the other label. The vocabulary is that of the whole training part.
    spare: validate on the other half of the validation part.
    """
    parts = dict(list(reviews().groupby("split")))
    tokenizer = words(parts["train"]["text"])
    shuffled = parts["train"].iloc[np.random.default_rng(seed).permutation(len(parts["train"]))]
    n_before, n_held = (60, 20) if quick() else (BEFORE_ROWS, VALIDATION_ROWS)
    before, train = shuffled[:n_before], shuffled[n_before:][:n]
    halves = parts["dev"].iloc[np.random.default_rng(0).permutation(len(parts["dev"]))]
    held = halves[n_held:] if spare else halves[:n_held]
    (X_before, y_before), (X, y), (X_val, y_val), (X_test, y_test) = (
        (encoded(tokenizer, part["text"]), part["label"].to_numpy()) for part in (before, train, held, parts["test"])
    )
    given, wrong = flip(y, "uniform", rate, seed)
    return Text(X_before, y_before, X, given, wrong, X_val, y_val, X_test, y_test)


def reviews() -> Any:
    """DataFrame of split, label and text; with --quick sentences that are made of a few words."""
    import pandas as pd

    if quick():
        draw = np.random.default_rng(0)
        labels = draw.integers(0, 2, 200)
        said = [("dull", "bad", "slow", "it") if label == 0 else ("fine", "good", "warm", "it") for label in labels]
        texts = [" ".join(draw.choice(list(each), 5)) for each in said]
        split = np.repeat(["train", "dev", "test"], [140, 40, 20])
        return pd.DataFrame({"split": split, "label": labels, "text": texts})
    folder = data_folder()
    if folder is None:
        raise SystemExit("set SKTDA_DATA to the folder that has data/sst2.csv.gz (columns split, label, text)")
    return pd.read_csv(folder / "sst2.csv.gz", keep_default_na=False)


def words(texts: Iterable[str]) -> Any:
    """A tokenizer of the most frequent words, ties in the order of the alphabet, that pads and cuts to LENGTH."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    counts = Counter(word for text in texts for word in text.split())
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[: VOCABULARY - len(SPECIAL)]
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *frequent])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    return tokenizer


def encoded(tokenizer: Any, texts: Iterable[str]) -> Inputs:
    """Numbers of the words (n, LENGTH) and the mask that is 0 at the padding, as the module's forward names them."""
    found = tokenizer.encode_batch(list(texts))
    return {
        "input_ids": np.array([each.ids for each in found]),
        "attention_mask": np.array([each.attention_mask for each in found]),
    }


def taken(X: Inputs, rows: np.ndarray) -> Inputs:
    """These rows."""
    return {name: values[rows] for name, values in X.items()}


class Classifier(nn.Module):
    """An encoder and a linear layer on the mean of its words: what a Hugging Face model needs around it.

    Positions are given row by row. The model would make them once for a batch, so that their embedding, when it is
    trained, belonged to no row and its gradients had to be formed one row at a time.
    """

    def __init__(self, model: nn.Module, width: int = WIDTH, n_classes: int = 2) -> None:
        super().__init__()
        self.model = model
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits (n, n_classes)."""
        states = hidden(self.model, input_ids, attention_mask)
        mask = attention_mask[:, :, None].to(states.dtype)
        return self.classifier((states * mask).sum(1) / mask.sum(1))


def hidden(model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """(n, words, width)."""
    positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    return model(input_ids=input_ids, attention_mask=attention_mask, position_ids=positions).last_hidden_state


def encoder() -> nn.Module:
    """A BERT with random weights."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=LENGTH,
    )
    return BertModel(config, add_pooling_layer=False)


def pretrained(X: Inputs, y: np.ndarray, seed: int) -> nn.Module:
    """An encoder from a classifier of these sentences, trained with their right labels from random weights."""
    torch.manual_seed(seed)
    module = Classifier(encoder())
    return finetuned(module, X, y, PRETRAIN_RATE, PRETRAIN_EPOCHS, seed).module_.model


def start(model: nn.Module, way: str, seed: int) -> Classifier:
    """A classifier on a copy of the encoder, or on a new one, with what this way does not train frozen."""
    from fnmatch import fnmatchcase

    torch.manual_seed(seed)
    model = encoder() if way == "scratch" else deepcopy(model)
    if way == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        config = LoraConfig(r=RANK, lora_alpha=4 * RANK, target_modules=["query", "value"])
        model = inject_adapter_in_model(config, model)
    module = Classifier(model)
    for name, value in module.named_parameters():
        value.requires_grad_(any(fnmatchcase(name, pattern) for pattern in TRAINED[way]))
    return module


def finetuned(module: nn.Module, X: Inputs, y: np.ndarray, lr: float, epochs: int, seed: int) -> Any:
    """A skorch net after AdamW, with a record of 6 checkpoints; the module is copied."""
    from skorch import NeuralNetClassifier

    from sktda import TrajectoryRecorder

    torch.manual_seed(seed)
    return NeuralNetClassifier(
        deepcopy(module),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=0.01,
        lr=lr,
        max_epochs=epochs,
        batch_size=BATCH,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(optimizer_state=True)],
    ).fit(X, y)
