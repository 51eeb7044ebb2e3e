"""Runs the web application until it is told to stop."""

from __future__ import annotations

import uvicorn
from starlette.types import ASGIApp


def serve(app: ASGIApp, host: str, port: int) -> None:
    """Serves until SIGINT or SIGTERM. Open event streams are cut after a second. Raises OSError for a port in use."""
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=1, server_header=False)
