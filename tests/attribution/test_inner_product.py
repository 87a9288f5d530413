"""InnerProduct: TracIn with one final checkpoint (by hand in test_tracin.py), and influence with H = I."""

import numpy as np
from sklearn.datasets import make_classification, make_regression
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from sktda.attribution import Influence, InnerProduct, TracIn
from sktda.model.recorder import TrajectoryRecorder
from sktda.objectives import Margin
from tests.model.nets import make_net, rows
from tests.spies import noisy_blobs

X, Y = make_classification(60, 4, flip_y=0.2, random_state=0)


def test_it_is_influence_under_a_huge_damping():
    for estimator, (X_, y) in ((LogisticRegression(), (X, Y)), (Ridge(), make_regression(60, 4, random_state=0))):
        product = InnerProduct(estimator).fit(X_, y, X_val=X_[:9], y_val=y[:9])
        damped = Influence(estimator, damping=1e9).fit(X_, y, X_val=X_[:9], y_val=y[:9])
        np.testing.assert_allclose(1e9 * damped.scores_, product.scores_, rtol=1e-6)


def test_without_a_trajectory_tracin_is_the_same():
    first, second = (cls(LogisticRegression()).fit(X, Y) for cls in (InnerProduct, TracIn))
    np.testing.assert_array_equal(first.scores_, second.scores_)


def test_a_trajectory_gives_the_unit_only():
    X, y = rows()
    net = make_net(TrajectoryRecorder(n_checkpoints=3), lr=0.05).fit(X, y)
    product = InnerProduct(FrozenEstimator(net)).fit(X, y)
    net.callbacks_ = []
    plain = InnerProduct(FrozenEstimator(net)).fit(X, y)
    np.testing.assert_allclose(product.scores_, 24 * 0.05 * plain.scores_, rtol=1e-6)


def test_wrong_validation_rows_decide_by_their_loss_and_are_outvoted_by_their_margin():
    X, y, true = (part[np.random.default_rng(0).permutation(300)] for part in noisy_blobs(300))
    train, asked = slice(0, 200), slice(200, 300)
    model = LogisticRegression().fit(X[train], y[train])

    def slopes(rows):  # of the loss by the weights and the intercept, class by class
        residual = model.predict_proba(X[rows]) - np.eye(3)[y[rows]]
        return residual[:, :, None] * np.column_stack([X[rows], np.ones(len(X[rows]))])[:, None, :]

    mean = slopes(asked).mean(axis=0)
    wrong = y != true
    lengths = np.linalg.norm(slopes(asked), axis=(1, 2))
    assert lengths[wrong[asked]].mean() > 3 * lengths[~wrong[asked]].mean()

    validation = {"X_val": X[asked], "y_val": y[asked]}
    by_loss = InnerProduct(FrozenEstimator(model)).fit(X[train], y[train], **validation).scores_
    np.testing.assert_allclose(by_loss, np.tensordot(slopes(train), mean, 2) / 200, rtol=1e-5, atol=1e-9)
    by_margin = InnerProduct(FrozenEstimator(model), objective=Margin()).fit(X[train], y[train], **validation).scores_
    assert roc_auc_score(wrong[train], -by_loss) < 0.7
    assert roc_auc_score(wrong[train], -by_margin) > 0.95


def test_rows_that_pull_the_other_way_score_lowest():
    X, y, true = noisy_blobs(300, centers=2, rate=0.15)
    scores = InnerProduct(LogisticRegression()).fit(X[:200], y[:200], X_val=X[200:], y_val=true[200:]).scores_
    wrong = (y != true)[:200]
    assert roc_auc_score(wrong, -scores) > 0.99
    assert scores[wrong].max() < 0
