"""Cleaners: scores -> decision -> refit, as scikit-learn estimators."""
