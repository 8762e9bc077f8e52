"""The edit service as an application of its own."""

from typing import Any

from starlette.applications import Starlette

from etchr.http.application import application
from etchr.serving.edits import MAX_BODY_BYTES, EditService


def build_app(editor: Any, name: str | None = None, max_body_bytes: int = MAX_BODY_BYTES) -> Starlette:
    """POST /v1/images/edits over `editor`, GET /v1/models and GET /health."""
    service = EditService(editor, name, max_body_bytes)
    return application([service.name], [service.route], service.batching)
