"""Every public estimator keeps scikit-learn's contract, and works with the tools around it."""

import functools
import importlib
import inspect
import pickle
import pkgutil
import re

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from joblib import parallel_config
from sklearn import ensemble
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier, is_regressor
from sklearn.callback import ProgressBar
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, IsolationForest
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    StratifiedKFold,
    check_cv,
    cross_val_predict,
    cross_validate,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.estimator_checks import check_estimator

import sktda
import sktda.attribution
from sktda import (
    CoresetSelector,
    Holdout,
    InfluencePruner,
    InfluenceReweighter,
    NoisyLabelDetector,
    PatchFeatures,
    ResampledEstimator,
    TableEncoder,
)
from sktda.attribution import (
    AUM,
    ComplexityGap,
    Distributional,
    Ensemble,
    Influence,
    InnerProduct,
    KernelForest,
    LabelPosterior,
    ModelEnsemble,
    PrecomputedProbabilities,
    PrecomputedScores,
    RobustResidual,
    SelfConfidence,
)
from sktda.attribution.base import Attributor
from sktda.attribution.features import residual_regression
from sktda.attribution.gradients import outlier_gradient
from sktda.attribution.predictions import out_of_sample
from sktda.attribution.trees import boosted, tree_kernel
from sktda.cleaning import judge
from sktda.model import proxy
from tests.spies import CountingScores, RecordingClassifier, fits, noisy_blobs

X, Y, _ = noisy_blobs(90, centers=2)


def public_modules():
    """sktda and its modules, without those whose name starts with an underscore."""
    yield sktda
    for info in pkgutil.walk_packages(sktda.__path__, "sktda."):
        if not any(part.startswith("_") for part in info.name.split(".")):
            yield importlib.import_module(info.name)


def walked_estimators():
    """Public, concrete estimators: they have a `fit` of their own and nothing abstract.

    Those of sktda.model are inner parts: attributors check the input before these see it, and nothing exports them.
    """
    return {
        cls
        for module in public_modules()
        for name, cls in vars(module).items()
        if inspect.isclass(cls)
        and issubclass(cls, BaseEstimator)
        and cls.__module__ == module.__name__
        and not module.__name__.startswith("sktda.model.")
        and not name.startswith("_")
        and not inspect.isabstract(cls)
        and hasattr(cls, "fit")
    }


def exported_estimators():
    public = [getattr(package, name) for package in (sktda, sktda.attribution) for name in package.__all__]
    kinds = {cls for cls in public if inspect.isclass(cls) and issubclass(cls, BaseEstimator)}
    return {cls for cls in kinds if not issubclass(cls, FrozenEstimator)}  # TorchModel, which cannot be fitted


ESTIMATORS = sorted(walked_estimators() | exported_estimators(), key=lambda cls: cls.__name__)


KERNEL = ComplexityGap(ridge=0.3, scale="unit")  # nothing to choose
CHEAP = {
    "n_members": 2,
    "n_estimators": 20,
    "cv": 2,
    "prune_ratios": (0, 0.1),
    "attributor": KERNEL,
    "model": torch.nn.Identity(),
    "sampler": NoisyLabelDetector(KERNEL),
}
"""Spares the checks of every class the forests of the default attributor, which has checks of its own."""


def differentiates(instance):
    return isinstance(instance, Attributor) and instance.needs.gradients


def few_of_the_trees(n_estimators, **options):
    """Of few rows each, so that every row is left out by one of them."""
    return ExtraTreesRegressor(10, max_samples=6, **options)


