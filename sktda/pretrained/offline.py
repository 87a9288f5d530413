"""No download while a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

_LOADING = RLock()


@contextmanager
def offline() -> Iterator[None]:
    """The Hugging Face hub's client takes what it has, and asks no server, as with HF_HUB_OFFLINE=1.

    Its switch is one of the process: while a model is loaded here, other threads are offline, too.
    """
    try:
        from huggingface_hub import constants
    except ModuleNotFoundError:  # then nobody here can ask it
        yield
        return
    with _LOADING:
        before = constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before
