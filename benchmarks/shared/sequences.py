"""A small transformer of plain torch modules, and texts as numbers: sentences with a label, and lines of characters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from shared.common import data_folder, quick
from shared.text import reviews
from torch import Tensor, nn

PADDING, UNKNOWN = 0, 1
SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"


class Block(nn.Module):
    """Attention and an MLP, each after a LayerNorm and added to what it got."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (n, t, width); mask is added to the scores (n, heads, t, t)."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for part in self.qkv(self.first(x)).chunk(3, -1)
        )
        met = (q @ k.mT * q.shape[-1] ** -0.5 + mask).softmax(-1) @ v
        x = x + self.out(met.transpose(-3, -2).flatten(-2))
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


class Transformer(nn.Module):
    """Class logits (n, n_out) from the mean of the words, or, causal, logits of the next token (n, n_out, t).

    Positions are looked up row by row, so that their vectors, too, belong to a known layer.
    """

    def __init__(
        self, kinds: int, length: int, n_out: int, *, causal: bool, width: int = 32, layers: int = 4, heads: int = 2
    ) -> None:
        super().__init__()
        self.causal = causal
        self.words, self.places = nn.Embedding(kinds, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """x (n, t): numbers of the tokens."""
        places = torch.arange(x.shape[-1], device=x.device).expand(x.shape)
        if self.causal:
            mask = torch.full(x.shape[-1:] * 2, -1e9, device=x.device).triu(1)
        else:
            mask = (x == PADDING).float()[:, None, None] * -1e9
        h = self.words(x) + self.places(places)
        for block in self.blocks:
            h = block(h, mask)
        h = self.norm(h)
        if self.causal:
            return self.head(h).transpose(1, 2)
        words = (x != PADDING).float()
        return self.head((h * words[..., None]).sum(1) / words.sum(1, keepdim=True))


@dataclass(frozen=True)
class Rows:
    """Rows that the net is trained on before, those that are attributed, and those asked about; kinds of tokens."""

    X_before: Tensor
    y_before: Tensor
    X: Tensor
    y: Tensor
    X_query: Tensor
    y_query: Tensor
    kinds: int


def sentences(n: int, n_query: int, length: int, kinds: int) -> Rows:
    """SST-2: n training sentences, the others before, and validation sentences to ask about; words by their number.

    The most frequent words of the training part have numbers, others are one unknown word; 0 pads.
    """
    parts = dict(list(reviews().groupby("split")))
    rng = np.random.default_rng(0)
    train, held = (parts[name].iloc[rng.permutation(len(parts[name]))] for name in ("train", "dev"))
    counts = Counter(word for text in train["text"] for word in text.split())
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[: kinds - 2]
    numbers = {word: number for number, word in enumerate(frequent, start=2)}

    def encoded(part: Any) -> tuple[Tensor, Tensor]:
        found = torch.full((len(part), length), PADDING)
        for row, text in zip(found, part["text"], strict=True):
            words = torch.tensor([numbers.get(word, UNKNOWN) for word in text.split()[:length]])
            row[: len(words)] = words
        return found, torch.tensor(part["label"].tolist())

    return Rows(*encoded(train[n:]), *encoded(train[:n]), *encoded(held[:n_query]), kinds)


def shakespeare() -> str:
    """The text of SKTDA_DATA/data/shakespeare.txt; with --quick a sentence again and again."""
    if quick():
        return "to be, or not to be, that is the question: " * 20
    folder = data_folder()
    if folder is None or not (folder / "shakespeare.txt").exists():
        raise SystemExit(f"set SKTDA_DATA to the folder that has data/shakespeare.txt, which is {SHAKESPEARE}")
    return (folder / "shakespeare.txt").read_text(encoding="utf-8")


def lines(n: int, n_query: int, length: int, before: float = 0.8) -> Rows:
    """Pieces of `length` characters, targets the characters one later: the first part of the text comes before.

    Those that are attributed and those asked about are drawn from the rest.
    """
    text = shakespeare()
    alphabet = {letter: number for number, letter in enumerate(sorted(set(text)))}
    pieces = torch.tensor([alphabet[letter] for letter in text]).unfold(0, length + 1, length + 1)
    first, rest = pieces[: int(before * len(pieces))], pieces[int(before * len(pieces)) :]
    drawn = rest[torch.from_numpy(np.random.default_rng(0).permutation(len(rest))[: n + n_query])]
    parts = (part for rows in (first, drawn[:n], drawn[n:]) for part in (rows[:, :-1], rows[:, 1:]))
    return Rows(*parts, len(alphabet))
