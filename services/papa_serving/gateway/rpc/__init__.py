"""The layers that every RPC of the public contract passes through."""
