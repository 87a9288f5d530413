"""What the shell commands do between reading and writing: find the labels and features, score, plan the output."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import sktda.attribution
from sktda import NoisyLabelDetector
from sktda.attribution.base import needs_of
from sktda.cleaning.base import NothingToLearnWarning
from sktda.cli.features import of_arrays, of_table, one_spelling
from sktda.cli.formats import read_source
from sktda.cli.formats.arrays import read_features
from sktda.cli.formats.base import Source
from sktda.cli.labels import check_classes, read_labels
from sktda.cli.review import check_given, decide, row_positions
from sktda.findings import Finding
from sktda.report.judgement import Judgement
from sktda.tables.columns import Column
from sktda.tables.numerals import Numerals

TARGETS = {"label", "target", "y", "class"}
MANY = 1 / 3  # of the rows flagged, from where on the data are rather odd than dirty
FLAGS = ("sktda_noisy", "sktda_suggested_label", "sktda_label_quality")


@dataclass(frozen=True)
class Settings:
    """The options that all commands share."""

    data: Path
    target: str | None = None
    index: str | None = None
    features: Path | None = None
    size: int = 64
    task: str = "auto"
    drop: str | float = "auto"
    method: str = "label-posterior"
    seed: int = 0
    unlabelled: str = "keep"
    kinds: dict[str, str] | None = None

    def detector(self, task: str, unlabelled: str = "error") -> NoisyLabelDetector:
        """The unfitted detector."""
        attributor = methods()[self.method]()
        params = attributor.get_params(deep=False)
        if "task" in params:
            attributor.set_params(task=task)
        needs = needs_of(attributor)
        if "estimator" in params and needs.gradients:
            from sktda.model.proxy import default_net

            attributor.set_params(estimator=default_net(task, **needs.net))
        return NoisyLabelDetector(attributor, contamination=self.drop, unlabelled=unlabelled, random_state=self.seed)


def methods() -> dict[str, type]:
    """Attribution methods by their name in the shell: those that need nothing but X and y."""
    package = sktda.attribution
    # a hyphen before every word of three letters or more: names such as TracIn are one word
    found = {name: getattr(package, name) for name in package.__all__ if name != "PrecomputedScores"}
    return {
        re.sub(r"(?<=[a-z0-9])(?=[A-Z]\w\w)|(?<=[A-Z])(?=[A-Z][a-z]\w)", "-", name).lower(): cls
        for name, cls in found.items()
        if hasattr(cls, "fit")
    }


@dataclass(frozen=True, eq=False)
class Job:
    """Data that is ready to be scored.

    given: the labels as they were read (text, or float for regression; missing where there is none) with the user's
    index; judged: with one spelling per class. X: features without columns that give the label away; columns: what was
    made of the table's, empty where the features are no table; numerals: how the labels are written as numbers.
    """

    settings: Settings
    source: Source
    target: str
    given: pd.Series
    judged: pd.Series
    task: str
    X: Any
    findings: list[Finding]
    notes: list[str]
    columns: list[Column]
    numerals: Numerals

    @classmethod
    def load(cls, settings: Settings, progress: Callable[[str], None]) -> Job:
        """Read everything. Raises ValueError or OSError with one sentence for what is wrong with the input."""
        path = settings.data
        progress(f"reading {path}")
        source = read_source(path, settings.size, progress)
        frame = source.frame
        target = _target(frame, settings.target, path.name)
        index = source.default_index if settings.index is None else settings.index
        if index is not None and index not in frame:
            raise ValueError(_unknown_column(frame, index, path.name))
        if index == target:
            raise ValueError(f"column {index!r} cannot be both --index and --target; name another")
        labels = read_labels(frame[target], settings.task)
        task, given = labels.task, labels.given
        if task == "classification":
            check_classes(one_spelling(given))
        if index is not None:
            given.index = pd.Index(frame[index], name=index)
        columns: list[Column] = []
        if settings.features:
            names = frame["path"] if path.is_dir() else None
            X, findings, notes = of_arrays(read_features(settings.features, len(frame), names), given, task)
        elif source.X is not None:
            X, findings, notes = of_arrays(source.X, given, task)
        else:
            progress("preparing features")
            own = [name for name in FLAGS if name in frame]
            others = [name for name in frame if name not in (target, index, *own)]
            X, findings, notes, columns = of_table(frame[others], given, task, settings.kinds)
            notes += [f"columns not used as features (written by sktda): {', '.join(own)}"] if own else []
        notes = [*source.notes, *labels.notes, *notes]
        judged = given
        if task == "classification":
            judged = one_spelling(given, X)
            check_classes(judged)
        return cls(settings, source, target, given, judged, task, X, findings, notes, columns, labels.numerals)

    @property
    def unlabelled(self) -> np.ndarray:
        """Whether a row has no label (n,)."""
        return self.given.isna().to_numpy()

    def score(self, progress: Callable[[str], None]) -> tuple[pd.DataFrame, Judgement]:
        """(verdicts in file order, what is said of all labels together); the columns of ReportInput.frame."""
        progress(f"scoring {len(self.given):,} rows")
        regression = self.task == "regression"
        y = self.judged.to_numpy() if regression else _as_text(self.judged)
        with warnings.catch_warnings():  # both are said in the shell's own words
            warnings.simplefilter("ignore", NothingToLearnWarning)
            warnings.filterwarnings("ignore", r"\d+% of the labels are called wrong")
            unlabelled = self.settings.unlabelled if self.unlabelled.any() else "error"
            detector = self.settings.detector(self.task, unlabelled).fit(self.X, y)
        judgement = Judgement.of(detector)
        self.notes.extend(judgement.notes())
        share = float(np.mean(detector.labels_ == -1))
        if share > MANY and self.settings.drop == "auto":
            self.notes.insert(self.n_contradictions, _many(share))
        suggested = detector.suggested_labels_
        if not regression:
            typed = {str(label): label for label in self.judged.dropna().unique()}
            suggested = [None if label is None else typed[label] for label in suggested]
        elif (self.given.dropna() == self.given.dropna().round()).all():
            suggested = np.rint(suggested)
        verdicts = {
            "given_label": self.given,
            "suggested_label": pd.Series(suggested, index=self.given.index, dtype=self.given.dtype),
            "label_quality": detector.label_quality_,
            "score": detector.scores_,
            "noisy": detector.labels_ == -1,
        }
        return pd.DataFrame(verdicts, index=self.given.index), judgement

    @property
    def n_contradictions(self) -> int:
        """How many of the notes are about equal rows with different labels; these come first."""
        return sum(finding.kind == "contradiction" for finding in self.findings)

    def read_scores(self, path: Path) -> pd.DataFrame:
        """The verdicts of a scores file in the data's row order, as `score` returned them."""
        table = read_text_cells(path)
        needed = ["given_label", "suggested_label", "label_quality", "score", "noisy"]
        missing = [name for name in needed if name not in table]
        if missing:
            raise ValueError(f"{path.name} lacks the columns {missing}; use a file written by sktda score")
        positions = row_positions(table, self.given.index, path.name)
        if len(positions) != len(self.given):
            raise ValueError(f"{path.name} has scores of {len(positions)} rows but the data has {len(self.given)}")
        check_given(table, positions, self.given, path.name)
        table = table.iloc[np.argsort(positions)].set_index(self.given.index)
        numeric = ["label_quality", "score", *(["suggested_label"] if self.task == "regression" else [])]
        numbers = {name: pd.to_numeric(table[name], errors="coerce") for name in numeric}
        none = self.given.isna()  # and so no verdict
        noisy = table["noisy"].str.strip().str.lower()
        valid = {name: np.isfinite(column) | none for name, column in numbers.items()} | {
            "noisy": noisy.isin(["true", "false"])
        }
        for name, right in valid.items():
            if not right.all():
                row = int(right.to_numpy().argmin())
                needed_cells = "True or False is" if name == "noisy" else "a finite number is"
                raise ValueError(
                    f"{path.name} has {table[name].iloc[row]!r} as {name} of row {row}; {needed_cells} needed"
                )
        return pd.DataFrame(
            {
                "given_label": self.given if self.task == "regression" else self.given.astype(str),
                "suggested_label": table["suggested_label"],
                **numbers,
                "noisy": noisy == "true",
            }
        )

    def write_report(self, path: Path, frame: pd.DataFrame, judgement: Judgement, command: str) -> dict[str, Any]:
        """Write the page; returns the numbers on it. Spellings of one label are one class there, too."""
        from sktda.report import ReportInput, write_report

        if self.judged is not self.given:
            frame = frame.assign(given_label=self.judged.astype(frame["given_label"].dtype))
        cells = self.source.frame.drop(columns=[self.target, *filter(None, [self.given.index.name])])
        picture, X, rows = self.source.picture, self.X, np.flatnonzero(~self.unlabelled)
        if len(rows) < len(frame):
            frame, cells, X = frame.iloc[rows], cells.iloc[rows], X[rows]
            if (all_pictures := picture) is not None:
                picture = lambda position: all_pictures(int(rows[position]))  # noqa: E731
        findings = [_among(rows, finding) for finding in self.findings]
        data = ReportInput(
            name=self.settings.data.resolve().name,
            frame=frame,
            noise_rate=judgement.noise_rate,
            judgement=judgement,
            task=self.task,
            detector=self.settings.detector(self.task),
            features=X,
            rows=None if picture or cells.empty else cells,
            image=picture,
            reproduce=command,
            notes=tuple(self.notes),
            findings=tuple(findings),
        )
        return write_report(path, data, random_state=self.settings.seed)


