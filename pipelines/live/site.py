"""What is answered to the page of an avatar: its frames as they are made, and what is done to it.

Frames come as the endless body of one answer, what is done as requests of their own: plain HTTP, which needs
no further library, and to which the guard of pages applies as it is. Records of that body are a header in
JSON and a JPEG, each behind its length in four bytes, the most significant first.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from backends.sound.audio_embedder import RATE
from configs.errors import UserError
from manifests.text import public_message
from pipelines.live.session import Avatar, Session, Shown, jpeg
from pipelines.review.answers import as_json, failure, parsed, refusal

# What is made answers no later touch, so a block is begun as late as it may be: when what is left to be seen
# plays half as long again as the last block took to make, and never while more than a block is left.
EARLY: Final = 1.5
EVERY: Final = 4  # frames from one word of the page to the next
LOOK_S: Final = 0.2  # how often it is looked whether the server ends
MOST_SOUND_S: Final = 120  # of a request
TYPES: Final[Mapping[str, str]] = {
    "live.css": "text/css",
    "live.js": "text/javascript",
    "microphone.js": "text/javascript",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
BUSY = "the avatar is with another page, and has time for one at once: close that one, then begin here"


class Of(BaseModel):
    """What is said by a page that watches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    session: int = Field(description="Which one, as the answer to `begin` says.")


class NewTouch(Of):
    """A touch."""

    x: float = Field(ge=0, le=1, description="Share of the width.")
    y: float = Field(ge=0, le=1, description="Share of the height.")
    kind: str = Field(description="A type of touch of the vocabulary.")


class Seen(Of):
    """Frames have been on the screen."""

    frame: int = Field(ge=0, description="The number of the last one.")
    first_ms: float | None = Field(None, ge=0, description="From the button to the first frame.")
    touch: int | None = Field(None, ge=1, description="A touch whose first reaction has been seen.")
    reaction_ms: float | None = Field(None, ge=0, description="From the click to that.")


