"""What is compared: each system is a way to get from a sample to a trace, all through one coroutine.

direct       the model answers from the source
evr          the editor proposes, the model verifies, and answers from the edit or falls back
always_edit  the edit is used unverified
oracle_edit  the ground-truth edit is used: the ceiling. Its verdict is recorded too, to measure the verifier
"""

import hashlib
from dataclasses import dataclass

from etchr.editor.batching import EditBatcher
from etchr.evr import EvrSettings, Proposal, Trace, edit_verify_reason
from etchr.mllm.protocol import MLLM
from etchr.router import Router
from etchr.sample import EditSample
from evaluation.settings import SystemConfig


@dataclass(frozen=True)
class Models:
    """What the systems of a run share."""

    reasoner: MLLM
    verifier: MLLM
    router: Router
    settings: EvrSettings
    seed: int  # of the edits


async def run_system(system: SystemConfig, sample: EditSample, models: Models, batcher: EditBatcher | None) -> Trace:
    """Run one sample through a system; `batcher` holds its editor if it has one."""

    async def draw(sample: EditSample) -> Proposal:
        assert batcher is not None
        prompt, seed = edit_prompt(system, sample, models.router), sample_seed(models.seed, sample.id)
        edit = await batcher.edit(sample.image, prompt, seed)
        return Proposal(edit.image, batcher.editor.name, prompt, seed, edit.seconds)

    async def recall(sample: EditSample) -> Proposal:
        assert sample.edit_image is not None
        return Proposal(sample.edit_image, "ground truth")

    reasoner, settings = models.reasoner, models.settings
    match system.kind:
        case "direct":
            return await edit_verify_reason(sample, None, None, reasoner, settings)
        case "evr":
            return await edit_verify_reason(sample, draw, models.verifier, reasoner, settings)
        case "always_edit":
            return await edit_verify_reason(sample, draw, None, reasoner, settings)
        case "oracle_edit":
            return await edit_verify_reason(sample, recall, models.verifier, reasoner, settings, use_rejected=True)
    raise ValueError(f"unknown system kind {system.kind!r}")


def edit_prompt(system: SystemConfig, sample: EditSample, router: Router) -> str:
    """The editing prompt; `ValueError` if the sample has no instruction, or the router does not know its family."""
    if system.prompt == "question":
        return router.prompt(sample.question, sample.family)
    instruction = sample.meta.get("instruction")
    if not isinstance(instruction, str):
        raise ValueError(f"sample {sample.id!r} has no explicit instruction; use prompt: question")
    return instruction


def sample_seed(seed: int, sample_id: str) -> int:
    """A sample's own noise: the same whatever else runs, and another one for every sample."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{sample_id}".encode(), digest_size=8).digest(), "little") >> 1