@pytest.fixture(autouse=True, scope="module")
def short_training():
    """Default nets are narrow and take two epochs, default forests have a few trees: the contract is not about
    what they learn.

    Nor about which rows judge a guard or a search, that the kernel's scores can say as well as a forest's.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "prepare_attributor", lambda _, estimator: clone(KERNEL))
        patch.setattr(proxy, "EPOCHS", (2, 2))
        patch.setattr(proxy, "WIDTH", 4)
        patch.setattr(out_of_sample, "ExtraTreesClassifier", lambda _, **options: ExtraTreesClassifier(5, **options))
        few = {"Hist": {"max_iter": 3, "early_stopping": False}, "": {"n_estimators": 3}}
        for kind, options in few.items():
            for task in ("Classifier", "Regressor"):
                name = f"{kind}GradientBoosting{task}"
                patch.setattr(boosted, name, lambda name=name, options=options, **_: getattr(ensemble, name)(**options))
        for name in ("RandomForestClassifier", "RandomForestRegressor"):
            patch.setattr(tree_kernel, name, lambda name=name: getattr(ensemble, name)(10))
        patch.setattr(outlier_gradient, "IsolationForest", lambda: IsolationForest(n_estimators=5))
        patch.setitem(KernelForest.__init__.__kwdefaults__, "n_estimators", 10)
        patch.setitem(RobustResidual.__init__.__kwdefaults__, "n_estimators", 50)  # the fewest it takes
        patch.setattr(residual_regression, "ExtraTreesRegressor", few_of_the_trees)
        yield


def instances(cls):
    """Around a classifier and around a regressor, or around nothing, with what is cheap where there is a choice."""
    parameters = inspect.signature(cls).parameters
    any_attributor = not (issubclass(cls, Attributor) and cls().needs.gradients)
    cheap = {
        name: value for name, value in CHEAP.items() if name in parameters and (any_attributor or name != "attributor")
    }
    if cls is RobustResidual:
        cheap["n_estimators"] = 50  # the fewest it takes
    if cls is PatchFeatures:
        cheap["shape"] = (1, X.shape[1])
    if "estimator" in parameters and issubclass(cls, MetaEstimatorMixin):
        return [cls(LogisticRegression(), **cheap), cls(Ridge(), **cheap)]
    return [cls(**cheap)]


PLAIN = [instance for cls in ESTIMATORS for instance in instances(cls)]
VARIANTS = [
    InfluencePruner(LogisticRegression(), KERNEL, validation=2, guard=True),
    InfluencePruner(Ridge(), KERNEL, validation=3, guard=0.1, step=0.05),
    LabelPosterior(KernelForest(n_estimators=10)),
]
CHECKED = [instance for instance in PLAIN + VARIANTS if get_tags(instance).input_tags.two_d_array]
REPEATED = dict.fromkeys(
    ["check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data"],
    "which rows look wrong is another matter where one of them stands twice, and its copy speaks for it",
)
EXPECTED_FAILURES: dict[str, dict[str, str]] = {  # {class name: {check: reason}}
    "InfluencePruner": REPEATED,
    "InfluenceReweighter": REPEATED,
}


def short(instance):
    return re.sub(r"\s+", "", repr(instance))


@functools.cache
def fitted_once(instance):
    """Of PLAIN and VARIANTS, for all tests that change nothing of it."""
    return clone(instance).fit(X, Y)


# ---- scikit-learn's own checks --------------------------------------------------------------------------------------


def test_what_is_public_is_exported():
    assert walked_estimators() == exported_estimators()
    assert len(ESTIMATORS) >= 5


@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.SkipTestWarning",
    "ignore::sktda.PruningWarning",
    "ignore::sktda.NothingToLearnWarning",  # the checks' labels are often random
    "ignore:.* of the labels are called wrong:UserWarning",
    "ignore:class . has . rows, fewer than the 5 folds:UserWarning",  # of Ensemble, whose folds the checks do not know
)
@pytest.mark.parametrize(("turn", "estimator"), list(enumerate(CHECKED)), ids=map(short, CHECKED))
def test_scikit_learns_checks(turn, estimator, monkeypatch):
    """Each estimator gets two of scikit-learn's ten sparse formats, the next one others: one check takes them all."""
    every_format = estimator_checks._generate_sparse_data
    monkeypatch.setattr(estimator_checks, "_generate_sparse_data", lambda X: list(every_format(X))[turn % 5 :: 5])
    expected = EXPECTED_FAILURES.get(type(estimator).__name__)
    results = check_estimator(estimator, expected_failed_checks=expected, on_skip=None, on_fail=None)
    assert len(results) > 30
    skipped = {result["check_name"] for result in results if result["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # which needs SCIPY_ARRAY_API
    failed = [result for result in results if result["status"] == "failed"]
    for result in failed:
        result["exception"].add_note(result["check_name"])
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(results)} checks", [result["exception"] for result in failed])


def test_constructible_without_arguments():
    for cls in (cls for cls in ESTIMATORS if not issubclass(cls, MetaEstimatorMixin)):
        assert cls().get_params() == clone(cls()).get_params(), cls


def test_tags_say_what_is_taken():
    for instance in PLAIN:
        tags = get_tags(instance)
        encodes, transforms = isinstance(instance, TableEncoder), hasattr(instance, "transform")
        assert tags.target_tags.required == (not isinstance(instance, PrecomputedScores) and not transforms), instance
        assert tags.input_tags.sparse != transforms, instance
        assert tags.input_tags.string == encodes, instance
        looked_up = isinstance(instance, PrecomputedScores | PrecomputedProbabilities)
        assert tags.input_tags.allow_nan == (encodes or looked_up), instance


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_the_docstring_has_every_section_parameter_and_attribute(cls):
    text = inspect.getdoc(cls)
    for section in ("Parameters", "Attributes", "Examples"):
        assert f"\n{section}\n{'-' * len(section)}\n" in text, section
    for parameter in inspect.signature(cls).parameters:
        assert re.search(rf"^{parameter} : .*", text, re.MULTILINE), parameter
    fitted = fitted_once(PLAIN[[type(each) for each in PLAIN].index(cls)])
    for name in vars(fitted):
        if name.endswith("_") and not name.startswith("_") and name not in {"n_features_in_", "feature_names_in_"}:
            assert re.search(rf"^(\w+, )*{name}(, \w+)* :", text, re.MULTILINE), name


def test_every_public_method_is_documented():
    own = [(cls, name) for cls in ESTIMATORS for name in vars(cls) if not name.startswith("_")]
    methods = [getattr(cls, name) for cls, name in own if callable(getattr(cls, name, None))]
    assert [method for method in methods if not inspect.getdoc(method)] == []


# ---- state ----------------------------------------------------------------------------------------------------------


def results(fitted):
    """All learned arrays by name, plus predictions where there are some."""
    found = {
        name: value
        for name, value in vars(fitted).items()
        if name.endswith("_") and not name.startswith("_") and isinstance(value, np.ndarray | float | int)
    }
    return found | ({"predictions": fitted.predict(X)} if hasattr(fitted, "predict") else {})


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.mark.filterwarnings("ignore::sktda.PruningWarning")
@pytest.mark.parametrize("instance", PLAIN + VARIANTS, ids=short)
def test_pickle_joblib_and_clone_keep_everything(instance, tmp_path):
    fitted = fitted_once(instance)
    joblib.dump(fitted, tmp_path / "fitted")
    for restored in (pickle.loads(pickle.dumps(fitted)), joblib.load(tmp_path / "fitted"), clone(fitted).fit(X, Y)):
        assert_same(results(restored), results(fitted))
        if hasattr(fitted, "to_frame"):
            pd.testing.assert_frame_equal(restored.to_frame(), fitted.to_frame())


@pytest.mark.filterwarnings("ignore::sktda.PruningWarning")
@pytest.mark.parametrize("instance", PLAIN + VARIANTS, ids=short)
def test_repr_and_html_do_no_work(instance, tmp_path):
    log = tmp_path / "log"
    unfitted = clone(instance)
    some_kind = differentiates(unfitted) or isinstance(unfitted, LabelPosterior)  # not any attributor
    if "attributor" in unfitted.get_params() and not some_kind:
        unfitted.set_params(attributor=CountingScores(str(log)))
    before = dict(vars(unfitted))
    assert type(unfitted).__name__ in repr(unfitted)
    assert type(unfitted).__name__ in unfitted._repr_html_()
    assert vars(unfitted) == before
    fitted = unfitted.fit(X, Y)
    n_fits, before = len(fits(log)), dict(vars(fitted))
    assert type(fitted).__name__ in fitted._repr_html_()
    assert len(fits(log)) == n_fits
    assert vars(fitted).keys() == before.keys()


SEEDED = [  # what PLAIN has not
    ComplexityGap(mode="nystrom", n_landmarks=20, random_state=0),
    ComplexityGap(mode="paper", n_repeats=2, random_state=0),
    NoisyLabelDetector(ComplexityGap(mode="nystrom", n_landmarks=20), random_state=0),
    CoresetSelector(ComplexityGap(mode="nystrom", n_landmarks=20), n_samples=0.3, random_state=0),
    CoresetSelector(strategy="craig", random_state=0),
    CoresetSelector(strategy="k-center", random_state=0),
    InfluencePruner(
        LogisticRegression(),
        ComplexityGap(mode="nystrom", n_landmarks=20),
        random_state=0,
        validation=0.2,
        guard=1.0,
        step=0.05,
    ),
    AUM(percentile=99, random_state=0),
    Ensemble([AUM(), SelfConfidence(LogisticRegression())], random_state=0),
    InfluenceReweighter(LogisticRegression(), weighting="learned", random_state=0),
    ModelEnsemble(n_members=3, random_state=0),
    ModelEnsemble(Influence(), members="seeds", n_members=2, random_state=0),
    Distributional(n_members=2, random_state=0),
    Influence(objective="validation", random_state=0),
    Influence(LogisticRegression(), random_state=0),
    InnerProduct(MLPClassifier((5,), max_iter=30, tol=1.0), random_state=0),
    InfluencePruner(GaussianNB(), InnerProduct(), validation=3, random_state=0),
    InfluencePruner(LogisticRegression(), ComplexityGap(mode="nystrom", n_landmarks=20), random_state=0, guard=1.0),
]


def unseeded(instance):
    """A clone whose random_state is None, where it has one."""
    return clone(instance).set_params(**({"random_state": None} if hasattr(instance, "random_state") else {}))


@pytest.mark.parametrize("instance", SEEDED + PLAIN, ids=short)
def test_a_seed_decides_everything_none_is_the_seed_0_and_global_states_are_left_alone(instance):
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    before = np.random.get_state()[1].copy(), np.random.get_state()[2], torch.get_rng_state()  # noqa: NPY002
    found = unseeded(instance).fit(X, Y)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert np.random.get_state()[2] == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    if hasattr(instance, "random_state"):
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(3)
        assert_same(results(clone(instance).set_params(random_state=0).fit(X, Y)), results(found))


def test_workers_give_the_same_results(capsys):
    """Threads, and processes; what needs processes stands together, as each of them loads everything again."""
    alone = results(clone(SEEDED[-1]).fit(X, Y))
    expected = cross_validate(SEEDED[-1], X, Y, cv=3, error_score="raise")["test_score"]
    for backend in ("threading", "loky"):
        with parallel_config(backend=backend, n_jobs=2):
            assert_same(results(clone(SEEDED[-1]).set_params(n_jobs=2).fit(X, Y)), alone)
            scores = cross_validate(SEEDED[-1], X, Y, cv=3, n_jobs=2, error_score="raise")["test_score"]
        np.testing.assert_array_equal(scores, expected)

    cleaner = InfluencePruner(LogisticRegression(), KERNEL, validation=Holdout(X, Y), guard=1.0)
    search = GridSearchCV(cleaner, {"prune_ratio": [0, 0.1]}, cv=3, n_jobs=2, error_score="raise").fit(X, Y)
    assert len(search.best_estimator_.validation.y) == 90

    search = GridSearchCV(PIPE, {"influencepruner__prune_ratio": [0, 0.1]}, cv=3, n_jobs=2, error_score="raise")
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, Y)
    shown = capsys.readouterr().out
    assert "GridSearchCV - fit" in shown
    assert "InfluencePruner - fit" in shown
    assert search.predict(X).shape == (90,)

    searches = [GridSearchCV(PIPE, GRID, cv=3, n_jobs=n, error_score="raise").fit(X, Y) for n in (1, 2)]
    one, two = (search.cv_results_["mean_test_score"] for search in searches)
    assert np.isfinite(one).all()
    np.testing.assert_array_equal(one, two)
    assert searches[1].predict(X).shape == (90,)


