"""Measures one card: speeds as ratios to named alternatives, and whether a mixed batch computes what each row does."""
