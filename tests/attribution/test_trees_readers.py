"""What people set on boosted trees, in every library: the numbers are right, or the model is refused by name."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit, softmax
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.class_weight import compute_sample_weight

from sktda.attribution import BoostIn, LeafInfluence
from tests.in_turn import in_turn

TASKS = ["regression", "two classes", "three classes"]
STEPS = 6


def rows(task, n=150, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    z = X[:, 0] + X[:, 1] ** 2 + 0.4 * rng.normal(size=n)
    return X, {"regression": z, "two classes": (z > 1) * 1, "three classes": np.digitize(z, [0.3, 1.3])}[task]


def scikit(task, **options):
    kind = GradientBoostingRegressor if task == "regression" else GradientBoostingClassifier
    return kind(**{"n_estimators": STEPS, "learning_rate": 0.3, "random_state": 0, **options})


def hist(task, **options):
    kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    chosen = {"max_iter": STEPS, "learning_rate": 0.3, "l2_regularization": 0.5, "random_state": 0, **options}
    return kind(**chosen)


def xgboost(task, **options):
    library = pytest.importorskip("xgboost")
    kind = library.XGBRegressor if task == "regression" else library.XGBClassifier
    return kind(**{"n_estimators": STEPS, "max_depth": 3, "n_jobs": 1, **options})


def lightgbm(task, **options):
    library = pytest.importorskip("lightgbm")
    kind = library.LGBMRegressor if task == "regression" else library.LGBMClassifier
    chosen = {"n_estimators": STEPS, "num_leaves": 6, "reg_lambda": 0.5, "n_jobs": 1, "verbose": -1, **options}
    return kind(**chosen)


def catboost(task, **options):
    library = pytest.importorskip("catboost")
    kind = library.CatBoostRegressor if task == "regression" else library.CatBoostClassifier
    fixed = {"verbose": 0, "allow_writing_files": False, "thread_count": 1, "random_seed": 0}
    return kind(**{"iterations": STEPS, "depth": 3, "learning_rate": 0.3, **fixed, **options})


def cubed(y, found):
    """A loss of one's own: its derivatives."""
    return (found - y) ** 3, 3 * (found - y) ** 2 + 1e-3


LIBRARIES = [scikit, hist, xgboost, lightgbm, catboost]
CASES = [(make, task) for make in LIBRARIES for task in TASKS if (make, task) != (catboost, "three classes")]
RATE = {scikit: 0.3, hist: 0.3, xgboost: 0.3, lightgbm: 0.1, catboost: 0.3}
L2 = {scikit: 0.0, hist: 0.5, xgboost: 1.0, lightgbm: 0.5, catboost: 3.0}
FACTOR = {scikit: 1.5, hist: 1.0, xgboost: 2.0, lightgbm: 1.5}  # of the curvature of one of three classes


def staged(make, model, task, X):
    """(T + 1, n, K) raw outputs, by what the library itself says of fewer steps; the first is what it starts from."""
    if make in (scikit, hist):
        found = model.staged_predict(X) if task == "regression" else model.staged_decision_function(X)
        after = np.stack([np.reshape(each, (len(X), -1)) for each in found])
        start = model._baseline_prediction if make is hist else model._raw_predict_init(np.zeros((1, 3)))
    elif make is xgboost:
        said = [model.predict(X, output_margin=True, iteration_range=(0, t + 1)) for t in range(STEPS)]
        after = np.stack([np.reshape(each, (len(X), -1)) for each in said]).astype(float)
        config = model.get_booster().save_config()
        scores = np.array([float(v) for v in config.split('"base_score":"[')[1].split("]")[0].split(",")])
        start = logit(scores) if task == "two classes" else scores
    elif make is catboost:
        after = np.stack([each.reshape(len(X), -1) for each in model.staged_predict(X, "RawFormulaVal")])
        start = np.array([model.get_scale_and_bias()[1]])
    else:
        said = [model.predict(X, raw_score=True, num_iteration=t + 1) for t in range(STEPS)]
        after = np.stack([np.reshape(each, (len(X), -1)) for each in said])
        start = None
    return after, start


def leaves(make, model, task, X, steps):
    """(T, n, K) what tells the leaves of a tree apart."""
    if make is scikit:
        return np.moveaxis(model.apply(X).reshape(len(X), STEPS, -1), 1, 0)
    if make is hist:
        return np.round(steps, 10)  # no two leaves of a tree have the same value
    if make is catboost:
        found = model.calc_leaf_indexes(X)
    else:
        found = model.apply(X) if make is xgboost else model.predict(X, pred_leaf=True)
    return np.moveaxis(np.asarray(found).reshape(len(X), STEPS, -1), 1, 0)


