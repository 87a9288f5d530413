"""Hugging Face models as they are: language models, classifiers and adapters against autograd row by row."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet
from skorch.dataset import Dataset
from torch import nn
from torch.nn import functional as F

from sktda import LogitsLoss, TrajectoryRecorder
from sktda.attribution import Influence, InnerProduct, TracIn
from sktda.engine.per_row import PerRow
from sktda.model.adapters import differentiable

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:EK-FAC leaves out")

N, WORDS, LONGEST, PAD = 6, 20, 6, 0
LENGTHS = np.array([6, 2, 5, 3, 6, 4])
RNG = np.random.default_rng(0)
TEXTS = [RNG.integers(1, WORDS, length) for length in LENGTHS]
TAGS = [RNG.integers(0, 3, length) for length in LENGTHS]
CLASSES = RNG.integers(0, 3, N)
HIDDEN = {"vocab_size": WORDS, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
LLAMA = {**HIDDEN, "intermediate_size": 12, "num_key_value_heads": 1, "max_position_embeddings": 16}
BERT = {**HIDDEN, "intermediate_size": 12, "max_position_embeddings": 16, "num_labels": 3}
GPT2 = {"vocab_size": WORDS, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
ENDS = {"bos_token_id": None, "eos_token_id": None}
T5 = {"vocab_size": WORDS, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_heads": 2}
BART = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 16}


def made(name, config, **settings):
    """A model from a configuration."""
    return getattr(transformers, name)(getattr(transformers, config)(**settings))


MODELS = {  # maker, what the labels are
    "GPT-2": (lambda: made("GPT2LMHeadModel", "GPT2Config", **GPT2, **ENDS), "next"),
    "GPT-2, eager": (
        lambda: made("GPT2LMHeadModel", "GPT2Config", **GPT2, **ENDS, attn_implementation="eager"),
        "next",
    ),
    "Llama": (lambda: made("LlamaForCausalLM", "LlamaConfig", **LLAMA), "next"),
    "Llama, tied": (lambda: made("LlamaForCausalLM", "LlamaConfig", **LLAMA, tie_word_embeddings=True), "next"),
    "OPT": (
        lambda: made(
            "OPTForCausalLM", "OPTConfig", **HIDDEN, ffn_dim=12, word_embed_proj_dim=8, max_position_embeddings=16
        ),
        "next",
    ),
    "BERT": (lambda: made("BertForMaskedLM", "BertConfig", **BERT), "words"),
    "BERT, tokens": (lambda: made("BertForTokenClassification", "BertConfig", **BERT), "tags"),
    "BERT, texts": (lambda: made("BertForSequenceClassification", "BertConfig", **BERT), "class"),
    "GPT-2, texts": (
        lambda: made("GPT2ForSequenceClassification", "GPT2Config", **GPT2, **ENDS, num_labels=3, pad_token_id=PAD),
        "class",
    ),
    "T5": (lambda: made("T5ForConditionalGeneration", "T5Config", **T5, decoder_start_token_id=PAD), "answer"),
    "BART": (
        lambda: made(
            "BartForConditionalGeneration", "BartConfig", vocab_size=WORDS, **BART, **HEADS, scale_embedding=True
        ),
        "answer",
    ),
}
FORMED = {"T5": {"relative_attention_bias"}}  # the only parameters without factors by row


def padded(rows, value, extra=0, left=False):
    """(n, longest + extra) from a list of rows."""
    width = max(map(len, rows)) + extra
    sides = [(width - len(row), 0) if left else (0, width - len(row)) for row in rows]
    return np.stack([np.pad(row, side, constant_values=value) for row, side in zip(rows, sides, strict=True)])


def given(kind, rows=None, extra=0, left=False):
    """(X, y) of the texts, with more padding, on the left or the right."""
    rows = range(N) if rows is None else rows
    texts, tags = [TEXTS[i] for i in rows], [TAGS[i] for i in rows]
    X = {
        "input_ids": padded(texts, PAD, extra, left),
        "attention_mask": padded([np.ones_like(text) for text in texts], 0, extra, left),
    }
    if kind == "class":
        return X, CLASSES[list(rows)]
    if kind == "answer":  # the text backwards
        answers = [text[::-1] for text in texts]
        X["decoder_input_ids"] = padded([np.r_[PAD, answer[:-1]] for answer in answers], PAD, extra)
        return X, padded(answers, -100, extra)
    if left:
        X["position_ids"] = padded([np.arange(len(text)) for text in texts], 0, extra, left)
    # nothing stands before the first word, and padding on the left must not be asked about it
    asked = {"next": [np.r_[-100, text[1:]] for text in texts], "words": [(text * 7) % WORDS for text in texts], "tags": tags}[kind]
    return X, padded(asked, -100, extra, left)


def net_of(name, per="token", epochs=1, module=None, callbacks=None, double=True, **settings):
    """A net around the model as it is; weights are large enough for gradients that differ."""
    make, kind = MODELS[name]
    torch.manual_seed(0)
    module = make() if module is None else module
    for value in module.parameters():
        if value.requires_grad and value.ndim > 1:
            nn.init.normal_(value, std=0.3)
    return NeuralNet(
        module.double() if double else module,
        criterion=LogitsLoss,
        criterion__shift=kind == "next",
        criterion__per=per,
        optimizer=torch.optim.SGD,
        lr=0.01,
        max_epochs=epochs,
        batch_size=3,
        train_split=None,
        verbose=0,
        callbacks=callbacks,
        **settings,
    ), kind


def own_losses(net, kind, per):
    """[loss of each text alone, without padding] as the model's forward and torch's cross-entropy give them."""
    found = []
    for i in range(N):
        X, y = given(kind, [i])
        logits = net.module_(**{name: torch.from_numpy(values) for name, values in X.items()}).logits
        labels = torch.from_numpy(y)
        if kind == "next":
            logits, labels = logits[:, :-1], labels[:, 1:]
        each = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
        found.append(each.mean() if per == "sequence" else each.sum())
    counts = [1 if kind == "class" else length - (kind == "next") for length in LENGTHS]
    return [loss * (N / sum(counts) if per == "token" else 1) for loss in found]


def row_gradients(net, kind, per):
    """(n, p) by autograd."""
    net.module_.eval()
    own = [value for value in net.module_.parameters() if value.requires_grad]
    rows = [
        torch.autograd.grad(loss, own, materialize_grads=True, allow_unused=True) for loss in own_losses(net, kind, per)
    ]
    return torch.stack([torch.cat([value.flatten() for value in row]) for row in rows]).numpy()


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_a_model_as_it_is_are_those_of_each_text_alone(name):
    per = "sequence" if name == "Llama" else "token"
    net, kind = net_of(name, per)
    X, y = given(kind)
    net.fit(X, y)
    model, expected = differentiable(net), row_gradients(net, kind, per)
    tolerance = 1e-6 if "Llama" in name else 1e-9  # its norms are computed in float32
    engine = PerRow(model, batch_size=4)
    for options in ({}, {"extra": 2}, {"left": True}):
        if options.get("left") and kind in {"class", "answer"}:
            continue
        rows = model.training_rows(*given(kind, **options))
        found = engine.gradients(rows, slice(0, N)).numpy()
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
        np.testing.assert_allclose(engine.square_norms(rows), (expected**2).sum(1), rtol=tolerance)
    assert {name.split(".")[-2] for name in engine.rest} == FORMED.get(name, set())


@pytest.mark.parametrize("left", [False, True])
def test_the_class_of_a_text_is_read_at_its_last_token(left):
    net, kind = net_of("GPT-2, texts")
    net.fit(*given(kind))
    X, y = given(kind, extra=2, left=left)
    if left:
        X["position_ids"] = given("next", extra=2, left=True)[0]["position_ids"]
    model = differentiable(net)
    found = PerRow(model).gradients(model.training_rows(X, y), slice(0, N))
    np.testing.assert_allclose(found, row_gradients(net, kind, "token"), rtol=1e-8, atol=1e-10)
