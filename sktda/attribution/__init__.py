"""Attribution methods: each scores training rows, higher = keep (see sktda.attribution.base)."""

from sktda._lazy import lazy_names

__all__ = ["ComplexityGap", "Influence", "InnerProduct", "PrecomputedScores", "TracIn"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ComplexityGap": "sktda.attribution.complexity_gap",
        "Influence": "sktda.attribution.influence",
        "InnerProduct": "sktda.attribution.inner_product",
        "PrecomputedScores": "sktda.attribution.precomputed",
        "TracIn": "sktda.attribution.tracin",
    },
)
