"""What every RPC of the public contract passes through, whichever service it belongs to."""
