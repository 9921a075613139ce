"""Who may come to a run's page, and where.

Who knows the token in the address may do all of it; who does not gets the answer 404 to everything. A page of
another site that the same browser shows can neither read nor write: it does not know the token, cannot come
by a name of its own that leads here (`Host`), and what it sends says where it comes from (`Origin`).
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from urllib.parse import urlsplit

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from configs.errors import UserError

SHUTDOWN_S = 3  # for what is under way


def new_token() -> str:
    """What only those know who were told the address; it does not look like a key, which is never printed."""
    return secrets.token_urlsafe(24).replace("-", "_")


class Guard:
    """Lets those to the site who know the token and come to it by a name of this machine.

    Args:
        site: what is answered below the token.
        token: the first part of every path.
        hosts: names by which this machine is reached, beside its numbers and `localhost`.
    """

    def __init__(self, site: ASGIApp, token: str, hosts: Iterable[str] = ()) -> None:
        self._site, self._token = site, token.encode()
        self._hosts = {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":  # no web socket is opened
            return
        first, _, _ = scope["path"].removeprefix("/").partition("/")
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if not secrets.compare_digest(first.encode("utf-8", "surrogatepass"), self._token):
            refusal = PlainTextResponse("not found", 404)
        elif not self._is_ours(headers.get(b"host", "")):
            refusal = PlainTextResponse("another host's name", 400)
        elif scope["method"] not in ("GET", "HEAD") and not _is_from_here(headers):
            refusal = PlainTextResponse("from another site", 403)
        else:
            inside = dict(scope, root_path=f"{scope.get('root_path', '')}/{first}")
            await self._site(inside, receive, _with_headers(send))
            return
        await refusal(scope, receive, _with_headers(send))

    def _is_ours(self, host: str) -> bool:
        """Whether no other site's name leads here: a number of ours is never one."""
        name = _host_of(f"//{host}") or ""
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._hosts
        return True


def _is_from_here(headers: Mapping[bytes, str]) -> bool:
    """Whether a request that changes something comes from the page, or from a program that is no browser."""
    origin = headers.get(b"origin")
    if headers.get(b"sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    return origin is None or origin == f"http://{headers.get(b'host', '')}"


def _host_of(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    """Answers with the headers that all of them have."""

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = dict(message, headers=[*message["headers"], *HEADERS])
        await send(message)

    return answer


HEADERS: Sequence[tuple[bytes, bytes]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at an address of this machine; port 0: at one that is free.

    Raises:
        UserError: it cannot.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None) or 0  # below 0 it is one of name resolution
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen at {host}, port {port}: {reason}; --port 0 takes a free one"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine itself comes to an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serving(app: ASGIApp) -> uvicorn.Server:
    """A server that says nothing of itself and writes down no address, which would hold the token."""
    settings = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    return uvicorn.Server(settings)
