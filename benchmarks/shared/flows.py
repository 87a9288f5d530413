"""How five calls pass through the files of the sktda that Python finds: python flows.py [--quick] prints JSON.

Only calls between functions of sktda count, whatever lies between them (scikit-learn, torch), and each pair of calling
and called function once, however often it happens. A *hop* is such a pair in two files; *files* are those that the
calls enter; a hop *turns back* where the file that it enters is at work already, further up the stack: the reader has
to go back to a file that he has left. Every call is made once before it is followed, so that imports do not count.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import pkgutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class Calls:
    """Follows the calls within a package while it is entered."""

    def __init__(self, folder: Path) -> None:
        self.folder = f"{folder}/"
        self.hops: set[tuple] = set()
        self.turns: set[tuple] = set()
        self._stack: list[tuple[str, str]] = []
        self._known: dict[Any, tuple[str, str] | None] = {}

    def __enter__(self) -> Calls:
        sys.setprofile(self._event)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.setprofile(None)

    @property
    def files(self) -> set[str]:
        return {place[0] for hop in self.hops for place in hop}

    def _place(self, code: Any) -> tuple[str, str] | None:
        if code not in self._known:
            own = code.co_filename.startswith(self.folder)
            # what is made inside a function is read as part of it
            self._known[code] = (code.co_filename, code.co_qualname.split(".<")[0]) if own else None
        return self._known[code]

    def _event(self, frame: Any, event: str, _: Any) -> None:
        if event not in {"call", "return"} or (place := self._place(frame.f_code)) is None:
            return
        if event == "return":
            if self._stack:
                self._stack.pop()
            return
        if self._stack and self._stack[-1][0] != place[0]:
            hop = (self._stack[-1], place)
            self.hops.add(hop)
            if any(file == place[0] for file, _ in self._stack):
                self.turns.add(hop)
        self._stack.append(place)


def flows(n: int) -> dict[str, Callable[[], Any]]:
    """{name: call} on n rows of the digits."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    from sktda import InfluencePruner, NoisyLabelDetector
    from sktda.attribution import Influence, Source

    X, y = load_digits(return_X_y=True)
    X, y = X[:n] / 16, y[:n]
    return {
        "NoisyLabelDetector().fit": lambda: NoisyLabelDetector().fit(X, y),
        "InfluencePruner(LogisticRegression(), Influence()).fit": lambda: InfluencePruner(
            LogisticRegression(), Influence()
        ).fit(X, y),
        'Influence(curvature="ekfac").fit': lambda: Influence(curvature="ekfac", random_state=0).fit(X, y),
        "Source().fit": lambda: Source(random_state=0).fit(X, y),
        "sktda clean": lambda: clean(X, y),
    }


def clean(X: np.ndarray, y: np.ndarray) -> None:
    """The shell command on a table, in this process."""
    from sktda.cli.commands import app

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        table = Path(folder) / "digits.csv"
        head = ",".join([*(f"f{i}" for i in range(X.shape[1])), "label"])
        np.savetxt(table, np.column_stack([X, y]), "%g", ",", header=head, comments="")
        out = Path(folder) / "out.csv"
        app(["clean", str(table), "--target", "label", "--out", str(out)], standalone_mode=False)


def classes(package: str) -> dict[str, int]:
    """Classes of a package on concrete ones, and methods in place of ones that did something.

    A base is concrete unless something in it is abstract, or it has no method of its own; a method that returns a
    constant, or nothing, is a gap to fill and not counted, nor is `__init__`.
    """
    found = set()
    for info in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not info.name.endswith("__main__"):
            module = importlib.import_module(info.name)
            found |= {each for each in vars(module).values() if inspect.isclass(each) and is_own(each, module.__name__)}
    on_concrete = [each for each in found if any(is_own(base) and is_concrete(base) for base in each.__bases__)]
    return {
        "classes on a concrete class": len(on_concrete),
        "methods in place of a concrete one": sum(len(overridden(each)) for each in found),
    }


def is_own(each: type, module: str | None = None) -> bool:
    return each.__module__ == module if module else each.__module__.startswith("sktda")


def is_concrete(base: type) -> bool:
    return not inspect.isabstract(base) and bool(methods(base)) and not issubclass(base, BaseException)


def methods(each: type) -> dict[str, Any]:
    """Those that are written in a class, with properties."""
    kinds = (property, classmethod, staticmethod)
    return {
        name: value
        for name, value in vars(each).items()
        if (inspect.isfunction(value) or isinstance(value, kinds) or type(value).__name__ == "cached_property")
        and name != "__init__"
        and code_of(value) is not None
    }


def code_of(value: Any) -> Any:
    """The code of a method or property that is written in a file; None for what is generated."""
    function = getattr(value, "fget", None) or getattr(value, "func", None) or getattr(value, "__func__", value)
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code if code is not None and not code.co_filename.startswith("<") else None


def overridden(each: type) -> list[str]:
    found = []
    for name in methods(each):
        base = next((base for base in each.__mro__[1:] if is_own(base) and name in methods(base)), None)
        if base is not None:
            value = methods(base)[name]
            if not getattr(value, "__isabstractmethod__", False) and code_of(value).co_names:
                found.append(name)
    return found


def main(quick: bool) -> None:
    import sktda

    warnings.simplefilter("ignore")
    found: dict[str, Any] = {"classes": classes("sktda.attribution" if quick else "sktda"), "flows": {}}
    for name, call in list(flows(60 if quick else 300).items())[: 2 if quick else None]:
        call()
        with Calls(Path(sktda.__file__).parent) as calls:
            call()
        found["flows"][name] = {"files": len(calls.files), "hops": len(calls.hops), "turns": len(calls.turns)}
    print(json.dumps(found))


if __name__ == "__main__":
    main("--quick" in sys.argv)
