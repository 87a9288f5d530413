"""Workers have a card each, where the passes and trainings of one fit find the same on 1, 2 and 3."""

import pickle
import time

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from torch import nn

from sktda import InfluencePruner, InfluencePrunerCV, retrain
from sktda.attribution import ConfidentLearning, Distributional, Ensemble, Influence, InnerProduct, ModelEnsemble
from sktda.engine import journal
from sktda.workers import in_workers
from sktda.workers.pickles import Carried
from tests.device import cards, placing
from tests.device.simulated import NAME, STATE
from tests.device.test_attributors import CLASSES, CLOSE, WIDTH, X, Y

WORKERS = 3
QUERY = X[:4], Y[:4]


def net(**options):
    torch.manual_seed(0)
    return NeuralNetClassifier(
        cards.Net(nn.Linear(WIDTH, 6), nn.Tanh(), nn.Linear(6, CLASSES)),
        criterion=nn.CrossEntropyLoss,
        max_epochs=2,
        batch_size=12,
        train_split=None,
        verbose=0,
        **options,
    )


@pytest.fixture
def here(monkeypatch, counting):
    """This process has the first card."""
    monkeypatch.setattr(placing, "_place", torch.device(NAME))
    monkeypatch.setattr(journal, "LEAST", 6)


def by_cards(find, counts=(2, 3)):
    """find(None), on the card of this process; find(n_jobs) by workers with so many cards is the same."""
    plain = find(None)
    for count in counts:
        cards.visible(count)
        with joblib.parallel_config("loky", n_jobs=WORKERS):
            found = find(WORKERS)
        np.testing.assert_allclose(found, plain, **CLOSE)
        passed = cards.passes()
        assert set(passed) <= set(range(count))
        assert len(passed) > 1  # a worker that starts late may get no task
    return plain


def test_passes_over_the_rows(here):
    method = Influence(FrozenEstimator(net().fit(X, Y)), curvature="ekfac")
    found = by_cards(lambda _: method.fit(X, Y).scores_)
    np.testing.assert_allclose(found, clone(method).set_params(device="cpu").fit(X, Y).scores_, **CLOSE)


@pytest.mark.parametrize(
    ("ensemble", "curvature"),
    [
        (lambda inner: ModelEnsemble(inner, n_members=2, members="seeds", random_state=0), "ekfac"),
        (lambda inner: Distributional(inner, n_members=2, random_state=0), "ekfac"),
        (lambda inner: Ensemble([inner, clone(inner)], random_state=0), "exact"),
    ],
)
def test_members(ensemble, curvature, here):
    """Scores, and what is asked of the members afterwards: by workers again, and in this process."""
    given = ensemble(Influence(net(device=NAME, iterator_train__shuffle=True), curvature=curvature, damping=0.1))

    def find(n_jobs):
        fitted = clone(given).set_params(n_jobs=n_jobs).fit(X, Y)
        found = [fitted.scores_]
        if isinstance(fitted, Distributional):
            found.append(fitted.attribute(*QUERY))
        for each in fitted.attributors_:
            found += [each.top_k(*QUERY, k=3)[1], each.estimator_.predict_proba(X)]
            found += [change.numpy() for change in each.deletion_update([1, 2]).values()]
            found.append(each.attribute(*QUERY))
            again = pickle.loads(pickle.dumps(Carried(each))).value
            np.testing.assert_allclose(again.attribute(*QUERY), found[-1], **CLOSE)
        return np.concatenate([each.ravel() for each in found])

    by_cards(find, (3,))


def test_trainings(here):
    def find(n_jobs):
        nets = retrain(net(device=NAME), X, Y, seeds=range(4), batched=False, n_jobs=n_jobs)
        return np.stack([each.predict_proba(X) for each in nets])

    by_cards(find)


def pruner(validation=2, **options):
    """Cheap, and of a method that asks validation rows."""
    trained = net(device=NAME).set_params(max_epochs=1, batch_size=len(X))
    return InfluencePruner(trained, InnerProduct(clone(trained)), prune_ratio=0.1, validation=validation, **options)


