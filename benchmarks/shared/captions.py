"""Captions for Fashion-MNIST by templates and synonyms, and the two towers that compare them with the pictures."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

NAMES = (
    ("t-shirt", "tee", "short sleeved top", "t shirt"),
    ("pair of trousers", "pair of pants", "pair of slacks", "trouser"),
    ("pullover", "sweater", "jumper", "knitted pullover"),
    ("dress", "frock", "gown", "one piece dress"),
    ("coat", "overcoat", "long coat", "winter coat"),
    ("sandal", "open toed sandal", "strappy sandal", "summer shoe"),
    ("shirt", "button down shirt", "dress shirt", "blouse"),
    ("sneaker", "trainer", "running shoe", "sports shoe"),
    ("bag", "handbag", "purse", "tote"),
    ("ankle boot", "boot", "short boot", "leather boot"),
)
"""What each class is called."""
TEMPLATES = (
    "a photo of a {}",
    "a grey picture of a {}",
    "{} on a black background",
    "a small image showing one {}",
    "this is a {}",
    "one {} from a web shop",
    "product photo {}",
    "a {} , seen from the front",
)


def captions(y: np.ndarray, rng: np.random.Generator) -> list[str]:
    """A caption for each class label."""
    return [TEMPLATES[rng.integers(len(TEMPLATES))].format(NAMES[c][rng.integers(len(NAMES[c]))]) for c in y]


def words(text: str) -> list[str]:
    """In lower case, punctuation left out."""
    return re.findall(r"[a-z]+", text.lower())


VOCABULARY = sorted({w for text in (*TEMPLATES, *(n for names in NAMES for n in names)) for w in words(text)})
LENGTH = 12


def tokens(texts: list[str]) -> np.ndarray:
    """(n, 12) numbers of the words, from 1; 0 = none."""
    number = {word: k + 1 for k, word in enumerate(VOCABULARY)}
    found = np.zeros((len(texts), LENGTH), dtype=np.int64)
    for row, text in zip(found, texts, strict=True):
        known = [number[word] for word in words(text)]
        row[: len(known)] = known
    return found


def towers(width: int = 32, hidden: int = 128, pixels: int = 784, n_words: int = len(VOCABULARY)) -> Any:
    """A module of (images (m, pixels), texts (m, 12)): unit vectors of both, and the factor of the similarities."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image = nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, width))
            self.word = nn.Embedding(n_words + 1, width, padding_idx=0)
            self.text = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, images: Any, texts: Any) -> Any:
            known = (texts > 0).sum(1, keepdim=True).clamp(min=1)
            text = self.text(self.word(texts).sum(1) / known)
            return F.normalize(self.image(images), dim=1), F.normalize(text, dim=1), self.scale.exp()

    return Towers()


def embedded(net: Any, X: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (n, width) of the images and of the texts."""
    import torch

    with torch.no_grad():
        images, texts, _ = net.module_.eval()(**{name: torch.from_numpy(value) for name, value in X.items()})
    return images.numpy(), texts.numpy()


def precision(asked: np.ndarray, known: np.ndarray, y: np.ndarray, k: int) -> float:
    """Mean share of the k most similar `known` of each `asked` that are of its class."""
    nearest = np.argsort(-(asked @ known.T), axis=1, kind="stable")[:, :k]
    return float((y[nearest] == y[:, None]).mean())
