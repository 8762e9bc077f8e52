"""An editor and an understanding model that answer as one: the stand-in for a unified model, which draws and reads.

Asked about a picture, it first replies with an edit of it and, when told to go on, with an answer from source and edit.
"""

import re
from collections.abc import Sequence

from etchr.editor.protocol import MAX_PICTURES
from etchr.families import TaskFamily
from etchr.mllm.journal import pixel_digest
from etchr.mllm.prompts import EDIT_NOTE, MANY_NOTE
from etchr.mllm.protocol import GREEDY, MLLM, Message, Reply, Sampling, user_message
from etchr.router import Router, route_by_rule
from etchr.seeds import hash_seed
from evaluation.store import EditStore

_QUESTION = re.compile(r"^(.*?)\nThink with images:[^\n]*\n(.*)$", re.DOTALL)


class UnifiedModel:
    """An `MLLM` whose replies hold pictures."""

    def __init__(self, reader: MLLM, edits: EditStore, router: Router, seed: int) -> None:
        self.reader, self.edits, self.router, self.seed = reader, edits, router, seed
        self.name = f"unified({reader.name})"

    async def chat(self, messages: Sequence[Message], sampling: Sampling = GREEDY) -> list[Reply]:
        """See `protocol.MLLM`; raises `EditFailed` too."""
        asked = messages[0]["content"]
        text = next(part["text"] for part in asked if part["type"] == "text")
        sources = [part["image"] for part in asked if part["type"] == "image"]
        drawn = [part["image"] for message in messages[1:] for part in message["content"] if part["type"] == "image"]
        found = _QUESTION.match(text)
        question, form = (found[1], found[2]) if found else (text, "")
        if not drawn:
            question = question.partition("\n")[0]  # without the options
            family = route_by_rule(question).family or TaskFamily.PERCEPTION
            noise = hash_seed(self.seed, sampling.seed or 0, pixel_digest(sources[0]))
            prompt = self.router.prompt(question, family)
            made = await self.edits.edit(sources[0], prompt, noise, sources[1:MAX_PICTURES])
            return [Reply("Let me draw that.", images=(made.edit.image,))] * sampling.n
        note = MANY_NOTE.format(num_images=len(sources) + 1) if len(sources) > 1 else EDIT_NOTE
        prompt = f"{note}Question: {question}\n{form}"
        return await self.reader.chat([user_message(prompt, *sources, drawn[0])], sampling)