# ---- meta-estimators ------------------------------------------------------------------------------------------------

CLASSIFIERS = [instances(cls)[0] for cls in ESTIMATORS if issubclass(cls, MetaEstimatorMixin)]


@pytest.mark.parametrize("model", CLASSIFIERS, ids=short)
def test_nothing_is_dropped_at_predict(model):
    fitted = clone(model).fit(X, Y)
    for n in (1, 7, 90, 200):
        rows = np.resize(np.arange(90), n)
        assert fitted.predict(X[rows]).shape == (n,)
        assert fitted.predict_proba(X[rows]).shape == (n, 2)
        assert fitted.predict_log_proba(X[rows]).shape == (n, 2)
        assert fitted.decision_function(X[rows]).shape == (n,)
    assert cross_val_predict(model, X, Y, cv=3).shape == (90,)
    assert cross_val_predict(model, X, Y, cv=3, method="predict_proba").shape == (90, 2)


@pytest.mark.parametrize("model", CLASSIFIERS, ids=short)
def test_the_kind_is_that_of_the_estimator(model):
    assert is_classifier(model)
    assert is_regressor(clone(model).set_params(estimator=Ridge()))
    assert is_classifier(make_pipeline(StandardScaler(), model))
    assert isinstance(check_cv(3, Y, classifier=is_classifier(model)), StratifiedKFold)
    order = np.argsort(Y, kind="stable")
    scores = cross_validate(model, X[order], Y[order], cv=3, error_score="raise")["test_score"]
    assert scores.min() > 0.5, "sorted labels: unstratified folds would train on one class"


