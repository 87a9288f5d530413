"""Public names that import their module on first use (PEP 562), so that `import sktda` stays fast."""

import importlib
from collections.abc import Callable


def lazy_names(package: str, names: dict[str, str]) -> tuple[Callable, Callable]:
    """Module-level `__getattr__` and `__dir__` for a package whose public names map to their modules."""

    def __getattr__(name):
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(names[name]), name)

    return __getattr__, lambda: sorted(names)
