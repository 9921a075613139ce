"""An HTTP server of a folder that gives whole files only, as `python -m http.server` does."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder; of `broken` ones the first half, and of `secret` ones none (403).

    `endless` ones go on as long as anybody listens, `trickle` ones too, a byte every 20 ms; `vast` ones
    promise a terabyte.
    `signed` ones only with a signature in the address, `sig=`.
    """

    def do_GET(self) -> None:
        name = Path(unquote(urlsplit(self.path).path)).name
        is_signed = "sig=" in urlsplit(self.path).query
        if name.startswith(("endless", "trickle", "vast")):
            self._go_on(name)
        elif name.startswith("secret") or (name.startswith("signed") and not is_signed):
            self.send_error(403)
        elif name.startswith("broken"):
            data = (Path(self.directory) / name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            super().do_GET()

    def _go_on(self, name: str) -> None:
        self.send_response(200)
        if name.startswith("vast"):
            self.send_header("Content-Length", str(10**12))
        self.end_headers()
        pause, piece = (0.02, b"x") if name.startswith("trickle") else (0.0, bytes(1 << 16))
        with contextlib.suppress(OSError):  # nobody listens any more
            while True:
                self.wfile.write(piece)
                time.sleep(pause)

    def do_HEAD(self) -> None:
        if not Path(self.path).name.startswith("vast"):
            super().do_HEAD()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(10**12))
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that has read enough closes the connection


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """The address of a server of this folder."""
    server = Server(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
