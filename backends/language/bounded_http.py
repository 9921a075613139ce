"""The connection to a language server: it is not led to another server, and no answer is without end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from urllib.parse import urljoin

import httpx2  # comes with openai, whose client it is
import openai

from manifests.text import public_text

MB = 1 << 20
ANSWER_BYTES = 16 * MB  # of one answer; 8192 tokens and what is around them are 100 KB
# Packed answers would have to be unpacked to learn how long they are: 1 MB may hold 1 GB.
PLAIN = {"accept-encoding": "identity"}


class UnboundedAnswer(openai.OpenAIError):
    """An answer that is longer than allowed, or packed; the message says which."""


def http_client(limit: int | None = None) -> httpx2.Client:
    """A client for `openai.OpenAI`.

    Args:
        limit: bytes of an answer; None: `ANSWER_BYTES`.
    """

    def bound(response: httpx2.Response) -> None:
        _check_plain(response)
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _Bounded(response.stream, limit or ANSWER_BYTES)

    return openai.DefaultHttpxClient(follow_redirects=False, headers=PLAIN, event_hooks={"response": [bound]})


def async_http_client() -> httpx2.AsyncClient:
    """A client for `openai.AsyncOpenAI`; an answer has at most `ANSWER_BYTES`."""

    async def bound(response: httpx2.Response) -> None:
        _check_plain(response)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _AsyncBounded(response.stream, ANSWER_BYTES)

    return openai.DefaultAsyncHttpxClient(
        follow_redirects=False, headers=PLAIN, event_hooks={"response": [bound]}
    )


def sent_on(error: openai.APIStatusError) -> str | None:
    """What to say of an answer that names another address; None: it names none."""
    if not error.response.has_redirect_location:
        return None
    here = str(error.request.url)
    there = urljoin(here, error.response.headers["location"])
    return (
        f"HTTP {error.status_code}: {public_text(here)} sends its questions on to {public_text(there)}, "
        "which would get the pictures; if that is right, name that address as the endpoint"
    )


def _check_plain(response: httpx2.Response) -> None:
    packed = response.headers.get("content-encoding", "identity")
    if packed.lower() != "identity":
        raise UnboundedAnswer("the server packs its answers though it was asked not to (content-encoding)")


class _Count:
    """Counts the bytes of one answer."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0

    def add(self, chunk: bytes) -> bytes:
        """The same bytes.

        Raises:
            UnboundedAnswer: they are too many.
        """
        self.size += len(chunk)
        if self.size > self.limit:
            raise UnboundedAnswer(f"the server's answer is longer than {self.limit} bytes")
        return chunk


class _Bounded(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, limit: int) -> None:
        self.stream, self.count = stream, _Count(limit)

    def __iter__(self) -> Iterator[bytes]:
        yield from map(self.count.add, self.stream)

    def close(self) -> None:
        self.stream.close()


class _AsyncBounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, limit: int) -> None:
        self.stream, self.count = stream, _Count(limit)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self.stream:
            yield self.count.add(chunk)

    async def aclose(self) -> None:
        await self.stream.aclose()
