"""Replies of models on disk, so that none is paid for twice.

Every reply is written to the run folder before it is used, under a digest of all that decides it. So a run that is
killed goes on without repeating a finished call, in the middle of a sample or of the rewards of an edit, and whoever
asks the same thing, such as the fall-back of Edit-Verify-Reason and the answer without an edit, asks once.
"""

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from PIL import Image

from etchr.images import encode_png, open_image
from etchr.jsonl import Journal
from etchr.mllm.protocol import GREEDY, MLLM, Message, Reply, Sampling
from etchr.run_folder import write_atomically


class CallJournal:
    """The replies of a run on disk; their pictures lie beside them. Only positions are held in memory.

    Replies that come while `iteration` is set go with it, by `prune`; the others stay. Safe between threads.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder, self.rank = folder, rank
        self.iteration: int | None = None
        self._lock = threading.Lock()
        self._open()

    def _open(self) -> None:
        self._journal = Journal(self.folder, "calls", self.rank, read=lambda _, place: place)

    def get(self, key: str) -> list[Reply] | None:
        """The replies called `key`; None if there are none, or if a picture in them is gone or damaged."""
        with self._lock:
            place = self._journal.values.get(key)
            if place is None:
                return None
            entry = place.record()
        if entry["replies"] is None:
            return None
        try:
            return [self._reply(record, entry["seconds"]) for record in entry["replies"]]
        except ValueError:
            return None

    def put(self, key: str, model: str, replies: Sequence[Reply], seconds: float) -> None:
        """Keep replies and what they took; they are on disk when this returns."""
        records = [self._record(each) for each in replies]
        mark = {} if self.iteration is None else {"iteration": self.iteration}
        with self._lock:
            self._journal.put({"key": key, "model": model, **mark, "seconds": seconds, "replies": records})

    def forget(self, key: str) -> None:
        """Let the replies called `key` count as never given."""
        with self._lock:
            self._journal.put({"key": key, "replies": None})

    def prune(self, iterations_from: int) -> None:
        """Forget the own replies of iterations before `iterations_from`; the file is written anew, whole or not."""
        with self._lock:
            lines = list(self._journal.own)
            kept = [line for line in lines if line.get("iteration", iterations_from) >= iterations_from]
            if len(kept) < len(lines):
                self._journal.own.replace(kept)
                self._open()  # every line has another place now

    def close(self) -> None:
        """Close the own file; the next `put` opens it again."""
        with self._lock:
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

    async def check(self) -> None:
        """Ask the model's endpoints, where it has some, whether they answer."""
        if hasattr(self.model, "check"):
            await self.model.check()

    async def aclose(self) -> None:
        """Close the model's connections."""
        if hasattr(self.model, "aclose"):
            await self.model.aclose()

    async def chat(self, messages: Sequence[Message], sampling: Sampling = GREEDY) -> list[Reply]:
        """See `protocol.MLLM`."""
        key = await self._key(messages, sampling)
        async with self._locks[key]:  # the same question at the same time is one call
            known = await asyncio.to_thread(self.journal.get, key)
            if known is not None:
                return known
            begin = time.perf_counter()
            replies = await self.model.chat(messages, sampling)
            seconds = time.perf_counter() - begin
            self.journal.put(key, self.name, replies, seconds)
            return [replace(reply, seconds=seconds) for reply in replies]

    async def forget(self, messages: Sequence[Message], sampling: Sampling) -> None:
        """Ask again next time: for replies that nobody could use."""
        self.journal.forget(await self._key(messages, sampling))

    async def _key(self, messages: Sequence[Message], sampling: Sampling) -> str:
        asked = [self._identity, sampling.n, sampling.temperature, sampling.max_tokens, sampling.seed]
        return await asyncio.to_thread(call_key, asked, messages)


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
