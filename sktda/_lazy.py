"""Public names that import their module on first use (PEP 562), so that `import sktda` stays fast."""

import importlib
from collections.abc import Callable

EXTRAS = {"dask": "cluster", "distributed": "cluster", "jinja2": "report", "matplotlib": "report", "pandas": "shell"}


def lazy_names(package: str, names: dict[str, str]) -> tuple[Callable, Callable]:
    """Module-level `__getattr__` and `__dir__` for a package whose public names map to their modules.

    Where a package is missing that an extra brings, the ModuleNotFoundError says which.
    """

    def __getattr__(name):
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = importlib.import_module(names[name])
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
            text = f'{name} needs {error.name}; install it with: pip install "sktda[{EXTRAS[error.name]}]"'
            raise ModuleNotFoundError(text, name=error.name) from error
        return getattr(module, name)

    return __getattr__, lambda: sorted(names)
