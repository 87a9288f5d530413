"""One page on which a human decides about the rows that look wrong, and the decisions that come back from it."""

from sktda._lazy import lazy_names

__all__ = ["Review", "write_review"]

__getattr__, __dir__ = lazy_names(__name__, {"Review": "sktda.review.page", "write_review": "sktda.review.page"})