@dataclass(frozen=True, eq=False)
class Plan:
    """Which rows are written, with which labels and added columns."""

    rows: np.ndarray
    relabelled: dict[int, Any]
    extra: pd.DataFrame
    n_reviewed: int

    @classmethod
    def make(cls, job: Job, frame: pd.DataFrame, action: str, decisions: Path | None) -> Plan:
        """From verdicts and a human's review of them; raises ValueError for a review that does not fit."""
        review = read_text_cells(decisions) if decisions else None
        verdict = "relabel" if action == "relabel" else "drop"
        fate, labels, n_reviewed = decide(frame, job.task, verdict, review, decisions.name if decisions else "")
        labels = [None if pd.isna(label) else label for label in labels]  # of rows without one
        everything = np.arange(len(frame))
        without = job.unlabelled & (fate == "keep")  # and no decision about them
        if job.settings.unlabelled == "drop" and action != "flag":
            fate[without] = "drop"
        if job.task == "regression" and job.source.frame[job.target].dtype.kind not in "iuf":
            labels = [None if value is None else job.numerals.write(value) for value in labels]
        if action != "flag":
            relabelled = {row: labels[row] for row in np.flatnonzero(fate == "relabel").tolist()}
            extra = pd.DataFrame(index=everything)
            if job.settings.unlabelled == "predict" and without.any():
                _check_free(job, FLAGS[1:2], "--unlabelled predict")
                extra[FLAGS[1]] = np.where(without, np.array(labels, dtype=object), "")
            return cls(np.flatnonzero(fate != "drop"), relabelled, extra, n_reviewed)
        _check_free(job, FLAGS, "--action flag")
        values = (fate != "keep", labels, frame["label_quality"].round(4).to_numpy())
        return cls(everything, {}, pd.DataFrame(dict(zip(FLAGS, values, strict=True))), n_reviewed)

    def describe(self, n_rows: int) -> str:
        """What was done, for the report."""
        done = [f"{n_rows - len(self.rows):,} of {n_rows:,} rows dropped"] if len(self.rows) < n_rows else []
        done += [f"{len(self.relabelled):,} relabelled"] if self.relabelled else []
        done += ["all rows written with added columns"] if len(self.extra.columns) else []
        done += [f"{self.n_reviewed:,} decisions taken from the review"] if self.n_reviewed else []
        return "; ".join(done) or "all rows written as they were"


