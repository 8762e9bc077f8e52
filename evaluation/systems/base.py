"""What a kind of system is, and what it works with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from etchr.editor.protocol import MAX_PICTURES
from etchr.evr import Proposal, Trace
from etchr.mllm.protocol import MLLM, Sampling
from etchr.router import Route, Router
from etchr.sample import EditSample
from etchr.seeds import hash_seed

if TYPE_CHECKING:
    from evaluation.settings import SystemConfig
    from evaluation.store import EditStore


@dataclass(frozen=True)
class Turn:
    """One step of a dialogue, for the record."""

    role: str  # instruction, assistant or tool
    text: str
    image: Image.Image | None = None


@dataclass
class FullTrace(Trace):
    """A trace, and what the larger systems add to it."""

    turns: list[Turn] = field(default_factory=list)
    routed: Route | None = None  # where the family is not taken from the data


@dataclass(frozen=True)
class Models:
    """What the systems of a run share."""

    reasoner: MLLM
    verifier: MLLM
    router: Router
    sampling: Sampling
    seed: int  # of the edits


@dataclass(frozen=True)
class Setup:
    """What one system works with."""

    config: "SystemConfig"
    models: Models
    edits: "EditStore | None"  # of its editor, if it has one
    repeat: int = 0  # number of the sample's run, from 0

    async def draw(self, sample: EditSample, prompt: str, attempt: int = 0) -> Proposal:
        """The editor's edit of the first picture; other noise for every sample, repeat and attempt.

        The others of the question are its references, as many as an editor takes. Raises `EditFailed`.
        """
        assert self.edits is not None
        seed = sample_seed(self.models.seed, noise_of(sample), self.repeat, attempt)
        made = await self.edits.edit(sample.image, prompt, seed, sample.sources[1:MAX_PICTURES])
        return Proposal(made.edit.image, made.editor, prompt, seed, made.edit.seconds, made.file)


@dataclass(frozen=True)
class Calls:
    """The calls of one sample, at least and at most, and the pictures that go with each: sources, and added ones."""

    least: int
    most: int
    edits: int  # at most
    added: int  # pictures of the editor's size that a call shows beside the sources, at most
    verify: int = 0  # of the most: those that go to the verifier


@dataclass(frozen=True)
class Shown:
    """What the longest request of a system shows beside the sources."""

    edits: int = 0
    crops: int = 0
    whole: int = 0  # pictures as large as a source: ground-truth edits
    tools: bool = False  # drawings as large as a source, and replies, of all earlier turns


@dataclass(frozen=True)
class Kind:
    """A kind of system. Adding one is a file like those beside this, and a line in `SYSTEMS`."""

    about: str  # what it does, as the report says it
    run: Callable[[Setup, EditSample, FullTrace], Awaitable[None]]  # raises what `evr.unscored_on_failure` knows
    calls: Callable[["SystemConfig"], Calls]  # without what the routing and the writing of an instruction add
    has_editor: bool = True
    is_routed: bool = True  # the first edit's prompt is that of `prompting.first_prompt`
    needs_truth: bool = False  # a ground-truth edit of every sample
    may_draw: bool = False  # a model of its own may stand in the editor's place
    by_rule: bool = False  # the word rule decides what is drawn, whatever the route
    prompt: str | None = None  # the only one that it has
    shows: Shown = Shown(edits=1)

    def calls_of(self, system: "SystemConfig") -> Calls:
        """What one sample takes, all included."""
        calls = self.calls(system)
        if not self.is_routed:
            return calls
        routing, writing = int(system.route == "model"), int(system.prompt == "enhanced")  # before the first edit
        # An uncertain family asks for no edit, and the answer is all that is left.
        least = 1 if system.route != "label" else calls.least + writing
        return Calls(routing + least, routing + writing + calls.most, calls.edits, calls.added, calls.verify)


def noise_of(sample: EditSample) -> str:
    """What names a sample's noise: its id, or what it shares with questions that differ in their options only."""
    return str(sample.meta.get("noise", sample.id))


def sample_seed(seed: int, sample_id: str, repeat: int = 0, attempt: int = 0) -> int:
    """A sample's own noise: the same whatever else runs, and another one for every sample, repeat and attempt."""
    return hash_seed(seed, sample_id, repeat, attempt)