def in_loops(make, model, task, X, y, weights, n_queries):
    """BoostIn from the library's own staged outputs alone, row by row."""
    after, start = staged(make, model, task, X)
    if start is None:  # LightGBM puts the mean into the first trees
        shares = np.bincount(y, weights) / weights.sum() if task != "regression" else None
        start = {"regression": lambda: np.average(y, weights=weights), "two classes": lambda: logit(shares[1:])}.get(
            task, lambda: np.log(shares)
        )()
    before = np.concatenate([np.broadcast_to(start, (1, *after.shape[1:])), after])
    at = leaves(make, model, task, X, np.diff(before, axis=0))
    values = np.zeros((n_queries, len(y)))
    for t in range(STEPS):
        output = before[t]
        if task == "regression":
            g, h = output - y[:, None], np.ones((len(y), 1))
        elif task == "two classes":
            p = expit(output)
            g, h = p - y[:, None], p * (1 - p)
        else:
            p = softmax(output, axis=1)
            g, h = p - (y[:, None] == np.arange(3)), FACTOR[make] * p * (1 - p)
        for k in range(output.shape[1]):
            for e in range(n_queries):
                there = np.flatnonzero(at[t][:, k] == at[t][e, k])
                theta = (before[t + 1][e, k] - before[t][e, k]) / RATE[make]
                mass = (weights[there] * h[there, k]).sum() + L2[make] * (weights.mean() if make is catboost else 1)
                for i in there:
                    values[e, i] += g[e, k] * RATE[make] * weights[i] * (g[i, k] + theta * h[i, k]) / mass
    return values


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize(("make", "task"), CASES)
def test_every_library_as_its_own_staged_outputs_say(make, task, weighed):
    X, y = rows(task)
    weights = np.random.default_rng(1).uniform(0.3, 3, len(y)) if weighed else np.ones(len(y))
    found = BoostIn(make(task)).fit(X, y, sample_weight=weights if weighed else None)
    expected = in_loops(make, found.estimator_, task, X, y, weights, 3)
    np.testing.assert_allclose(found.attribute(X[:3], y[:3]), expected, rtol=2e-3, atol=2e-5)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("make", [scikit, hist, lightgbm, catboost])
@pytest.mark.parametrize("labels", [np.array(["no", "yes"]), np.array([False, True]), np.array([-1.0, 1.0])], ids=str)
def test_labels_of_every_kind(make, labels):
    X, y = rows("two classes")
    found = BoostIn(make("two classes")).fit(X, labels[y])
    plain = BoostIn(make("two classes")).fit(X, y)
    np.testing.assert_allclose(found.scores_, plain.scores_, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(
        found.attribute(X[:3], labels[y[:3]]), plain.attribute(X[:3], y[:3]), rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("make", LIBRARIES)
def test_a_frozen_model_that_was_not_fitted_says_so(make):
    X, y = rows("two classes")
    with pytest.raises(NotFittedError):
        BoostIn(FrozenEstimator(make("two classes"))).fit(X, y)


@pytest.mark.parametrize("make", [hist, lightgbm])
@pytest.mark.parametrize("weighed", [False, True])
def test_class_weights_are_weights(make, weighed):
    X, y = rows("three classes")
    own = np.random.default_rng(1).uniform(0.3, 3, len(y)) if weighed else np.ones(len(y))
    found = BoostIn(make("three classes", class_weight="balanced")).fit(X, y, sample_weight=own if weighed else None)
    weights = own * compute_sample_weight("balanced", y)
    plain = BoostIn(make("three classes")).fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(found.scores_, plain.scores_, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "options"),
    [(xgboost, {"scale_pos_weight": 3}), (lightgbm, {"scale_pos_weight": 3}), (lightgbm, {"is_unbalance": True})],
)
def test_weights_of_the_positive_class_are_read(make, options):
    X, y = rows("two classes")
    found = BoostIn(make("two classes", **options)).fit(X, y)  # its leaves follow from the rows, or it were refused
    plain = BoostIn(make("two classes")).fit(X, y)
    assert np.abs(found.scores_ - plain.scores_).max() > 1e-4


def table(X):
    """With a missing cell here and there, and a column of categories."""
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    frame.loc[::7, "a"] = np.nan
    frame["kind"] = pd.Categorical(np.array(list("pqrstuvw"))[(np.abs(X[:, 1]) * 5).astype(int) % 8])
    return frame


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", [BoostIn, LeafInfluence])
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (hist, {"categorical_features": "from_dtype"}),
        (xgboost, {"enable_categorical": True, "tree_method": "hist"}),
        (lightgbm, {"min_data_per_group": 5, "cat_smooth": 1}),
    ],
)
def test_missing_values_and_categories(make, options, method, task):
    X, y = rows(task)
    frame = table(X)
    found = method(make(task, **options)).fit(frame, y, X_val=frame[:20], y_val=y[:20])
    values = found.attribute(frame[:20], y[:20])
    np.testing.assert_allclose(found.scores_, values.mean(axis=0), rtol=1e-6, atol=1e-12)
    assert np.abs(values).max() > 1e-3


