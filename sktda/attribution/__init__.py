"""Attribution methods: each scores training rows, higher = keep (see sktda.attribution.base)."""

from sktda._lazy import lazy_names

__all__ = [
    "ComplexityGap",
    "ConfidentLearning",
    "DiffIn",
    "Distributional",
    "Influence",
    "InnerProduct",
    "KNNShapley",
    "MoSo",
    "ModelEnsemble",
    "NormalizedMargin",
    "PrecomputedScores",
    "SGDInfluence",
    "SelfConfidence",
    "Source",
    "Stage",
    "TracIn",
    "adversarial_accuracy",
    "adversarial_examples",
    "trajectory_scores",
    "unlearn",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ComplexityGap": "sktda.attribution.complexity_gap",
        "DiffIn": "sktda.attribution.diff_in",
        "Distributional": "sktda.attribution.distributional",
        "Influence": "sktda.attribution.influence",
        "InnerProduct": "sktda.attribution.inner_product",
        "KNNShapley": "sktda.attribution.knn_shapley",
        "MoSo": "sktda.attribution.moso",
        "ModelEnsemble": "sktda.attribution.model_ensemble",
        "SelfConfidence": "sktda.attribution.out_of_sample",
        "NormalizedMargin": "sktda.attribution.out_of_sample",
        "ConfidentLearning": "sktda.attribution.out_of_sample",
        "PrecomputedScores": "sktda.attribution.precomputed",
        "SGDInfluence": "sktda.attribution.sgd_influence",
        "Source": "sktda.attribution.source",
        "Stage": "sktda.attribution.stages",
        "TracIn": "sktda.attribution.tracin",
        "adversarial_accuracy": "sktda.attribution.adversarial",
        "adversarial_examples": "sktda.attribution.adversarial",
        "trajectory_scores": "sktda.attribution.together",
        "unlearn": "sktda.attribution.deletion",
    },
)
