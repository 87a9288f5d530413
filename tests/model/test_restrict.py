"""Attributions restricted to named parameters: which ones stay, what of the model goes with the others."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from torch import nn

from sktda.engine.per_row import PerRow
from sktda.model.adapters import differentiable
from sktda.model.base import DifferentiableModel, restrict
from sktda.model.softmax import Categorical
from tests.in_turn import in_turn


class Body(nn.Module):
    """Names as those of a fine-tuned model: a body, an adapter and a head."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.lora_A = nn.Linear(3, 2, bias=False)
        self.lora_B = nn.Linear(2, 4, bias=False)
        self.classifier = nn.Linear(4, 2)

    def forward(self, X):
        return self.classifier(torch.tanh(self.body(X) + self.lora_B(self.lora_A(X))))


EVERY = ["body.weight", "body.bias", "lora_A.weight", "lora_B.weight", "classifier.weight", "classifier.bias"]
RATES = {name: 0.1 * place for place, name in enumerate(EVERY, 1)}


def model(frozen=()):
    torch.manual_seed(0)
    module = Body().double()
    for name in frozen:
        module.get_parameter(name).requires_grad_(False)
    return DifferentiableModel(module.eval(), Categorical(), rows=None, decay=dict(RATES))


@in_turn(
    ("patterns", "kept"),
    [
        ("classifier.*", EVERY[4:]),
        (["classifier.*"], EVERY[4:]),
        (("lora_*", "classifier.*"), EVERY[2:]),
        ("lora_?.weight", EVERY[2:4]),
        (["*.bias", "body.*"], ["body.weight", "body.bias", "classifier.bias"]),
        ("classifier.bias", ["classifier.bias"]),
        ("*", EVERY),
    ],
)
def test_the_parameters_that_match_stay(patterns, kept):
    restricted = model()
    restrict(restricted, patterns)
    assert list(restricted.parameters) == kept
    assert restricted.decay == {name: RATES[name] for name in kept}


def test_frozen_parameters_stay_frozen():
    restricted = model(frozen=["classifier.bias"])
    restrict(restricted, "classifier.*")
    assert list(restricted.parameters) == ["classifier.weight"]


def test_values_are_those_of_the_named_parameters():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 3)), rng.integers(0, 2, 12)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        Body().double(), criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0
    ).fit(X, y)

    def gradients(patterns):
        own = differentiable(net)
        if patterns:
            restrict(own, patterns)
        engine = PerRow(own)
        return list(own.parameters), engine.gradients(own.rows(X, y), slice(0, 12))

    every, of_all = gradients(None)
    sizes = [net.module_.get_parameter(name).numel() for name in every]
    pieces = dict(zip(every, of_all.split(sizes, dim=1), strict=True))
    for patterns in ("classifier.*", ["lora_*"], ["*.bias", "lora_A.*"]):
        names, found = gradients(patterns)
        torch.testing.assert_close(found, torch.cat([pieces[name] for name in names], dim=1), rtol=0, atol=1e-14)
    assert all(value.requires_grad for value in net.module_.parameters())  # the user's own


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("head.*", r"'head\.\*' match no trainable parameter; they are 'body\.bias', .*'classifier\.bias'\. A pattern"),
        (["classifier.*", "Body.*", "lora"], r"^'Body\.\*', 'lora' match no trainable parameter"),
        ([], r"an empty list matches no trainable parameter; they are 'body\.bias'"),
        ("body.weight", r"'body\.weight' match no trainable parameter; they are 'body\.bias'"),  # it is frozen
    ],
    ids=str,
)
def test_patterns_that_match_nothing_are_named_and_nothing_changes(patterns, message):
    restricted = model(frozen=["body.weight"])
    with pytest.raises(ValueError, match=message):
        restrict(restricted, patterns)
    assert list(restricted.parameters) == EVERY[1:]
    assert restricted.decay == RATES


def test_an_error_names_a_few_of_many_parameters():
    module = nn.Sequential(*(nn.Linear(2, 2) for _ in range(6)))
    with pytest.raises(ValueError, match=r"they are '0\.weight', .*, '3\.bias' and 4 more\."):
        restrict(DifferentiableModel(module, Categorical(), rows=None), "classifier.*")


def test_patterns_are_text():
    with pytest.raises(TypeError, match=r"patterns such as 'classifier\.\*', got 3"):
        restrict(model(), ["classifier.*", 3])


def softmax(C, intercept=True):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 2)), np.arange(30) % 3
    return differentiable(LogisticRegression(C=C, fit_intercept=intercept).fit(X, y), 30)


def test_invariant_directions_of_the_parameters_that_stay_stay():
    whole = softmax(1.0)  # the intercepts, all moved alike
    names, sizes = list(whole.parameters), [value.numel() for value in whole.parameters.values()]
    expected = dict(zip(names, whole.invariant.split(sizes), strict=True))
    for name in names:
        restricted = softmax(1.0)
        restrict(restricted, name)
        if "bias" in name:
            torch.testing.assert_close(restricted.invariant.abs(), expected[name].abs())
        else:
            assert restricted.invariant is None


def test_an_invariant_direction_across_both_kinds_of_parameters_goes():
    own = model()
    sizes = [value.numel() for value in own.parameters.values()]
    directions = torch.zeros(sum(sizes), 2, dtype=torch.float64)
    directions[0, 0] = directions[-1, 1] = 0.6  # each is partly of body.weight and partly of classifier.bias
    directions[-2, 0] = directions[1, 1] = 0.8
    own.invariant = directions
    restrict(own, "classifier.*")
    assert own.invariant is None
    own = model()
    directions = torch.zeros(sum(sizes), 2, dtype=torch.float64)
    # a mixed basis of one direction inside the classifier and one outside
    directions[-1], directions[0] = torch.tensor([0.6, 0.8]), torch.tensor([-0.8, 0.6])
    own.invariant = directions.double()
    restrict(own, "classifier.*")
    assert own.invariant.shape == (sum(sizes[4:]), 1)
    torch.testing.assert_close(own.invariant[-1].abs(), torch.ones(1, dtype=torch.float64))
