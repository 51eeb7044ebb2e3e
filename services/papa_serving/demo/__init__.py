"""The demo: a simulated shopper with a hidden taste teaches the running service over its public API."""
