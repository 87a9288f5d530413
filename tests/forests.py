"""The same forests in half the time: a tree is not checked again by itself when its forest has been."""

import copy

import numpy as np


def spare_the_trees() -> None:
    """Until the end of the process. What a tree repeats of its forest's checks takes as long as it takes to grow on
    the few rows of a test; no number changes.
    """
    from sklearn.ensemble import _forest
    from sklearn.tree import _classes

    check = _classes.check_classification_targets

    def unless_a_forest_did(y):
        encoded = isinstance(y, np.ndarray) and y.ndim == 2 and y.dtype == np.float64  # as a forest hands it on
        if not encoded:
            check(y)

    def made(self, append=True, random_state=None):
        """A copy of a tree without parts, where scikit-learn clones it by the names of its parameters."""
        tree = copy.copy(self.estimator_)
        for name in self.estimator_params:
            setattr(tree, name, getattr(self, name))
        if random_state is not None:
            tree.random_state = random_state.randint(np.iinfo(np.int32).max)
        if append:
            self.estimators_.append(tree)
        return tree

    _classes.check_classification_targets = unless_a_forest_did
    _forest.BaseForest._make_estimator = made
