"""What is answered to those who look at a run's page and review its samples."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from configs.errors import UserError
from manifests import journal, reviews, storage
from manifests.reviews import LONGEST_NAME, LONGEST_NOTE, Review, ReviewLog, Verdict
from manifests.screen import Rule, Screen
from manifests.text import public_message
from pipelines.engine.record import parse_run
from pipelines.review.agreement import agreement
from pipelines.review.answers import as_json, failure, parsed, refusal
from pipelines.review.clips import Clips, Rows
from pipelines.review.page import policy_of
from pipelines.review.queue import queue
from pipelines.review.report import REPORT
from pipelines.review.strips import FOLDER

AT_ONCE = 2  # copies of clips that are made
MOST_RULES, MOST_QUEUED, QUEUED = 500, 500, 50


class ShownVerdict(BaseModel):
    """What the reviewer saw of a sample's verdict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    screen: str = Field(max_length=LONGEST_NAME)
    screen_hash: str | None = Field(pattern="^[0-9a-f]{16}$", description="None: thresholds were moved.")
    keep: bool | None
    drop_reasons: list[Annotated[str, Field(max_length=LONGEST_NAME)]] = Field(max_length=MOST_RULES)


class NewReview(BaseModel):
    """What the page sends of one review."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample_id: str
    verdict: Verdict
    note: str = Field("", max_length=LONGEST_NOTE)
    reviewer: str | None = Field(None, description="Default: of the query, else of the command line.")
    shown: ShownVerdict | None = Field(None, description="Default: the verdict in the manifest.")


class OtherScreen(BaseModel):
    """A screen that is tried."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("tried", max_length=LONGEST_NAME)
    rules: list[Rule] = Field(max_length=MOST_RULES)


def clean_name(name: str) -> str:
    """A reviewer's name on one line, of characters that can be seen; "" where none is left."""
    seen = (c if c.isprintable() else " " for c in unicodedata.normalize("NFC", name))
    return " ".join("".join(seen).split())[:LONGEST_NAME].strip()


