"""
Fine-tuning with LoRA: which rows to leave out
==============================================

A BERT that knows what is said of films learns with LoRA adapters whether it is praise, from labels of which a fifth is
wrong. ``InnerProduct`` and ``TracIn`` compare the gradients of the rows with that of 100 right ones: of what is
trained, some thousand numbers, and not of the whole model. ``InfluencePruner`` drops the worst fifth and fine-tunes
again, from the same start. Needs peft.
"""

import warnings
from copy import deepcopy

import matplotlib.pyplot as plt
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from skorch import NeuralNetClassifier
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from sktda import Holdout, InfluencePruner, LogitsLoss, TrajectoryRecorder
from sktda.attribution import InnerProduct, TracIn
from sktda.displays import ScoreDistributionDisplay

warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers, about a name that peft uses

# %%
# Reviews
# -------
#
# Sentences of 5 to 10 words, two of which praise (class 1) or blame, and one the other way round; the others say
# nothing. 600 to learn from before, 300 to fine-tune on with 60 wrong labels, 100 right ones to compare with, 500 to
# test.

WORDS, LONGEST = 60, 10
GOOD, BAD = range(1, 11), range(11, 21)


def make_texts(n: int, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(numbers of the words with their mask, labels)."""
    y = rng.integers(0, 2, n)
    length = rng.integers(5, LONGEST + 1, n)
    ids = rng.integers(21, WORDS, (n, LONGEST))
    for row, label in enumerate(y):
        places = rng.choice(length[row], 3, replace=False)
        ids[row, places[:2]] = rng.choice(GOOD if label else BAD, 2)
        ids[row, places[2]] = rng.choice(BAD if label else GOOD)
    mask = (np.arange(LONGEST) < length[:, None]).astype(int)
    return {"input_ids": ids * mask, "attention_mask": mask}, y


rng = np.random.default_rng(0)
(X_before, y_before), (X, truth), (X_val, y_val), (X_test, y_test) = (make_texts(n, rng) for n in (600, 300, 100, 500))
wrong = rng.choice(len(truth), 60, replace=False)
y = truth.copy()
y[wrong] = 1 - y[wrong]

# %%
# The model before, and its adapters
# ----------------------------------
#
# A model of transformers or peft goes into skorch as it is: ``LogitsLoss`` finds the logits in what it returns, and
# ``predict_nonlinearity`` makes probabilities of them. For a real model see :doc:`../finetuning`.


def make_net(model: nn.Module, lr: float, epochs: int) -> NeuralNetClassifier:
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
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=16, target_modules=["query", "value"], modules_to_save=["classifier"])
    return get_peft_model(deepcopy(model), config)


torch.manual_seed(0)
sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
config = BertConfig(vocab_size=WORDS, max_position_embeddings=LONGEST, **sizes)
before = make_net(BertForSequenceClassification(config), lr=2e-3, epochs=8).fit(X_before, y_before).module_

net = make_net(with_adapters(before), lr=5e-3, epochs=10)
n_trained = sum(value.numel() for value in net.module.parameters() if value.requires_grad)
n_all = sum(value.numel() for value in net.module.parameters())
print(f"{n_trained:,} of {n_all:,} parameters trained; {len(wrong)} of {len(y)} labels are wrong")

# %%
# Tune, find, tune again
# ----------------------

print(f"{'':34s}of which wrong  accuracy")
for name, method in {"all rows": None, "InnerProduct": InnerProduct(), "TracIn": TracIn()}.items():
    torch.manual_seed(0)
    if method is None:
        fitted, dropped = make_net(with_adapters(before), lr=5e-3, epochs=10).fit(X, y), np.array([], dtype=int)
    else:
        held = Holdout(X_val, y_val)
        pruner = InfluencePruner(net, method, prune_ratio=0.2, validation=held, guard=False, random_state=0)
        fitted = pruner.fit(X, y)
        dropped = np.flatnonzero(~fitted.support_)
    row = name if method is None else f"{name}: {len(dropped)} dropped"
    print(f"{row:34s}{np.isin(dropped, wrong).sum():14d}{fitted.score(X_test, y_test):10.3f}")

# %%
# What a row did, along the training, for the 100 right ones: nearly all wrong labels did harm.

marked = np.isin(np.arange(len(y)), wrong)
display = ScoreDistributionDisplay.from_attributor(pruner.attributor_, marked=marked, bins=30)
display.figure_.suptitle("TracIn scores of the rows; marked: wrong labels")
plt.show()

# %%
# **The decision**: leave these rows out. A hundred rows that somebody has checked are what it takes.
