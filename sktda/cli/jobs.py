"""What the shell commands do between reading and writing: find the labels and features, score, report."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sktda.cli.formats import read_source
from sktda.cli.formats.base import Source
from sktda.cli.learned import learned
from sktda.cli.options import OWN_FEATURES
from sktda.cli.plan import FLAGS, read_text_cells
from sktda.cli.settings import Settings, named_columns, without
from sktda.review.decisions import check_given, row_positions

if TYPE_CHECKING:  # the detector and torch below it take seconds to import: the file is read before
    from sktda import NoisyLabelDetector
    from sktda.cli.formats.row_groups import Fetched
    from sktda.findings import Finding
    from sktda.report.judgement import Judgement
    from sktda.tables.clocks import Clock
    from sktda.tables.columns import Column
    from sktda.tables.numerals import Numerals


@dataclass(frozen=True, eq=False)
class Job:
    """Data that is ready to be scored.

    given: the labels as they were read (text, or float for regression; missing where there is none) with the user's
    index; judged: with one spelling per class. X: features without columns that give the label away; columns: what was
    made of the table's, empty where the features are no table; numerals: how the labels are written as numbers.
    fetched: the rows, where the cells are not held; X then has those that have a label, in a mapped file.
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
    numerals: Numerals | Clock
    fetched: Fetched | None = None

    @classmethod
    def load(cls, settings: Settings, progress: Callable[[str], None]) -> Job:
        """Read everything. Raises ValueError or OSError with one sentence for what is wrong with the input."""
        path = settings.data
        if settings.may_be_large:
            from sktda.cli.streamed import read_by_row_group, streamed

            if (large := streamed(settings)) is not None:
                progress(f"reading {path}")
                return read_by_row_group(large, settings, progress)
        encoder, reading, said = learned(settings)
        progress(f"reading {path}")
        source = read_source(path, reading, progress)
        if settings.features in OWN_FEATURES[1:] and source.picture is None:
            raise ValueError(f"--features {settings.features} is about images, and {path.name} has none; leave it out")
        frame = source.frame
        target, index, kinds = named_columns(settings, source, path.name)
        from sktda.cli.features import last_row_sums_up, of_arrays, of_table, one_spelling, without_values
        from sktda.cli.labels import check_classes, read_labels
        from sktda.cli.pictures import of_pictures
        from sktda.findings import Finding
        from sktda.pretrained.backbone import telling

        labels = read_labels(frame[target], settings.task, settings.no_label)
        task, given = labels.task, labels.given
        if task == "classification":
            check_classes(one_spelling(given))
        if index is not None:
            given.index = pd.Index(frame[index], name=index)
        summed = last_row_sums_up(frame)
        columns: list[Column] = []
        if settings.embeddings:
            from sktda.cli.formats.arrays import read_features

            images = getattr(source, "images", None)
            names = None if images is None else images.frame["path"]
            X, findings, notes = of_arrays(read_features(settings.embeddings, len(frame), names), given, task)
        elif source.X is not None and encoder is not None:
            with telling(progress):
                X = source.X if reading.encode else encoder.transform(source.X)
            X, findings, notes = of_arrays(X, given, task)
        elif source.X is not None and source.picture is not None:
            X, findings, notes = of_pictures(source.X, given, task, settings.features, settings.seed, progress)
        elif source.X is not None:
            X, findings, notes = of_arrays(source.X, given, task)
        else:
            progress("preparing features")
            own = [name for name in FLAGS if name in frame]
            others = [name for name in frame if name not in (target, index, *own)]
            cells = without_values(frame[others], settings.na_values)
            with telling(progress):
                X, findings, notes, columns = of_table(cells, given, task, without(kinds, index), encoder)
            notes += [f"columns not used as features (written by sktda): {', '.join(own)}"] if own else []
            del frame, cells
            source.release()
        first = sum(finding.kind == "contradiction" for finding in findings)
        notes = [
            *notes[:first],
            *filter(None, [source.unreadable]),
            *source.notes,
            *labels.notes,
            *notes[first:],
            *summed,
            *said,
        ]
        if source.unreadable:
            findings.append(Finding("unreadable", source.unreadable, np.empty(0, dtype=int)))
        judged = given
        if task == "classification":
            judged = one_spelling(given, X)
            check_classes(judged)
        return cls(settings, source, target, given, judged, task, X, findings, notes, columns, labels.numerals)

    def check_review(self) -> None:
        """Raise ValueError, before rows are scored, where no page of a review can be made."""
        if self._with_features is not self:
            raise ValueError(
                f"{int(self.unlabelled.sum()):,} rows of {self.settings.data.name} have no label, and a review needs "
                "the features of all rows, which are mapped of the others only; use sktda score"
            )

    @property
    def unlabelled(self) -> np.ndarray:
        """Whether a row has no label (n,)."""
        return self.given.isna().to_numpy()

    @property
    def _with_features(self) -> Job:
        """The job on the rows that X has."""
        if self.fetched is None or not self.unlabelled.any():
            return self
        from sktda.cli.likeness import among

        rows = np.flatnonzero(~self.unlabelled)
        return replace(
            self,
            given=self.given.iloc[rows],
            judged=self.judged.iloc[rows],
            findings=[among(rows, finding) for finding in self.findings],
            fetched=self.fetched.some(rows),
        )

    def _of_all(self, found: pd.DataFrame, findings: list[Finding]) -> pd.DataFrame:
        """What was found of the rows with features, as that of all rows; the findings are added to the others."""
        from sktda.cli.likeness import from_among

        rows = np.flatnonzero(~self.unlabelled)
        self.findings.extend(from_among(rows, finding) for finding in findings)
        frame = found.set_axis(rows).reindex(range(len(self.given)))
        for name in ("duplicate_of", "near_duplicate_of"):
            own = rows[found[name].notna().to_numpy()]
            frame.loc[own, name] = rows[frame.loc[own, name].to_numpy(dtype=int)]
        for name in {"noisy", "outlier"} & {*frame}:
            frame[name] = frame[name].eq(True).to_numpy(dtype=bool)
        return frame

    def _detector(self, unlabelled: str = "error") -> NoisyLabelDetector:
        return self.settings.detector(self.task, int((~self.unlabelled).sum()), unlabelled)

    def score(self, progress: Callable[[str], None]) -> tuple[pd.DataFrame, Judgement]:
        """(verdicts in file order, what is said of all labels together); the columns of ReportInput.frame.

        Rows without features have no verdict, and are compared with no other.
        """
        if (part := self._with_features) is not self:
            before = len(part.findings)
            found, judgement = part.score(progress)
            return self._of_all(found, part.findings[before:]).set_axis(self.given.index), judgement
        progress(f"scoring {len(self.given):,} rows")
        from sktda.cleaning.base import NothingToLearnWarning
        from sktda.cli.features import few_kinds, many_flagged
        from sktda.cli.labels import as_text
        from sktda.report.judgement import Judgement

        regression = self.task == "regression"
        y = self.judged.to_numpy() if regression else as_text(self.judged)
        with warnings.catch_warnings():  # both are said in the shell's own words
            warnings.simplefilter("ignore", NothingToLearnWarning)
            warnings.filterwarnings("ignore", r"\d+% of the labels are called wrong")
            unlabelled = self.settings.unlabelled if self.unlabelled.any() else "error"
            detector = self._detector(unlabelled)
            if self.settings.probabilities:
                from sktda.cli.probabilities import give

                self.notes.append(give(detector, self.settings.probabilities, self.judged, self.task))
            detector.fit(self.X, y)
        judgement = Judgement.of(detector)
        self.notes.extend(judgement.notes())
        share = float(np.mean(detector.labels_ == -1))
        if share and not regression:
            self.notes[self.n_contradictions : self.n_contradictions] = few_kinds(self.X)
        if isinstance(self.settings.drop, str):
            self.notes[self.n_contradictions : self.n_contradictions] = many_flagged(share)
        suggested = detector.suggested_labels_
        verdicts = {
            "label_quality": detector.label_quality_,
            "score": detector.scores_,
            "noisy": detector.labels_ == -1,
        }
        del detector  # of many rows, what comes next needs the room
        if not regression:
            first = pd.Series(pd.factorize(self.judged)[0]).drop_duplicates().index
            typed = dict(zip(y[first], self.judged.iloc[first], strict=True)) | {None: None}
            suggested = [typed[label] for label in suggested]
        elif (self.given.dropna() == self.given.dropna().round()).all():
            suggested = np.rint(suggested)
        labels = {
            "given_label": self.given,
            "suggested_label": pd.Series(suggested, index=self.given.index, dtype=self.given.dtype),
        }
        del suggested, y
        return pd.DataFrame({**labels, **verdicts, **self._compare()}, index=self.given.index), judgement

    def _compare(self) -> dict[str, Any]:
        """Columns about copies and strange rows; findings and notes about them are added."""
        if (part := self._with_features) is not self:
            before = len(part.findings)
            found = self._of_all(pd.DataFrame(part._compare()), part.findings[before:])
            return {str(name): column.array for name, column in found.items()}
        from sktda.cli.likeness import columns_of, compared

        alike, findings, notes = compared(self.X, self.judged, self.task)
        self.findings.extend(findings)
        self.notes.extend(notes)
        return columns_of(alike)

    @property
    def n_contradictions(self) -> int:
        """How many of the notes are about equal rows with different labels; these come first."""
        return sum(finding.kind == "contradiction" for finding in self.findings)

    @property
    def cells(self) -> Any:
        """The columns that a page shows: all but the labels and the names of the rows; None of pictures."""
        if self.fetched is not None:
            return self.fetched if self.fetched.columns else None
        cells = self.source.frame.drop(columns=[self.target, *filter(None, [self.given.index.name])])
        return None if self.source.picture or cells.empty else cells

    @property
    def written(self) -> list[str] | None:
        """Labels as they stand in the file, where that is text and they were read as numbers."""
        labels = self.source.frame[self.target]
        if self.task != "regression" or labels.dtype.kind in "iuf":
            return None
        return (labels if self.fetched is None else self.fetched.labels(self.target)).astype(str).tolist()

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
                **self._compare(),
            }
        )

    def write_report(
        self, path: Path, frame: pd.DataFrame, judgement: Judgement, command: str, comparison: bool = True
    ) -> dict[str, Any]:
        """Write the page; returns the numbers on it. Spellings of one label are one class there, too."""
        if (part := self._with_features) is not self:
            return part.write_report(path, frame[~self.unlabelled], judgement, command, comparison)
        from sktda.cli.likeness import among
        from sktda.report import ReportInput, write_report

        if self.judged is not self.given:
            frame = frame.assign(given_label=self.judged.astype(frame["given_label"].dtype))
        picture, X, rows = self.source.picture, self.X, np.flatnonzero(~self.unlabelled)
        cells, written = self.cells, self.written
        if len(rows) < len(frame):
            frame, X = frame.iloc[rows], X[rows]
            cells = None if cells is None else cells.iloc[rows]
            written = None if written is None else [written[row] for row in rows]
            if (all_pictures := picture) is not None:
                picture = lambda position: all_pictures(int(rows[position]))  # noqa: E731
        findings = [among(rows, finding) for finding in self.findings]
        data = ReportInput(
            name=self.settings.data.resolve().name,
            frame=frame,
            noise_rate=judgement.noise_rate,
            judgement=judgement,
            task=self.task,
            detector=self._detector(),
            features=X,
            rows=cells,
            image=picture,
            reproduce=command,
            notes=tuple(self.notes),
            findings=tuple(findings),
            columns=self.columns,
            written=written,
        )
        return write_report(path, data, comparison=comparison, random_state=self.settings.seed)