class Site:
    """What is answered below the token; all of it may be asked by several at once.

    Args:
        run: the run's folder.
        copies: an empty folder of this machine for copies of media.
        reviewer: the name of those who give none.
    """

    def __init__(self, run: Path, copies: Path, reviewer: str) -> None:
        self._run, self._reviewer = run, reviewer
        self._rows, self._clips, self._log = Rows(run / "manifest"), Clips(run, copies), ReviewLog(run)
        self._files: frozenset[str] = frozenset()
        self._copying = asyncio.Semaphore(AT_ONCE)

    def app(self) -> Starlette:
        """The routes."""
        return Starlette(
            routes=[
                Route("/", self._page),
                Route("/clip/{sample_id:path}", self._clip),
                Route(f"/{FOLDER}/{{name}}", self._beside),
                Route("/reviews", self._say, methods=["POST"]),
                Route("/reviews", self._said),
                Route("/figures", self._figures, methods=["GET", "POST"]),
                Route("/queue", self._queue, methods=["GET", "POST"]),
            ],
            exception_handlers={
                HTTPException: refusal,
                UserError: failure,
                ValueError: failure,
                OSError: failure,
            },
        )

    async def _page(self, request: Request) -> Response:
        html = await run_in_threadpool(self._written_page)
        policy = f"{policy_of(html)}; frame-ancestors 'none'"
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
        return HTMLResponse(html, headers=headers)

    def _written_page(self) -> str:
        try:
            return storage.read_bytes(self._run / REPORT).decode()
        except FileNotFoundError:
            raise HTTPException(404, f"no {REPORT} yet: `interavatar report {self._run}` writes it") from None

    async def _clip(self, request: Request) -> Response:
        row = await self._row(request.path_params["sample_id"])
        try:
            shown = await run_in_threadpool(self._clips.as_it_is, row)
            if shown is None:
                async with self._copying:  # who waits here holds no thread that a review needs
                    if await request.is_disconnected():  # went on to the next clip
                        return Response(status_code=204)
                    shown = await run_in_threadpool(self._clips.shown, row)
        except (UserError, OSError) as error:
            raise HTTPException(404, f"its media cannot be shown: {public_message(str(error))}") from error
        return FileResponse(
            shown.path, media_type=shown.type, headers={"Cache-Control": "private, max-age=3600"}
        )

    async def _row(self, sample_id: str) -> dict[str, Any]:
        row = await run_in_threadpool(self._rows.find, sample_id)
        if row is None:
            raise HTTPException(404, "the manifest has no such sample")
        return row

    async def _beside(self, request: Request) -> Response:
        """A file of the run's report, whose names are known: none is made of what was asked for."""
        name, folder = request.path_params["name"], self._run / FOLDER
        if name not in self._files:
            files = await run_in_threadpool(storage.files, folder)
            self._files = frozenset(path.name for path in files)
        if name not in self._files or not name.endswith(".webp"):
            raise HTTPException(404, "no such file")
        try:
            data = await run_in_threadpool(storage.read_bytes, folder / name)
        except FileNotFoundError:
            raise HTTPException(404, "no such file") from None
        return Response(data, media_type="image/webp", headers={"Cache-Control": "private, max-age=3600"})

    async def _said(self, request: Request) -> Response:
        """The last word of each reviewer on each sample, and what they decided."""
        log = await run_in_threadpool(reviews.read, self._run)
        return as_json({"reviewer": self._name(request), **_words(log)})

    async def _say(self, request: Request) -> Response:
        """Add a review."""
        said = await parsed(request, NewReview, "review")
        row = await self._row(said.sample_id)
        screen = await run_in_threadpool(self._screen)
        shown = said.shown or ShownVerdict(
            screen=screen.name,
            screen_hash=screen.hash,
            keep=row["keep"],
            drop_reasons=row["drop_reasons"] or [],
        )
        name = clean_name(said.reviewer or "") or self._name(request)
        review = Review(
            sample_id=said.sample_id,
            reviewer=name,
            verdict=said.verdict,
            note=said.note,
            **shown.model_dump(),
        )
        at = await run_in_threadpool(self._log.append, [review])
        log = await run_in_threadpool(reviews.read, self._run)
        words = _words(log.filter(pc.equal(log["sample_id"], said.sample_id)))["words"]
        return as_json({"at": at.isoformat(), **review.model_dump(mode="json"), "words": words}, 201)

    def _name(self, request: Request) -> str:
        return clean_name(request.query_params.get("reviewer", "")) or self._reviewer

    async def _figures(self, request: Request) -> Response:
        """How the run's screen, or one that is tried, agrees with the reviewers."""
        screen = await self._asked_screen(request)
        return as_json(asdict(await run_in_threadpool(self._compared, agreement, screen)))

    async def _queue(self, request: Request) -> Response:
        """What to review next, by the run's screen or one that is tried."""
        count = request.query_params.get("count", str(QUEUED))
        if not re.fullmatch(r"[0-9]{1,4}", count) or not 1 <= int(count) <= MOST_QUEUED:
            raise HTTPException(422, f"count is a number from 1 to {MOST_QUEUED}")
        screen, name = await self._asked_screen(request), self._name(request)
        found = await run_in_threadpool(self._compared, queue, screen, int(count), name)
        return as_json([asdict(one) for one in found])

    def _compared(self, compare: Callable[..., Any], screen: Screen, *more: Any) -> Any:
        return compare(self._rows.table(screen), reviews.read(self._run), screen, *more)

    async def _asked_screen(self, request: Request) -> Screen:
        if request.method == "GET":
            return await run_in_threadpool(self._screen)
        other = await parsed(request, OtherScreen, "screen")
        return Screen(name=other.name, rules=other.rules)

    def _screen(self) -> Screen:
        return Screen.model_validate(parse_run(journal.read(self._run, "run.json"))["screen"])


def _words(log: pa.Table) -> dict[str, Any]:
    words = reviews.latest(log).select(["sample_id", "reviewer", "verdict", "note", "at"]).to_pylist()
    decided = reviews.decided(log)
    return {
        "words": [word | {"at": word["at"].isoformat()} for word in words],
        "decided": dict(zip(*(decided[name].to_pylist() for name in decided.column_names), strict=True)),
    }
