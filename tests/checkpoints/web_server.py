"""A web server on this machine that serves files, or misbehaves as told, and remembers what it was asked."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Site:
    """What is served: bytes (by range, too), or a function from the request to (status, headers, body)."""

    paths: dict[str, bytes | Callable[[BaseHTTPRequestHandler], Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # method, path, headers
    sent: int = 0
    url: str = ""

    def __enter__(self) -> Site:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site._serve(self)

            do_HEAD = do_GET

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append((request.command, request.path, dict(request.headers)))
        entry = self.paths.get(request.path, self.paths.get(request.path.partition("?")[0]))
        if entry is None:
            status, headers, body = 404, {}, b"no such page"
        elif callable(entry):
            status, headers, body = entry(request)
        else:
            status, headers, body = ranged(entry, request.headers.get("Range"))
        request.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        try:
            for at in range(0, len(body), 2**16):
                self.sent += len(body[at : at + 2**16])  # first: who reads the last of it may look at once
                request.wfile.write(body[at : at + 2**16])
        except OSError:
            request.close_connection = True


def ranged(data: bytes, asked: str | None) -> Answer:
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "")
    if match is None:
        return 200, {}, data
    first, last = int(match[1]), min(int(match[2]), len(data) - 1)
    if first >= len(data):
        return 416, {"Content-Range": f"bytes */{len(data)}"}, b""
    return 206, {"Content-Range": f"bytes {first}-{last}/{len(data)}"}, data[first : last + 1]


def whole(data: bytes) -> Callable[[BaseHTTPRequestHandler], Answer]:
    """A server that ignores `Range`."""
    return lambda request: (200, {}, data)


def moved(url: str, status: int = 302) -> Callable[[BaseHTTPRequestHandler], Answer]:
    return lambda request: (status, {"Location": url}, b"")


def says(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Callable[..., Answer]:
    return lambda request: (status, headers or {}, body)
