"""sktda: clean training data with training-data attribution, as scikit-learn estimators.

The flow is data -> model and trajectory -> scores -> decision -> refit:

- `TrajectoryRecorder` is the skorch callback that records how a net was trained; `record_run` does the same for any
  loop of torch, and `TorchModel` is an estimator of what that trained.
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
    "ContrastiveLoss",
    "CoresetSelector",
    "FixedNegatives",
    "Grouped",
    "Holdout",
    "InfluencePruner",
    "InfluencePrunerCV",
    "InfluenceReweighter",
    "LightningRecorder",
    "LogitsLoss",
    "NoisyLabelDetector",
    "NothingToLearnWarning",
    "PatchFeatures",
    "PretrainedEncoder",
    "PruningWarning",
    "ResampledEstimator",
    "TableEncoder",
    "TorchModel",
    "TrainerRecorder",
    "TrajectoryRecorder",
    "consensus_labels",
    "dask_cluster",
    "head_of",
    "mapped_rows",
    "record_run",
    "retrain",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ContrastiveLoss": "sktda.model.contrastive",
        "CoresetSelector": "sktda.cleaning.coreset",
        "FixedNegatives": "sktda.model.contrastive",
        "Grouped": "sktda.cleaning.validation",
        "Holdout": "sktda.cleaning.base",
        "InfluencePruner": "sktda.cleaning.pruner",
        "InfluencePrunerCV": "sktda.cleaning.pruner_cv",
        "InfluenceReweighter": "sktda.cleaning.reweighter",
        "LightningRecorder": "sktda.model.lightning_recorder",
        "LogitsLoss": "sktda.model.logits",
        "NoisyLabelDetector": "sktda.cleaning.detector",
        "NothingToLearnWarning": "sktda.cleaning.base",
        "PatchFeatures": "sktda.patches.transformer",
        "PretrainedEncoder": "sktda.pretrained.encoder",
        "PruningWarning": "sktda.cleaning.base",
        "ResampledEstimator": "sktda.cleaning.resampled",
        "TableEncoder": "sktda.tables.encoder",
        "TorchModel": "sktda.model.torch_model",
        "TrainerRecorder": "sktda.model.trainer_recorder",
        "TrajectoryRecorder": "sktda.model.recorder",
        "consensus_labels": "sktda.consensus",
        "dask_cluster": "sktda.cluster",
        "mapped_rows": "sktda.mapped",
        "record_run": "sktda.model.loop",
        "head_of": "sktda.model.heads",
        "retrain": "sktda.model.many_trainings",
    },
)
