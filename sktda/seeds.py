"""What `random_state` means: scikit-learn's kinds, with None for the seed 0 in place of NumPy's global state."""

from __future__ import annotations

from typing import Any

from numpy.random import RandomState
from sklearn.utils import check_random_state


def random_of(random_state: Any) -> RandomState:
    """The generator of an int, a RandomState or None, which is 0: a fit can be repeated, and moves no global state."""
    return check_random_state(0 if random_state is None else random_state)


def seed_of(random_state: Any) -> int:
    """A seed drawn from it, for what takes whole numbers only, such as torch."""
    return int(random_of(random_state).randint(2**31 - 1))
