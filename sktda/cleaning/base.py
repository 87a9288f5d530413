"""What the cleaners share: who scores the rows, and on which features."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import _routing_enabled
from sklearn.utils.validation import (
    check_consistent_length,
)

from sktda.attribution.base import (
    Attributor,
    fit_transformed,
    needs_of,
    seeded,
    told_task,
)
from sktda.attribution.trees.reading import attribution_of
from sktda.containers import is_pipeline, needs_encoding
from sktda.data import reads_numbers_only, sliceable


class PruningWarning(UserWarning):
    """A cleaner kept rows that it was asked to remove, and says why."""


class NothingToLearnWarning(UserWarning):
    """The features do not predict the labels better than chance, so nothing can be said about single labels."""


class Holdout:
    """Validation rows as a constructor value: ``InfluencePruner(model, validation=Holdout(X_val, y_val))``.

    The rows are as the cleaner receives X. Cross-validation never slices them and `clone` returns the same object.

    Parameters
    ----------
    X : array-like of shape (n_val, ...)
    y : array-like of shape (n_val,)
    **metadata : array-like of shape (n_val,)
        Per-row metadata for objectives, such as ``sensitive_features``.

    Examples
    --------
    >>> from sktda import Holdout
    >>> Holdout([[0.0], [1.0]], [0, 1])
    Holdout(2 rows)
    """

    def __init__(self, X: Any, y: Any, **metadata: Any) -> None:
        X = sliceable(X)
        check_consistent_length(X, y, *metadata.values())
        self.X = X
        self.y = y
        self.metadata = metadata

    def __sklearn_clone__(self) -> Holdout:
        return self

    def __repr__(self) -> str:
        return f"Holdout({len(self.y)} rows)"


def prepare_attributor(attributor: Any, estimator: Any = None, random_state: Any = None) -> Any:
    """A clone of the attributor with what it left open filled in: estimator, task, seed.

    None is the default attributor, LabelPosterior(); a classifier with predict_proba is SelfConfidence(classifier).
    Only parameters that are None (task: "auto") are set.
    """
    return seeded(_filled_in(attributor, estimator), random_state)


def _filled_in(attributor: Any, estimator: Any) -> Any:
    """The same without a seed: what holds several attributors gives each its own."""
    if attributor is None:
        from sktda.attribution.predictions.label_posterior import LabelPosterior

        attributor = LabelPosterior()
        if _routing_enabled():
            attributor.set_fit_request(sample_weight=False)  # ignored, and not the user's to request
    model = hasattr(attributor, "get_params") and not isinstance(attributor, type) and not is_pipeline(attributor)
    if model and is_classifier(attributor) and hasattr(attributor, "predict_proba"):
        from sktda.attribution.predictions.confidence import SelfConfidence

        attributor = SelfConfidence(attributor)  # what a classifier says of rows that it did not train on
        if _routing_enabled():
            attributor.set_fit_request(sample_weight=False)
    needs = needs_of(attributor)
    attributor = clone(attributor)
    params = attributor.get_params(deep=False)
    if estimator is not None and params.get("estimator", 0) is None:
        attributor.set_params(estimator=scoring_estimator(attributor, estimator))
    if estimator is not None:
        task = "regression" if is_regressor(estimator) else "classification" if is_classifier(estimator) else "auto"
        if task == "classification" or not needs.probabilities:
            told_task(attributor, task)
    if estimator is not None and isinstance(attributor, Attributor):
        attributor.prepare_members(lambda each: _filled_in(each, estimator), transformers_of(estimator))
    return attributor


def check_estimator(estimator: Any) -> None:
    """Raise TypeError for what cannot be cloned and fitted, and say what can."""
    if isinstance(estimator, type):
        raise TypeError(f"estimator is the class {estimator.__name__}; give an instance, {estimator.__name__}()")
    name = type(estimator).__name__
    if hasattr(estimator, "get_params") and hasattr(estimator, "fit"):
        if isinstance(estimator, Attributor):
            raise TypeError(
                f"estimator={name}() is an attributor, which scores rows and predicts nothing; give the model to fit "
                f"first: InfluencePruner(LogisticRegression(), {name}())"
            )
        return
    if hasattr(estimator, "compile") and hasattr(estimator, "fit"):
        raise TypeError(
            f"estimator is a {name}, which scikit-learn cannot clone; wrap a Keras model by SciKeras: "
            "scikeras.wrappers.KerasClassifier(model) or KerasRegressor(model)"
        )
    if hasattr(estimator, "named_parameters"):
        raise TypeError(
            f"estimator is the torch module {name}, which has no fit; wrap it by skorch: NeuralNetClassifier(module, "
            "criterion=torch.nn.CrossEntropyLoss) or NeuralNetRegressor(module)"
        )
    raise TypeError(
        f"estimator is a {name} and no scikit-learn estimator, which has fit and get_params; give one, such as "
        "LogisticRegression()"
    )


def without_samplers(estimator: Any) -> Any:
    """A Pipeline without its steps that resample (of imbalanced-learn): rows are scored as they are, each once."""
    if not is_pipeline(estimator) or not any(hasattr(step, "fit_resample") for _, step in estimator.steps[:-1]):
        return estimator
    from sklearn.pipeline import Pipeline  # loaded where there is one, but slow for those who have none

    *before, last = estimator.steps
    return Pipeline([*((name, step) for name, step in before if not hasattr(step, "fit_resample")), last])


def scoring_estimator(attributor: Any, estimator: Any) -> Any:
    """A clone of the estimator, or what the method trains by itself where it needs more than the estimator has.

    That is the default net for a gradient or a recorded run, the default classifier for class probabilities. The
    transformers of a Pipeline stay in front of it.
    """
    needs, estimator = needs_of(attributor), without_samplers(estimator)
    if needs.probabilities and is_classifier(estimator):
        if hasattr(estimator, "predict_proba"):
            return clone(estimator)
        from sktda.attribution.predictions.out_of_sample import default_classifier

        return behind_transformers(estimator, default_classifier())
    if not needs.gradients:
        return clone(estimator)
    from sktda.model.adapters import can_differentiate
    from sktda.model.given import GivenModel
    from sktda.model.proxy import default_net

    if can_differentiate(estimator) and (GivenModel.of(estimator).trained_by_steps or not needs.trajectory):
        return clone(estimator)
    if needs.validation and attribution_of(GivenModel.of(estimator).model):
        warn_of_stand_in(attributor, GivenModel.of(estimator).model)
    task = "regression" if is_regressor(estimator) else "classification"
    return behind_transformers(estimator, default_net(task, **needs.net))


def warn_of_stand_in(attributor: Any, model: Any) -> None:
    """UserWarning that a net will be asked what rows do to an ensemble of trees, and what asks the trees."""
    kind, name = type(attributor).__name__, type(model).__name__
    warnings.warn(
        f"{name} has no gradients, so {kind} scores the rows by a small net that stands in for it; "
        f"{attribution_of(model)}() scores them by the trees themselves. To have a net without this warning, give "
        f"{kind} one as its estimator",
        UserWarning,
        stacklevel=2,
    )


def behind_transformers(estimator: Any, model: Any) -> Any:
    """The model, after clones of the transformers of a Pipeline."""
    from sklearn.pipeline import make_pipeline

    before = transformers_of(estimator)
    return model if before is None else make_pipeline(before, model)  # whole: a step may be "passthrough"


def transformers_of(estimator: Any) -> Any:
    """A clone of what stands before the last step of a Pipeline and transforms; None where there is nothing."""
    estimator = without_samplers(estimator)
    return clone(estimator[:-1]) if is_pipeline(estimator) and len(estimator) > 1 else None


def scoring_features(attributor: Any, estimator: Any, X: Any, y: Any, X_val: Any = None) -> tuple[Any, Any]:
    """(X, X_val) as the attributor sees them: numbers, if it needs them.

    A Pipeline's transformers make them; of a table that another model reads itself, `TableEncoder` does.
    """
    transformers = transformers_of(estimator)
    if not needs_of(attributor).features:
        return X, X_val
    if transformers is None:
        takes_more = not reads_numbers_only(estimator) or get_tags(estimator).input_tags.allow_nan
        if not takes_more or not needs_encoding(X):
            return X, X_val
        from sklearn.pipeline import make_pipeline

        from sktda.tables.encoder import TableEncoder

        transformers = make_pipeline(TableEncoder())
    return fit_transformed(transformers, X, y, X_val)


def reads_tables(attributor: Any) -> bool:
    """Whether a model in the attributor may read text, dates and missing cells itself.

    Not where there is none, nor a model of scikit-learn's without a transformer in front: these read numbers.
    """
    inside = attributor.get_params(deep=True)
    models = [value for name, value in inside.items() if name.rpartition("__")[2] == "estimator" and value is not None]
    return any(not reads_numbers_only(model) for model in models)


def looks_rows_up(attributor: Any) -> bool:
    """Whether the attributor reads no cells of X and may need its index, which an encoded table has lost."""
    return isinstance(attributor, Attributor) and get_tags(attributor).no_validation


def refuse_constant(scores: np.ndarray, attributor: Any) -> None:
    """Raise ValueError if all scores are equal: there is nothing to rank rows by."""
    if len(scores) and np.ptp(scores) == 0:
        raise ValueError(
            f"all {len(scores)} scores of {type(attributor).__name__} are {scores[0]:g}, so rows cannot be ranked; "
            "give an attributor that tells rows apart (PrecomputedScores needs scores=, PrecomputedProbabilities "
            "probabilities=)"
        )


@contextmanager
def task(cleaner: Any, context: Any, name: str, X: Any, y: Any, estimator: Any = None) -> Iterator[None]:
    """A part of a fit, announced to the callbacks, and to those of an estimator that is fitted in it."""
    step = context.subcontext(task_name=name)
    with nullcontext() if estimator is None else step.propagate_callback_context(estimator):
        step.call_on_fit_task_begin(estimator=cleaner, X=X, y=y)
        yield
        step.call_on_fit_task_end(estimator=cleaner, X=X, y=y)
