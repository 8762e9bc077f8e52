"""Serve our own editor over OpenAI's images-edit protocol, so that `RemoteEditor`, or any other client, can call it.

Requests are hostile input: bodies are limited in bytes, pictures come in as files of the form only and pass through
`etchr.images`, nothing is ever fetched, and every refusal is one sentence in OpenAI's error format. Requests that wait
at the same time share batches; one whose client has gone is dropped. Pictures leave as lossless PNG.
"""

import asyncio
import base64
import functools
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from etchr.concurrent import Room
from etchr.editor import geometry
from etchr.editor.batching import Edit, EditBatcher, EditFailed
from etchr.editor.protocol import MAX_PICTURES
from etchr.http.application import (
    CLIENT_GONE,
    check_model,
    checked,
    error_response,
    limited_body,
    refusal,
    unless_gone,
)
from etchr.http.endpoints import printable
from etchr.images import decode_image, encode_png
from etchr.sample import EditSample
from etchr.serving.pictures import MAX_PIXELS, give_back, num_pixels

if TYPE_CHECKING:
    from etchr.editor.klein import KleinEditor

T = TypeVar("T")

MAX_BODY_BYTES = 64 * 2**20  # an 8K photograph as PNG takes about 45 million
MAX_FIELD_BYTES = 2**17
IMAGE = ("image", "image[]")  # the field of the source and, repeated, of its references


class EditRequest(BaseModel):
    """The text fields of a form; an empty one counts as left out."""

    # Whatever else a form holds would change the edit that its sender expects, or so he thinks: it is refused.
    model_config = ConfigDict(extra="forbid")

    model: str
    prompt: str = Field(max_length=32_000)  # OpenAI's own limit
    n: int = Field(1, ge=1, le=10)  # the protocol's own limit
    # The edit has the size of the fitted source, whatever `size` says: source and edit align pixel to pixel.
    size: str = Field("auto", pattern="^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$")
    seed: int = Field(default_factory=lambda: secrets.randbits(63), ge=0, lt=2**63)
    num_inference_steps: int | None = Field(None, ge=1, le=1000)
    guidance_scale: float | None = Field(None, ge=0, le=100, allow_inf_nan=False)
    response_format: Literal["b64_json"] = "b64_json"
    output_format: Literal["png"] = "png"
    stream: Literal["false"] = "false"
    user: str = ""

    @field_validator("prompt")
    @classmethod
    def _says_something(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("must say what to draw")
        if prompt != printable(prompt):  # a form may name a charset that gives such
            raise ValueError("holds half a character (a lone surrogate)")
        return prompt


class EditService:
    """POST /v1/images/edits over an editor, for an application that runs `batching` as its lifespan."""

    def __init__(self, editor: "KleinEditor", name: str | None = None, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        """Clients ask for the model `name`, by default the editor's own."""
        self.editor, self.name, self.max_body_bytes = editor, name or editor.name, max_body_bytes
        self.route = Route("/v1/images/edits", self.edits, methods=["POST"])
        self._room = Room(MAX_PIXELS)
        # One object for each way of sampling, so that requests that want the same one share batches.
        self._sampled = functools.lru_cache(maxsize=64)(editor.with_sampling)

    @asynccontextmanager
    async def batching(self, app: Starlette) -> AsyncIterator[None]:
        """Inside, edits can be asked for."""
        async with EditBatcher(self.editor, self.editor.batch_size) as self.batcher:
            yield

    async def draw(self, sample: EditSample, prompt: str, seed: int) -> Image.Image:
        """The edit of a sample's pictures; it shares batches with those of other requests. Raises `EditFailed`."""
        edit = await self.batcher.edit(sample.image, prompt, seed, references=sample.more_images)
        return edit.image

    async def edits(self, request: Request) -> Response:
        """Answer one request."""
        pixels = 0
        try:
            form = await _read_form(request, self.max_body_bytes)
            async with _closed(form):
                data = await _uploaded(form)
                pixels = await asyncio.to_thread(num_pixels, data)
                async with self._room.taken(pixels):
                    most = self.editor.settings.max_pixels
                    call, images = await asyncio.to_thread(_parse, form, data, self.name, most)
                del data
            variant = self._sampled(call.num_inference_steps, call.guidance_scale)
        except ValueError as error:
            return refusal(error)
        finally:
            give_back(pixels)
        source, *references = images
        seeds = range(call.seed, call.seed + call.n)
        asked = (self.batcher.edit(source, call.prompt, seed, variant, references) for seed in seeds)
        try:
            made = await unless_gone(request, asyncio.gather(*asked))
        except EditFailed as error:
            return error_response(500, str(error))
        if made is None:
            return Response(status_code=CLIENT_GONE)
        return JSONResponse(await asyncio.to_thread(_answer, made))


async def _read_form(request: Request, max_body_bytes: int) -> FormData:
    """The parts of a request; `ValueError` in one sentence for what is no form or too large."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ValueError("the request must be a form: Content-Type: multipart/form-data")
    body = limited_body(request, max_body_bytes)
    num_fields = len(EditRequest.model_fields)
    parser = MultiPartParser(
        request.headers, body, max_files=MAX_PICTURES, max_fields=num_fields, max_part_size=MAX_FIELD_BYTES
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise ValueError(f"the request is no readable form: {error.message}") from None


@asynccontextmanager
async def _closed(form: FormData) -> AsyncIterator[None]:
    """Close a form's temporary files in the end."""
    try:
        yield
    finally:
        await form.close()


async def _uploaded(form: FormData) -> list[bytes]:
    """The bytes of the pictures in a form, in its order."""
    given = [value for name, value in form.multi_items() if name in IMAGE]
    files = [value for value in given if isinstance(value, UploadFile)]
    if not files or len(files) < len(given):
        raise ValueError("the form must hold the picture as a file, image; URLs are not fetched")
    return [await file.read() for file in files]


def _parse(form: FormData, data: list[bytes], served: str, max_pixels: int) -> tuple[EditRequest, list[Image.Image]]:
    """A form to a typed request and its fitted pictures; `ValueError` in one sentence for anything else."""
    check_model(form.get("model"), served)
    fields = {name: value for name, value in form.items() if name not in IMAGE and value != ""}
    return checked(EditRequest, fields), [geometry.fit(decode_image(each), max_pixels=max_pixels) for each in data]


def _answer(made: list[Edit]) -> dict[str, Any]:
    """The protocol's answer."""
    pictures = [base64.b64encode(encode_png(edit.image)).decode("ascii") for edit in made]
    width, height = made[0].image.size
    return {
        "created": int(time.time()),
        "data": [{"b64_json": picture} for picture in pictures],
        "output_format": "png",
        "size": f"{width}x{height}",
    }
