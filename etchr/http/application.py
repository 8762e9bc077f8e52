"""What the servers of this project share: an application, request bodies with a limit, errors in OpenAI's format."""

import asyncio
import hmac
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

BODY_S = 120.0  # for a whole body: 256 MiB over a slow network
CLIENT_GONE = 499  # nginx's status for it; nobody reads the answer

T = TypeVar("T")
Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]
Fields = TypeVar("Fields", bound=BaseModel)


class Refused(ValueError):  # noqa: N818 - a fact about a request
    """A request that is answered with another status than 400."""

    def __init__(self, message: str, status: int, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def application(
    names: Sequence[str], routes: Sequence[Route], lifespan: Lifespan | None = None, key: str = ""
) -> Starlette:
    """An ASGI application with `routes`, GET /v1/models that lists the models `names`, and GET /health.

    With a `key` all but /health is for who sends it as `Authorization: Bearer KEY`.
    """

    async def models(request: Request) -> JSONResponse:
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "etchr"} for name in names]
        return JSONResponse({"object": "list", "data": listed})

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "model": names[0]})

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return error_response(error.status_code, f"{request.method} {request.url.path}: {error.detail}")

    return Starlette(
        routes=[*routes, Route("/v1/models", models), Route("/health", health)],
        exception_handlers={HTTPException: refuse},
        lifespan=lifespan,
        middleware=[Middleware(_Keyed, key=key)] if key else [],
    )


class _Keyed:
    """ASGI middleware that answers 401 to who does not send the key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self._wanted = app, f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = dict(scope.get("headers") or ()).get(b"authorization", b"")
        fits = hmac.compare_digest(sent, self._wanted)  # in a time that says nothing of where they differ
        if scope["type"] != "http" or scope["path"] == "/health" or fits:
            await self.app(scope, receive, send)
        else:
            await error_response(401, "this server wants its key as Authorization: Bearer KEY")(scope, receive, send)


def check_model(asked: Any, *served: str) -> None:
    """`Refused` (404) unless a request asks for one of the models served."""
    if asked not in served:
        names = ", ".join(map(repr, served))
        verb = "is" if len(served) == 1 else "are"
        raise Refused(f"model {shown(asked)} is not served here; {names} {verb}", 404, "model_not_found")


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


async def unless_gone(request: Request, work: "asyncio.Future[T]") -> T | None:
    """What `work` gives, or None where the client hangs up first: then it is cancelled."""

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    gone = asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        gone.cancel()
        work.cancel()


def error_response(
    status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error in OpenAI's format."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status, headers)


def refusal(error: ValueError) -> JSONResponse:
    """The answer to a request that is wrong: its own status, or 400."""
    if isinstance(error, Refused):
        return error_response(error.status, str(error), error.code)
    return error_response(400, str(error))


def shown(value: Any) -> str:
    """A value of a request for a message: ASCII, 80 characters at most."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
