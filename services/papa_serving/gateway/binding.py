"""Binding to an address."""

from papa_serving.settings.addresses import host_port


class CannotBind(OSError):
    """The address is in use, or does not belong to this machine."""

    def __init__(self, purpose: str, host: str, port: int) -> None:
        super().__init__(f"cannot listen on {host_port(host, port)} for {purpose}: another process may hold the port")
