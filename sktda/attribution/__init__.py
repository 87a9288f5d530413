"""Attribution methods: each scores training rows, higher = keep (see sktda.attribution.base)."""

from sktda._lazy import lazy_names

__all__ = ["ComplexityGap", "PrecomputedScores"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ComplexityGap": "sktda.attribution.complexity_gap",
        "PrecomputedScores": "sktda.attribution.precomputed",
    },
)
