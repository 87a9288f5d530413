"""What the shell commands do between reading and writing: find the labels and features, score, plan the output."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sktda.cli.formats import read_source
from sktda.cli.formats.base import Reading, Source
from sktda.cli.learned import learned
from sktda.cli.named import OPTIONS, each_named, target_of, unknown_column, without
from sktda.cli.options import OWN_FEATURES
from sktda.cli.plan import FLAGS, read_text_cells
from sktda.review.decisions import check_given, row_positions

if TYPE_CHECKING:  # the detector and torch below it take seconds to import: the file is read before
    from sktda import NoisyLabelDetector
    from sktda.findings import Finding
    from sktda.report.judgement import Judgement
    from sktda.tables.clocks import Clock
    from sktda.tables.columns import Column
    from sktda.tables.numerals import Numerals

DEFAULT_METHOD = "label-posterior"


@dataclass(frozen=True)
class Settings:
    """The options that all commands share."""

    data: Path
    target: str | None = None
    index: str | None = None
    embeddings: Path | None = None
    features: str = "auto"
    size: int | None = None
    probabilities: Path | None = None
    task: str = "auto"
    drop: str | float | int = "auto"  # a share, or a number of rows
    method: str = DEFAULT_METHOD
    seed: int = 0
    unlabelled: str = "keep"
    kinds: dict[str, str] = field(default_factory=dict)  # column: text, category or ignore
    na_values: tuple[str, ...] | None = None
    part: str | None = None
    query: str | None = None
    header: bool | None = None
    labels: Path | None = None
    level: int | None = None

    @property
    def no_label(self) -> frozenset[str]:
        """What stands for no label, in lower case."""
        from sktda.cli.labels import NO_LABEL

        return NO_LABEL if self.na_values is None else frozenset({"", *map(str.lower, self.na_values)})

    @property
    def may_be_large(self) -> bool:
        """Whether the data may be Parquet that is read by row group."""
        return self.data.is_dir() or self.data.suffix.lower() in (".parquet", ".pq")

    @property
    def reading(self) -> Reading:
        """How the data are to be read."""
        named = tuple(name for name in (self.target, self.index, *self.kinds) if name)
        pixels = self.embeddings is None
        return Reading(self.part, self.query, self.header, named, self.size or 64, self.labels, self.level, pixels)

    def detector(self, task: str, n_rows: int, unlabelled: str = "error") -> NoisyLabelDetector:
        """The unfitted detector. Raises ValueError where more rows are to be dropped than there are."""
        from sktda import NoisyLabelDetector
        from sktda.attribution import PrecomputedProbabilities
        from sktda.attribution.base import needs_of

        contamination = self.drop
        if contamination == "confident-joint":
            if task == "regression":
                raise ValueError(
                    "--drop confident-joint counts rows that are confidently another class, and the labels are numbers "
                    "to be predicted; take --drop auto, or a share"
                )
            contamination = "confident_joint"
        if isinstance(contamination, int):
            if contamination >= n_rows:
                raise ValueError(f"--drop {contamination} is no fewer than the {n_rows:,} rows there are; keep some")
            contamination = contamination / n_rows
        attributor = PrecomputedProbabilities() if self.probabilities else methods()[self.method]()
        params = attributor.get_params(deep=False)
        if "task" in params:
            attributor.set_params(task=task)
        needs = needs_of(attributor)
        if "estimator" in params and needs.gradients:
            from sktda.model.proxy import default_net

            attributor.set_params(estimator=default_net(task, **needs.net))
        return NoisyLabelDetector(
            attributor, contamination=contamination, unlabelled=unlabelled, random_state=self.seed
        )


def methods() -> dict[str, type]:
    """Attribution methods by their name in the shell: those that need nothing but X and y."""
    import sktda.attribution as package

    # a hyphen between words of three letters or more: names such as TracIn and LoGra are one word
    found = {name: getattr(package, name) for name in package.__all__ if "Precomputed" not in name}
    return {
        re.sub(r"(?<=\w\w[a-z0-9])(?=[A-Z]\w\w)|(?<=[A-Z])(?=[A-Z][a-z]\w)", "-", name).lower(): cls
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
    numerals: Numerals | Clock

    @classmethod
    def load(cls, settings: Settings, progress: Callable[[str], None]) -> Job:
        """Read everything. Raises ValueError or OSError with one sentence for what is wrong with the input."""
        path = settings.data
        if settings.may_be_large:
            from sktda.cli.streamed import StreamedJob, streamed

            if (large := streamed(settings)) is not None:
                progress(f"reading {path}")
                return StreamedJob.of(large, settings, progress)
        encoder, reading, said = learned(settings)
        progress(f"reading {path}")
        source = read_source(path, reading, progress)
        if settings.features in OWN_FEATURES[1:] and source.picture is None:
            raise ValueError(f"--features {settings.features} is about images, and {path.name} has none; leave it out")
        frame = source.frame
        target = target_of(source, settings.target, path.name)
        index = source.default_index if settings.index is None else settings.index
        kinds = each_named(settings.kinds, frame)
        for name in (index, *kinds):
            if name is not None and name not in frame:
                raise ValueError(unknown_column(frame, name, path.name))
        if target in (index, *kinds):
            used = "--index" if target == index else f"--{OPTIONS[kinds[target]]}"
            raise ValueError(f"column {target!r} cannot be both {used} and --target; name another")
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
        """Raise ValueError, before rows are scored, where no page of a review can be made; here it can."""

    @property
    def unlabelled(self) -> np.ndarray:
        """Whether a row has no label (n,)."""
        return self.given.isna().to_numpy()

    def _detector(self, unlabelled: str = "error") -> NoisyLabelDetector:
        return self.settings.detector(self.task, int((~self.unlabelled).sum()), unlabelled)

    def score(self, progress: Callable[[str], None]) -> tuple[pd.DataFrame, Judgement]:
        """(verdicts in file order, what is said of all labels together); the columns of ReportInput.frame."""
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
    def cells(self) -> pd.DataFrame | None:
        """The columns that a page shows: all but the labels and the names of the rows; None of pictures."""
        cells = self.source.frame.drop(columns=[self.target, *filter(None, [self.given.index.name])])
        return None if self.source.picture or cells.empty else cells

    @property
    def written(self) -> list[str] | None:
        """Labels as they stand in the file, where that is text and they were read as numbers."""
        labels = self.source.frame[self.target]
        is_text = self.task == "regression" and labels.dtype.kind not in "iuf"
        return labels.astype(str).tolist() if is_text else None

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
