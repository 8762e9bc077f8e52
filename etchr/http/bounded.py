"""The HTTP connection of `endpoints.py`, which ends a reply that grows beyond all use while it still comes in.

Imports `openai`, so whoever is light imports this late.
"""

from typing import Any

import openai

DECODED = (b"content-encoding", b"content-length", b"transfer-encoding")  # headers that no longer hold of a body read


class ReplyTooLargeError(OSError):
    """A reply of more bytes than are taken."""


class BoundedClient(openai.DefaultAsyncHttpxClient):
    """The library's own client; bytes are counted as unpacked, so that a compressed reply cannot grow either.

    No redirect is followed: pictures, key and question go to the server that was named, and to no other.
    """

    def __init__(self, most: int, **options: Any) -> None:
        super().__init__(follow_redirects=False, **options)
        self._most = most

    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        """The whole response to a request; raises `ReplyTooLargeError`. No caller here streams."""
        response = await super().send(request, stream=True, **options)
        body = bytearray()
        try:
            async for part in response.aiter_bytes():
                body += part
                if len(body) > self._most:
                    raise ReplyTooLargeError(f"sent more than {self._most:,} bytes")
        finally:
            await response.aclose()
        headers = [(name, value) for name, value in response.headers.raw if name.lower() not in DECODED]
        return type(response)(
            response.status_code,
            headers=headers,
            content=bytes(body),
            request=response.request,
            extensions=response.extensions,
            history=response.history,
        )
