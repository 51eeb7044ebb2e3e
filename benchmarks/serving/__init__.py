"""The whole service on this machine, as its callers find it."""
