"""Gradients of a run whose parameter groups have learning rates of their own, as if these were one."""

from __future__ import annotations

from sktda.engine.per_row import PerRow


def weighed(engine: PerRow, roots: dict[str, float] | None) -> PerRow:
    """The engine with gradients by row times these roots, by parameter; the engine itself for None.

    A step of rate r of a parameter is one of rate 1 of parameter / sqrt(r), whose gradients are sqrt(r) times as long.
    Products of two gradients then have the rate in them. Everything that is made of `capture` is meant so; mean
    gradients and products with the Hessian are those of the model itself.
    """
    if roots is None:
        return engine
    # keeps the layers and the batch size that are known, which `__init__` would leave to be found again
    found = PerRow.__new__(PerRow)
    vars(found).update(vars(engine), roots=roots)
    return found