@pytest.mark.parametrize("model", CLASSIFIERS, ids=short)
def test_only_methods_of_the_estimator_are_there(model):
    around_spy = clone(model).set_params(estimator=RecordingClassifier())
    assert hasattr(around_spy, "predict")
    assert not hasattr(around_spy, "predict_proba")
    with pytest.raises(AttributeError, match="predict_proba"):
        around_spy.fit(X, Y).predict_proba(X)


@pytest.mark.parametrize("model", CLASSIFIERS, ids=short)
def test_an_unfitted_one_says_so(model):
    with pytest.raises(sklearn.exceptions.NotFittedError, match="not fitted yet"):
        clone(model).predict(X)
    assert not hasattr(model, "classes_")
    assert not hasattr(model, "n_features_in_")


@pytest.mark.parametrize("model", CLASSIFIERS, ids=short)
def test_feature_names_are_kept_and_checked(model):
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    fitted = clone(model).fit(frame, pd.Series(Y))
    assert fitted.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    assert fitted.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(frame[["b", "a", "c", "d"]])
    assert not hasattr(clone(model).fit(X, Y), "feature_names_in_")


@pytest.mark.parametrize("model", CLASSIFIERS, ids=short)
@pytest.mark.parametrize("labels", [np.array(["no", "yes"]), np.array([False, True]), np.array([5, -5])], ids=str)
def test_labels_of_every_kind(model, labels):
    fitted = clone(model).fit(X, labels[Y])
    assert fitted.classes_.tolist() == sorted(labels.tolist())
    np.testing.assert_array_equal(fitted.predict(X), labels[clone(model).fit(X, Y).predict(X)])


