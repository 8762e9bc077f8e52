"""Options of `python -m evaluation`: what is compared, on what, with which models."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Interval

from etchr.checks import Count, NotNegative, OneOf, Share, check
from etchr.editor.settings import RemoteConfig
from etchr.mllm.judge import JUDGE_TOKENS
from etchr.mllm.settings import ModelConfig
from evaluation.systems import SYSTEMS

Kind = Annotated[str, OneOf(SYSTEMS)]
Prompt = Annotated[str, OneOf("question", "instruction", "enhanced")]
Route = Annotated[str, OneOf("label", "rule", "model")]


@dataclass
class SystemConfig:
    """One row of the table; `evaluation/systems/` says what each kind does."""

    kind: Kind = "direct"  # direct evr always_edit oracle_edit enhancer crop iterate best_of_n tool_loop interleaved
    editor: str | None = None  # a klein folder, a hub id, nano (the kept base) or a name in etchr/editor/__init__.py
    lora: str | None = None  # an adapter for the editor: a file, a folder, or org/name of the hub
    remote: RemoteConfig | None = None  # an images-edit endpoint in the place of a local editor
    prompt: Prompt = "question"  # question: meta-prompt and question; instruction: the sample's; enhanced: M writes it
    route: Route = "label"  # whose word counts for the family: the data set's label, a local rule, or the model
    min_confidence: Share = 0.5  # of a routed family; below it no edit is asked for, whatever the prompt
    attempts: Count = 3  # iterate: rounds at most; best_of_n: seeds
    turns: Count = 4  # tool_loop, interleaved: calls of the model at most
    model: ModelConfig | None = None  # the model of this row alone; null: the run's reasoner
    router: str | None = None  # YAML of meta-prompts of this row alone; null: the run's router
    group: str | None = None  # systems of one group are seeds of one method: the report adds a row of their mean

    def __post_init__(self) -> None:
        check(self, "system ")
        kind = SYSTEMS[self.kind]
        self.prompt = kind.prompt or self.prompt
        if self.route != "label" and not kind.is_routed:
            raise ValueError(f"a system of kind {self.kind} asks no route: leave route={self.route} out")
        if self.router is not None and not kind.has_editor:
            raise ValueError(f"a system of kind {self.kind} has no editor to prompt: leave router={self.router} out")
        has_editor = self.editor is not None or self.remote is not None
        if self.editor is not None and self.remote is not None:
            raise ValueError("a system has either an editor or a remote one")
        if self.lora is not None and self.editor is None:
            raise ValueError("a lora needs an editor to go with")
        if has_editor and not kind.has_editor:
            raise ValueError(f"a system of kind {self.kind} has no editor")
        if kind.has_editor and not has_editor and not (kind.may_draw and self.model is not None):
            raise ValueError(f"a system of kind {self.kind} needs an editor")


@dataclass
class StoryConfig:
    """One thing that the line under the table says."""

    what: str = ""  # the subject of the sentence: Stage I
    system: str = ""  # the row that it is about
    against: str | None = None  # the row that it is compared with, sample by sample; null: its mean alone is said

    def __post_init__(self) -> None:
        if not self.what or not self.system:
            raise ValueError(f"an entry of story needs what and system, got what={self.what!r} system={self.system!r}")

    @property
    def systems(self) -> list[str]:
        """The rows that it names."""
        return [self.system, *([] if self.against is None else [self.against])]


@dataclass
class EditingConfig:
    """How editors are run; null takes the setting of the editor's folder."""

    seed: int = 126  # with a sample's id it gives that sample's noise; also the models' sampling seed
    batch_size: Count = 16  # edits that run together
    num_inference_steps: Count | None = None  # denoising steps
    guidance_scale: NotNegative | None = None  # classifier-free guidance; 1 is none
    max_pixels: Annotated[int, Ge(256)] | None = None  # larger sources are scaled down
    cache: str | None = "outputs/edits"  # folder where edits are kept for other runs; null: each run makes its own

    def __post_init__(self) -> None:
        check(self, "editing.")


@dataclass
class EvalConfig:
    """Options of `python -m evaluation`."""

    systems: dict[str, SystemConfig] = field(default_factory=dict)  # rows of the table
    reference: str = "direct"  # the row that the others are compared with, sample by sample
    story: list[StoryConfig] = field(default_factory=list)  # {what, system, against}: the line under the table
    sheet: list[str] = field(default_factory=list)  # systems in the picture sheet; empty: each edit once, eight at most
    tasks: list[str] = field(default_factory=list)  # benchmarks, or YAML files of your own; empty: six procedural tasks
    data: str = "outputs/data"  # folder with <task>/test.parquet of procedural tasks, made by python -m data_prep
    benchmarks: str = "outputs/benchmarks"  # folder with a folder for each public benchmark; see evaluation list
    charxiv_constants: str | None = None  # CharXiv's own src/constants.py: its exact questions and rubric; null: ours
    charxiv_split: Annotated[str, OneOf("val", "test")] = "val"  # val or test (whose answers are not published)
    option_seed: int = 126  # of the orders of options that are drawn here (V*Bench), whatever the edits' seed
    num_samples: Count | None = None  # per task, the first ones; null: all
    repeats: Count = 1  # times that every sample is run, each with noise and sampling seeds of its own
    out: str = "outputs/evaluation"  # run folder; the same command goes on where it stopped
    reasoner: ModelConfig = field(default_factory=ModelConfig)  # the model M that answers
    verifier: ModelConfig | None = None  # the model that verifies; null: the reasoner
    judge: ModelConfig | None = None  # grades free text that rules find different, and CharXiv; null: rules alone
    judge_max_tokens: Count = JUDGE_TOKENS  # of a reply of the judge; more for one that thinks before its verdict
    edit_judge: ModelConfig | None = None  # says of every edit whether it is right (figures 2a, 2b); null: nobody
    temperature: Annotated[float, Interval(ge=0, le=2)] = 0.0  # of reasoner and verifier
    max_tokens: Count = 4096  # of a reply of reasoner, verifier and edit judge
    router: str | None = None  # YAML of meta-prompts; null: configs/router/default.yaml
    editing: EditingConfig = field(default_factory=EditingConfig)  # how editors are run
    concurrency: Count = 32  # samples in flight, beside those that wait for the editor
    pixels_in_flight: Count = 640_000_000  # of their pictures together, 3 bytes each: fewer 8K samples than small ones
    dry_run: bool = False  # say what would be called, with estimates of calls, tokens and price, and stop
    prices: str | None = None  # YAML of prices; null: configs/prices.yaml

    def __post_init__(self) -> None:
        check(self)
        if "all" in self.systems:
            raise ValueError("a system may not be called all: the report gives that name to all of them together")
        if not self.systems:
            raise ValueError("no systems to compare; choose an experiment=NAME or set systems")
        if self.reference not in (*self.systems, "direct"):
            raise ValueError(f"reference={self.reference!r} is no system; there are: {', '.join(self.systems)}")
        for option, names in (("sheet", self.sheet), ("story", [name for line in self.story for name in line.systems])):
            if unknown := [name for name in names if name not in self.systems]:
                raise ValueError(f"{option} names {unknown[0]!r}, no system; there are: {', '.join(self.systems)}")
