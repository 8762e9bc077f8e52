"""How our server bears many clients: latencies and throughput of questions asked at once; what passing through costs.

    python scripts/harness/export.py DATA samples.jsonl && python scripts/harness/load.py samples.jsonl [CLIENTS]

Server, clients and a stand-in for an upstream run in this process, on the nano editor.
"""

import asyncio
import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette

from etchr.editor.folder import NANO_BASE
from etchr.editor.klein import KleinEditor
from etchr.http import listening
from etchr.images import from_data_uri
from etchr.mllm.chat import ChatClient, ChatSettings
from etchr.mllm.protocol import Reply
from etchr.nano.reader import Reader
from etchr.serving import chat
from etchr.serving.app import build_app

ROUNDS = 200  # of one request after the other, for what passing through costs


class Instant:
    """A model that answers at once."""

    name = "instant"

    async def chat(self, messages: Any, sampling: Any = None) -> list[Reply]:
        return [Reply("done", prompt_tokens=1, completion_tokens=1)]


async def started(app: Starlette) -> tuple[str, uvicorn.Server, asyncio.Task[None]]:
    """`app` served on a free port of this machine."""
    listener, server = listening.bind("127.0.0.1", 0), listening.server(app)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    return f"http://127.0.0.1:{listener.getsockname()[1]}/v1", server, task


def body(line: dict[str, Any], model: str) -> dict[str, Any]:
    picture = {"type": "image_url", "image_url": {"url": line["image"]}}
    content = [picture, {"type": "text", "text": line["prompt"]}]
    about = {"family": line["family"], "question": line["question"]}
    return {"model": model, "messages": [{"role": "user", "content": content}], "seed": line["seed"], "etchr": about}


async def asked(client: httpx.AsyncClient, url: str, line: dict[str, Any], model: str) -> float:
    """Seconds that one request takes."""
    begin = time.perf_counter()
    (await client.post(f"{url}/chat/completions", json=body(line, model), timeout=600)).raise_for_status()
    return time.perf_counter() - begin


async def main(samples: str, clients: str = "200") -> None:
    """Print the figures."""
    lines = [json.loads(line) for line in Path(samples).read_text(encoding="utf-8").splitlines()]
    many = list(itertools.islice(itertools.cycle(lines), int(clients)))
    editor = KleinEditor.load(NANO_BASE, device="cpu")
    pictures, prompts = [from_data_uri(line["image"]) for line in many], [line["question"] for line in many]
    begin = time.perf_counter()
    editor.edit(pictures, prompts, [line["seed"] for line in many])
    alone = time.perf_counter() - begin
    url, server, task = await started(build_app(editor, Reader(), "nano"))
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits) as client:
        begin = time.perf_counter()
        took = sorted(await asyncio.gather(*(asked(client, url, line, "etchr-evr") for line in many)))
        whole = time.perf_counter() - begin
        cut = statistics.quantiles(took, n=100)
        print(f"{len(took)} of {len(many)} answered in {whole:.1f} s; edits alone, in batches: {alone:.1f} s")
        print(f"throughput against the batched editor's own: {alone / whole:.2f}")
        print(f"p50 {cut[49]:.2f} s, p95 {cut[94]:.2f} s, p99 {cut[98]:.2f} s")

        direct, upstream, other = await started(chat.build_app(Instant()))
        through, middle, third = await started(
            build_app(editor, ChatClient(ChatSettings((direct,), "instant", api_key_env="NO_KEY")), "nano")
        )
        costs = {}
        for name, place, model in (("upstream", direct, "instant"), ("passed through", through, "etchr-direct")):
            costs[name] = statistics.median([await asked(client, place, lines[0], model) for _ in range(ROUNDS)])
        added = 1000 * (costs["passed through"] - costs["upstream"])
        print(f"passing through adds {added:.1f} ms to {1000 * costs['upstream']:.1f} ms at the median")
    for each, done in ((server, task), (upstream, other), (middle, third)):
        each.should_exit = True
        await done


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
