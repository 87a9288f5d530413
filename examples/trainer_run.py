"""
Texts in the Hugging Face Trainer
=================================

A BERT is trained by the Hugging Face ``Trainer`` on sentences of which 15 % have the wrong label. ``TrainerRecorder``
is the one line that is added to the training; ``TorchModel`` makes an estimator of the trained model and its record,
and four attributors say from the record which labels are wrong.
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from sktda import TorchModel, TrainerRecorder
from sktda.attribution import AUM, InnerProduct, Loss, TracIn
from sktda.displays import ScoreDistributionDisplay

# %%
# Sentences
# ---------
#
# Of up to twelve words, three of which tell what the sentence is about: words 1 to 39 are about one thing, 40 to 79
# about the other, and most about nothing.

N_WORDS, LENGTH, N_ROWS = 200, 12, 500
rng = np.random.default_rng(0)
truth = rng.integers(0, 2, N_ROWS)
words = rng.integers(80, N_WORDS, (N_ROWS, LENGTH))
words[:, :3] = rng.integers(1, 40, (N_ROWS, 3)) + 39 * truth[:, None]
words = rng.permuted(words, axis=1)
words[np.arange(LENGTH) >= rng.integers(9, LENGTH + 1, (N_ROWS, 1))] = 0  # padding
wrong = rng.random(N_ROWS) < 0.15


class Sentences(Dataset):
    """Rows as the Trainer takes them: dicts with the labels in them."""

    def __init__(self, words: np.ndarray, labels: np.ndarray) -> None:
        self.words, self.labels = torch.tensor(words), torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        words = self.words[row]
        return {"input_ids": words, "attention_mask": (words > 0).long(), "labels": self.labels[row]}


rows = Sentences(words, np.where(wrong, 1 - truth, truth))

# %%
# Training, with one more line
# ----------------------------
#
# The model is made from a config and starts from nothing, so that nothing is downloaded; with a pre-trained one,
# ``AutoModelForSequenceClassification.from_pretrained(...)`` takes its place and everything else stays.

torch.manual_seed(0)
config = BertConfig(
    vocab_size=N_WORDS,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=LENGTH,
    num_labels=2,
)
recorder = TrainerRecorder(nn.CrossEntropyLoss(), n_checkpoints=6)  # this line
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder,
        num_train_epochs=6,
        per_device_train_batch_size=25,
        learning_rate=2e-3,
        seed=0,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        report_to=[],
    )
    trainer = Trainer(BertForSequenceClassification(config), arguments, train_dataset=rows, callbacks=[recorder])
    trainer.train()

run = recorder.trajectory_
print(f"recorded: {run.n_steps} steps of {run.optimizer}, checkpoints after {', '.join(map(str, run.steps))}")

# %%
# Ask the record
# --------------
#
# The second number is the share of wrong labels among as many of the lowest scores as there are wrong labels.

model = TorchModel(trainer.model, nn.CrossEntropyLoss(), run)
fitted = [
    method.fit(rows, None)
    for method in (TracIn(model, parameters="classifier.*"), InnerProduct(model), AUM(model), Loss(model))
]
for method in fitted:
    scores = method.scores_
    found = wrong[np.argsort(scores)[: wrong.sum()]].mean()
    print(f"{type(method).__name__:14} AUROC {roc_auc_score(~wrong, scores):.3f}, found {found:.2f}")

# %%

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for ax, method in zip(axes, fitted[1:3], strict=True):
    ScoreDistributionDisplay.from_attributor(method, marked=wrong, ax=ax, bins=30)
    ax.set_xlabel(f"{type(method).__name__} (higher = keep)")
figure.suptitle("Scores from the record; marked: wrong labels")
plt.show()

# %%
# **The decision**: look through the sentences with the lowest scores, or drop as many as you believe to be wrong, and
# train again.