@in_turn("task", TASKS)
@in_turn(
    ("make", "options"),
    [(scikit, {"n_iter_no_change": 3, "n_estimators": 40}), (hist, {"early_stopping": True, "max_iter": 40})],
)
def test_rows_that_early_stopping_held_back_took_no_part(make, options, task):
    X, y = rows(task)
    with pytest.warns(UserWarning, match="early stopping held 15 of 150 rows back"):
        found = BoostIn(make(task, **options)).fit(X, y)
    held = found.scores_ == 0
    assert held.sum() == 15
    assert (found.attribute(X[:5], y[:5])[:, held] == 0).all()


@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated")
@pytest.mark.parametrize("make", [xgboost, lightgbm])
def test_steps_after_the_best_one_do_not_count(make):
    X, y = rows("two classes")
    new, labels = rows("two classes", 60, seed=3)
    if make is xgboost:
        model = make("two classes", n_estimators=60, early_stopping_rounds=3)
        model.fit(X, y, eval_set=[(new, 1 - labels)], verbose=False)
        short = make("two classes", n_estimators=model.best_iteration + 1)
    else:
        model = make("two classes", n_estimators=60, early_stopping_rounds=3).fit(X, y, eval_set=[(new, 1 - labels)])
        short = make("two classes", n_estimators=model.best_iteration_)
    found = BoostIn(FrozenEstimator(model)).fit(X, y)
    np.testing.assert_allclose(found.scores_, BoostIn(short).fit(X, y).scores_, rtol=1e-5, atol=1e-9)


LIMITS = [
    (xgboost, {"reg_alpha": 2.0}),
    (xgboost, {"max_delta_step": 0.2}),
    (lightgbm, {"reg_alpha": 2.0}),
    (lightgbm, {"max_delta_step": 0.2}),
]


@pytest.mark.parametrize(("make", "options"), LIMITS)
def test_a_leaf_at_its_bound_does_not_move(make, options):
    X, y = rows("two classes")
    found = BoostIn(make("two classes", **options)).fit(X, y)
    (newton,) = found._steps.newton
    idle = newton.scale == 0
    assert 0 < idle.sum() < len(idle)
    np.testing.assert_allclose(np.abs(newton.theta[idle]), found._steps.facts.limit, rtol=1e-5, atol=1e-7)


DRAWN = [
    (scikit, {"subsample": 0.7}),
    (xgboost, {"subsample": 0.7}),
    (lightgbm, {"subsample": 0.7, "subsample_freq": 1}),
]


@pytest.mark.parametrize(("make", "options"), DRAWN)
def test_drawn_rows_count_by_their_chance_and_a_frozen_model_is_refused(make, options):
    X, y = rows("two classes", 400)
    found = BoostIn(make("two classes", n_estimators=20, **options)).fit(X, y)
    whole = BoostIn(make("two classes", n_estimators=20)).fit(X, y)
    assert np.corrcoef(found.scores_, whole.scores_)[0, 1] > 0.7
    steps = found._steps
    mass = steps._sums(np.zeros(len(steps.theta))).H + L2[make] / 0.7  # of all rows, so that the penalty counts more
    np.testing.assert_allclose(steps.newton[0].scale[mass > 0], RATE[make] / mass[mass > 0], rtol=1e-6)
    with pytest.raises(ValueError, match="drew 70 % of the rows"):
        BoostIn(FrozenEstimator(found.estimator_)).fit(X, y)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (scikit, {"max_features": 1}),
        (hist, {"max_features": 0.5}),
        (xgboost, {"colsample_bytree": 0.5}),
        (lightgbm, {"colsample_bytree": 0.5}),
    ],
)
def test_drawn_columns_change_nothing_in_what_a_leaf_says(make, options):
    X, y = rows("regression")
    assert np.isfinite(BoostIn(make("regression", **options)).fit(X, y).scores_).all()


