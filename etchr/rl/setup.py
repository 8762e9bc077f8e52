"""What an RL run is made of, checked before it is built: base, Stage I adapter, prompts, sampler, optimizer."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from torch import nn
from tqdm import tqdm

from etchr.editor import geometry, lora, lora_files
from etchr.editor.folder import EditorSettings
from etchr.editor.klein import KleinEditor
from etchr.families import TASKS
from etchr.images import peek_image
from etchr.mllm.answers import ground_truth
from etchr.mllm.settings import model_fingerprint
from etchr.rl import algorithms
from etchr.rl.algorithms.base import Algorithm
from etchr.rl.policy import add_reference
from etchr.rl.rollout import Sampler
from etchr.rl.settings import RlConfig
from etchr.router import DEFAULT_ROUTER, Router
from etchr.run_folder import content_digest
from etchr.runtime import Runtime
from etchr.sample import EditSample, from_row
from etchr.training.base import attach, base_dtype, check_base, load_editor
from etchr.training.inputs import headers, prompt_maker
from etchr.training.mixture import DataSet, about_sets, held_out_set, open_sets, repeats, training_sets
from etchr.training.optim import build_optimizer
from etchr.training.plan import Plan

# Options that do not decide what comes out, so a run may be continued with others.
FREE_OPTIONS = ("out", "threads", "pictures_every", "save_every", "keep_checkpoints", "wandb", "validation", "device")
FREE_DATA_OPTIONS = ("router", "paths")  # these count by content


class Prompts:
    """The samples of some data sets: prompts, tasks and sizes in memory, pictures read when needed."""

    def __init__(self, sets: list[DataSet], kind: str, router: Router, needs_truth: bool) -> None:
        """Raises `ValueError` for the first row that cannot be rewarded."""
        tables = open_sets(sets)
        self.sets, self.files, self.table, self.places = sets, tables.files, tables.table, tables.places
        self.texts: list[str] = []
        self.tasks: list[str] = []
        self.families: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        make = prompt_maker(kind, router)
        for row in tqdm(headers(self.table), "check prompts", len(self.table), leave=False):
            sample = from_row(row, peek_image)
            ground_truth(sample)
            if needs_truth and sample.edit_image is None:
                raise ValueError(
                    f"row {sample.id!r} has no edit_image for reward.correctness.view=truth; choose both or edit"
                )
            self.texts.append(make(sample))
            self.tasks.append(sample.task)
            self.families.append(sample.family)
            self.sizes.append(sample.image.size)

    def __len__(self) -> int:
        return len(self.texts)

    def sample(self, row: int) -> EditSample:
        """The sample of a row, decoded."""
        return from_row(self.table[row])


@dataclass(frozen=True)
class Inputs:
    """What a run reads, checked; no weights yet."""

    base: str  # the klein folder or hub id
    router: Router
    prompts: Prompts
    held_out: Prompts | None
    plan: Plan

    def rows(self, iteration: int) -> np.ndarray:
        """The prompts (P,) of an iteration, over all processes."""
        epoch, index = divmod(iteration, self.plan.batches_per_epoch)
        rows: np.ndarray = self.plan.epoch(epoch)[index]
        return rows


@dataclass
class Training:
    """What the loop works on."""

    editor: KleinEditor
    model: Any  # the transformer as accelerate wraps it
    sampler: Sampler
    algorithm: Algorithm
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]  # the adapter's
    average: EMAModel | None
    measures: dict[str, float] = field(default_factory=dict)  # the newest values, for the model card


def read_inputs(config: RlConfig, runtime: Runtime) -> Inputs:
    """Everything that can be wrong with options, base and data is found here, before any weights are read."""
    pieces = max(config.group_size // config.batch_size, 1)
    if config.group_size % min(config.batch_size, config.group_size):
        raise ValueError(f"group_size={config.group_size} must be a multiple of batch_size={config.batch_size}")
    per_update = config.prompts_per_iteration * pieces // config.updates_per_iteration
    if config.prompts_per_iteration % runtime.num_processes or per_update % runtime.num_processes:
        raise ValueError(
            f"prompts_per_iteration={config.prompts_per_iteration} and the {per_update} batches of each update must be "
            f"multiples of the {runtime.num_processes} processes"
        )
    if runtime.is_sharded and config.optim.name == "muon":
        raise ValueError("optim.name=muon needs whole matrices; use adamw with FSDP, or DDP with muon")
    if config.sft is not None and config.model.quantisation is not None:
        raise ValueError("a quantised base takes no merged adapter; use adapter.init=... instead of sft=...")
    base = check_base(config.model, config.adapter)
    if config.sft is not None:
        if not Path(config.sft).exists():
            raise ValueError(f"no Stage I adapter at sft={config.sft}; train one with python -m etchr.sft")
        stage_one = lora_files.read(config.sft)
        if Path(base).exists():
            lora_files.check(stage_one, lora.targeted_shapes(KleinEditor.load(base, device="meta").transformer))
    router = Router.load(config.data.router or DEFAULT_ROUTER)
    kind, reward = config.data.prompt, config.reward
    needs_truth = reward.correctness.view == "truth" and reward.guidance_weight < 1
    sets, held_out = training_sets(config.data), None
    with runtime.main_first():  # the others find the Arrow files that the first one made
        prompts = Prompts(sets, kind, router, needs_truth)
        if config.validation.every:
            kept_back = held_out_set(config.validation.paths, config.validation.split, sets)
            try:
                held_out = Prompts(kept_back, kind, router, needs_truth)
            except ValueError as error:
                raise ValueError(f"{error}; or train without looking, validation.every=0") from None
    return Inputs(base, router, prompts, held_out, _plan(config, base, prompts))


def _plan(config: RlConfig, base: str, prompts: Prompts) -> Plan:
    """The order of the prompts; those of one iteration have one size where that is possible."""
    settings = EditorSettings.read(base, max_pixels=config.model.max_pixels)
    sizes = [geometry.fit_size(w, h, max_pixels=settings.max_pixels) for w, h in prompts.sizes]
    numbers = {size: number for number, size in enumerate(dict.fromkeys(sizes))}
    if unknown := sorted(set(config.data.weights) - set(prompts.tasks) - set(TASKS)):
        raise ValueError(f"data.weights names {unknown}; the data hold: {', '.join(sorted(set(prompts.tasks)))}")
    weights = repeats(prompts.sets, prompts.places, prompts.families, config.seed)
    weights *= [config.data.weights.get(task, 1.0) for task in prompts.tasks]
    costs = np.array([w * h for w, h in sizes])
    plan = Plan(np.array([numbers[size] for size in sizes]), costs, weights, config.prompts_per_iteration, config.seed)
    if not plan.batches_per_epoch:
        raise ValueError(
            f"{int(weights.sum())} prompts are fewer than prompts_per_iteration={config.prompts_per_iteration}; "
            "give more data or a smaller number"
        )
    return plan


def fingerprint(config: RlConfig, inputs: Inputs) -> dict[str, Any]:
    """What decides the weights that come out, as JSON; files count by content, wherever they lie."""
    options = {name: value for name, value in asdict(config).items() if name not in FREE_OPTIONS}
    for name in FREE_DATA_OPTIONS:
        del options["data"][name]
    options["data"]["mixture"] = (
        about_sets(inputs.prompts.sets, inputs.prompts.places) if config.data.mixture is not None else None
    )
    options["data"]["files"] = [content_digest(file) for file in inputs.prompts.files]
    options["data"]["meta_prompts"] = {str(k): v for k, v in inputs.router.meta_prompts.items()}
    options["model"]["base"] = content_digest(Path(inputs.base)) or inputs.base
    options["model"]["dtype"] = base_dtype(config.model, config.device)
    if config.sft is not None:
        options["sft"] = content_digest(Path(config.sft))
    if config.adapter.init is not None:
        options["adapter"]["init"] = content_digest(Path(config.adapter.init))
    if inputs.held_out is not None:  # it chooses the adapter
        chosen = {name: getattr(config.validation, name) for name in ("split", "num_samples", "seed")}
        options["validation"] = chosen | {"files": [content_digest(file) for file in inputs.held_out.files]}
    reward = config.reward
    options["reward"]["reasoner"] = model_fingerprint(reward.reasoner)
    options["reward"]["judge"] = model_fingerprint(reward.judge or reward.reasoner)
    for name in ("overlap", "max_missing", "retries"):
        del options["reward"][name]
    for name in ("guidance", "correctness"):
        if options["reward"][name]["kind"] == name:  # goes unsaid, as it did when there was no other
            del options["reward"][name]["kind"]
    return options


def build(config: RlConfig, runtime: Runtime, inputs: Inputs) -> Training:
    """Load the base, merge the Stage I adapter into it, put the new one on it, and everything round it."""
    dtype = base_dtype(config.model, config.device)
    editor = load_editor(inputs.base, config.model, runtime.device, dtype, config.batch_size)
    if config.sft is not None:
        lora.merge(editor.transformer, config.sft)
    attach(editor.transformer, config.model, config.adapter, config.seed)
    if config.objective.kl and config.adapter.init is not None:
        add_reference(editor.transformer, config.adapter.init, editor.dtype)
    model = runtime.prepare(editor.transformer)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(parameters, config.optim)
    average = EMAModel(parameters, decay=config.optim.ema) if config.optim.ema else None
    sampler = Sampler(editor, model, config)
    algorithm = algorithms.find(config.objective.kind)(config, sampler, parameters)
    return Training(editor, model, sampler, algorithm, optimizer, parameters, average)