def asked(fitted):
    """What a fitted pruner says, and its models in this process."""
    found = [fitted.scores_, fitted.support_, fitted.predict_proba(X), fitted.attributor_.attribute(*QUERY)]
    return [*found, fitted.attributor_.estimator_.predict_proba(X)]


def flat(found):
    return np.concatenate([np.ravel(each) for each in found]).astype(float)


def test_cross_fits_of_a_pruner_and_its_guard(here):
    def find(n_jobs):
        fitted = pruner(3, guard=10.0, n_jobs=n_jobs).fit(X, Y)
        return flat([*asked(fitted), *fitted.guard_scores_.values()])

    by_cards(find, (3,))


def test_the_share_that_folds_choose(here):
    def find(n_jobs):
        own = {name: getattr(pruner(), name) for name in ("estimator", "attributor", "validation")}
        fitted = InfluencePrunerCV(**own, prune_ratios=(0, 0.3), cv=3, n_jobs=n_jobs).fit(X, Y)
        return flat([*asked(fitted), fitted.best_prune_ratio_, *fitted.cv_results_.values()])

    by_cards(find, (3,))


def test_searches(here):
    def find(n_jobs):
        search = GridSearchCV(pruner(), {"prune_ratio": [0.05, 0.3]}, cv=2, n_jobs=n_jobs).fit(X, Y)
        return flat([*asked(search.best_estimator_), search.cv_results_["mean_test_score"]])

    by_cards(find, (3,))


def test_predictions_out_of_sample(here):
    def find(n_jobs):
        return ConfidentLearning(net(device=NAME), cv=3, n_jobs=n_jobs).fit(X, Y).scores_

    by_cards(find, (3,))


def test_models_that_a_user_wrote(here):
    """They find their rows on the card of whoever asks, whether trained there or here."""

    def find(n_jobs):
        models = list(in_workers(_fitted, [(cards.Means(), X, Y)] * 4, n_jobs))
        asked = [*models, *in_workers(_same, [(each,) for each in models], n_jobs)]
        by_workers = list(in_workers(_predicted, [(each, X) for each in models], n_jobs))
        return np.stack([each.predict_proba(X) for each in asked] + by_workers)

    plain = find(None)
    cards.visible(3)
    with joblib.parallel_config("loky", n_jobs=WORKERS):
        np.testing.assert_allclose(find(WORKERS), plain, **CLOSE)


def _fitted(model, X, y):
    time.sleep(0.2)  # so that every worker gets one
    return model.fit(X, y)


def _predicted(model, X):
    time.sleep(0.2)
    return model.predict_proba(X)


def _same(model):
    time.sleep(0.2)
    return model


@pytest.mark.parametrize(("named", "card"), [(NAME, 0), (f"{NAME}:0", 1)])
def test_what_names_its_card_stays_there(named, card, here, monkeypatch):
    monkeypatch.setattr(STATE, "card", 1)
    fitted = cards.Means(named).fit(X, Y)
    sent = pickle.dumps(Carried(fitted))
    monkeypatch.setattr(STATE, "card", 0)
    opened = pickle.loads(sent).value.module_
    assert {STATE.memory.card(value) for value in opened.parameters()} == {card}
    assert all(isinstance(value, nn.Parameter) and value.requires_grad for value in opened.parameters())


class Held(nn.Module):
    """A criterion whose weights only a function holds."""

    reduction = "mean"

    def __init__(self, weight):
        super().__init__()
        self.weights = lambda: weight

    def forward(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets, self.weights(), reduction=self.reduction)


@pytest.mark.parametrize("kind", ["function", "criterion of a net"])
def test_what_only_a_function_holds_goes_along(kind, here, monkeypatch):
    monkeypatch.setattr(STATE, "card", 1)
    weight = torch.ones(CLASSES, device=NAME)
    if kind == "function":
        given = lambda: weight  # noqa: E731
    else:
        given = net(device=NAME).set_params(criterion=Held, criterion__weight=weight).fit(X, Y)
    sent = pickle.dumps(Carried(given))
    monkeypatch.setattr(STATE, "card", 0)
    found = pickle.loads(sent).value
    held = found() if kind == "function" else found.criterion_.weights()
    assert STATE.memory.card(held) == 0
