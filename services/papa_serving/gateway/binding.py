"""Taking an address, or saying in one line why not."""


class CannotBind(OSError):
    """The address is taken, or is none of this machine's."""

    def __init__(self, purpose: str, host: str, port: int) -> None:
        super().__init__(f"cannot listen on {host}:{port} for {purpose}: another process may hold the port")
