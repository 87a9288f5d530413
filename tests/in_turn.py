"""Many small cases as one test: `in_turn` in place of `pytest.mark.parametrize`."""

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import pytest


def in_turn(names: str | tuple[str, ...], cases: Iterable[Any]) -> Callable[[Callable], Callable]:
    """The test with every case, in turn; those that fail are named together, each with its traceback.

    For cases of a few milliseconds, which handing out, setting up and counting would cost as much again. They share the
    fixtures. Several of them multiply, as with `parametrize`.
    """
    asked = tuple(name.strip() for name in names.split(",")) if isinstance(names, str) else tuple(names)
    cases = list(cases)

    def decorated(test: Callable) -> Callable:
        @wraps(test)
        def run(**fixtures):
            failed = []
            for case in cases:
                given = dict(zip(asked, case if len(asked) > 1 else (case,), strict=True))
                try:
                    test(**fixtures, **given)
                except (Exception, pytest.fail.Exception, BaseExceptionGroup) as error:  # a missing error, those inside
                    error.add_note(", ".join(f"{name}={value!r:.100}" for name, value in given.items()))
                    failed.append(error)
            if failed:
                raise BaseExceptionGroup(f"{len(failed)} of {len(cases)} cases", failed)

        signature = inspect.signature(test)
        left = [parameter for name, parameter in signature.parameters.items() if name not in asked]
        run.__signature__ = signature.replace(parameters=left)  # the fixtures that pytest is to give
        return run

    return decorated
