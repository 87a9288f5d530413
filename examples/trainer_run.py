"""A BERT trained by the Hugging Face Trainer is recorded as it trains, and the record finds the wrong labels.

The model is made from a config and starts from nothing, so that nothing is downloaded; with a pre-trained one,
`AutoModelForSequenceClassification.from_pretrained(...)` takes its place and everything else stays. The texts are made:
sentences of twelve words, three of which tell what the sentence is about. Of the labels 15 % are wrong. `TrainerRecorder`
is the one line that is added to the training; `TorchModel` makes an estimator of the trained model and its record.

Run with `python examples/trainer_run.py`, or `python examples/trainer_run.py SEED`.
"""

import sys
import tempfile

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from sktda import TorchModel, TrainerRecorder
from sktda.attribution import AUM, InnerProduct, Loss, TracIn

SEED = int(sys.argv[1]) if len(sys.argv) > 1 else 0
N_WORDS, LENGTH, N_ROWS = 200, 12, 500


class Sentences(Dataset):
    """Rows as the Trainer takes them: dicts with the labels in them."""

    def __init__(self, words: np.ndarray, labels: np.ndarray) -> None:
        self.words, self.labels = torch.tensor(words), torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        words = self.words[row]
        return {"input_ids": words, "attention_mask": (words > 0).long(), "labels": self.labels[row]}


def make_rows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(words, labels): words 1 to 39 are about one thing, 40 to 79 about the other, and most about nothing."""
    labels = rng.integers(0, 2, N_ROWS)
    words = rng.integers(80, N_WORDS, (N_ROWS, LENGTH))
    words[:, :3] = rng.integers(1, 40, (N_ROWS, 3)) + 39 * labels[:, None]
    words = rng.permuted(words, axis=1)
    words[np.arange(LENGTH) >= rng.integers(9, LENGTH + 1, (N_ROWS, 1))] = 0  # padding
    return words, labels


def main() -> None:
    """Train, and look."""
    rng = np.random.default_rng(SEED)
    words, labels = make_rows(rng)
    wrong = rng.random(N_ROWS) < 0.15
    rows = Sentences(words, np.where(wrong, 1 - labels, labels))

    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=N_WORDS,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
        num_labels=2,
    )
    recorder = TrainerRecorder(nn.CrossEntropyLoss(), n_checkpoints=6)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=6,
            per_device_train_batch_size=25,
            learning_rate=2e-3,
            seed=SEED,
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
    model = TorchModel(trainer.model, nn.CrossEntropyLoss(), run)
    print("of the wrong labels against the right ones")
    for method in (TracIn(model, parameters="classifier.*"), InnerProduct(model), AUM(model), Loss(model)):
        scores = method.fit(rows, None).scores_
        found = wrong[np.argsort(scores)[: wrong.sum()]].mean()
        print(f"{type(method).__name__:14} AUROC {roc_auc_score(~wrong, scores):.3f}, found {found:.2f}")


if __name__ == "__main__":
    main()
