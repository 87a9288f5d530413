"""Attacks on fitted models: closed forms of linear ones, boxes and units, and what is refused."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sktda.attribution import adversarial_accuracy, adversarial_examples
from sktda.objectives import AdversarialLoss
from tests.in_turn import in_turn
from tests.model.nets import make_net, rows

X, CODES = make_classification(90, 6, n_informative=4, n_redundant=0, n_classes=3, flip_y=0.1, random_state=0)
Y = np.array(["a", "b", "c"])[CODES]
TWO = Y != "c"
PGD = AdversarialLoss("pgd", eps=0.3)


@cache
def trained(name):
    """A fitted model with its rows and labels."""
    if name == "net":
        inputs, labels = rows()
        return make_net(max_epochs=20).fit(inputs, labels), inputs, labels
    if name == "images":
        return convolution()
    if name == "two classes":
        return LogisticRegression().fit(X[TWO], Y[TWO]), X[TWO], Y[TWO]
    model = {
        "logistic": LogisticRegression(),
        "mlp": MLPClassifier((8,), max_iter=200, learning_rate_init=0.02, tol=0.1, random_state=0),
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
    }[name]
    return model.fit(X, Y), X, Y


def convolution():
    """A small net on images (1, 6, 6), some of which are black."""
    rng = np.random.default_rng(0)
    inputs = rng.random((40, 1, 6, 6), dtype=np.float32)
    labels = (inputs[:, 0, :3].mean((1, 2)) > inputs[:, 0, 3:].mean((1, 2))).astype(np.int64)
    inputs[:2] = 0
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=60, lr=0.2, train_split=None, verbose=0, batch_size=10
    )
    return net.fit(inputs, labels), inputs, labels


def right(name):
    """Mask of the rows that the model classifies rightly."""
    model, inputs, labels = trained(name)
    return model.predict(inputs) == labels


# ---- closed forms ----------------------------------------------------------------------------------------------------


@in_turn("name", ["logistic", "two classes", "pipeline"])
@in_turn("attack", [None, AdversarialLoss("linear", gamma=1.001)])
def test_the_linear_attack_takes_every_right_row_across_the_boundary(name, attack):
    assert adversarial_accuracy(*trained(name), attack) == 0


@pytest.mark.parametrize("name", ["logistic", "two classes"])
def test_the_linear_attack_stops_before_the_boundary_where_gamma_is_below_1(name):
    assert adversarial_accuracy(*trained(name), AdversarialLoss("linear", gamma=0.999)) == right(name).mean()


def test_the_linear_attack_of_two_classes_in_closed_form():
    model, inputs, labels = trained("two classes")
    weights = model.coef_[0]
    margins = model.decision_function(inputs)
    expected = inputs - 1.3 * (margins / (weights @ weights))[:, None] * weights
    moved = adversarial_examples(model, inputs, labels)
    np.testing.assert_allclose(moved[right("two classes")], expected[right("two classes")], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(moved[~right("two classes")], inputs[~right("two classes")])


def test_fgsm_on_two_classes_in_closed_form():
    model, inputs, labels = trained("two classes")
    towards = np.where(labels == "b", -1, 1)[:, None] * np.sign(model.coef_)
    expected = np.where(right("two classes")[:, None], inputs + 0.3 * towards, inputs)
    moved = adversarial_examples(model, inputs, labels, AdversarialLoss("fgsm", eps=0.3))
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-12)
    accuracy = adversarial_accuracy(model, inputs, labels, AdversarialLoss("fgsm", eps=0.3))
    assert accuracy == (model.predict(expected) == labels).mean()
    assert 0 < accuracy < right("two classes").mean()


# ---- every kind of model ---------------------------------------------------------------------------------------------

NAMES = ["logistic", "two classes", "mlp", "net", "images"]


@pytest.mark.parametrize("name", [*NAMES, "pipeline"])
def test_a_tiny_step_leaves_the_accuracy_as_it_is(name):
    model, inputs, labels = trained(name)
    attack = AdversarialLoss("pgd", eps=2e-4 * np.ptp(inputs))  # just above what is warned about
    assert adversarial_accuracy(model, inputs, labels, attack) == right(name).mean() > 0.6


@pytest.mark.parametrize("name", NAMES)
def test_the_accuracy_is_that_of_the_estimator_on_the_moved_inputs(name):
    model, inputs, labels = trained(name)
    moved = adversarial_examples(model, inputs, labels, PGD)
    assert moved.shape == inputs.shape
    assert moved.dtype == inputs.dtype
    assert np.abs(moved - inputs).max() <= 0.3 + 1e-6
    np.testing.assert_array_equal(moved[~right(name)], inputs[~right(name)])
    found = adversarial_accuracy(model, inputs, labels, PGD)
    assert found == (model.predict(moved) == labels).mean() < right(name).mean()
    assert found == adversarial_accuracy(FrozenEstimator(model), inputs, labels, PGD)


@pytest.mark.parametrize("name", ["mlp", "net", "images"])
@pytest.mark.parametrize("attack", [PGD, AdversarialLoss("linear")], ids=["pgd", "linear"])
def test_batches_do_not_matter(name, attack):
    model, inputs, labels = trained(name)
    whole = adversarial_examples(model, inputs, labels, attack)
    for size in (1, 7):  # one black image alone has no range that eps could be held against
        parts = adversarial_examples(model, inputs, labels, attack, batch_size=size)
        np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5)
        assert adversarial_accuracy(model, inputs, labels, attack, batch_size=size) == adversarial_accuracy(
            model, inputs, labels, attack
        )


def test_only_some_rows_go_through_the_model_at_a_time():
    model, inputs, labels = trained("net")
    sizes = []

    class Counting(type(model.module_)):
        def forward(self, X):
            sizes.append(len(X))
            return super().forward(X)

    counting = copy.deepcopy(model)
    counting.module_.__class__ = Counting
    adversarial_accuracy(counting, inputs, labels, PGD, batch_size=7)
    assert max(sizes) == 7
    assert len(sizes) > 10 * 6 * 2  # ten steps of six parts, each computed again when it is differentiated


def test_bounds_hold():
    model, inputs, labels = trained("images")
    moved = adversarial_examples(model, inputs, labels, AdversarialLoss("pgd", eps=0.3, bounds=(0, 1)))
    assert moved.min() == 0
    assert moved.max() == 1
    assert adversarial_examples(model, inputs, labels, PGD).min() < 0


def test_the_rows_of_a_pipeline_move_in_units_of_its_model():
    pipeline, inputs, labels = trained("pipeline")
    scaled = pipeline[:-1].transform(inputs)
    moved = adversarial_examples(pipeline, inputs, labels, PGD)
    np.testing.assert_array_equal(moved, adversarial_examples(pipeline[-1], scaled, labels, PGD))
    assert np.abs(moved - scaled).max() == pytest.approx(0.3, abs=1e-12)
    assert adversarial_accuracy(pipeline, inputs, labels, PGD) == (pipeline[-1].predict(moved) == labels).mean()


def test_the_model_is_not_changed():
    model, inputs, labels = trained("net")
    before, given = copy.deepcopy(model.module_.state_dict()), inputs.copy()
    adversarial_accuracy(model, inputs, labels, PGD)
    np.testing.assert_array_equal(inputs, given)
    for name, value in model.module_.state_dict().items():
        assert torch.equal(value, before[name])


def test_numbers_are_attacked_but_not_counted():
    values = X @ [1.0, -2.0, 0.5, 0, 0, 1]
    model = MLPRegressor(hidden_layer_sizes=(8,), max_iter=50, tol=0.1, random_state=0).fit(X, values)
    moved = adversarial_examples(model, X, values, PGD)
    assert (np.abs(model.predict(moved) - values) > np.abs(model.predict(X) - values)).mean() > 0.9


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Ridge(), RidgeClassifier()], ids=["Ridge", "RidgeClassifier"])
def test_models_without_class_probabilities(model):
    model.fit(X, CODES == 0)
    with pytest.raises(TypeError, match=rf"{type(model).__name__} was not trained on class probabilities; use a class"):
        adversarial_accuracy(model, X, CODES == 0, PGD)
    with pytest.raises(TypeError, match="crosses the boundary between classes, and this model predicts none"):
        adversarial_examples(model, X, CODES == 0)


def test_what_is_no_attack():
    model, inputs, labels = trained("logistic")
    for call in (adversarial_accuracy, adversarial_examples):
        with pytest.raises(TypeError, match=r"attack='pgd' is no attack; give AdversarialLoss\('pgd', eps=...\)"):
            call(model, inputs, labels, "pgd")


def test_unfitted_models_and_wrong_rows():
    model, inputs, labels = trained("logistic")
    with pytest.raises(NotFittedError):
        adversarial_accuracy(LogisticRegression(), inputs, labels)
    with pytest.raises(TypeError, match="GaussianNB cannot be differentiated"):
        adversarial_accuracy(GaussianNB(), inputs, labels)
    with pytest.raises(ValueError, match="y holds the label 'd'"):
        adversarial_accuracy(model, inputs, np.full(len(inputs), "d"))
    with pytest.raises(ValueError, match="X has no rows"):
        adversarial_accuracy(model, inputs[:0], labels[:0])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        adversarial_accuracy(model, inputs, labels[:-1])


@pytest.mark.parametrize("size", ["auto", 1])
def test_an_eps_in_the_wrong_units(size):
    net, inputs, labels = trained("images")
    with pytest.raises(ValueError, match="eps=8 is no small change of inputs that lie between 0 and"):
        adversarial_accuracy(net, inputs, labels, AdversarialLoss("pgd", eps=8), batch_size=size)
    with pytest.warns(UserWarning, match="eps=1e-06 is next to nothing") as found:
        adversarial_accuracy(net, inputs, labels, AdversarialLoss("pgd", eps=1e-6), batch_size=size)
    assert len(found) == 1


class Named(nn.Module):
    """Takes its inputs by name."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 2)

    def forward(self, values):
        return self.last(values)


def test_inputs_that_cannot_be_moved():
    inputs, labels = rows()
    net = make_net(module=Named, max_epochs=1).fit({"values": inputs}, labels)
    with pytest.raises(TypeError, match="moves inputs by small amounts, which dict does not allow"):
        adversarial_accuracy(net, {"values": inputs}, labels)
    words = np.zeros((40, 3), dtype=np.int64)
    module = nn.Sequential(nn.Embedding(2, 3), nn.Flatten(), nn.Linear(9, 2))
    net = make_net(module=module, max_epochs=1).fit(words, labels)
    with pytest.raises(TypeError, match=r"which torch\.int64 does not allow"):
        adversarial_examples(net, words, labels)
