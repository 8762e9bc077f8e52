"""`RemoteEditor`: an image editor behind `POST /images/edits`, as OpenAI defines it.

vLLM-Omni serves FLUX.2 and Qwen-Image-Edit that way (https://docs.vllm.ai/projects/vllm-omni, Image Edit API) and
`etchr serve` our own editor. A source and its references are fitted by `geometry` and sent as lossless PNG, the source
first; seed, steps and guidance go as extra fields of the form. The picture must come back inside the reply: a URL is
refused, nothing is fetched. Retries, health, keys and errors are `etchr.http.endpoints`' business. No torch.
"""

import asyncio
import logging
import math
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Self, TypeVar

from PIL import Image

from etchr.editor import geometry
from etchr.editor.protocol import References, paired
from etchr.editor.settings import RemoteConfig
from etchr.http.endpoints import CallFailed, CallStats, Endpoints, Failure, printable
from etchr.images import encode_png, from_data_uri

if TYPE_CHECKING:
    from openai import AsyncOpenAI

logger = logging.getLogger(__name__)

T = TypeVar("T")
Size = tuple[int, int]  # (width, height) in pixels


class RemoteEditor:
    """An `Editor` over HTTP that several threads may call at once; `with` or `close` ends its connections.

    An edit that is not to be had raises `CallFailed`.
    """

    def __init__(
        self,
        config: RemoteConfig,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        backoff_base_s: float = 0.5,
    ) -> None:
        """Steps and guidance that are None are left to the server. Nothing is sent yet."""
        if num_inference_steps is not None and num_inference_steps < 1:
            raise ValueError(f"num_inference_steps={num_inference_steps} must be at least 1")
        if guidance_scale is not None and not 0 <= guidance_scale < math.inf:
            raise ValueError(f"guidance_scale={guidance_scale} must be a number from 0 up; 1 is no guidance")
        self.config, self.stats = config, CallStats()
        settings = config.endpoints(backoff_base_s=backoff_base_s, jitter_seed=os.getpid())
        self.name = settings.short_name
        self._endpoints = Endpoints(settings, self.stats)
        self._steps, self._guidance = num_inference_steps, guidance_scale
        self._asks_format = True  # until a server refuses the field response_format
        self._warned: set[tuple[Size, Size]] = set()
        self._loop = _BackgroundLoop(self._endpoints.aclose)

    @classmethod
    def connect(
        cls, config: RemoteConfig, num_inference_steps: int | None = None, guidance_scale: float | None = None
    ) -> Self:
        """An editor whose endpoints answer, list the model and take the key; `ValueError` if not."""
        editor = cls(config, num_inference_steps, guidance_scale)
        try:
            editor.check()
        except BaseException:
            editor.close()
            raise
        return editor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections, for good. Edits under way raise `CallFailed` where they wait."""
        self._loop.close()

    def check(self) -> None:
        """Ask every endpoint for its models; raises as `Endpoints.check`."""
        self._loop.run(self._endpoints.check())

    def fitted_size(self, image: Image.Image) -> Size:
        """See `protocol.Editor`."""
        return geometry.fit_size(*image.size, max_pixels=self.config.max_pixels)

    def edit(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        seeds: Sequence[int],
        references: References | None = None,
    ) -> list[Image.Image]:
        """One edit per (image, prompt, seed), of the size `geometry.fit` gives its source; see `protocol.Editor`."""
        further = paired(images, prompts, seeds, references)
        pictures = [
            [geometry.fit(picture, max_pixels=self.config.max_pixels) for picture in (image, *others)]
            for image, others in zip(images, further, strict=True)
        ]
        try:
            return self._loop.run(self._edit_all(pictures, prompts, seeds))
        except CancelledError:
            raise CallFailed(f"the connection to {self.config.model} was closed before it sent the edit") from None

    async def _edit_all(self, pictures: References, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """All edits, or the first failure, which ends the others."""
        try:
            async with asyncio.TaskGroup() as group:
                asked = zip(pictures, prompts, seeds, strict=True)
                tasks = [group.create_task(self._edit_one(*each)) for each in asked]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _edit_one(self, pictures: Sequence[Image.Image], prompt: str, seed: int) -> Image.Image:
        size = pictures[0].size
        async with self._endpoints.slots:
            files = [
                (f"{i}.png", await asyncio.to_thread(encode_png, each), "image/png") for i, each in enumerate(pictures)
            ]
            fields = self._fields(size, seed)

            async def send(client: "AsyncOpenAI") -> Any:
                return await client.images.with_raw_response.edit(
                    image=files[0] if len(files) == 1 else files,
                    prompt=printable(prompt),
                    model=self.config.model,
                    n=1,
                    extra_body=fields,
                )

            def read(answer: Any) -> Image.Image | Failure:
                return self._read(answer, size)

            try:
                return await self._endpoints.call(send, read)
            except CallFailed as error:
                ours = "response_format" in fields and "response_format" not in self.config.extra_body
                if not (ours and error.status in (400, 422) and "response_format" in str(error)):
                    raise
            # OpenAI's own gpt-image models know no such field: they send nothing but base64.
            if self._asks_format:
                logger.warning("%s refuses the field response_format; it is left out from now on", self.config.model)
            self._asks_format = False
            del fields["response_format"]
            return await self._endpoints.call(send, read)

    def _fields(self, size: Size, seed: int) -> dict[str, Any]:
        """What is sent beside the picture, the prompt and the model; the configuration's own fields prevail."""
        fields: dict[str, Any] = {"size": f"{size[0]}x{size[1]}", "seed": seed}
        fields |= {"num_inference_steps": self._steps, "guidance_scale": self._guidance}
        fields |= {"response_format": "b64_json" if self._asks_format else None}
        return {name: value for name, value in (fields | self.config.extra_body).items() if value is not None}

    def _read(self, answer: Any, size: Size) -> Image.Image | Failure:
        """The picture in an images answer, at `size`; `Failure` if there is none."""
        entries = answer.get("data") if isinstance(answer, dict) else None
        entry = entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}
        text = entry.get("b64_json")
        if not isinstance(text, str) or not text:
            if entry.get("url"):
                reason = "sent a URL in the place of a picture; URLs are not fetched, let it send b64_json"
                return Failure(reason, retry=False, down=False)
            return Failure("sent a reply without a picture", down=False)
        try:
            image = from_data_uri(text if text.startswith("data:") else f"data:image/png;base64,{text}")
        except ValueError as error:
            return Failure(f"sent a picture that cannot be used: {self._endpoints.quote(str(error))}", down=False)
        if image.size == size:
            return image
        if (image.size, size) not in self._warned:
            self._warned.add((image.size, size))
            logger.warning(
                "%s answers with %dx%d where %dx%d was asked for; it is resized", self.config.model, *image.size, *size
            )
        return image.resize(size, Image.Resampling.LANCZOS)


class _BackgroundLoop:
    """An event loop on a thread of its own, which runs coroutines for the threads that wait for them."""

    def __init__(self, at_end: Callable[[], Awaitable[None]]) -> None:
        """`at_end` makes the coroutine that runs last, in `close`."""
        self._at_end = at_end
        self._loop = asyncio.new_event_loop()
        self._open = True
        self._gate = threading.Lock()  # nothing is handed to a loop that ends: nobody would ever run it
        self._thread = threading.Thread(target=self._loop.run_forever, name="remote-editor", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What `coroutine` returns or raises; `CancelledError` if the loop is closed first."""
        with self._gate:
            if not self._open:
                coroutine.close()
                raise CancelledError
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:  # an interrupt, most of all: nobody waits for it any more
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what runs, and end the thread."""
        with self._gate:
            if not self._open:
                return
            self._open = False
            ended = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        ended.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._at_end()
        await self._loop.shutdown_default_executor()
