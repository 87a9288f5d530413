"""Numerical engines: what the attribution methods share."""
