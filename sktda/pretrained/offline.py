"""No download while a model is loaded, and no bars of its libraries."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

_LOADING = RLock()


@contextmanager
def offline() -> Iterator[None]:
    """The Hugging Face hub's client takes what it has, and asks no server, as with HF_HUB_OFFLINE=1; nobody draws bars.

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
            with _no_bars():
                yield
        finally:
            constants.HF_HUB_OFFLINE = before


@contextmanager
def _no_bars() -> Iterator[None]:
    """transformers, where it is loaded, shows no progress on standard error."""
    bars = getattr(sys.modules.get("transformers"), "utils", None)
    if bars is None or not bars.logging.is_progress_bar_enabled():
        yield
        return
    bars.logging.disable_progress_bar()
    try:
        yield
    finally:
        bars.logging.enable_progress_bar()
