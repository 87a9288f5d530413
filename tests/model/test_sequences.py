"""Hugging Face models as they are: language models, classifiers and adapters against autograd row by row."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet
from torch import nn
from torch.nn import functional as F

from sktda import LogitsLoss, TrajectoryRecorder, head_of
from sktda.attribution import Influence, InnerProduct, TracIn
from sktda.engine.per_row import PerRow
from sktda.model.adapters import differentiable
from tests.in_turn import in_turn

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
    asked = {
        "next": [np.r_[-100, text[1:]] for text in texts],
        "words": [(text * 7) % WORDS for text in texts],
        "tags": tags,
    }[kind]
    return X, padded(asked, -100, extra, left)


def net_of(name, per="token", epochs=1, module=None, callbacks=None, double=True, **settings):
    """A net around the model as it is; weights are large enough for gradients that differ."""
    make, kind = MODELS[name]
    torch.manual_seed(0)
    module = make() if module is None else module
    for value in module.parameters():
        if value.requires_grad and value.ndim > 1:
            nn.init.normal_(value, std=0.3)
    loss = {"criterion": LogitsLoss, "criterion__shift": kind == "next", "criterion__per": per}
    steps = {"optimizer": torch.optim.SGD, "lr": 0.01, "max_epochs": epochs, "batch_size": 3}
    settings = loss | steps | {"train_split": None, "verbose": 0, "callbacks": callbacks} | settings
    return NeuralNet(module.double() if double else module, **settings), kind


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


@in_turn("per", ["token", "sequence"])
@in_turn("name", ["GPT-2", "BERT, tokens", "BERT, texts"])
def test_the_loss_is_that_of_the_model_or_the_mean_of_its_rows(name, per):
    net, kind = net_of(name, per)
    X, y = given(kind)
    net.fit(X, y)
    net.module_.eval()
    inputs, labels = {key: torch.from_numpy(values) for key, values in X.items()}, torch.from_numpy(y)
    output = net.module_(**inputs, labels=labels)
    labels = labels.to(output.logits.device)
    found = net.criterion_(output, labels)
    rows = LogitsLoss(net.criterion_.shift, per, reduction="none")(output, labels)
    added = LogitsLoss(net.criterion_.shift, per, reduction="sum")(output.logits, labels)
    torch.testing.assert_close(rows.sum(), added)
    expected = output.loss if per == "token" else rows.mean()
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.stack(own_losses(net, kind, per)).mean(), found)


@pytest.mark.parametrize("method", [InnerProduct, Influence])
@pytest.mark.parametrize("per", ["token", "sequence"])
def test_padding_changes_no_score_of_a_language_model(method, per):
    net, kind = net_of("GPT-2", per)
    net.fit(*given(kind))
    held, asked = given(kind, range(3))
    every = []
    for options in ({}, {"extra": 3}, {"extra": 1, "left": True}):
        fitted = method(FrozenEstimator(net), objective="validation", random_state=0)
        fitted.fit(*given(kind, **options), X_val=held, y_val=asked)
        every.append(np.vstack([fitted.scores_, fitted.attribute(*given(kind, [4, 1], **options))]))
    assert every[0].std(axis=1).min() > 0
    for each in every[1:]:
        np.testing.assert_allclose(each, every[0], rtol=1e-6, atol=1e-8 * np.abs(every[0]).max())


class Texts(torch.utils.data.Dataset):
    """A dict with all that there is for each text, as the datasets of Hugging Face have it."""

    def __init__(self, rows=range(N)):
        self.rows = list(rows)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return {"input_ids": TEXTS[self.rows[i]].tolist(), "labels": TEXTS[self.rows[i]].tolist()}


def collated(rows, left=False, positions=True, shuffle=False):
    """(inputs, labels), only as long as the longest of these rows."""
    texts = [np.asarray(row["input_ids"]) for row in rows]
    ids = padded(texts, PAD, left=left)
    X = {"input_ids": ids, "attention_mask": padded([np.ones_like(text) for text in texts], 0, left=left)}
    if positions:
        X["position_ids"] = padded([np.arange(len(text)) for text in texts], 0, left=left)
    labels = padded([np.r_[-100, row["labels"][1:]] for row in rows], -100, left=left)
    if shuffle:
        labels = np.where(np.random.default_rng().random(labels.shape) < 0.5, -100, labels)
    return {name: torch.from_numpy(values) for name, values in X.items()}, torch.from_numpy(labels)


def test_rows_of_several_lengths_are_padded_batch_by_batch():
    """Datasets of dicts, and object arrays of lists: scores are those of one padded array, in any batches."""
    plain, kind = net_of("GPT-2", callbacks=[TrajectoryRecorder(n_checkpoints=2)])
    plain.fit(*given(kind))
    held, asked = given(kind, range(3))
    for method in (InnerProduct, Influence, TracIn):
        settings = {"objective": "validation", "random_state": 0}
        expected = method(FrozenEstimator(plain), **settings).fit(*given(kind), X_val=held, y_val=asked).scores_
        net, _ = net_of("GPT-2", callbacks=[TrajectoryRecorder(n_checkpoints=2)], iterator_train__collate_fn=collated)
        net.fit(Texts())
        for batch_size in (1, 4):
            fitted = method(FrozenEstimator(net), batch_size=batch_size, **settings)
            fitted.fit(Texts(), None, X_val=Texts(range(3)))
            np.testing.assert_allclose(fitted.scores_, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("collate", "said"),
    [
        (lambda rows: collated(rows, shuffle=True), "not the same when they are read twice"),
        (lambda rows: collated(rows, left=True, positions=False), "its batch is padded further"),
    ],
)
def test_rows_that_change_with_their_batch_are_refused(collate, said):
    net, _ = net_of("GPT-2", iterator_train__collate_fn=collate)
    net.fit(Texts())
    with pytest.raises(ValueError, match=said):
        InnerProduct(FrozenEstimator(net), objective="self").fit(Texts(), None)


class As(nn.Module):
    """A model whose output is put into another form."""

    def __init__(self, form):
        super().__init__()
        self.model, self.form = MODELS["BERT, texts"][0](), form

    def forward(self, **inputs):
        return self.form(self.model(**inputs))


class Own(nn.Module):
    """Cross-entropy of the logits that a function finds in the output."""

    reduction = "mean"

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, output, labels):
        return F.cross_entropy(self.logits(output), labels, reduction=self.reduction)


FORMS = {  # of the output, and how a criterion of one's own reads it
    "object": (lambda output: output, lambda output: output.logits),
    "dict": (lambda output: {"logits": output.logits, "loss": None}, lambda output: output["logits"]),
    "tuple": (lambda output: (output.logits, [output.logits]), lambda output: output[0]),
    "tensor": (lambda output: output.logits, lambda output: output),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("own", [False, True])
def test_outputs_of_every_form_and_criteria_of_ones_own(form, own):
    def net_in(form):
        torch.manual_seed(0)
        criterion = Own(FORMS[form][1]) if own else LogitsLoss()
        module = As(FORMS[form][0])
        net = NeuralNet(module.double(), criterion=criterion, max_epochs=2, train_split=None, verbose=0)
        return net.fit(*given("class"))

    X, y = given("class")
    found, expected = (
        Influence(FrozenEstimator(net_in(each)), objective="self", curvature="cg", damping=0.1).fit(X, y).scores_
        for each in (form, "tensor")
    )
    assert found.std() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_model_without_a_head_and_a_loss_of_the_model_are_refused():
    net, kind = net_of("BERT, texts")
    net.fit(*given(kind))
    net.module_ = net.module_.bert
    with pytest.raises(TypeError, match=r"'last_hidden_state', 'pooler_output'; return a tensor, .* with `logits`"):
        differentiable(net).rows(*given(kind))
    with pytest.raises(TypeError, match="BaseModelOutputWithPoolingAndCrossAttentions without logits"):
        LogitsLoss()(net.module_(torch.ones(1, 2, dtype=torch.long)), torch.zeros(1))


@pytest.mark.parametrize(
    ("settings", "shapes", "said"),
    [
        ({"per": "row"}, None, "must be 'token' or 'sequence'"),
        ({"reduction": "max"}, None, "must be 'mean', 'sum' or 'none'"),
        ({}, ((2, 4, 5), (2, 3)), r"logits \(2, 4, 5\) need labels \(2, 4\)"),
        ({"shift": True}, ((2, 5), (2,)), r"shift=True needs labels \(n, positions\), got \(2,\)"),
        ({"shift": True}, ((2, 5), (2, 4)), r"shift=True needs logits \(n, positions, classes\), got \(2, 5\)"),
    ],
)
def test_settings_and_labels_that_do_not_fit(settings, shapes, said):
    with pytest.raises(ValueError, match=said):
        LogitsLoss(**settings)(torch.zeros(shapes[0]), torch.zeros(shapes[1], dtype=torch.long))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_are_differentiated_in_float32(dtype):
    net, kind = net_of("GPT-2", double=False)
    net.module.to(dtype)
    X, y = given(kind)
    net.fit(X, y)
    wide, _ = net_of("GPT-2", module=MODELS["GPT-2"][0](), double=False, epochs=0)
    wide.fit(X, y).module_.load_state_dict(net.module_.state_dict())
    found, expected = (InnerProduct(FrozenEstimator(each), objective="self").fit(X, y).scores_ for each in (net, wide))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert net.module_.lm_head.weight.dtype == dtype
    assert differentiable(net).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:.*use_reentrant")
def test_checkpointed_layers_and_dropout_change_nothing():
    net, kind = net_of("GPT-2")
    X, y = given(kind)
    expected = InnerProduct(FrozenEstimator(net.fit(X, y)), objective="self").fit(X, y).scores_
    net.module_.gradient_checkpointing_enable()
    net.module_.config.use_cache = True
    net.module_.train()
    found = InnerProduct(FrozenEstimator(net), objective="self").fit(X, y).scores_
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert net.module_.config.use_cache


def adapted(name, **settings):
    """A model in which only adapters, and what they say, are trained."""
    config = peft.LoraConfig(r=2, init_lora_weights=False, **settings)
    return peft.get_peft_model(MODELS[name][0](), config)


ADAPTERS = {
    "LoRA on Conv1D": ("GPT-2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "head saved beside": ("BERT, texts", {"target_modules": ["query"], "modules_to_save": ["classifier"]}),
    "DoRA": ("BERT, texts", {"target_modules": ["query", "value"], "use_dora": True}),
    "rsLoRA": ("Llama", {"target_modules": ["q_proj", "v_proj"], "use_rslora": True}),
    "adapted words": ("GPT-2", {"target_modules": ["wte"]}),
}


@pytest.mark.parametrize("case", ADAPTERS)
def test_adapters(case):
    name, settings = ADAPTERS[case]
    net, kind = net_of(name, module=adapted(name, **settings))
    X, y = given(kind)
    net.fit(X, y)
    model, expected = differentiable(net), row_gradients(net, kind, "token")
    assert expected.shape[1] == sum(value.numel() for value in model.parameters.values())
    found = PerRow(model, 4).gradients(model.training_rows(X, y), slice(0, N)).numpy()
    tolerance = 1e-6 if name == "Llama" else 1e-9
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def test_several_adapters_and_adapters_that_play_no_part():
    module = adapted("BERT, texts", target_modules=["query"])
    net, kind = net_of("BERT, texts", module=module)
    X, y = given(kind)
    net.fit(X, y)
    expected = InnerProduct(FrozenEstimator(net), objective="self").fit(X, y).scores_
    net.module_.add_adapter("other", peft.LoraConfig(r=2, target_modules=["query"]))
    assert all(".other." not in name for name in differentiable(net).parameters)
    found = InnerProduct(FrozenEstimator(net), objective="self").fit(X, y).scores_
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    net.module_.merge_adapter()
    with pytest.raises(ValueError, match=r"query' are merged, .*call unmerge_adapter\(\) first"):
        differentiable(net)
    net.module_.unmerge_adapter()
    frozen, _ = net_of("BERT, texts", epochs=0)
    frozen.fit(X, y).module_.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter of BertForSequenceClassification requires a gradient"):
        differentiable(frozen)
    net.module_.base_model.disable_adapter_layers()
    for value in net.module_.parameters():
        value.requires_grad_(True)
    with pytest.raises(ValueError, match=r"are switched off, .*call enable_adapter_layers\(\) first"):
        differentiable(net)


@in_turn(
    ("make", "names"),
    [
        (MODELS["BERT, texts"][0], ["classifier.weight", "classifier.bias"]),
        (MODELS["GPT-2, texts"][0], ["score.weight"]),
        (lambda: As(None), ["model.classifier.weight", "model.classifier.bias"]),
        (lambda: nn.Sequential(MODELS["BERT, texts"][0]().bert, nn.Linear(8, 2)), ["1.weight", "1.bias"]),
        (MODELS["GPT-2"][0], None),  # its head is its table of words
        (lambda: adapted("BERT, texts", target_modules=["query"], modules_to_save=["classifier"]), None),
    ],
)
def test_the_head_of_a_model(make, names):
    module = make()
    assert head_of(module) == names
    assert head_of(NeuralNet(module, criterion=LogitsLoss)) == names


@pytest.mark.parametrize("net", [nn.Linear(2, 2), NeuralNet(nn.Linear, criterion=LogitsLoss), 3])
def test_what_has_no_known_head(net):
    with pytest.raises(TypeError, match=r"name its head with patterns|needs a skorch net with a module"):
        head_of(net)
