"""What all of a page's answers have in common: JSON, bodies that are checked, errors in words."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from configs.errors import UserError
from configs.reading import SettingsError, parse
from manifests.text import public_message

MOST_BODY = 1 << 18  # bytes of a request

Model = TypeVar("Model", bound=BaseModel)


def as_json(content: Any, status: int = 200) -> Response:
    """A value, kept by no browser."""
    return JSONResponse(content, status, headers={"Cache-Control": "no-store"})


async def parsed(request: Request, model: type[Model], what: str) -> Model:
    """The body of a request.

    Raises:
        HTTPException: it is too large, no JSON, or another thing.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send application/json")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BODY:
            raise HTTPException(413, f"at most {MOST_BODY} bytes")
    try:
        values = json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is no JSON") from None
    try:
        return parse(model, values, what)
    except SettingsError as error:
        raise HTTPException(422, str(error)) from None


async def refusal(request: Request, error: Exception) -> Response:
    """What the page did wrong, with its status."""
    assert isinstance(error, HTTPException)
    return as_json({"detail": error.detail}, error.status_code)


async def failure(request: Request, error: Exception) -> Response:
    """What a person can put right: a rule that does not fit the manifest, a disk that is full."""
    status = 503 if isinstance(error, UserError | OSError) else 422
    return as_json({"detail": public_message(str(error))}, status)
