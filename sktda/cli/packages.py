"""The packages that sktda works with: what each is for, which extra brings it, whether it is here and new enough."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from sktda.pretrained.names import LIBRARIES

CORE = "sktda"  # what comes with `pip install sktda` itself
ALONE = ""  # what no extra brings
EXTRAS = ("shell", "report", "heic", "progress", "cluster")  # for users, not for those who work on sktda

# (module to import, what it is for), by the name to install
USES = {
    "cloudpickle": ("cloudpickle", "models with functions of a notebook, in workers"),
    "joblib": ("joblib", "several processes, caches"),
    "numpy": ("numpy", "arrays"),
    "safetensors": ("safetensors", "recorded training runs on disk"),
    "scikit-learn": ("sklearn", "estimators, pipelines, forests"),
    "scipy": ("scipy", "sparse matrices, solvers, statistics"),
    "skorch": ("skorch", "nets of torch as estimators"),
    "torch": ("torch", "nets, gradients, GPUs"),
    "charset-normalizer": ("charset_normalizer", "text files of any encoding"),
    "liac-arff": ("arff", "ARFF files"),
    "odfpy": ("odf", "writing OpenDocument tables"),
    "openpyxl": ("openpyxl", "writing Excel files"),
    "pandas": ("pandas", "tables"),
    "pillow": ("PIL", "images"),
    "pyarrow": ("pyarrow", "Parquet and Feather files"),
    "python-calamine": ("python_calamine", "reading Excel and OpenDocument files"),
    "rich": ("rich", "progress bars, tables in the shell"),
    "typer": ("typer", "the shell command"),
    "pillow-heif": ("pillow_heif", "HEIC photographs"),
    "jinja2": ("jinja2", "the report and the review page"),
    "matplotlib": ("matplotlib", "displays and the plots of the report"),
    "dask": ("distributed", "fits on a cluster"),
    "imbalanced-learn": ("imblearn", "its samplers and Pipeline"),
    "lightning": ("lightning", "LightningRecorder"),
    "peft": ("peft", "LoRA adapters"),
    "xgboost": ("xgboost", "attribution of its trees"),
    "lightgbm": ("lightgbm", "attribution of its trees"),
    "catboost": ("catboost", "attribution of its trees"),
    **{
        library.package: (library.module, "features of images and texts")
        for library in LIBRARIES.values()
        if library.module != "torch"
    },
}
OTHER_NAMES = {"xgboost": "xgboost-cpu"}  # a distribution that brings the same module


@dataclass
class Package:
    """One package: `needs` is the lowest version, `error` what its import said where it failed."""

    name: str
    extra: str
    module: str
    use: str
    needs: str | None = None
    version: str | None = None
    error: str | None = None

    @property
    def state(self) -> str:
        """ "ok", "missing", "too old" or "broken"."""
        if self.version is None:
            return "missing"
        if self.error is not None:
            return "broken"
        return "too old" if self.needs and release(self.version) < release(self.needs) else "ok"

    def problem(self) -> str | None:
        """What is wrong and what to do, if it is: what no one asked for may be missing."""
        if self.state == "ok" or (self.state == "missing" and self.extra != CORE):
            return None
        install = f'pip install --upgrade "{self.name}{f">={self.needs}" if self.needs else ""}"'
        if self.state == "broken":
            return f"{self.name} {self.version} is installed and cannot be imported ({self.error}); {install}"
        if self.state == "missing":
            return f"{self.name} is not installed, and nothing works without it; {install}"
        return f"{self.name} {self.version} is older than {self.needs}, the oldest that works; {install}"


def release(text: str) -> tuple[int, ...]:
    """The numbers of a version before what says local build or pre-release: (2, 13) of 2.13.0+cpu; no zeros at the end.

    A pre-release counts as its release: whoever installs one means to try it.
    """
    numbers = [int(part) for part in re.match(r"[\d.]*", text)[0].split(".") if part]  # type: ignore[index]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def packages() -> list[Package]:
    """All of `USES` with the versions that are here; imports none of them.

    Raises PackageNotFoundError where sktda itself is not installed, so that what it needs is not written down.
    """
    found: dict[str, Package] = {}
    for name, extra, needs in _needed():
        if name not in found:
            module, use = USES[name]
            found[name] = Package(name, extra, module, use, needs)
        elif extra not in found[name].extra.split(", "):  # pandas is of two
            found[name].extra += f", {extra}"
    found |= {name: Package(name, ALONE, *of) for name, of in USES.items() if name not in found}
    for package in found.values():
        package.version = _version(package.name)
    return list(found.values())


def _needed() -> Iterator[tuple[str, str, str | None]]:
    """(package, extra or CORE, lowest version) of what sktda says it needs."""
    for requirement in requires("sktda") or ():
        wanted, _, marker = requirement.partition(";")
        extra = re.search(r"""extra == ['"]([\w-]+)['"]""", marker)
        name = re.match(r"[\w.-]+", wanted)
        if name and (not extra or extra[1] in EXTRAS):
            lowest = re.search(r">=\s*([\w.]+)", wanted)
            yield name[0].lower(), extra[1] if extra else CORE, lowest[1] if lowest else None


def _version(name: str) -> str | None:
    for each in (name, OTHER_NAMES.get(name, name)):
        try:
            return version(each)
        except PackageNotFoundError:
            continue
    return None
