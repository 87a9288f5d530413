"""What does Influence cost where a row is a text, and the loss a cross-entropy of every token?

    python benchmarks/tokens.py            # three minutes on one core
    python benchmarks/tokens.py --models   # only models of transformers
    python benchmarks/tokens.py --quick    # a few short rows, nothing written: does it run?

64 rows of 64 tokens of 1,000 kinds, then twice as many tokens and twice as many kinds, through a GPT of four layers of
width 128 that has seen the rows once. Influence at its defaults (EK-FAC, self-influence) against one forward and
backward pass over the rows, in processor time of one thread; and with a criterion of the user's own in place of
CrossEntropyLoss, which shifts the tokens itself. Writes benchmarks/results/tokens.json.

Then language models of transformers as they are (GPT-2 and Llama with tied tables, BERT, T5), of two layers: the exact
gradients of all rows in their factors (lengths, by InnerProduct on itself) against the same plain pass, with the
numbers of parameters that are in no known layer and formed row by row. Writes benchmarks/results/tokens_models.json.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

from shared.common import begin, has, measured, save

ROWS, BATCH = 64, 16
SIZES = ((64, 1_000), (128, 1_000), (64, 2_000))
WIDTH, LAYERS, HEADS = 128, 4, 4


def module(tokens: int, kinds: int, width: int, classes_last: bool) -> Any:
    """A small GPT: logits (n, kinds, tokens), or (n, tokens, kinds)."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            parts = self.qkv(self.first(x)).chunk(3, -1)
            q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
            met = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(met.transpose(1, 2).flatten(2))
            return x + self.down(nn.functional.gelu(self.up(self.second(x))))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.place = nn.Embedding(kinds, width), nn.Parameter(0.02 * torch.randn(tokens, width))
            self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)), nn.LayerNorm(width))
            self.head = nn.Linear(width, kinds, bias=False)

        def forward(self, x: Any) -> Any:
            logits = self.head(self.blocks(self.words(x) + self.place))
            return logits if classes_last else logits.transpose(1, 2)

    return GPT()


def shifted() -> Any:
    """A criterion that compares the logits at each token with the next one."""
    from torch import nn

    class NextToken(nn.Module):
        reduction = "mean"

        def forward(self, outputs: Any, targets: Any) -> Any:
            logits, labels = outputs[:, :-1].flatten(0, 1), targets[:, 1:].flatten()
            losses = nn.functional.cross_entropy(logits, labels, reduction="none").reshape(len(outputs), -1).mean(1)
            return losses if self.reduction == "none" else losses.mean()

    return NextToken()


def processor_seconds(run: Callable[[], None]) -> float:
    """The better of two runs; at least what a clock may pass over, so that it can be divided by."""
    seconds = []
    for _ in range(2):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return max(min(seconds), 1e-6)


def part(rows: int, tokens: int, kinds: int, width: int, own: bool) -> dict:
    """Seconds of a plain pass, and of Influence beside it."""
    import numpy as np
    import torch
    from sklearn.frozen import FrozenEstimator
    from skorch import NeuralNet
    from torch import nn

    from sktda.attribution import Influence

    torch.manual_seed(0)
    torch.set_num_threads(1)
    X = np.random.default_rng(0).integers(0, kinds, (rows, tokens))
    y = X if own else np.roll(X, -1, axis=1)
    criterion = shifted() if own else nn.CrossEntropyLoss()
    settings = {"max_epochs": 1, "batch_size": BATCH, "lr": 0.1, "train_split": None, "verbose": 0}
    net = NeuralNet(module(tokens, kinds, width, own), criterion=criterion, **settings).fit(X, y)

    def plain() -> None:
        for start in range(0, rows, BATCH):
            output = net.module_(torch.from_numpy(X[start : start + BATCH]))
            net.criterion_(output, torch.from_numpy(y[start : start + BATCH])).backward()

    def influence() -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "EK-FAC leaves out")  # embeddings and norms
            Influence(FrozenEstimator(net), random_state=0).fit(X, y)

    found = {}
    for name, run in (("plain", plain), ("influence", influence)):
        run()  # what is loaded at the first use
        found[f"{name}_seconds"] = processor_seconds(run)
    return found | {"ratio": found["influence_seconds"] / found["plain_seconds"]}