# ---- refused by name ------------------------------------------------------------------------------------------------


@in_turn(
    ("make", "task", "options", "said"),
    [
        (scikit, "two classes", {"loss": "exponential"}, "exponential"),
        (scikit, "regression", {"loss": "huber"}, "huber"),
        (scikit, "regression", {"init": HistGradientBoostingRegressor(max_iter=2)}, "init"),
        (hist, "regression", {"loss": "absolute_error"}, "absolute_error"),
        (hist, "regression", {"monotonic_cst": [1, 1, 1], "max_iter": 30}, "monotonic_cst"),
        (xgboost, "regression", {"objective": "reg:absoluteerror"}, "reg:absoluteerror"),
        (xgboost, "regression", {"objective": cubed}, "do not follow from these rows"),
        (lightgbm, "regression", {"objective": cubed}, "custom"),
        (xgboost, "two classes", {"booster": "dart"}, "dart"),
        (xgboost, "two classes", {"booster": "gblinear", "max_depth": None}, "gblinear"),
        (xgboost, "two classes", {"num_parallel_tree": 2}, "num_parallel_tree"),
        (xgboost, "regression", {"monotone_constraints": "(1,1,1)"}, "monotone_constraints"),
        (lightgbm, "regression", {"objective": "huber"}, "huber"),
        (lightgbm, "two classes", {"boosting_type": "dart"}, "dart"),
        (lightgbm, "two classes", {"boosting_type": "rf", "subsample": 0.5, "subsample_freq": 1}, "rf"),
        (lightgbm, "two classes", {"data_sample_strategy": "goss"}, "goss"),
        (lightgbm, "regression", {"linear_tree": True}, "linear_tree"),
        (lightgbm, "regression", {"path_smooth": 5.0}, "path_smooth"),
        (lightgbm, "regression", {"monotone_constraints": [1, 1, 1]}, "monotone_constraints"),
    ],
)
def test_what_is_not_read_is_refused_by_name(make, task, options, said):
    X, y = rows(task)
    options = {"n_estimators": 20} | options if make in (xgboost, lightgbm) else options
    with pytest.raises(ValueError, match=said):
        BoostIn(make(task, **options)).fit(X, y)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("make", LIBRARIES)
def test_a_frozen_model_with_other_rows_labels_or_weights_is_refused(make, task):
    X, y = rows(task)
    model = FrozenEstimator(make(task).fit(X, y))
    assert np.isfinite(BoostIn(model).fit(X, y).scores_).all()
    one = y.copy()
    one[0] = 1 - one[0]
    others = [(X[::-1], y, None), (X, one, None), (X, y, np.linspace(0.5, 2, len(y))), (X[1:], y[1:], None)]
    for rows_, labels, weights in others:
        with pytest.raises(ValueError, match="do not follow from these rows"):
            BoostIn(model).fit(rows_, labels, sample_weight=weights)


@in_turn(
    ("options", "said"),
    [
        ({"class_weights": [1.0, 3.0]}, None),
        ({"auto_class_weights": "Balanced"}, None),
        ({"boosting_type": "Ordered"}, None),
        ({"grow_policy": "Lossguide"}, None),
        ({"cat_features": ["kind"], "one_hot_max_size": 10}, None),
        ({"cat_features": ["kind"], "ignored_features": ["a", "b", "c"]}, "cat_features"),
        ({"model_shrink_rate": 0.3}, "model_shrink_rate"),
        ({"leaf_estimation_iterations": 3}, None),
        ({"leaf_estimation_method": "Gradient"}, "set 'Newton'"),
        ({"loss_function": "CrossEntropy"}, "CrossEntropy"),
    ],
)
def test_options_of_catboost(options, said):
    """Which cannot be cloned with some, and is given frozen. Of a category it sees other numbers in training."""
    X, y = rows("two classes")
    frame = table(X).drop(columns=[] if "cat_features" in options else ["kind"])
    model = FrozenEstimator(catboost("two classes", **options).fit(frame, y))
    if said is None:
        assert np.abs(BoostIn(model).fit(frame, y).scores_).max() > 1e-4
        return
    with pytest.raises(ValueError, match=said):
        BoostIn(model).fit(frame, y)


