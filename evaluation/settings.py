"""Options of `python -m evaluation`: what is compared, on what, with which models."""

import math
from dataclasses import dataclass, field

from etchr.checks import at_least, one_of
from etchr.editor.settings import RemoteConfig
from etchr.mllm.judge import JUDGE_TOKENS
from etchr.mllm.settings import ModelConfig
from evaluation.systems import SYSTEMS

PROMPTS = ("question", "instruction", "enhanced")
ROUTES = ("label", "rule", "model")


@dataclass
class SystemConfig:
    """One row of the table; `evaluation/systems/` says what each kind does."""

    kind: str = "direct"  # direct evr always_edit oracle_edit enhancer crop iterate best_of_n tool_loop interleaved
    editor: str | None = None  # a klein folder, a hub id, nano (the kept base) or a name in etchr/editor/__init__.py
    lora: str | None = None  # an adapter file or folder for the editor
    remote: RemoteConfig | None = None  # an images-edit endpoint in the place of a local editor
    prompt: str = "question"  # question: meta-prompt and question; instruction: the sample's own; enhanced: M writes it
    route: str = "label"  # whose word counts for the family: the data set's label, a local rule, or the model
    min_confidence: float = 0.5  # of a routed family; below it no edit is asked for, whatever the prompt
    attempts: int = 3  # iterate: rounds at most; best_of_n: seeds
    turns: int = 4  # tool_loop, interleaved: calls of the model at most
    model: ModelConfig | None = None  # the model of this row alone; null: the run's reasoner
    router: str | None = None  # YAML of meta-prompts of this row alone; null: the run's router
    group: str | None = None  # systems of one group are seeds of one method: the report adds a row of their mean

    def __post_init__(self) -> None:
        one_of("system kind", self.kind, tuple(SYSTEMS))
        one_of("system prompt", self.prompt, PROMPTS)
        one_of("system route", self.route, ROUTES)
        at_least(self, {"attempts": 1, "turns": 1})
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"system min_confidence={self.min_confidence} must lie between 0 and 1")
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
    batch_size: int = 16  # edits that run together
    num_inference_steps: int | None = None  # denoising steps
    guidance_scale: float | None = None  # classifier-free guidance; 1 is none
    max_pixels: int | None = None  # larger sources are scaled down
    cache: str | None = "outputs/edits"  # folder where edits are kept for other runs; null: each run makes its own

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("num_inference_steps", 1), ("max_pixels", 256)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"editing.{name}={value} must be at least {least}")
        if self.guidance_scale is not None and not 0 <= self.guidance_scale < math.inf:
            raise ValueError(f"editing.guidance_scale={self.guidance_scale} must be a number from 0 up")


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
    charxiv_split: str = "val"  # val or test (whose answers are not published)
    option_seed: int = 126  # of the orders of options that are drawn here (V*Bench), whatever the edits' seed
    num_samples: int | None = None  # per task, the first ones; null: all
    repeats: int = 1  # times that every sample is run, each with noise and sampling seeds of its own
    out: str = "outputs/evaluation"  # run folder; the same command goes on where it stopped
    reasoner: ModelConfig = field(default_factory=ModelConfig)  # the model M that answers
    verifier: ModelConfig | None = None  # the model that verifies; null: the reasoner
    judge: ModelConfig | None = None  # grades free text that rules find different, and CharXiv; null: rules alone
    judge_max_tokens: int = JUDGE_TOKENS  # of a reply of the judge; more for one that thinks before its verdict
    edit_judge: ModelConfig | None = None  # says of every edit whether it is right (figures 2a, 2b); null: nobody
    temperature: float = 0.0  # of reasoner and verifier
    max_tokens: int = 4096  # of a reply of reasoner, verifier and edit judge
    router: str | None = None  # YAML of meta-prompts; null: configs/router/default.yaml
    editing: EditingConfig = field(default_factory=EditingConfig)  # how editors are run
    concurrency: int = 32  # samples in flight, beside those that wait for the editor
    pixels_in_flight: int = 640_000_000  # of their pictures together, 3 bytes each: fewer 8K samples than small ones
    dry_run: bool = False  # say what would be called, with estimates of calls, tokens and price, and stop
    prices: str | None = None  # YAML of prices; null: configs/prices.yaml

    def __post_init__(self) -> None:
        if "all" in self.systems:
            raise ValueError("a system may not be called all: the report gives that name to all of them together")
        if not self.systems:
            raise ValueError("no systems to compare; choose an experiment=NAME or set systems")
        if self.reference not in (*self.systems, "direct"):
            raise ValueError(f"reference={self.reference!r} is no system; there are: {', '.join(self.systems)}")
        for option, names in (("sheet", self.sheet), ("story", [name for line in self.story for name in line.systems])):
            if unknown := [name for name in names if name not in self.systems]:
                raise ValueError(f"{option} names {unknown[0]!r}, no system; there are: {', '.join(self.systems)}")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature={self.temperature} must lie between 0 and 2")
        at_least(self, {"concurrency": 1, "pixels_in_flight": 1, "max_tokens": 1, "judge_max_tokens": 1, "repeats": 1})
        one_of("charxiv_split", self.charxiv_split, ("val", "test"))
        if self.num_samples is not None and self.num_samples < 1:
            raise ValueError(f"num_samples={self.num_samples} must be at least 1")
