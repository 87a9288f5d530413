"""Cleaners, which `sktda` itself exports, and here the strategies of `CoresetSelector`."""

from sktda._lazy import lazy_names

__all__ = [
    "CCS",
    "CRAIG",
    "D2",
    "GLISTER",
    "Candidates",
    "CoresetStrategy",
    "GradMatch",
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
        "Herding": "sktda.cleaning.strategies.features",
        "KCenter": "sktda.cleaning.strategies.features",
        "Moderate": "sktda.cleaning.strategies.features",
        "RandomRows": "sktda.cleaning.strategies.scores",
        "Stratified": "sktda.cleaning.strategies.scores",
        "Top": "sktda.cleaning.strategies.scores",
    },
)
