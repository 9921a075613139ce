"""A small server that speaks just enough of the OpenAI API, and misbehaves as a test tells it to."""

from __future__ import annotations

import json
import os
import signal
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SO_LINGER, SOL_SOCKET
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = Callable[[dict[str, Any]], str]


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    data: bytes
    at_s: float

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(self.data)


@dataclass
class Reply:
    """What the server does with one chat completion; the usual one is a good answer."""

    status: int = 200
    content: str | None = None
    message: dict[str, Any] = field(default_factory=dict)
    finish_reason: str = "stop"
    error: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    reset: bool = False
    drip: bool = False
    hold: threading.Event | None = None


class MisbehavingServer:
    """`with MisbehavingServer(answer) as server`: replies to a body with `answer(body)`.

    Attributes:
        script: what to do with the next chat completions, in order; when it is empty: a good answer.
        requests: all that came, in order.
        peak: the most chat completions that were in work at once.
        slow_s: how long each chat completion takes.
        outcomes: what becomes of the next batches (completed, expired, failed, cancelled); then completed.
        kill: (method, path, "before" or "after", process): end that process at that request.
        polls: how often a batch is looked at before it is final.
        fail_next: (method, path, "before" or "after"): cut the connection of the next such request.
        denied: (status, message) for everything but chat completions.
        elsewhere: address that everything but chat completions is sent on to.
        contents: what the next files are instead, in order.
        refuses: the error that a chat completion's body is answered with, None for a good one; see `picky`.
        queue: tokens, 100 a request, that batches under way may have together; one more batch fails.
        page: batches in one page of their list.
    """

    def __init__(self, answer: Answer | None = None, models: tuple[str, ...] = ("org/tiny-vl",)) -> None:
        self.answer = answer or (lambda body: "{}")
        self.models = models
        self.script: list[Reply] = []
        self.requests: list[Request] = []
        self.slow_s = 0.0
        self.now = self.peak = 0
        self.lock = threading.Lock()
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.outcomes: list[str] = []
        self.lines: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda line: None
        self.kill: tuple[str, str, str, int] | None = None
        self.fail_next: list[tuple[str, str, str]] = []
        self.polls = 1
        self.page = 2
        self.denied: tuple[int, str] | None = None
        self.elsewhere = ""
        self.contents: list[bytes] = []
        self.refuses: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda body: None
        self.queue: int | None = None

    def __enter__(self) -> MisbehavingServer:
        handler = type("Handler", (_Handler,), {"of": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=lambda: self.http.serve_forever(0.01), daemon=True)
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def chats(self) -> list[Request]:
        return [r for r in self.requests if r.path == "/v1/chat/completions"]

    def count(self, method: str, path: str) -> int:
        return sum(r.method == method and r.path.startswith(path) for r in self.requests)

    def submitted(self) -> list[str]:
        """The custom_id of every line of every batch that was made: what is paid."""
        files = [self.files[batch["input_file_id"]] for batch in self.batches.values()]
        return [json.loads(line)["custom_id"] for data in files for line in data.splitlines()]

    def new_batch(self, body: dict[str, Any]) -> dict[str, Any]:
        name = f"batch_{len(self.batches)}"
        outcome = self.outcomes.pop(0) if self.outcomes else "completed"
        total = len(self.files[body["input_file_id"]].splitlines())
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "endpoint": body["endpoint"],
            "completion_window": body["completion_window"],
            "input_file_id": body["input_file_id"],
            "metadata": body.get("metadata"),
            "created_at": int(time.time()),
            "status": "in_progress" if self.queue is None else "validating",
            "request_counts": {"total": total, "completed": 0, "failed": 0},
        }
        self.batches[name]["_"] = {"outcome": outcome, "polls": self.polls}
        return self.batches[name]

    def look(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch as it is seen now; each look brings its end nearer."""
        plan = batch["_"]
        if batch["status"] == "validating":
            under_way = [b for b in self.batches.values() if b["status"] == "in_progress"]
            requests = sum(b["request_counts"]["total"] for b in [*under_way, batch])
            if 100 * requests > (self.queue or 0):
                batch["status"], batch["errors"] = "failed", {"object": "list", "data": [no_room(self.queue)]}
            else:
                batch["status"] = "in_progress"
        elif batch["status"] == "in_progress":
            if plan["polls"] > 0:
                plan["polls"] -= 1
            else:
                self.finish(batch, plan["outcome"])
        return shown(batch)

    def finish(self, batch: dict[str, Any], outcome: str) -> None:
        batch["status"] = outcome
        if outcome == "failed":
            batch["errors"] = {"object": "list", "data": [{"code": "bad_file", "message": "no such model"}]}
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        done = lines if outcome == "completed" else lines[: len(lines) // 2]
        good, bad = [], []
        for line in done:
            scripted = self.lines(line)
            refused = self.refuses(line["body"])
            if refused is not None:
                scripted = {"response": {"status_code": 400, "body": {"error": refused}}, "error": None}
            if scripted is None:
                body = completion(self.answer(line["body"]), line["body"]["model"])
                scripted = {"response": {"status_code": 200, "body": body}, "error": None}
            wrong = scripted.get("error") or (scripted.get("response") or {}).get("status_code") != 200
            (bad if wrong else good).append({"id": "r", "custom_id": line["custom_id"], **scripted})
        if outcome == "expired":
            error = {"code": "batch_expired", "message": "not done within the window"}
            rest = lines[len(done) :]
            bad += [{"custom_id": line["custom_id"], "response": None, "error": error} for line in rest]
        for name, results in (("output_file_id", good), ("error_file_id", bad)):
            if results:
                batch[name] = f"file_{batch['id']}_{name}"
                self.files[batch[name]] = b"".join(json.dumps(r).encode() + b"\n" for r in results)


def no_room(limit: int | None) -> dict[str, Any]:
    """What the OpenAI API says of a batch that is too much for an account (openai-python, issue 2084)."""
    message = (
        f"Enqueued token limit reached for gpt-5-mini in organization org-x. Limit: {limit:,} enqueued "
        "tokens. Please try again once some in_progress batches have been completed."
    )
    return {"code": "token_limit_exceeded", "message": message, "param": None, "line": None}


def picky(body: dict[str, Any]) -> dict[str, Any] | None:
    """The error that the OpenAI API has for what a model that reasons does not take; None: it takes all."""
    refused: tuple[str, str, str] | None = None
    kinds = [
        (f"messages[{i}].content[{k}].type", part["type"])
        for i, message in enumerate(body["messages"])
        for k, part in enumerate(message["content"])
    ]
    wrong = next((found for found in kinds if found[1] not in ("text", "image_url")), None)
    if body.get("temperature", 1) != 1:
        message = (
            f"'temperature' does not support {body['temperature']} with this model. Only the default (1)"
        )
        refused = ("unsupported_value", "temperature", f"Unsupported value: {message} value is supported.")
    elif "max_tokens" in body:
        message = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        refused = ("unsupported_parameter", "max_tokens", f"Unsupported parameter: {message}")
    elif wrong is not None:
        message = f"'{wrong[1]}'. Supported values are: 'text', 'image_url', 'input_audio', 'refusal'"
        refused = ("invalid_value", wrong[0], f"Invalid value: {message}, 'audio', and 'file'.")
    if refused is None:
        return None
    code, param, message = refused
    return {"message": message, "type": "invalid_request_error", "param": param, "code": code}


def completion(text: str | None, model: str, **choice: Any) -> dict[str, Any]:
    """A chat completion of 100 + 10 tokens."""
    message = {"role": "assistant", "content": text, **choice.pop("message", {})}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


class _Handler(BaseHTTPRequestHandler):
    of: MisbehavingServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.handle_one()

    def do_POST(self) -> None:
        self.handle_one()

    def handle_one(self) -> None:
        server, parts = self.of, urlsplit(self.path)
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if "chunked" in headers.get("transfer-encoding", ""):
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        request = Request(self.command, parts.path, headers, data, time.monotonic())
        with server.lock:
            server.requests.append(request)
        try:
            if parts.path == "/v1/chat/completions":
                self.chat(request)
            else:
                self.other(request, parse_qs(parts.query))
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def chat(self, request: Request) -> None:
        server = self.of
        with server.lock:
            server.now += 1
            server.peak = max(server.peak, server.now)
            reply = server.script.pop(0) if server.script else Reply()
        if (refused := server.refuses(request.body)) is not None:
            reply = Reply(400, error=refused)
        try:
            if reply.hold is not None:
                reply.hold.wait(20)
            if server.slow_s:
                time.sleep(server.slow_s)  # so that requests overlap; nothing is timed by it
            if reply.reset:
                self.reset()
                return
            if reply.status != 200:
                error = (
                    {"error": reply.error} if reply.error is not None else {"error": {"message": "broken"}}
                )
                out = json.dumps(error).replace("AUTHORIZATION", request.headers.get("authorization", ""))
                data = out.encode()
            else:
                content = reply.content
                if content is None and not reply.message:
                    content = server.answer(request.body)
                if content is not None:
                    content = content.replace("AUTHORIZATION", request.headers.get("authorization", ""))
                choice = {"message": reply.message, "finish_reason": reply.finish_reason}
                data = json.dumps(completion(content, request.body["model"], **choice)).encode()
        finally:
            with server.lock:
                server.now -= 1
        self.send(reply.status, data if reply.raw is None else reply.raw, reply.headers, reply.drip)

    def other(self, request: Request, query: dict[str, list[str]]) -> None:
        server, path = self.of, request.path
        self.strike(request, "before")
        if server.denied is not None:
            status, message = server.denied
            message = message.replace("AUTHORIZATION", request.headers.get("authorization", ""))
            self.send(status, json.dumps({"error": {"message": message}}).encode())
            return
        if server.elsewhere:
            self.send(307, b"", {"location": server.elsewhere})
            return
        with server.lock:
            data = self.route(request, path, query)
        self.strike(request, "after")
        if data is None:
            self.send(404, b'{"error": {"message": "no such thing"}}')
        else:
            self.send(200, data if isinstance(data, bytes) else json.dumps(data).encode())

    def route(self, request: Request, path: str, query: dict[str, list[str]]) -> Any:
        server = self.of
        match [request.method, *path.split("/")[2:]]:
            case ["GET", "models"]:
                return {"object": "list", "data": [{"id": name, "object": "model"} for name in server.models]}
            case ["POST", "files"]:
                name = f"file_{len(server.files)}"
                server.files[name] = upload(request)
                made = {"id": name, "object": "file", "bytes": len(server.files[name]), "created_at": 0}
                return {**made, "filename": "f.jsonl", "purpose": "batch", "status": "processed"}
            case ["GET", "files", name, "content"]:
                return server.contents.pop(0) if server.contents else server.files.get(name)
            case ["POST", "batches"]:
                return shown(server.new_batch(request.body))
            case ["GET", "batches", name]:
                return server.look(server.batches[name]) if name in server.batches else None
            case ["GET", "batches"]:
                newest = list(reversed(server.batches))
                after = query.get("after", [""])[0]
                start = newest.index(after) + 1 if after else 0
                page = newest[start : start + server.page]
                return {
                    "object": "list",
                    "data": [shown(server.batches[n]) for n in page],
                    "has_more": start + server.page < len(newest),
                }
        return None

    def strike(self, request: Request, when: str) -> None:
        """End the process that the test marked, or fail this request, at this moment."""
        server = self.of
        for mark in server.fail_next:
            if mark[0] == request.method and request.path.startswith(mark[1]) and mark[2] == when:
                server.fail_next.remove(mark)
                self.reset()
                raise ConnectionResetError
        if server.kill is None:
            return
        method, path, moment, process = server.kill
        if (request.method, moment) == (method, when) and request.path.startswith(path):
            server.kill = None
            os.kill(process, signal.SIGKILL)
            raise ConnectionResetError

    def reset(self) -> None:
        self.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def send(
        self, status: int, data: bytes, headers: dict[str, str] | None = None, drip: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if not drip:
            self.wfile.write(data)
            return
        for i in range(len(data)):
            self.wfile.write(data[i : i + 1])
            self.wfile.flush()
            time.sleep(0.05)  # a body that never comes to its end in time


def shown(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch without what only the server knows."""
    return {name: value for name, value in batch.items() if name != "_"}


def upload(request: Request) -> bytes:
    """The file in a multipart form."""
    head = b"Content-Type: " + request.headers["content-type"].encode() + b"\r\n\r\n"
    for part in BytesParser().parsebytes(head + request.data).get_payload():
        if part.get_filename():
            return part.get_payload(decode=True)
    raise ValueError("no file was sent")