# ---- pipelines and searches -----------------------------------------------------------------------------------------

PIPE = make_pipeline(StandardScaler(), InfluencePruner(LogisticRegression(), ComplexityGap()))
GRID = {"influencepruner__prune_ratio": [0, 0.1], "influencepruner__attributor__ridge": [0.1, 1.0]}


def test_a_halving_search():
    search = HalvingGridSearchCV(PIPE, GRID, cv=3, factor=2, min_resources=30, random_state=0, error_score="raise")
    assert search.fit(X, Y).n_iterations_ >= 2
    assert search.predict(X).shape == (90,)


def test_cross_validate_returns_fitted_cleaners():
    found = cross_validate(
        PIPE, X, Y, cv=3, return_estimator=True, scoring=["accuracy", "roc_auc"], error_score="raise"
    )
    assert [pipe[-1].n_pruned_ for pipe in found["estimator"]] == [6, 6, 6]
    assert np.isfinite(found["test_roc_auc"]).all()


def test_imbalanced_learns_pipeline_takes_the_detector_as_sampler():
    pipe = make_imblearn_pipeline(StandardScaler(), NoisyLabelDetector(), RecordingClassifier())
    search = GridSearchCV(pipe, {"noisylabeldetector__contamination": [0.1, 0.2]}, cv=3, error_score="raise")
    best = search.set_params(refit=lambda results: 1).fit(X, Y).best_estimator_
    assert best[1].noise_rate_ == 0.2
    assert len(best[-1].y_) == 72
    np.testing.assert_array_equal(best[-1].y_, Y[best[1].sample_indices_])
    assert best.predict(X).shape == (90,)


def test_imbalanced_learns_pipeline_takes_the_coreset_as_sampler():
    pipe = make_imblearn_pipeline(StandardScaler(), CoresetSelector(random_state=0), RecordingClassifier())
    grid = {"coresetselector__n_samples": [20, 0.5], "coresetselector__strategy": ["top", "stratified"]}
    best = GridSearchCV(pipe, grid, cv=3, error_score="raise", refit=lambda results: 3).fit(X, Y).best_estimator_
    np.testing.assert_array_equal(best[-1].y_, Y[best[1].sample_indices_])
    assert len(best[-1].y_) == 45
    assert best.predict(X).shape == (90,)


def test_the_detector_ends_a_plain_pipeline():
    labels = make_pipeline(StandardScaler(), NoisyLabelDetector()).fit_predict(X, Y)
    np.testing.assert_array_equal(labels, NoisyLabelDetector().fit(StandardScaler().fit_transform(X), Y).labels_)


