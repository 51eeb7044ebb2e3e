"""Measures the cost of serving many users at once, as ratios to a named alternative in the same run."""
