"""A reverse proxy as people have them: it serves the playground under /papa/ and strips that from what it passes on."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PREFIX = "/papa"


@contextmanager
def proxied(playground: str) -> Iterator[str]:
    """Yields the address of the playground behind the proxy. Answers are passed on as they come, event streams too."""
    target = urlsplit(playground).netloc

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def log_message(self, *args: object) -> None:
            pass

        def _pass_on(self) -> None:
            if not self.path.startswith(f"{PREFIX}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0))) or None
            connection = http.client.HTTPConnection(target)
            connection.request(self.command, self.path.removeprefix(PREFIX), body, dict(self.headers))
            answer = connection.getresponse()
            self.send_response(answer.status)
            self.send_header("content-type", answer.headers["content-type"])
            self.send_header("connection", "close")
            self.end_headers()
            try:
                while chunk := answer.read1(65_536):
                    self.wfile.write(chunk)
            except ConnectionError:
                pass  # the browser has gone, as it does from an event stream
            finally:
                connection.close()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{PREFIX}/"
    finally:
        server.shutdown()
        server.server_close()
