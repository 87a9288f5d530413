"""What a detector says about all labels together, as plain values for the shell and the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Judgement:
    """How many labels are wrong, how well features predict them, and on which scales that was judged.

    Parameters
    ----------
    noise_rate : float
        Estimated (or given) share of wrong labels.
    noise_rate_interval : tuple of float, default=None
        Between what the estimate lies.
    predictability, predictability_error, chance : float, default=None
        Out-of-sample balanced accuracy (R^2 for regression), its standard error, and what chance gives.
    can_tell : bool, default=None
        Whether the features predict the labels; None where that is not known, as for scores read from a file.
    scale : str, default=None
        How the kernel took the features: "standard" or "unit".
    transform : str, default=None
        On which scale a numeric target was judged: "identity", "logarithm", ...
    """

    noise_rate: float
    noise_rate_interval: tuple[float, float] | None = None
    predictability: float | None = None
    predictability_error: float | None = None
    chance: float | None = None
    can_tell: bool | None = None
    scale: str | None = None
    transform: str | None = None

    @classmethod
    def of(cls, detector: Any) -> Judgement:
        """From a fitted NoisyLabelDetector."""
        interval = getattr(detector, "noise_rate_interval_", None)
        return cls(
            float(detector.noise_rate_),
            None if interval is None else (float(interval[0]), float(interval[1])),
            predictability=_number(detector, "predictability_"),
            predictability_error=_number(detector, "predictability_error_"),
            chance=_number(detector, "chance_"),
            can_tell=bool(getattr(detector, "can_tell_", True)),
            scale=_inner(detector, "scale_"),
            transform=_inner(detector, "transform_"),
        )

    def numbers(self) -> dict[str, Any]:
        """JSON-able, without the noise rate."""
        names = ("noise_rate_interval", "predictability", "predictability_error", "chance", "can_tell", "scale")
        return {name: getattr(self, name) for name in (*names, "transform")}

    def evidence(self, regression: bool) -> str:
        """Predictability in words, such as "balanced accuracy 0.51 ± 0.03 out of sample, 0.50 is chance"."""
        if self.predictability is None:
            return ""
        error = "" if self.predictability_error is None else f" ± {self.predictability_error:.2f}"
        chance = "" if self.chance is None else f", {self.chance:.2f} is chance"
        metric = "R²" if regression else "balanced accuracy"
        return f"{metric} {self.predictability:.2f}{error} out of sample{chance}"

    def notes(self) -> list[str]:
        """On which scales was judged, one sentence each."""
        scales = {
            "standard": "rows were compared by standardised columns",
            "unit": "rows were compared by features brought to length 1, and not standardised",
        }
        said = [scales[self.scale]] if self.scale in scales else []
        if self.transform not in (None, "identity"):
            said.append(f"the target was judged on the scale of its {self.transform}")
        return said


def _number(detector: Any, name: str) -> float | None:
    value = getattr(detector, name, None)
    return None if value is None else float(value)


def _inner(detector: Any, name: str) -> str | None:
    """An attribute of the detector, or of the attributor that it (or that one's own) used."""
    part, seen = detector, 0
    while part is not None and seen < 4:
        value = getattr(part, name, None)
        if isinstance(value, str):
            return value
        part, seen = getattr(part, "attributor_", None), seen + 1
    return None
