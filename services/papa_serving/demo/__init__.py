"""The main job as a show: a simulated shopper with a hidden taste teaches the running service, over its public API."""
