"""What a run never pays for twice: replies of models, and edits.

Every reply is written to the run folder before it is used, under a digest of all that decides it. So a run that is
killed goes on without repeating a finished call, in the middle of a sample too, and systems that ask the same thing,
such as the fall-back of Edit-Verify-Reason and the answer without an edit, ask once. Edits lie in a folder of their own
that runs share: another understanding model takes them from there, without the editor being loaded.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from weakref import WeakValueDictionary

from PIL import Image

from etchr.editor.batching import Edit, EditBatcher
from etchr.editor.protocol import Editor
from etchr.images import encode_png, open_image
from etchr.jsonl import Journal
from etchr.mllm.protocol import GREEDY, MLLM, Message, Reply, Sampling
from etchr.run_folder import clear_parts, write_atomically


class CallJournal:
    """The replies of a run on disk; their pictures lie beside them. Only positions are held in memory."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder
        self._journal = Journal(folder, "calls", rank, read=lambda _, place: place)

    def get(self, key: str) -> list[Reply] | None:
        """The replies called `key`; None if there are none, or if a picture in them is gone or damaged."""
        place = self._journal.values.get(key)
        if place is None:
            return None
        entry = place.record()
        try:
            return [self._reply(record, entry["seconds"]) for record in entry["replies"]]
        except ValueError:
            return None

    def put(self, key: str, model: str, replies: Sequence[Reply], seconds: float) -> None:
        """Keep replies and what they took; they are on disk when this returns."""
        records = [self._record(each) for each in replies]
        self._journal.put({"key": key, "model": model, "seconds": seconds, "replies": records})

    def close(self) -> None:
        self._journal.close()

    def _record(self, reply: Reply) -> dict[str, Any]:
        names = []
        for image in reply.images:
            data = encode_png(image)
            names.append(hashlib.sha256(data).hexdigest()[:32] + ".png")
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / names[-1], data)
        record: dict[str, Any] = {"text": reply.text, "finish_reason": reply.finish_reason, "images": names}
        record |= {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        return record | ({} if reply.logprobs is None else {"logprobs": reply.logprobs})

    def _reply(self, record: dict[str, Any], seconds: float) -> Reply:
        logprobs = record.get("logprobs")
        return Reply(
            record["text"],
            record["finish_reason"],
            record["prompt_tokens"],
            record["completion_tokens"],
            None if logprobs is None else tuple(logprobs),
            tuple(open_image(self.folder / Path(name).name) for name in record["images"]),
            seconds,
        )


class JournaledModel:
    """An `MLLM` that asks another one for what the journal does not hold. Failed calls are not kept."""

    def __init__(self, model: MLLM, identity: dict[str, Any], journal: CallJournal) -> None:
        """`identity` is what decides the model's replies: `mllm.settings.model_fingerprint`."""
        self.model, self.name, self.journal = model, model.name, journal
        self._identity = json.dumps(identity, sort_keys=True)
        self._locks = Locks()

    async def chat(self, messages: Sequence[Message], sampling: Sampling = GREEDY) -> list[Reply]:
        """See `protocol.MLLM`."""
        asked = [self._identity, sampling.n, sampling.temperature, sampling.max_tokens, sampling.seed]
        key = await asyncio.to_thread(call_key, asked, messages)
        async with self._locks[key]:  # the same question at the same time is one call
            known = await asyncio.to_thread(self.journal.get, key)
            if known is not None:
                return known
            begin = time.perf_counter()
            replies = await self.model.chat(messages, sampling)
            seconds = time.perf_counter() - begin
            self.journal.put(key, self.name, replies, seconds)
            return [replace(reply, seconds=seconds) for reply in replies]


def call_key(asked: Any, messages: Sequence[Message]) -> str:
    """A digest of a call: of its settings, its texts and the exact pixels of its pictures."""
    digest = hashlib.sha256(json.dumps(asked).encode())
    for message in messages:
        digest.update(message["role"].encode())
        for part in message["content"]:
            if part["type"] == "text":
                digest.update(b"\0text\0" + part["text"].encode("utf-8", "surrogatepass"))
            else:
                digest.update(b"\0image\0" + pixel_digest(part["image"]).encode())
    return digest.hexdigest()[:32]


def pixel_digest(image: Image.Image) -> str:
    """A digest of a picture's exact pixels, whatever file they came from."""
    digest = hashlib.sha256(f"{image.mode} {image.size}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


class Locks(WeakValueDictionary[str, asyncio.Lock]):
    """A lock for each key, for as long as somebody holds it or waits for it."""

    def __getitem__(self, key: str) -> asyncio.Lock:
        lock = self.get(key)
        if lock is None:
            lock = self[key] = asyncio.Lock()
        return lock


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
