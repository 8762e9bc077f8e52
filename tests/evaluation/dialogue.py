"""A sample, a scripted model and an editor that draws its prompt's number: what the systems are tried on."""

import asyncio

from PIL import Image

from etchr.evr import Sampling
from etchr.families import TaskFamily
from etchr.mllm.protocol import GREEDY, Reply
from etchr.mllm.settings import ModelConfig
from etchr.router import Router
from etchr.sample import EditSample
from evaluation.settings import SystemConfig
from evaluation.store import EditStore
from evaluation.systems import run_system
from evaluation.systems.base import Models, Setup

SOURCE = Image.new("RGB", (64, 64), "white")
TRUTH = Image.new("RGB", (64, 64), "blue")
ACCEPT, REJECT = "Good. \\boxed{1}", "The box is misplaced. \\boxed{0}"


def make_sample(**changes):
    values = {
        "id": "s",
        "family": TaskFamily.CHART,
        "task": "chart",
        "image": SOURCE,
        "question": "How many?",
        "answer": "7",
        "edit_image": TRUTH,
        "meta": {"answer_type": "number", "instruction": "Red box round 7."},
    }
    return EditSample(**values | changes)


class Scripted:
    """A model that gives its replies in order and remembers the messages."""

    def __init__(self, *replies, name="scripted"):
        self.replies, self.name, self.asked = list(replies), name, []

    async def chat(self, messages, sampling=GREEDY):
        self.asked.append(messages)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return [reply if isinstance(reply, Reply) else Reply(reply, prompt_tokens=10, completion_tokens=2)]

    def texts(self):
        """The text of every call, all its messages together."""
        return ["\n".join(part["text"] for part in parts(call) if part["type"] == "text") for call in self.asked]

    def pictures(self):
        """The pictures of every call."""
        return [[part["image"] for part in parts(call) if part["type"] == "image"] for call in self.asked]


def parts(messages):
    return [part for message in messages for part in message["content"]]


class Painter:
    """An editor that paints the whole picture in a grey that the prompt and the seed decide."""

    name = "painter"

    def __init__(self, fails=()):
        self.drawn, self.references, self.fails = [], [], fails

    def fitted_size(self, image):
        return image.size

    def edit(self, images, prompts, seeds, references=None):
        self.references += references or []
        self.drawn += list(zip(prompts, seeds, strict=True))
        if any(prompt in self.fails for prompt in prompts):
            raise RuntimeError("no memory")
        return [Image.new("RGB", image.size, (seed % 251,) * 3) for image, seed in zip(images, seeds, strict=True)]


def run(config, model, sample=None, *, painter=None, verifier=None, folder=None, repeat=0, temperature=0.0):
    """The trace of a sample through a system."""
    painter = painter or Painter()

    async def go():
        models = Models(model, verifier or model, Router.load(), Sampling(temperature, 100, 5), 126)
        async with EditStore({"editor": "painter"}, lambda: painter, folder, batch_size=4) as edits:
            has_editor = config.editor is not None or config.remote is not None
            return await run_system(
                Setup(config, models, edits if has_editor else None, repeat), sample or make_sample()
            )

    return asyncio.run(go())


def system(kind, **options):
    if kind == "interleaved":  # a model that draws itself
        return SystemConfig(kind, model=ModelConfig(), **options)
    return SystemConfig(kind, None if kind in ("direct", "oracle_edit", "tool_loop") else "nano", **options)
