"""Transformers with dictionary inputs and attention masks: gradients of rows, padding, LoRA adapters."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional as F

from sktda import TrajectoryRecorder
from sktda.attribution import Influence, InnerProduct, Source, TracIn
from sktda.engine.per_row import PerRow
from sktda.model.adapters import differentiable

N, LENGTH, QUERIES, WORDS, LR, STEPS = 12, 8, 5, 30, 0.05, 4
RNG = np.random.default_rng(0)
LENGTHS = np.concatenate([[2, LENGTH, LENGTH - 1], RNG.integers(2, LENGTH + 1, N - 3)])
MASK = (np.arange(LENGTH) < LENGTHS[:, None]).astype(np.int64)
X = {"input_ids": RNG.integers(1, WORDS, (N, LENGTH)) * MASK, "attention_mask": MASK}
Y = RNG.integers(0, 2, N)
X_VAL, Y_VAL = {name: values[:QUERIES] for name, values in X.items()}, 1 - Y[:QUERIES]


def padded(X, extra=3):
    """The same sentences with more padding, whose numbers are those of some word."""
    ids, mask = (np.pad(X[name], ((0, 0), (0, extra))) for name in ("input_ids", "attention_mask"))
    ids[:, -extra:] = WORDS - 1
    return {"input_ids": ids, "attention_mask": mask}


class Mean(nn.Module):
    """A linear layer on the mean of what a body makes of the words that are there."""

    def __init__(self, body, width=8):
        super().__init__()
        self.body = body
        self.classifier = nn.Linear(width, 2)

    def forward(self, input_ids, attention_mask):
        states = self.body(input_ids, attention_mask)
        mask = attention_mask[:, :, None].to(states.dtype)
        return self.classifier((states * mask).sum(1) / mask.sum(1))


class Torch(nn.Module):
    """torch's own encoder."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(WORDS, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, input_ids, attention_mask):
        return self.encoder(self.words(input_ids), src_key_padding_mask=attention_mask == 0)


class HuggingFace(nn.Module):
    """A BERT from a configuration, with positions given row by row or left to it."""

    def __init__(self, attention, own_positions, adapters=False):
        super().__init__()
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(
            vocab_size=WORDS,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=LENGTH + 3,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation=attention,
        )
        self.model = transformers.BertModel(config, add_pooling_layer=False)
        self.own_positions = own_positions
        if adapters:
            peft = pytest.importorskip("peft")
            config = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
            self.model = peft.inject_adapter_in_model(config, self.model)  # freezes all but the adapters

    def forward(self, input_ids, attention_mask):
        positions = None if self.own_positions else torch.arange(input_ids.shape[1]).expand_as(input_ids)
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=positions)
        return found.last_hidden_state


BODIES = {
    "torch": Torch,
    "eager": lambda: HuggingFace("eager", own_positions=False),
    "fused": lambda: HuggingFace("sdpa", own_positions=False),
    "own positions": lambda: HuggingFace("sdpa", own_positions=True),
    "adapters": lambda: HuggingFace("sdpa", own_positions=False, adapters=True),
}
# of transformers and peft, about names of their own
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:EK-FAC leaves out")


def trained(body, recorder=True):
    """A net in float64."""
    torch.manual_seed(0)
    module = Mean(BODIES[body]()).double()
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        lr=LR,
        max_epochs=STEPS * 6 // N,
        batch_size=6,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints=3)] if recorder else None,
    ).fit(X, Y)


def row_gradients(net, X, y):
    """(n, p), by autograd, of each sentence by itself and without its padding."""
    module = net.module_.eval()
    own = [value for value in module.parameters() if value.requires_grad]
    found = []
    for ids, mask, target in zip(X["input_ids"], X["attention_mask"], y, strict=True):
        words = {"input_ids": ids[mask > 0], "attention_mask": mask[mask > 0]}
        outputs = module(**{name: torch.from_numpy(values)[None] for name, values in words.items()})
        gradients = torch.autograd.grad(F.cross_entropy(outputs, torch.tensor([target])), own, allow_unused=True)
        pairs = zip(own, gradients, strict=True)
        found.append(torch.cat([(torch.zeros_like(v) if g is None else g).flatten() for v, g in pairs]))
    return torch.stack(found).numpy()


@pytest.mark.parametrize("body", BODIES)
def test_gradients_of_rows_are_those_of_the_words_that_are_there(body):
    net = trained(body, recorder=False)
    model = differentiable(net)
    engine = PerRow(model, batch_size=7)
    expected = row_gradients(net, X, Y)
    for inputs in (X, padded(X)):
        rows = model.rows(inputs, Y)
        np.testing.assert_allclose(engine.gradients(rows, slice(0, N)), expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(engine.square_norms(rows), (expected**2).sum(1), rtol=1e-9)
    assert not engine.rest


@pytest.mark.parametrize("body", BODIES)
def test_inner_products_equal_autograd(body):
    net = trained(body)
    expected = LR * STEPS / N * row_gradients(net, X, Y) @ row_gradients(net, X_VAL, Y_VAL).T
    for inputs in (X_VAL, padded(X_VAL)):
        fitted = InnerProduct(FrozenEstimator(net), objective="validation").fit(X, Y, X_val=inputs, y_val=Y_VAL)
        np.testing.assert_allclose(fitted.scores_, expected.mean(1), rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(fitted.attribute(inputs, Y_VAL), expected.T, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("body", ["torch", "fused", "adapters"])
def test_padding_changes_no_score(body):
    net = trained(body, recorder=False)
    for make in (InnerProduct, Influence):
        first, second = (
            make(FrozenEstimator(net), objective="validation", random_state=0).fit(a, Y, X_val=b, y_val=Y_VAL).scores_
            for a, b in ((X, X_VAL), (padded(X), padded(X_VAL)))
        )
        assert first.std() > 0
        np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-9 * np.abs(first).max())


@pytest.mark.parametrize("body", ["torch", "adapters"])
def test_influence_with_the_gauss_newton_matrix_equals_the_dense_solution(body):
    net = trained(body, recorder=False)
    influence = Influence(FrozenEstimator(net), objective="validation", curvature="exact", damping=0.01)
    found = influence.fit(X, Y, X_val=X_VAL, y_val=Y_VAL).scores_
    module, own = net.module_.eval(), [v for v in net.module_.parameters() if v.requires_grad]
    matrix = 0.01 * np.eye(sum(value.numel() for value in own))
    for row in range(N):
        logits = module(**{name: torch.from_numpy(values[row : row + 1]) for name, values in X.items()})[0]
        parts = [torch.autograd.grad(each, own, retain_graph=True, allow_unused=True) for each in logits]
        jacobian = torch.stack(
            [
                torch.cat([(torch.zeros_like(v) if g is None else g).flatten() for v, g in zip(own, part, strict=True)])
                for part in parts
            ]
        ).numpy()
        p = logits.detach().softmax(0).numpy()
        matrix += jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian / N
    query = row_gradients(net, X_VAL, Y_VAL).mean(0)
    np.testing.assert_allclose(found, row_gradients(net, X, Y) @ np.linalg.solve(matrix, query) / N, rtol=1e-6)


@pytest.mark.parametrize("make", [TracIn, Source])
@pytest.mark.parametrize("body", ["torch", "fused", "adapters"])
def test_methods_along_the_run_take_masks(make, body):
    net = FrozenEstimator(trained(body))
    first, second = (
        make(net, objective="validation", random_state=0).fit(X, Y, X_val=held, y_val=Y_VAL).scores_
        for held in (X_VAL, padded(X_VAL))
    )
    assert first.std() > 0
    np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-12 * np.abs(first).max())