class Site:
    """What is answered below the token.

    Args:
        avatar: who is watched.
        kinds: types of touch, and the verb of each.
        notes: what one should know of the avatar.
        sound: a recording to play, mono in [-1, 1] at `RATE`; None: none.
        folder, keeps_clip: as `Session` has them.
    """

    def __init__(
        self,
        avatar: Avatar,
        kinds: Mapping[str, str],
        notes: list[str],
        sound: np.ndarray | None = None,
        folder: Path | None = None,
        keeps_clip: bool = False,
    ) -> None:
        self._avatar, self._kinds, self._notes, self._sound = avatar, kinds, notes, sound
        self._keeps = (folder, keeps_clip)
        self._session: Session | None = None
        self._number, self._is_taken = 0, False
        self._made = self._looked = 0  # frames that were made, and seen
        self._make_s = 0.0  # of the last block
        self._was_seen = asyncio.Event()
        self.is_over: Callable[[], bool] = lambda: False  # whether the server ends

    def app(self) -> Starlette:
        """The routes."""
        return Starlette(
            routes=[
                Route("/", self._page),
                Route("/facts", self._facts),
                Route("/portrait.jpg", self._portrait),
                Route("/sound", self._recording),
                Route("/begin", self._begin, methods=["POST"]),
                Route("/touch", self._touch, methods=["POST"]),
                Route("/hear", self._hear, methods=["POST"]),
                Route("/seen", self._seen, methods=["POST"]),
                Route("/{name}", self._file),
            ],
            exception_handlers={HTTPException: refusal, UserError: failure, OSError: failure},
        )

    async def _page(self, request: Request) -> Response:
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
        return Response(_part("live.html"), media_type="text/html", headers=headers)

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in TYPES:
            raise HTTPException(404, "no such file")
        return Response(_part(name), media_type=TYPES[name], headers={"Cache-Control": "no-store"})

    async def _facts(self, request: Request) -> Response:
        height, width = self._avatar.portrait.shape[:2]
        return as_json(
            {
                "width": width,
                "height": height,
                "fps": self._avatar.fps,
                "kinds": [{"type": kind, "verb": verb} for kind, verb in self._kinds.items()],
                "notes": self._notes,
                "hears": self._avatar.embedder is not None,
                "has_sound": self._sound is not None,
                "rate": RATE,
                "every": EVERY,
            }
        )

    async def _portrait(self, request: Request) -> Response:
        return Response(jpeg(self._avatar.portrait), media_type="image/jpeg")

    async def _recording(self, request: Request) -> Response:
        """The recording of the command line: float32, little endian."""
        if self._sound is None:
            raise HTTPException(404, "no recording was given")
        return Response(self._sound.astype("<f4").tobytes(), media_type="application/octet-stream")

    async def _begin(self, request: Request) -> Response:
        """Frames, until the page goes away."""
        if self._is_taken:
            raise HTTPException(409, BUSY)
        self._is_taken = True  # before anything is awaited: who comes meanwhile finds it taken
        try:
            self._session = await run_in_threadpool(Session, self._avatar, *self._keeps)
        except BaseException:
            self._is_taken = False
            raise
        self._number += 1
        self._made = self._looked = 0
        self._make_s = 0.0
        return Frames(self._frames(self._session), self._number, self._end)

    def _end(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session, self._is_taken = None, False

    async def _frames(self, session: Session) -> AsyncIterator[bytes]:
        try:
            while await self._wanted(session):
                begun = time.perf_counter()
                shown = await run_in_threadpool(session.make)
                self._make_s = time.perf_counter() - begun
                self._made += len(shown)
                for one in shown:
                    yield _record(one)
        except (ValueError, UserError, OSError) as error:  # numbers that are not finite, a full disk
            yield _record(Shown({"error": public_message(str(error))}, b""))

    async def _wanted(self, session: Session) -> bool:
        """Wait until the page has seen enough for another block; False: the server ends."""
        enough = min(EVERY + EARLY * self._make_s * self._avatar.fps, session.block_frames)
        while self._made - self._looked > enough and not self.is_over():
            self._was_seen.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._was_seen.wait(), LOOK_S)
        return not self.is_over()

    def _of(self, session: int) -> Session:
        if self._session is None or session != self._number:
            raise HTTPException(409, "this page watches no longer; begin again")
        return self._session

    async def _touch(self, request: Request) -> Response:
        touch = await parsed(request, NewTouch, "touch")
        if touch.kind not in self._kinds:
            raise HTTPException(422, f"kind: one of {', '.join(self._kinds)}")
        number = await run_in_threadpool(self._of(touch.session).touch, touch.x, touch.y, touch.kind)
        return as_json({"touch": number})

    async def _hear(self, request: Request) -> Response:
        """Samples at `RATE`, float32, little endian; `live=1`: from a microphone, else a whole recording."""
        query, body = request.query_params, bytearray()
        if not (number := query.get("session", "")).isdecimal():
            raise HTTPException(422, "session: which one, a number")
        async for piece in request.stream():
            body += piece
            if len(body) > 4 * MOST_SOUND_S * RATE:
                raise HTTPException(413, f"at most {MOST_SOUND_S} s of sound at once")
        samples = np.frombuffer(bytes(body[: len(body) // 4 * 4]), "<f4")
        if not np.isfinite(samples).all():
            raise HTTPException(422, "samples are numbers from -1 to 1")
        self._of(int(number)).hear(np.clip(samples, -1, 1).astype(np.float32), query.get("live") == "1")
        return Response(status_code=204)

    async def _seen(self, request: Request) -> Response:
        seen = await parsed(request, Seen, "seen")
        session = self._of(seen.session)
        facts: dict[str, Any] = seen.model_dump(exclude={"session"}, exclude_none=True)
        await run_in_threadpool(session.note, "seen", **facts)
        self._looked = max(self._looked, min(seen.frame + 1, self._made))
        self._was_seen.set()
        return Response(status_code=204)


class Frames(StreamingResponse):
    """An answer that goes on until the page goes away; `end` is called then, and where it never began."""

    def __init__(self, frames: AsyncIterator[bytes], session: int, end: Callable[[], None]) -> None:
        headers = {"X-Session": str(session), "Cache-Control": "no-store"}
        super().__init__(frames, headers=headers, media_type="application/octet-stream")
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


def _record(shown: Shown) -> bytes:
    facts = json.dumps(shown.facts).encode()
    return b"".join(struct.pack(">I", len(part)) + part for part in (facts, shown.jpeg))


def _part(name: str) -> bytes:
    return resources.files("pipelines.live").joinpath("page", name).read_bytes()
