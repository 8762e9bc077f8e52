"""Edits that are drawn once: they lie in a folder of their own that runs share.

Another understanding model takes them from there, without the editor being loaded.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image

from etchr.editor.batching import Edit, EditBatcher
from etchr.editor.protocol import Editor
from etchr.images import encode_png, open_image
from etchr.mllm.journal import Locks, pixel_digest
from etchr.run_folder import clear_parts, write_atomically


@dataclass(frozen=True)
class StoredEdit:
    """An edit, who made it and what that took."""

    edit: Edit
    editor: str
    file: Path | None  # where it lies


class EditStore:
    """Edits by an editor, a picture, its references, a prompt and a seed; use as `async with`.

    What lies in `folder` is taken from there; `open_editor` is called for the first edit that does not. Edits are
    files, `<key>.png` with a note `<key>.json` beside it, written whole, so processes and runs may share the folder.
    """

    def __init__(
        self,
        identity: dict[str, Any],
        open_editor: Callable[[], Editor],
        folder: Path | None,
        batch_size: int = 16,
        workers: int = 1,
    ) -> None:
        """`identity` is what decides the edits: digests of the weights, steps, guidance, size."""
        self.folder, self.batch_size, self.workers = folder, batch_size, workers
        self._identity = json.dumps(identity, sort_keys=True)
        self._open_editor = open_editor
        self._batcher: EditBatcher | None = None
        self._opening = asyncio.Lock()
        self._locks = Locks()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if self.folder is not None:
            await asyncio.to_thread(clear_parts, self.folder)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def key(self, image: Image.Image, prompt: str, seed: int, references: Sequence[Image.Image] = ()) -> str:
        """The name of an edit."""
        asked = json.dumps([self._identity, pixel_digest(image), prompt, seed, *map(pixel_digest, references)])
        return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    async def edit(
        self, image: Image.Image, prompt: str, seed: int, references: Sequence[Image.Image] = ()
    ) -> StoredEdit:
        """The edit of one image, drawn from `references` too; raises `EditFailed` if the editor cannot make it."""
        key = await asyncio.to_thread(self.key, image, prompt, seed, references)
        async with self._locks[key]:
            known = await asyncio.to_thread(self._read, key)
            if known is not None:
                return known
            batcher = await self._ready()
            edit = await batcher.edit(image, prompt, seed, references=references)
            about = {"editor": batcher.editor.name, "prompt": prompt, "seed": seed, "seconds": edit.seconds}
            return StoredEdit(edit, batcher.editor.name, await asyncio.to_thread(self._write, key, edit.image, about))

    async def _ready(self) -> EditBatcher:
        async with self._opening:
            if self._batcher is None:
                editor = await asyncio.to_thread(self._open_editor)
                batcher = EditBatcher(editor, self.batch_size, self.workers)
                self._batcher = await self._stack.enter_async_context(batcher)
                if hasattr(editor, "close"):  # called first in the end: it frees the batcher's threads that wait
                    self._stack.callback(editor.close)
            return self._batcher

    def _note(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.json"

    def _read(self, key: str) -> StoredEdit | None:
        if self.folder is None or not (note := self._note(key)).is_file():
            return None
        try:
            about = json.loads(note.read_text(encoding="utf-8"))
            file = note.with_suffix(".png")
            return StoredEdit(Edit(open_image(file), about["seconds"]), about["editor"], file)
        except (ValueError, KeyError, TypeError):
            return None  # damaged, or half of it removed: it is made again

    def _write(self, key: str, image: Image.Image, about: dict[str, Any]) -> Path | None:
        if self.folder is None:
            return None
        note = self._note(key)
        file = note.with_suffix(".png")
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, encode_png(image))
        write_atomically(note, json.dumps(about).encode())  # last: who sees the note finds the picture
        return file