@pytest.mark.parametrize(("task", "options"), [("regression", {"boost_from_average": False}), ("two classes", {})])
def test_leaf_influence_is_minus_what_catboost_itself_calls_the_importance_of_a_row(task, options):
    """Which is the rise of the loss with the row; CatBoost counts the mean that it starts from as a tree."""
    X, y = rows(task)
    model = catboost(task, **options).fit(X, y)
    pool = pytest.importorskip("catboost").Pool
    of, importance = model.get_object_importance(
        pool(X[:3], y[:3]),
        pool(X, y),
        type="PerObject",
        update_method="SinglePoint",
        importance_values_sign="All",
        thread_count=1,
    )
    theirs = np.zeros((3, len(y)))
    np.put_along_axis(theirs, np.array(of), np.array(importance), axis=1)
    found = LeafInfluence(FrozenEstimator(model)).fit(X, y).attribute(X[:3], y[:3])
    np.testing.assert_allclose(found, -theirs, atol=1e-6)


@pytest.mark.parametrize("task", ["regression", "two classes"])
@pytest.mark.parametrize("method", [BoostIn, LeafInfluence])
def test_leaves_of_several_newton_steps_against_leaves_that_are_made_again(method, task):
    X, y = rows(task, 80)
    model = catboost(task, iterations=2, depth=2, leaf_estimation_iterations=4).fit(X, y)
    found = method(FrozenEstimator(model)).fit(X, y).attribute(X[:2], y[:2])
    at, first = model.calc_leaf_indexes(X), model.get_scale_and_bias()[1]

    def derivatives(output, label):
        p = expit(output)
        return (output - label, np.ones_like(output)) if task == "regression" else (p - label, p * (1 - p))

    def outputs(weights, held=None, mover=None):  # (3, n) before each tree and at the end; all others' outputs held
        before = [np.full(len(y), first)]
        for t in range(2):
            own = before[t].copy()
            if held is not None:
                still = np.full(len(y), True)
                still[mover] = method is BoostIn  # LeafInfluence lets the row's own output follow
                own[still] = held[t][still]
            add = np.zeros(len(y))
            for leaf in np.unique(at[:, t]):
                there = at[:, t] == leaf
                theta = 0.0
                for _ in range(4):
                    g, h = derivatives(own[there] + theta, y[there])
                    w = weights[there]
                    theta -= (w * g).sum() / ((w * h).sum() + 3.0 * 1.0)
                add[there] = 0.3 * theta
            before.append(before[t] + add)
        return np.array(before)

    plain = outputs(np.ones(len(y)))
    said = model.predict(X, prediction_type="RawFormulaVal")
    np.testing.assert_allclose(plain[-1], said, rtol=1e-5, atol=1e-6)
    for e in range(2):
        slopes = derivatives(plain[:, e], y[e])[0]
        weigh = slopes[:2] if method is BoostIn else slopes[[2, 2]]
        for i in (0, 1, 5):
            change = np.zeros(len(y))
            change[i] = 1e-4
            up, down = (outputs(1 + s * change, plain, i)[:, e] for s in (1, -1))
            expected = -(weigh * (np.diff(up) - np.diff(down))).sum() / 2e-4
            assert found[e, i] == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_steps_that_catboost_takes_back_are_refused():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = (X[:, 0] > 0) * 1  # so well fitted in the end that no step is an improvement
    model = catboost("two classes", iterations=150, learning_rate=1.0, leaf_estimation_iterations=10)
    with pytest.raises(ValueError, match="leaf_estimation_backtracking"):
        BoostIn(model).fit(X, y)


