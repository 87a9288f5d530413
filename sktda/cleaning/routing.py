"""Who gets which fit parameters of a cleaner: the estimator, the attributor, a splitter; weights under their names."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, _routing_enabled
from sklearn.utils.validation import has_fit_parameter

from sktda.cleaning.base import prepare_attributor, without_samplers


def split_fit_params(estimator: Any, attributor: Any, params: dict) -> tuple[dict, dict]:
    """Fit parameters of (estimator, attributor) when metadata routing is off.

    All go to the estimator, except those that only the attributor knows; sample_weight goes to both.
    """
    only_attributor = {
        name
        for name in params
        if has_fit_parameter(attributor, name) and not has_fit_parameter(estimator, name) and "__" not in name
    } - {"sample_weight"}
    shared = {"sample_weight"} if has_fit_parameter(attributor, "sample_weight") else set()
    return (
        {name: value for name, value in params.items() if name not in only_attributor},
        {name: value for name, value in params.items() if name in only_attributor | shared},
    )


def weight_name(estimator: Any, weigher: Any) -> str:
    """Name of the fit parameter that takes the weights; ValueError if there is none."""
    if without_samplers(estimator) is not estimator:
        raise ValueError(
            f"{type(weigher).__name__} weighs rows by their places, and the Pipeline has a sampler, which changes "
            "their number; leave the sampler out, or use InfluencePruner, which only removes rows"
        )
    path, last = [], estimator
    while isinstance(last, Pipeline):
        name, last = last.steps[-1]
        path.append(name)
    if not takes(last, "sample_weight"):
        raise ValueError(
            f"{type(weigher).__name__} weights its rows but {type(last).__name__}.fit takes no sample_weight; use an "
            "estimator that does, or a cleaner that only removes rows, such as InfluencePruner"
        )
    if _routing_enabled():  # the request of the step says where it goes
        return "sample_weight"
    return "__".join([*path, "sample_weight"])


def with_weights(params: dict, sample_weight: Any) -> dict:
    """Fit parameters with those weights that came by name, for `fit` has them in its signature."""
    return params if sample_weight is None else {**params, "sample_weight": sample_weight}


def named_weights(estimator: Any, params: dict) -> dict:
    """Fit parameters with `sample_weight` under the name of the model of a Pipeline; without metadata routing.

    Raises ValueError for an estimator that takes no weights.
    """
    if "sample_weight" not in params or params["sample_weight"] is None:
        return {name: value for name, value in params.items() if name != "sample_weight"}
    refuse_unweighted(estimator)
    name = weight_name(estimator, estimator) if isinstance(estimator, Pipeline) else "sample_weight"
    return {(name if key == "sample_weight" else key): value for key, value in params.items()}


def refuse_unweighted(estimator: Any) -> None:
    """Raise ValueError for an estimator, or a Pipeline that ends in one, whose fit takes no weights."""
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    kinds = signature(estimator.fit).parameters
    if "sample_weight" not in kinds and not any(kind.kind is Parameter.VAR_KEYWORD for kind in kinds.values()):
        raise ValueError(
            f"sample_weight was given, but {type(estimator).__name__}.fit takes none; use an estimator that does, or "
            "leave it out"
        )


def takes(estimator: Any, name: str) -> bool:
    """Whether `fit` takes this parameter: by name, or routed on where metadata routing is on."""
    kinds = signature(estimator.fit).parameters
    passes_on = _routing_enabled() and any(kind.kind is Parameter.VAR_KEYWORD for kind in kinds.values())
    return name in kinds or passes_on


def fit_and_score(cleaner: Any, attributor: Any) -> MetadataRouter:
    """Where metadata goes: `fit` to the fit of estimator and attributor, `score` to the estimator's score."""
    to_both = MethodMapping().add(caller="fit", callee="fit").add(caller="score", callee="score")
    to_fit = MethodMapping().add(caller="fit", callee="fit")
    router = MetadataRouter(owner=cleaner).add_self_request(cleaner)
    router.add(estimator=cleaner.estimator, method_mapping=to_both)
    to_split = MethodMapping().add(caller="fit", callee="split")
    for name in ("validation", "cv"):
        if hasattr(splitter := getattr(cleaner, name, None), "get_metadata_routing"):
            router.add(**{name: splitter}, method_mapping=to_split)
    return router.add(attributor=prepare_attributor(attributor), method_mapping=to_fit)