def _among(rows: np.ndarray, finding: Finding) -> Finding:
    """The finding with positions among these rows (ascending) in place of those in the data."""
    detail = dict(finding.detail)
    if "groups" in detail:
        detail["groups"] = [np.searchsorted(rows, group) for group in detail["groups"]]
    return replace(finding, rows=np.searchsorted(rows, finding.rows), detail=detail)


def _check_free(job: Job, names: tuple[str, ...], before: str) -> None:
    """Raise ValueError if the data has a column of a name that is to be added."""
    if taken := [name for name in names if name in job.source.frame]:
        raise ValueError(f"the data has the columns {', '.join(taken)} already; remove them before {before}")


def _as_text(labels: pd.Series) -> np.ndarray:
    """Classes as text (n,), None where there is none: whole numbers could be taken for measurements."""
    texts = labels.astype(str).to_numpy(dtype=object, copy=True)
    texts[labels.isna().to_numpy()] = None
    return texts


def read_text_cells(path: Path) -> pd.DataFrame:
    """Any table with all cells as text and missing cells empty."""
    frame = read_source(path).frame
    return frame.astype(object).where(frame.notna(), "").astype(str)


def _target(frame: pd.DataFrame, target: str | None, file: str) -> str:
    if target is None:
        found = [name for name in frame.columns if name.strip().lower() in TARGETS]
        if len(found) != 1:
            what = f"several columns could be the labels ({_names(found)})" if found else "no column is called label"
            raise ValueError(f"{what}; name one with --target: {file} has {_names(frame.columns.tolist())}")
        return found[0]
    if target not in frame:
        raise ValueError(_unknown_column(frame, target, file))
    return target


def _unknown_column(frame: pd.DataFrame, name: str, file: str) -> str:
    known = {str(column).strip().casefold(): str(column) for column in frame.columns}
    close = [known[key] for key in difflib.get_close_matches(name.strip().casefold(), known, n=3)]
    hint = f"did you mean {_names(close)}?" if close else f"it has {_names(frame.columns.tolist())}"
    return f"{file} has no column {name!r}; {hint}"


def _names(names: list[str]) -> str:
    if not names:
        return "no columns"
    shown = list(map(repr, names))
    return ", ".join(shown if len(names) <= 20 else [*shown[:10], f"... ({len(names) - 15} more)", *shown[-5:]])


def _many(share: float) -> str:
    return (
        f"{share:.0%} of the labels are called wrong, which is rarely so: is it the right column of labels, with its "
        "rows in order? Do the classes overlap in these features? Do the features come from different sources or "
        "units? Look at the worst rows before you drop any"
    )
