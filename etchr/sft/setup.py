"""What a training is made of, checked before it is built: base, data, adapter, optimizer, caches."""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from etchr.editor.folder import EditorSettings
from etchr.editor.klein import KleinEditor
from etchr.router import DEFAULT_ROUTER, Router
from etchr.run_folder import content_digest
from etchr.runtime import Runtime
from etchr.sft.data import PairData, Sizing, StepLoader
from etchr.sft.encode import PairEncoder, open_caches
from etchr.sft.settings import SftConfig
from etchr.sft.validation import Validation
from etchr.training.base import attach, base_dtype, check_base, load_editor
from etchr.training.inputs import prompt_maker
from etchr.training.mixture import about_sets, held_out_set, training_sets
from etchr.training.optim import build_optimizer
from etchr.training.plan import Plan

log = logging.getLogger(__name__)

# Options that do not decide the weights that come out, so a run may be continued with others.
FREE_OPTIONS = ("out", "threads", "log_every", "save_every", "keep_checkpoints", "wandb", "validation", "device")
FREE_DATA_OPTIONS = ("cache", "cache_dir", "precompute", "num_workers", "router", "paths")  # some count by content


@dataclass(frozen=True)
class Inputs:
    """What a training reads, checked; no weights yet."""

    base: str  # the klein folder or hub id
    router: Router
    data: PairData
    held_out: PairData | None
    plan: Plan


@dataclass
class Training:
    """What the loop works on."""

    editor: KleinEditor
    model: Any  # the transformer as accelerate wraps it
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]  # the adapter's
    average: EMAModel | None
    encoder: PairEncoder
    loader: StepLoader
    validation: Validation | None
    measures: dict[str, float] = field(default_factory=dict)  # the newest values, for the model card


def read_inputs(config: SftConfig, runtime: Runtime) -> Inputs:
    """Everything that can be wrong with options, base and data is found here, before any weights are read."""
    if config.global_batch_size % runtime.num_processes:
        raise ValueError(
            f"global_batch_size={config.global_batch_size} must be a multiple of the {runtime.num_processes} processes"
        )
    if runtime.is_sharded and config.optim.name == "muon":
        raise ValueError("optim.name=muon needs whole matrices; use adamw with FSDP, or DDP with muon")
    base = check_base(config.model, config.adapter)
    router = Router.load(config.data.router or DEFAULT_ROUTER)
    prompt_of = prompt_maker(config.data.prompt, router)
    settings = EditorSettings.read(base, max_pixels=config.model.max_pixels)
    sizing = Sizing(config.data.geometry, settings.max_pixels, config.data.bucket_step)
    sets, held_out = training_sets(config.data), None
    with runtime.main_first():  # the others find the Arrow files that the first one made
        data = PairData(sets, prompt_of, sizing, config.data.bad_rows)
        if config.validation.every:
            kept_back = held_out_set(config.validation.paths, config.validation.split, sets)
            try:
                held_out = PairData(kept_back, prompt_of, sizing, config.data.bad_rows)
            except ValueError as error:
                raise ValueError(f"{error}; or train without looking, validation.every=0") from None
    plan = data.plan(config.data.weights, config.global_batch_size, config.seed, config.data.bucketing)
    return Inputs(base, router, data, held_out, plan)


def fingerprint(config: SftConfig, inputs: Inputs) -> dict[str, Any]:
    """What decides the weights that come out, as JSON; files count by content, wherever they lie."""
    options = {name: value for name, value in asdict(config).items() if name not in FREE_OPTIONS}
    for name in FREE_DATA_OPTIONS:
        del options["data"][name]
    options["data"]["mixture"] = (
        about_sets(inputs.data.sets, inputs.data.places) if config.data.mixture is not None else None
    )
    options["data"]["files"] = [content_digest(file) for file in inputs.data.files]
    options["data"]["meta_prompts"] = {str(k): v for k, v in inputs.router.meta_prompts.items()}
    options["model"]["base"] = content_digest(Path(inputs.base)) or inputs.base
    options["model"]["dtype"] = base_dtype(config.model, config.device)
    if config.adapter.init is not None:
        options["adapter"]["init"] = content_digest(Path(config.adapter.init))
    return options


def build(config: SftConfig, runtime: Runtime, inputs: Inputs) -> Training:
    """Load the base, put the adapter on it, and everything round it."""
    dtype = base_dtype(config.model, config.device)
    editor = load_editor(inputs.base, config.model, runtime.device, dtype, config.batch_size)
    attach(editor.transformer, config.model, config.adapter, config.seed)
    model = runtime.prepare(editor.transformer)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(parameters, config.optim)
    average = EMAModel(parameters, decay=config.optim.ema) if config.optim.ema else None
    with runtime.main_first():
        latents, texts = open_caches(config.data.cache, config.data.cache_dir, editor)
    encoder = PairEncoder(editor, latents, texts)
    loader = StepLoader(inputs.data, inputs.plan, latents, runtime.rank, runtime.num_processes, config.batch_size)
    validation = None
    if inputs.held_out is not None:
        reader = StepLoader(inputs.held_out, inputs.plan, latents, 0, 1, config.batch_size)
        validation = Validation(config.validation, inputs.held_out, reader, encoder, config.batch_size)
    if config.data.precompute:
        shared = config.data.cache == "disk"  # in memory each process needs all of it
        used = np.flatnonzero(inputs.plan.repeats).tolist()  # none of those over a cap
        mine = used[runtime.rank :: runtime.num_processes] if shared else used
        encoder.fill(loader, mine, runtime.is_main)
        if validation is not None:
            encoder.fill(validation.loader, validation.indices, runtime.is_main)
        encoder.text([""])
        editor.text_encoder.to("cpu")
        runtime.wait()
    return Training(editor, model, optimizer, parameters, average, encoder, loader, validation)
