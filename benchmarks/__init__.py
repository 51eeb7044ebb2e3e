"""Measurements: every figure in docs/results comes from here."""
