"""What the servers of this project share: an application, request bodies with a limit, errors in OpenAI's format."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

BODY_S = 120.0  # for a whole body: 256 MiB over a slow network
CLIENT_GONE = 499  # nginx's status for it; nobody reads the answer

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]
Fields = TypeVar("Fields", bound=BaseModel)


class Refused(ValueError):  # noqa: N818 - a fact about a request
    """A request that is answered with another status than 400."""

    def __init__(self, message: str, status: int, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def application(name: str, routes: Sequence[Route], lifespan: Lifespan | None = None) -> Starlette:
    """An ASGI application with `routes`, GET /v1/models that lists the model `name`, and GET /health."""

    async def models(request: Request) -> JSONResponse:
        entry = {"id": name, "object": "model", "created": 0, "owned_by": "etchr"}
        return JSONResponse({"object": "list", "data": [entry]})

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "model": name})

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return error_response(error.status_code, f"{request.method} {request.url.path}: {error.detail}")

    return Starlette(
        routes=[*routes, Route("/v1/models", models), Route("/health", health)],
        exception_handlers={HTTPException: refuse},
        lifespan=lifespan,
    )


def check_model(asked: Any, served: str) -> None:
    """`Refused` (404) unless a request asks for the model served."""
    if asked != served:
        raise Refused(f"model {shown(asked)} is not served here; {served!r} is", 404, "model_not_found")


def checked(kind: type[Fields], given: Mapping[str, Any]) -> Fields:
    """The fields of a request as `kind`; `ValueError` in one sentence about the first that is wrong."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
    name = ".".join(map(str, wrong["loc"]))
    if wrong["type"] == "extra_forbidden":
        raise ValueError(f"field {shown(name)} is not known here; {', '.join(sorted(kind.model_fields))} are")
    if wrong["type"] == "missing":
        raise ValueError(f"{name} is missing")
    raise ValueError(f"{name}: {wrong['msg'].removeprefix('Value error, ')}, got {shown(wrong['input'])}")


async def limited_body(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The chunks of a body; `Refused` as soon as it is longer than `limit` bytes, takes too long or breaks off."""
    size, chunks = 0, request.stream()
    deadline = asyncio.get_running_loop().time() + BODY_S
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise Refused(f"the request body did not come within {BODY_S:g} s", 408) from None
        except ClientDisconnect:
            raise Refused("the client has gone", CLIENT_GONE) from None
        if chunk is None:
            return
        size += len(chunk)
        if size > limit:
            raise Refused(f"the request body is larger than {limit:,} bytes", 413)
        yield chunk


def error_response(status: int, message: str, code: str | None = None) -> JSONResponse:
    """An error in OpenAI's format."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def refusal(error: ValueError) -> JSONResponse:
    """The answer to a request that is wrong: its own status, or 400."""
    if isinstance(error, Refused):
        return error_response(error.status, str(error), error.code)
    return error_response(400, str(error))


def shown(value: Any) -> str:
    """A value of a request for a message: ASCII, 80 characters at most."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
