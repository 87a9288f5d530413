"""Strategies of CoresetSelector, by what they choose by: scores, features, gradients."""