def test_pandas_output_of_a_pipeline_keeps_the_users_index():
    index = pd.Index([f"id{i}" for i in range(90)])
    pipe = clone(PIPE).set_output(transform="pandas").fit(pd.DataFrame(X, index=index).add_prefix("f"), Y)
    assert set(pipe[-1].to_frame().index) == set(index)
    assert pipe[-1].feature_names_in_.tolist() == ["f0", "f1", "f2", "f3"]


def test_cleaners_nest():
    inner = ResampledEstimator(LogisticRegression(), NoisyLabelDetector(contamination=0.1))
    fitted = InfluencePruner(inner, prune_ratio=0.1, guard=1.0).fit(X, Y)
    assert len(fitted.estimator_.sampler_.labels_) == 81
    assert fitted.predict(X).shape == (90,)


# ---- callbacks ------------------------------------------------------------------------------------------------------


class Tasks:
    """Callback that notes the begin and the end of every task of the estimator that it is set on."""

    def __init__(self):
        self.events = []

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(("begin", context.task_name, context.max_subtasks))

    def on_fit_task_end(self, estimator, context):
        self.events.append(("end", context.task_name, context.max_subtasks))


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (InfluencePruner(LogisticRegression()), ["score round 1", "guard", "refit"]),
        (
            InfluencePruner(LogisticRegression(), step=0.05, guard=1.0),
            ["score round 1", "score round 2", "guard", "refit"],
        ),
        (ResampledEstimator(LogisticRegression()), ["resample", "refit"]),
    ],
    ids=short,
)
def test_progress_is_reported_step_by_step_and_adds_up(model, names):
    tasks = Tasks()
    clone(model).set_callbacks(tasks).fit(X, Y)
    steps = [(edge, name, 0) for name in names for edge in ("begin", "end")]
    assert tasks.events == ["setup", ("begin", "fit", len(names)), *steps, ("end", "fit", len(names)), "teardown"]


@pytest.mark.parametrize("model", CLASSIFIERS, ids=short)
def test_callbacks_are_torn_down_when_a_fit_fails(model):
    tasks = Tasks()
    broken = clone(model).set_callbacks(tasks)
    with pytest.raises(ValueError, match="NaN"):
        broken.fit(np.where(X[0, 0] == X, np.nan, X), Y)
    assert tasks.events[-1] == "teardown"
    pickle.dumps(clone(broken).fit(X, Y))


@pytest.mark.parametrize("model", [*CLASSIFIERS, InfluencePruner(LogisticRegression(), guard=1.0, n_jobs=2)], ids=short)
def test_a_progress_bar_on_the_cleaner(model, capsys):
    fitted = clone(model).set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, Y)
    assert f"{type(model).__name__} - fit" in capsys.readouterr().out
    assert pickle.loads(pickle.dumps(fitted)).predict(X).shape == (90,)


# ---- metadata routing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("model", CLASSIFIERS, ids=short)
def test_weights_reach_the_model_through_a_pipeline(model, routing):
    weight = np.arange(90.0) + 1
    spy = clone(model).set_params(estimator=RecordingClassifier())
    if "prune_ratios" in spy.get_params():
        spy.set_params(prune_ratios=[0.1])  # 0 is as good for a constant prediction
    if routing:
        sklearn.set_config(enable_metadata_routing=True)
        spy.estimator.set_fit_request(sample_weight=True)
        if "attributor" in spy.get_params():
            spy.set_params(attributor=ComplexityGap().set_fit_request(sample_weight=False))
        name = "sample_weight"
    else:
        name = f"{type(spy).__name__.lower()}__sample_weight"
    fitted = make_pipeline("passthrough", spy).fit(X, Y, **{name: weight})[-1]
    received = dict(zip(map(tuple, X), weight, strict=True))
    found = getattr(fitted, "sample_weight_", np.ones(90))  # of a reweighter, which keeps all rows
    assert len(fitted.estimator_.y_) < 90 or np.ptp(found) > 0
    expected = [received[tuple(row)] for row in fitted.estimator_.X_] * found[: len(fitted.estimator_.y_)]
    np.testing.assert_array_equal(fitted.estimator_.sample_weight_, expected)


def test_precomputed_scores_are_routed_by_a_plain_call():
    scores = np.arange(90.0)
    fitted = InfluencePruner(LogisticRegression(), PrecomputedScores(), stratify=False).fit(X, Y, scores=scores)
    assert np.flatnonzero(~fitted.support_).tolist() == list(range(9))
