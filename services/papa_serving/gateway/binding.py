"""Binding to an address."""


class CannotBind(OSError):
    """The address is in use, or does not belong to this machine."""

    def __init__(self, purpose: str, host: str, port: int) -> None:
        super().__init__(f"cannot listen on {host}:{port} for {purpose}: another process may hold the port")