@pytest.mark.parametrize("options", [{"depth": 2}, {"depth": 2, "l2_leaf_reg": 0}, {"depth": 6, "l2_leaf_reg": 0}])
@pytest.mark.parametrize("method", [BoostIn, LeafInfluence])
def test_leaves_of_catboost_that_solve_for_all_classes_against_leaves_that_are_made_again(method, options):
    X, y = rows("three classes", 80)
    weights = np.random.default_rng(1).uniform(0.3, 3, len(y))
    model = catboost("three classes", iterations=2, **options).fit(X, y, sample_weight=weights)
    found = method(FrozenEstimator(model)).fit(X, y, sample_weight=weights).attribute(X[:2], y[:2])
    at, penalty = model.calc_leaf_indexes(X), options.get("l2_leaf_reg", 3.0) * weights.mean() * np.eye(3)

    def outputs(weights, held=None, mover=None):  # (3, n, 3) before each tree and at the end; all others' outputs held
        before = [np.zeros((len(y), 3))]
        for t in range(2):
            own = before[t].copy()
            if held is not None:
                still = np.full(len(y), True)
                still[mover] = method is BoostIn
                own[still] = held[t][still]
            add = np.zeros((len(y), 3))
            for leaf in np.unique(at[:, t]):
                there = np.flatnonzero(at[:, t] == leaf)
                G, H = np.zeros(3), penalty.copy()
                for i in there:
                    p = softmax(own[i])
                    G += weights[i] * (p - (np.arange(3) == y[i]))
                    H += weights[i] * (np.diag(p) - np.outer(p, p))
                add[there] = -0.3 * np.linalg.lstsq(H, G, rcond=1e-12)[0]  # without a penalty the shortest
            before.append(before[t] + add)
        return np.array(before)

    plain = outputs(weights)
    np.testing.assert_allclose(plain[-1], model.predict(X, prediction_type="RawFormulaVal"), rtol=1e-5, atol=1e-6)
    for e in range(2):
        slopes = softmax(plain[:, e], axis=1) - (np.arange(3) == y[e])
        weigh = slopes[:2] if method is BoostIn else slopes[[2, 2]]
        for i in (0, 1, 5):
            change = np.zeros(len(y))
            change[i] = 1e-4 * weights[i]
            up, down = (outputs(weights + s * change, plain, i)[:, e] for s in (1, -1))
            expected = -(weigh * (np.diff(up, axis=0) - np.diff(down, axis=0))).sum() / 2e-4
            assert found[e, i] == pytest.approx(expected, rel=1e-4, abs=1e-7)


UNPENALISED = [
    (scikit, {"max_depth": 8}),
    (hist, {"l2_regularization": 0.0, "min_samples_leaf": 1}),
    (xgboost, {"reg_lambda": 0, "min_child_weight": 0, "max_depth": 8}),
    (lightgbm, {"reg_lambda": 0, "min_child_samples": 1, "min_child_weight": 0}),
    (catboost, {"l2_leaf_reg": 0, "depth": 8}),  # most leaves without rows
]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("make", "options"), UNPENALISED)
def test_without_a_penalty_what_the_rows_of_all_leaves_did_sums_to_nothing(make, options, task):
    X, y = rows(task, 80)
    found = BoostIn(FrozenEstimator(make(task, **options).fit(X, y))).fit(X, y).attribute(X[:20], y[:20])
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-6 + 1e-4 * np.abs(found).max())  # single precision


def test_several_newton_steps_of_all_classes_are_refused():
    X, y = rows("three classes")
    with pytest.raises(ValueError, match="set leaf_estimation_iterations=1"):
        BoostIn(catboost("three classes", leaf_estimation_iterations=3)).fit(X, y)


def test_a_model_trained_from_a_margin_of_ones_own_is_refused():
    X, y = rows("two classes")
    model = xgboost("two classes").fit(X, y, base_margin=X[:, 0])
    with pytest.raises(ValueError, match="do not follow from these rows"):
        BoostIn(FrozenEstimator(model)).fit(X, y)


# ---- scikit-learn's inner parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_the_predictors_of_hist_gradient_boosting_are_what_is_read(task):
    """Fails where scikit-learn changes what sktda/attribution/trees/hist_boosting.py reads."""
    X, y = rows(task)
    frame = table(X)
    model = hist(task, categorical_features="from_dtype", early_stopping=True).fit(frame, y)
    tree = model._predictors[0][0]
    assert {"is_leaf", "value"} <= set(tree.nodes.dtype.names)
    known, positions = model._bin_mapper.make_known_categories_bitsets()
    inner = model._preprocess_X(frame, reset=False)
    raw = np.tile(model._baseline_prediction, (len(y), 1))
    for step in model._predictors:
        for k, each in enumerate(step):
            raw[:, k] += each.predict(inner, known, positions, n_threads=1)
    said = model.predict(frame) if task == "regression" else model.decision_function(frame)
    np.testing.assert_allclose(raw, np.reshape(said, raw.shape))
    assert isinstance(int(model._random_seed), int)
    assert model.do_early_stopping_
