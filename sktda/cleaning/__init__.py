"""Cleaners, which `sktda` itself exports, and here the strategies of `CoresetSelector`."""

from sktda._lazy import lazy_names

__all__ = [  # noqa: RUF022 (sorted by character, as dir() is)
    "CCS",
    "CRAIG",
    "Candidates",
    "CoresetStrategy",
    "D2",
    "GLISTER",
    "GradMatch",
    "Hardest",
    "Herding",
    "KCenter",
    "Moderate",
    "RandomRows",
    "Stratified",
    "Top",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CCS": "sktda.cleaning.strategies.scores",
        "CRAIG": "sktda.cleaning.strategies.gradients",
        "D2": "sktda.cleaning.strategies.features",
        "GLISTER": "sktda.cleaning.strategies.gradients",
        "Candidates": "sktda.cleaning.strategies.base",
        "CoresetStrategy": "sktda.cleaning.strategies.base",
        "GradMatch": "sktda.cleaning.strategies.gradients",
        "Hardest": "sktda.cleaning.strategies.scores",
        "Herding": "sktda.cleaning.strategies.features",
        "KCenter": "sktda.cleaning.strategies.features",
        "Moderate": "sktda.cleaning.strategies.features",
        "RandomRows": "sktda.cleaning.strategies.scores",
        "Stratified": "sktda.cleaning.strategies.scores",
        "Top": "sktda.cleaning.strategies.scores",
    },
)
