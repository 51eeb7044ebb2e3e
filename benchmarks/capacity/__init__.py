"""Estimates the cost of many users from measured figures and stated assumptions."""
