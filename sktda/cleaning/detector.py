"""Which labels are probably wrong, and what they should be."""

from __future__ import annotations

import warnings
from numbers import Real

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing, get_tags, indexable
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _num_samples, check_consistent_length, check_is_fitted

from sktda.attribution.base import check_rows_fit, checked_scores, loo_decision_of, takes_missing_values
from sktda.cleaning.base import (
    NothingToLearnWarning,
    looks_rows_up,
    prepare_attributor,
    reads_tables,
    refuse_constant,
)
from sktda.cleaning.frame import frame_of
from sktda.cleaning.predictability import disagreeing, of_classes, of_numbers
from sktda.cleaning.remembered import fit_attributor
from sktda.cleaning.shown import below, detector_shown, detector_summary
from sktda.cleaning.unlabelled import labelled_rows, labels_of, predicted, spread
from sktda.containers import as_columns, needs_encoding, read_target
from sktda.data import encode_target, is_dictionary, note_columns, row_index, sliceable
from sktda.findings import check_classes, inspect, without_leaks
from sktda.noise import robust_deviation
from sktda.selection import prune

MANY = 1 / 3  # flagged rows, from where on the data are rather odd than dirty


class NoisyLabelDetector(BaseEstimator):
    """Find the rows whose label is probably wrong; by default without choosing or training a model.

    Rows are ranked by the attributor's scores. How many are called noisy is estimated from out-of-sample
    predictions (of the attributor where it makes some, otherwise of the default), or given. Where the features do not
    predict the labels nothing is called noisy.

    Parameters
    ----------
    attributor : attributor, default=None
        Ranks the rows; `LabelPosterior()` if None.
    contamination : {"auto", "confident_joint"} or float in [0, 1), default="auto"
        Share of rows to call noisy. "auto" estimates how many labels are wrong: for classes by
        `sktda.noise.label_noise`, from the labels that the most predictable rows carry; for regression as the share of
        outlying residuals. "confident_joint", for classes only, counts all rows that are confidently predicted as
        another class, see `ConfidentLearning`: more where people mistake what is hard to see, and too many where
        classes overlap.
    unlabelled : {"error", "keep", "drop", "predict"}, default="error"
        What becomes of rows without a label (None, NaN), which are not judged: an error names them; they stay in what
        `fit_resample` returns, or do not; or they stay and get a suggestion, by a forest on the clean rows.
    random_state : int, RandomState instance or None, default=None
        Seed of the attributor, unless it has its own. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        1 clean, -1 noisy, 0 without a label; ``round(noise_rate_ * n)`` of the n rows with a label are noisy. The best
        row of each class stays clean.
    label_quality_ : ndarray of shape (n_samples,)
        In [0, 1], in the order of the scores: below 0.5 = noisy. It is not a probability. NaN without a label.
    suggested_labels_ : ndarray of shape (n_samples,)
        What the other rows suggest: for a noisy row the best class beside the given one, for a clean row the
        predicted class; for regression the prediction, within the range of the believable values. None (for
        regression NaN) for a row without a label, unless it is to be predicted.
    noise_rate_ : float
        Estimated (or given) share of wrong labels; 0 where it is estimated and `can_tell_` is False.
    noise_rate_interval_ : tuple of float
        Interval of the estimate as far as sampling goes, also where the share is given; from 0 where `can_tell_` is
        False.
    predictability_ : float
        How well out-of-sample predictions meet the labels: balanced accuracy (chance is `chance_`), or R2 for
        regression.
    predictability_error_ : float
        Its standard error.
    chance_ : float
        1 / n_classes, or 0 for regression.
    can_tell_ : bool
        Whether the features predict the labels: predictions meet them more often than by chance, beyond two standard
        errors (R2 is two of its own above 0). Not either where `predictability_` is less than a tenth of the way from
        chance to perfect and more than a quarter of the labels would have to be wrong to explain that, or less than a
        quarter of the way and more than 35 %: classes that overlap are then the better explanation.
    findings_ : list of sktda.findings.Finding
        What is wrong before any statistics: equal rows with different labels, columns that give the label away,
        spellings of one label, values that stand for missing ones. Spellings are merged before rows are judged, and
        columns that give the label away left out.
    scale_ : {"standard", "unit"}
        The representation that the kernel of the attributor took, where it has one; see `ComplexityGap`.
    scores_ : ndarray of shape (n_samples,)
        The attributor's, higher = keep. NaN without a label.
    sample_indices_ : ndarray of shape (n_clean,)
        Positions of the clean rows, and of those without a label that stay.
    encoder_ : TableEncoder
        How a table that is not all numbers was read, what was left out of it and why; None for other X.
    classes_ : ndarray of shape (n_classes,)
        Only for classification.
    task_ : str
        "classification" or "regression", as inferred from y (see `ComplexityGap`).
    attributor_ : attributor
        The fitted clone.

    Raises
    ------
    ValueError
        In `fit`, for NaN or infinity, a single class, labels that nearly all differ, scores that are all equal, and
        contamination="confident_joint" where y is numbers to be predicted.

    Warns
    -----
    NothingToLearnWarning
        Where `can_tell_` is False and the share was to be estimated.
    UserWarning
        Where more than a third of the rows is called noisy.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda import NoisyLabelDetector
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:500], y[:500]
    >>> y[::10] = (y[::10] + 3) % 10  # 50 of 500 labels are wrong now
    >>> detector = NoisyLabelDetector().fit(X, y)
    >>> round(detector.noise_rate_, 1)
    0.1
    >>> int((detector.labels_[::10] == -1).sum())
    47
    """

    _parameter_constraints: dict = {
        "unlabelled": [StrOptions({"error", "keep", "drop", "predict"})],
        "contamination": [StrOptions({"auto", "confident_joint"}), Interval(Real, 0, 1, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(self, attributor=None, *, contamination="auto", unlabelled="error", random_state=None):
        self.attributor = attributor
        self.contamination = contamination
        self.unlabelled = unlabelled
        self.random_state = random_state

    def fit(self, X, y):
        """Score the rows and decide which labels are wrong.

        Parameters
        ----------
        X : array-like, sparse matrix or table (pandas, polars, pyarrow) of shape (n_samples, ...)
            A table with text, dates, categories or missing cells is encoded by `TableEncoder`, unless the attributor
            has a model that reads it itself.
        y : array-like of shape (n_samples,)
            Class labels of any kind, or numbers.

        Returns
        -------
        self
        """
        self._validate_params()
        for name in ("classes_", "n_features_in_", "feature_names_in_", "scale_"):  # of an earlier fit, of another kind
            self.__dict__.pop(name, None)
        if is_dictionary(X):
            raise ValueError(
                "NoisyLabelDetector estimates the share of wrong labels, and suggests others, from the columns of one "
                "table, and X is a dictionary; use InfluencePruner, which drops a share of your choice"
            )
        X = sliceable(X)
        attributor = prepare_attributor(self.attributor, random_state=self.random_state)
        rows = None if y is None or self.unlabelled == "error" else labelled_rows(y)
        if rows is not None:
            check_rows_fit(self, X, getattr(X, "itemsize", 0), len(rows))
        labels, judged, features = self._inspected(X, y, attributor, rows)
        some, whole = (features, judged) if rows is None else (_safe_indexing(features, rows), judged)
        judged = judged if rows is None else _safe_indexing(judged, rows)
        self.attributor_ = fit_attributor(attributor, judged, labels, {})
        reference = self.attributor_
        if loo_decision_of(reference) is None:
            reference = prepare_attributor(None, random_state=self.random_state)
            reference.set_params(task=getattr(self.attributor_, "task_", "auto")).fit(some, labels)
        for name in ("n_features_in_", "feature_names_in_", "scale_"):  # a list of texts has no columns
            if hasattr(reference, name):
                setattr(self, name, getattr(reference, name))
        if whole is not X:
            note_columns(self, as_columns(X), None)  # all of its columns
        self.task_, target, classes = encode_target(labels, reference.task_)
        self.scores_ = checked_scores(self.attributor_, len(target))
        if classes is not None:
            self.classes_ = classes
        estimate = self._judge(reference, target)
        n_kept = 1 if classes is None else len(classes)  # one row of each class stays
        rate = min(estimate.rate, 1 - n_kept / len(target)) if self.can_tell_ else 0.0
        self.noise_rate_interval_ = (estimate.low if self.can_tell_ else 0.0, estimate.high)
        self.noise_rate_ = rate if self._is_estimated() else float(self.contamination)
        self._decide(reference, target)
        self._given = read_target(y if rows is None else labels_of(y, rows)).ravel()
        self._index = row_index(X, y)
        self._warn()
        if rows is not None:
            self._add_unlabelled(rows, labels, features)
        return self

    def _inspected(self, X, y, attributor, rows):
        """Labels (of the rows) with one spelling per class, X as the attributor reads it, and as the default does.

        Sets findings_ and encoder_.
        """
        self.findings_, self.encoder_ = [], None
        if y is None:
            return y, X, X  # the attributor says so
        labels = read_target(y if rows is None else labels_of(y, rows))
        check_consistent_length(X, labels if rows is None else y)
        task = encode_target(labels, attributor.get_params(deep=False).get("task", "auto"))[0]
        if task == "regression" and self.contamination == "confident_joint":
            raise ValueError(
                'contamination="confident_joint" counts rows that are confidently another class, and y is numbers to '
                'be predicted; take contamination="auto", or name a share'
            )
        if needs_encoding(X):
            from sktda.tables.prepare import prepare

            features, self.encoder_, labels, self.findings_ = prepare(X, labels, task, rows=rows)
            as_table = reads_tables(attributor) or looks_rows_up(attributor)
            judged = without_leaks(X, self.findings_) if as_table else features
        else:
            some = X if rows is None else _safe_indexing(X, rows)
            labels, self.findings_ = inspect(some, labels, task, rows=rows)
            judged = features = without_leaks(X, self.findings_)
        if task == "classification" and labels.dtype.kind in "OU":
            check_classes(labels)
        return labels, judged, features

    def _add_unlabelled(self, rows, labels, features):
        """What was learned of the rows (k,) with a label, as that of all rows."""
        clean, n = rows[self.sample_indices_], _num_samples(features)
        others = np.setdiff1d(np.arange(n), rows)
        missing = np.nan if self.task_ == "regression" else None
        suggested = spread(self.suggested_labels_, rows, n, missing)
        if self.unlabelled == "predict" and self.can_tell_:
            right = labels[self.sample_indices_]
            suggested[others] = predicted(features, clean, right, others, self.task_, self.random_state)
        self.suggested_labels_, self._given = suggested, spread(self._given, rows, n, missing)
        self.sample_indices_ = clean if self.unlabelled == "drop" else np.sort(np.append(clean, others))
        self.labels_ = spread(self.labels_, rows, n, 0)
        self.label_quality_ = spread(self.label_quality_, rows, n, np.nan)
        self.scores_ = spread(np.asarray(self.scores_, dtype=float), rows, n, np.nan)

    def _judge(self, reference, target):
        """How many labels are wrong, as a NoiseRate; sets predictability_, chance_ and can_tell_."""
        codes = target if self.task_ == "classification" else None
        judged = of_numbers(reference, target) if codes is None else of_classes(reference.loo_decision_, codes)
        self.predictability_, self.predictability_error_ = judged.predictability, judged.error
        self.chance_, self.can_tell_ = judged.chance, judged.can_tell
        return disagreeing(reference.loo_decision_, codes) if self.contamination == "confident_joint" else judged.noise

    def _is_estimated(self):
        """Whether the share of wrong labels is, and not given."""
        return isinstance(self.contamination, str)

    def _warn(self):
        if not self._is_estimated():
            return
        if not self.can_tell_:
            what = "balanced accuracy" if self.task_ == "classification" else "R2"
            warnings.warn(
                f"the features do not predict the labels: out of sample {what} is {self.predictability_:.2f} +- "
                f"{self.predictability_error_:.2f}, and {self.chance_:.2f} is chance. Which labels are wrong cannot be "
                "told, so none is called noisy; give features that carry the label, such as embeddings of texts and "
                "pictures, or contamination= to have the worst rows all the same",
                NothingToLearnWarning,
                stacklevel=3,
            )
        elif (share := np.mean(self.labels_ == -1)) > MANY:
            warnings.warn(
                f"{share:.0%} of the labels are called wrong, which is rarely so: the column of labels may be shifted, "
                "shuffled or another one; classes may overlap in these features; or the features are of different "
                "sources or units. Look at the worst rows of to_frame() before anything is dropped",
                UserWarning,
                stacklevel=3,
            )

    def _decide(self, reference, target):
        scores = self.scores_
        n_noisy = round(self.noise_rate_ * len(target))
        if n_noisy:
            refuse_constant(scores, self.attributor_)
        codes = target if self.task_ == "classification" else None
        clean = prune(scores, n_noisy, codes, stratify=False)
        noisy = np.flatnonzero(~clean)
        self.labels_ = np.where(clean, 1, -1)
        self.sample_indices_ = np.flatnonzero(clean)
        spread = robust_deviation(scores) or scores.std() or 1.0
        # halfway between the best noisy row and the next one, but near this; below all rows where none is noisy
        last = scores[noisy].max(initial=-np.inf)
        above = scores[scores > last].min(initial=np.inf)
        if not n_noisy:
            cut = above - spread
        elif np.isfinite(above):
            cut = max((last + above) / 2, above - spread / 2)
        else:
            cut = last + spread / 2
        spread = max(spread, (np.median(scores) - cut) / 2)  # most rows are above .5, and not all of them at 1
        self.label_quality_ = expit((scores - cut) / spread)
        if self.task_ == "regression":
            self.suggested_labels_ = getattr(reference, "suggested_values_", reference.loo_decision_)
            return
        decision = getattr(reference, "posterior_", reference.loo_decision_)
        best = np.argmax(decision, axis=1)
        others = decision[noisy]  # a copy
        others[np.arange(len(noisy)), target[noisy]] = -np.inf
        best[noisy] = np.argmax(others, axis=1)
        self.suggested_labels_ = self.classes_[best]

    def fit_predict(self, X, y):
        """Fit and return `labels_`: 1 clean, -1 noisy."""
        return self.fit(X, y).labels_

    def fit_resample(self, X, y):
        """Fit and return (X, y) without the noisy rows, in the types they came in."""
        X, y = indexable(sliceable(X), y)
        self.fit(X, y)
        return _safe_indexing(X, self.sample_indices_), _safe_indexing(y, self.sample_indices_)

    def to_frame(self):
        """DataFrame of all rows with the user's index, worst first.

        Columns: given_label, suggested_label, label_quality, score, noisy.
        """
        check_is_fitted(self)
        columns = {
            "given_label": self._given,
            "suggested_label": self.suggested_labels_,
            "label_quality": self.label_quality_,
            "score": self.scores_,
            "noisy": self.labels_ == -1,
        }
        return frame_of(columns, self._index, np.argsort(self.scores_, kind="stable"))

    def summary(self):
        """What was found, as a flat dictionary of numbers, for the log of an experiment.

        Returns
        -------
        summary : dict of str to int or float
            n_rows, n_labelled, n_noisy; noise_rate with noise_rate_low and noise_rate_high; predictability,
            predictability_error, chance; can_tell (0 or 1). See the attributes of the same names.
        """
        return detector_summary(self)

    def _html_repr(self) -> str:
        return below(super()._html_repr(), self, detector_shown)

    def review(self, X, y, decisions=None):
        """A page on which a human decides about the noisy rows; a notebook shows it, `save(path)` writes it.

        Parameters
        ----------
        X, y
            As they were given to `fit`: X is shown.
        decisions : path-like, default=None
            A file of earlier decisions that the page exported, from which it goes on.

        Returns
        -------
        review : sktda.review.Review
            Its `decisions(path)` reads what was exported from the page, as a DataFrame.
        """
        check_is_fitted(self)
        from sktda.review import Review

        return Review.of(self, X, y, decisions)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        chooser = prepare_attributor(self.attributor)  # beside scores from elsewhere the default reads the columns
        tags.input_tags.allow_nan = takes_missing_values(chooser) and not get_tags(chooser).no_validation
        return tags
