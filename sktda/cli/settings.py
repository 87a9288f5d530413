"""What a user said on the command line, and the detector that it asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sktda.cli.formats.base import Reading
from sktda.cli.formats.known import comes_in_parts

if TYPE_CHECKING:  # the detector and torch below it take seconds to import: the file is read before
    from sktda import NoisyLabelDetector

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
        return self.data.is_dir() or comes_in_parts(self.data)

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
