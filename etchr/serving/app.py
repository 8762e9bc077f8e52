"""The whole server: chat with Edit-Verify-Reason inside, over an upstream model, and edits, as one application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette

from etchr.http.application import application
from etchr.mllm.protocol import MLLM
from etchr.router import MIN_CONFIDENCE, Router
from etchr.serving.chat import ChatService
from etchr.serving.edits import EditService
from etchr.serving.plugged import SYSTEMS, Beside, PluggedModel

if TYPE_CHECKING:
    from etchr.editor.klein import KleinEditor


def build_app(
    editor: "KleinEditor",
    upstream: MLLM,
    name: str | None = None,
    router: Router | None = None,
    min_confidence: float = MIN_CONFIDENCE,
    key: str = "",
) -> Starlette:
    """POST /v1/chat/completions with the models of `SYSTEMS`, POST /v1/images/edits, /v1/models, /metrics, /health.

    The upstream's endpoints, where it has some, are not asked before the first request: they may start later. With a
    `key` clients must send it.
    """
    edits = EditService(editor, name)
    model = upstream if hasattr(upstream, "aclose") else Beside(upstream)  # one without endpoints computes here
    plugged = [PluggedModel(each, model, edits.draw, edits.name, router, min_confidence) for each in SYSTEMS]
    chat = ChatService(*plugged)

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        async with edits.batching(app):
            yield
        if hasattr(upstream, "aclose"):
            await upstream.aclose()

    return application([edits.name, *SYSTEMS], [edits.route, *chat.routes], running, key)
