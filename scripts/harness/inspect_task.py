"""A task of inspect_ai over the samples of `export.py`, answered by a server that speaks OpenAI's protocol.

Runs in an environment of its own that has inspect_ai and openai, and nothing of this project.
"""

import json
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser, ContentImage, ContentText
from inspect_ai.scorer import pattern
from inspect_ai.solver import Generate, Solver, TaskState, solver


@solver
def ask() -> Solver:
    """One request a sample, with its own seed and family."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        extra = {"etchr": {"family": state.metadata["family"], "question": state.metadata["question"]}}
        return await generate(state, temperature=0.0, seed=state.metadata["seed"], extra_body=extra)

    return solve


@task
def etchr(samples: str) -> Task:
    """The share of right answers in the last box."""

    def read(line: dict) -> Sample:
        content = [ContentImage(image=line["image"]), ContentText(text=line["prompt"])]
        about = {name: line[name] for name in ("family", "question", "seed")}
        return Sample(input=[ChatMessageUser(content=content)], target=line["target"], id=line["id"], metadata=about)

    lines = Path(samples).read_text(encoding="utf-8").splitlines()
    dataset = MemoryDataset([read(json.loads(line)) for line in lines])
    return Task(dataset=dataset, solver=ask(), scorer=pattern(r"\\boxed\{([^{}]+)\}"))
