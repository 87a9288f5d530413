"""sktda: clean training data with training-data attribution, as scikit-learn estimators.

The flow is data -> model and trajectory -> scores -> decision -> refit:

- `TrajectoryRecorder` is the skorch callback that records how a net was trained.
- `sktda.attribution` scores training rows, higher = keep. `LabelPosterior` needs no model of yours and is the default;
  `Influence`, `TracIn` and `InnerProduct` differentiate one, for the objectives of `sktda.objectives`.
- `NoisyLabelDetector` tells which labels are probably wrong, and what they should be; `CoresetSelector` keeps
  a small part of the rows to train on.
- `InfluencePruner` and `ResampledEstimator` clean and refit inside a plain scikit-learn Pipeline; nothing is ever
  dropped at predict time. `Holdout` carries validation rows.
- `LogitsLoss` trains models of transformers as they are, and `head_of` names their heads.
- `TableEncoder` makes numbers of a table, `PretrainedEncoder` features of images and texts by a net that is here.
- The shell command `sktda` does the same for a file or a folder of images.
"""

from sktda._lazy import lazy_names

__version__ = "0.1.0"
__all__ = [
    "CoresetSelector",
    "Grouped",
    "Holdout",
    "InfluencePruner",
    "InfluencePrunerCV",
    "InfluenceReweighter",
    "LogitsLoss",
    "NoisyLabelDetector",
    "NothingToLearnWarning",
    "PatchFeatures",
    "PretrainedEncoder",
    "PruningWarning",
    "ResampledEstimator",
    "TableEncoder",
    "TrajectoryRecorder",
    "head_of",
    "retrain",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CoresetSelector": "sktda.cleaning.coreset",
        "Grouped": "sktda.cleaning.validation",
        "Holdout": "sktda.cleaning.base",
        "InfluencePruner": "sktda.cleaning.pruner",
        "InfluencePrunerCV": "sktda.cleaning.pruner_cv",
        "InfluenceReweighter": "sktda.cleaning.reweighter",
        "LogitsLoss": "sktda.model.logits",
        "NoisyLabelDetector": "sktda.cleaning.detector",
        "NothingToLearnWarning": "sktda.cleaning.base",
        "PatchFeatures": "sktda.patches.transformer",
        "PretrainedEncoder": "sktda.pretrained.encoder",
        "PruningWarning": "sktda.cleaning.base",
        "ResampledEstimator": "sktda.cleaning.resampled",
        "TableEncoder": "sktda.tables.encoder",
        "TrajectoryRecorder": "sktda.model.recorder",
        "head_of": "sktda.model.heads",
        "retrain": "sktda.model.many_trainings",
    },
)