def language_model(kind: str, width: int, tokens: int, kinds: int) -> Any:
    """A model from a configuration."""
    import transformers as t

    common = {"vocab_size": kinds, "tie_word_embeddings": True}
    if kind == "gpt2":
        sizes = {"n_embd": width, "n_layer": 2, "n_head": 4, "n_positions": tokens}
        return t.GPT2LMHeadModel(t.GPT2Config(**common, **sizes, bos_token_id=None, eos_token_id=None))
    if kind == "t5":
        sizes = {"d_model": width, "d_kv": width // 4, "d_ff": 4 * width, "num_layers": 2, "num_heads": 4}
        return t.T5ForConditionalGeneration(t.T5Config(**common, **sizes, decoder_start_token_id=0))
    sizes = {
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 4 * width,
        "max_position_embeddings": tokens,
    }
    if kind == "llama":
        own = {"num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": None}
        return t.LlamaForCausalLM(t.LlamaConfig(**common, **sizes, **own))
    return t.BertForMaskedLM(t.BertConfig(**common, **sizes))


def model_part(kind: str, rows: int, tokens: int, kinds: int, width: int) -> dict:
    """Seconds of a plain pass over a language model of transformers, and of the gradients of its rows."""
    import numpy as np
    import torch
    from sklearn.frozen import FrozenEstimator
    from skorch import NeuralNet

    from sktda import LogitsLoss
    from sktda.attribution import InnerProduct

    torch.manual_seed(0)
    torch.set_num_threads(1)
    ids = np.random.default_rng(0).integers(1, kinds, (rows, tokens))
    X = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    if kind == "t5":
        X["decoder_input_ids"] = np.roll(ids, 1, axis=1)
    settings = {"max_epochs": 1, "batch_size": BATCH, "lr": 0.1, "train_split": None, "verbose": 0}
    module = language_model(kind, width, tokens, kinds)
    net = NeuralNet(module, criterion=LogitsLoss, criterion__shift=kind in {"gpt2", "llama"}, **settings).fit(X, ids)
    scored: Any = None

    def plain() -> None:
        for start in range(0, rows, BATCH):
            part = slice(start, start + BATCH)
            output = net.module_(**{name: torch.from_numpy(values[part]) for name, values in X.items()})
            net.criterion_(output, torch.from_numpy(ids[part])).backward()

    def gradients() -> None:
        nonlocal scored
        scored = InnerProduct(FrozenEstimator(net), objective="self").fit(X, ids)

    found = {}
    for name, run in (("plain", plain), ("gradients", gradients)):
        run()
        found[f"{name}_seconds"] = processor_seconds(run)
    formed = scored._live.engine.rest
    numbers = sum(scored._live.model.parameters[name].numel() for name in formed)
    return found | {"ratio": found["gradients_seconds"] / found["plain_seconds"], "formed": numbers}


def models(quick: bool) -> None:
    """Every language model of transformers."""
    if not has("transformers"):
        return
    sizes = (4, 6, 11, 16) if quick else (ROWS, *SIZES[0], WIDTH)
    results = []
    for kind in ("gpt2",) if quick else ("gpt2", "llama", "bert", "t5"):
        found = measured(model_part, kind, *sizes)
        results.append({"model": kind, **dict(zip(("rows", "tokens", "kinds", "width"), sizes, strict=True)), **found})
        print(
            f"{kind:6s} pass {found['plain_seconds']:.2f} s, gradients of {sizes[0]} rows "
            f"{found['gradients_seconds']:.2f} s = {found['ratio']:.1f} passes, {found['formed']} numbers by row",
            flush=True,
        )
        save("tokens_models", results)


def main(arguments: list[str] | None = None) -> None:
    """Every size, and one with a criterion of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", action="store_true", help="only models of transformers")
    options = begin(parser, arguments, threads=1)
    quick = options.quick
    models(quick)
    if options.models:
        return
    rows, width = (4, 16) if quick else (ROWS, WIDTH)
    cases = [(6, 11, False), (6, 11, True)] if quick else [*((*size, False) for size in SIZES), (*SIZES[0], True)]
    results = []
    for tokens, kinds, own in cases:
        found = measured(part, rows, tokens, kinds, width, own)
        results.append({"rows": rows, "tokens": tokens, "kinds": kinds, "width": width, "own": own, **found})
        print(
            f"{rows} rows of {tokens:4d} x {kinds:5d}, {'own criterion   ' if own else 'CrossEntropyLoss'}: pass "
            f"{found['plain_seconds']:.2f} s, Influence {found['influence_seconds']:.2f} s = {found['ratio']:.1f} "
            f"passes, {found['peak_gib']:.2f} GiB",
            flush=True,
        )
    save("tokens", results)


if __name__ == "__main__":
    main()
