"""What one card does: speeds as ratios to named alternatives, and whether a mixed batch computes what each row does."""
