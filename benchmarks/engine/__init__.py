"""What many users at once cost, as ratios to a named alternative in the same run."""
