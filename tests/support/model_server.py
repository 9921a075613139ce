"""A local HTTP server that a model store fetches from: plain files, and a hub as Hugging Face answers."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ModelServer:
    """Serves `files` (path -> contents), with ranges.

    Attributes:
        files: path -> contents.
        breaks: path -> how often the connection still ends after half of what was to be sent.
        ranges: whether it answers requests for a part.
        requests: every path asked for, with its Range header ("" for none).
        tokens: every Authorization header that came.
        gated: without one, paths below these prefixes are refused.
        hold: once set to an event, answers wait for it after their first half.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.breaks: dict[str, int] = {}
        self.ranges = True
        self.status: dict[str, int] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens: list[str] = []
        self.gated: tuple[str, ...] = ()
        self.hold: threading.Event | None = None
        self.held = threading.Event()
        handler = type("Handler", (_Handler,), {"state": self})
        self.server = _QuietServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def add_repository(self, name: str, revision: str, files: Mapping[str, bytes], large: set[str]) -> None:
        """A hub repository; `large` files are listed with their SHA-256."""
        siblings: list[dict[str, Any]] = []
        for file, content in files.items():
            entry: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": "0" * 40}
            if file in large:
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            siblings.append(entry)
            self.files[f"/{name}/resolve/{revision}/{file}"] = content
        listing = {"id": name, "modelId": name, "sha": revision, "siblings": siblings, "tags": []}
        for path in (f"/api/models/{name}", f"/api/models/{name}/revision/{revision}"):
            self.files[path] = json.dumps(listing).encode()

    def __enter__(self) -> ModelServer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.hold is not None:
            self.hold.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    state: ModelServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        state = self.state
        part = self.headers.get("Range") or ""
        state.requests.append((path, part))
        token = self.headers.get("Authorization")
        if token:
            state.tokens.append(token)
        if path in state.status:
            return self._say(state.status[path])
        if path.startswith(state.gated) and state.gated and not token:
            headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted."}
            return self._say(401, headers)
        content = state.files.get(path)
        if content is None:
            return self._say(404)
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        if self.headers.get("If-Range") not in (None, etag) or not state.ranges:
            part = ""
        start = int(part.removeprefix("bytes=").rstrip("-")) if part else 0
        if part and start >= len(content):
            return self._say(416, {"Content-Range": f"bytes */{len(content)}"})
        self.send_response(206 if part else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", etag)
        if part:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        rest = content[start:]
        half = len(rest) // 2
        self.wfile.write(rest[:half])
        self.wfile.flush()
        if state.hold is not None:
            state.held.set()
            state.hold.wait(60)
        if state.breaks.get(path, 0) > 0:
            state.breaks[path] -= 1
            self.close_connection = True
            return None
        self.wfile.write(rest[half:])
        return None

    def _say(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""
