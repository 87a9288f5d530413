"""Pictures of scores and decisions, after scikit-learn's Display protocol: `from_...` computes, `plot` draws."""

from sktda._lazy import lazy_names

__all__ = [
    "InfluenceDisplay",
    "LabelConfusionDisplay",
    "MeanVarianceDisplay",
    "PruningCurveDisplay",
    "ScoreDistributionDisplay",
    "SuspectGalleryDisplay",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "InfluenceDisplay": "sktda.displays.influence",
        "LabelConfusionDisplay": "sktda.displays.label_confusion",
        "MeanVarianceDisplay": "sktda.displays.mean_variance",
        "PruningCurveDisplay": "sktda.displays.pruning_curve",
        "ScoreDistributionDisplay": "sktda.displays.score_distribution",
        "SuspectGalleryDisplay": "sktda.displays.suspect_gallery",
    },
)
