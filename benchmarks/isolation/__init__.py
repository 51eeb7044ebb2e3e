"""One user's flood against the others' latency."""
