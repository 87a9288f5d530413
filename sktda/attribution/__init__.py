"""Attribution methods: each scores training rows, higher = keep (see sktda.attribution.base)."""

from sktda._lazy import lazy_names

__all__ = [
    "ComplexityGap",
    "DiffIn",
    "Influence",
    "InnerProduct",
    "MoSo",
    "PrecomputedScores",
    "SGDInfluence",
    "Source",
    "Stage",
    "TracIn",
    "trajectory_scores",
    "unlearn",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ComplexityGap": "sktda.attribution.complexity_gap",
        "DiffIn": "sktda.attribution.diff_in",
        "Influence": "sktda.attribution.influence",
        "InnerProduct": "sktda.attribution.inner_product",
        "MoSo": "sktda.attribution.moso",
        "PrecomputedScores": "sktda.attribution.precomputed",
        "SGDInfluence": "sktda.attribution.sgd_influence",
        "Source": "sktda.attribution.source",
        "Stage": "sktda.attribution.stages",
        "TracIn": "sktda.attribution.tracin",
        "trajectory_scores": "sktda.attribution.together",
        "unlearn": "sktda.attribution.deletion",
    },
)
