"""Attribution methods: each scores training rows, higher = keep (see sktda.attribution.base)."""

from sktda._lazy import lazy_names

__all__ = ["ComplexityGap", "Influence", "InnerProduct", "PrecomputedScores", "Source", "Stage", "TracIn"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ComplexityGap": "sktda.attribution.complexity_gap",
        "Influence": "sktda.attribution.influence",
        "InnerProduct": "sktda.attribution.inner_product",
        "PrecomputedScores": "sktda.attribution.precomputed",
        "Source": "sktda.attribution.source",
        "Stage": "sktda.attribution.stages",
        "TracIn": "sktda.attribution.tracin",
    },
)
