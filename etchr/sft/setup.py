"""What a training is made of, checked before it is built: base, data, adapter, optimizer, caches."""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from etchr.editor import lora
from etchr.editor.efficiency import checkpoint_blocks, compile_blocks, use_attention
from etchr.editor.klein import NANO_BASE, EditorSettings, KleinEditor, check_folder
from etchr.router import DEFAULT_ROUTER, Router
from etchr.run_folder import content_digest
from etchr.runtime import Runtime
from etchr.sft.data import PairData, Sizing, StepLoader, prompt_maker
from etchr.sft.encode import PairEncoder, open_caches
from etchr.sft.optim import build_optimizer
from etchr.sft.plan import Plan
from etchr.sft.settings import SftConfig
from etchr.sft.validation import Validation

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


def base_dtype(config: SftConfig) -> str:
    """The frozen base's dtype: bfloat16 on a GPU, float32 on a CPU, unless the options say which."""
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    return config.model.dtype if config.model.dtype != "auto" else "bfloat16" if on_gpu else "float32"


def check_base(config: SftConfig) -> str:
    """The base's folder or hub id; `ValueError` if it is none, or smaller than the rank. No weights are read."""
    base = str(NANO_BASE) if config.model.base == "nano" else config.model.base
    check_folder(base)
    if config.adapter.init is not None and not Path(config.adapter.init).exists():
        raise ValueError(f"no adapter at adapter.init={config.adapter.init}")
    if Path(base).exists():
        lora.attach(KleinEditor.load(base, device="meta").transformer, config.adapter.rank, config.adapter.alpha)
    return base


def read_inputs(config: SftConfig, runtime: Runtime) -> Inputs:
    """Everything that can be wrong with options, base and data is found here, before any weights are read."""
    if config.global_batch_size % runtime.num_processes:
        raise ValueError(
            f"global_batch_size={config.global_batch_size} must be a multiple of the {runtime.num_processes} processes"
        )
    if runtime.is_sharded and config.optim.name == "muon":
        raise ValueError("optim.name=muon needs whole matrices; use adamw with FSDP, or DDP with muon")
    base = check_base(config)
    router = Router.load(config.data.router or DEFAULT_ROUTER)
    prompt_of = prompt_maker(config.data.prompt, router)
    settings = EditorSettings.read(base, max_pixels=config.model.max_pixels)
    sizing = Sizing(config.data.geometry, settings.max_pixels, config.data.bucket_step)
    held_out = None
    with runtime.main_first():  # the others find the Arrow files that the first one made
        data = PairData(config.data.paths, config.data.split, prompt_of, sizing, config.data.bad_rows)
        if config.validation.every:
            paths = config.validation.paths or config.data.paths
            try:
                held_out = PairData(paths, config.validation.split, prompt_of, sizing, config.data.bad_rows)
            except ValueError as error:
                raise ValueError(f"{error}; or train without looking, validation.every=0") from None
    plan = data.plan(config.data.weights, config.global_batch_size, config.seed, config.data.bucketing)
    return Inputs(base, router, data, held_out, plan)


def fingerprint(config: SftConfig, inputs: Inputs) -> dict[str, Any]:
    """What decides the weights that come out, as JSON; files count by content, wherever they lie."""
    options = {name: value for name, value in asdict(config).items() if name not in FREE_OPTIONS}
    for name in FREE_DATA_OPTIONS:
        del options["data"][name]
    options["data"]["files"] = [content_digest(file) for file in inputs.data.files]
    options["data"]["meta_prompts"] = {str(k): v for k, v in inputs.router.meta_prompts.items()}
    options["model"]["base"] = content_digest(Path(inputs.base)) or inputs.base
    options["model"]["dtype"] = base_dtype(config)
    if config.adapter.init is not None:
        options["adapter"]["init"] = content_digest(Path(config.adapter.init))
    return options


def build(config: SftConfig, runtime: Runtime, inputs: Inputs) -> Training:
    """Load the base, put the adapter on it, and everything round it."""
    editor = KleinEditor.load(
        inputs.base,
        device=str(runtime.device),
        dtype=base_dtype(config),
        max_pixels=config.model.max_pixels,
        quantisation=config.model.quantisation,
        batch_size=config.batch_size,
    )
    attach(editor.transformer, config)
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
        mine = range(runtime.rank, len(inputs.data), runtime.num_processes) if shared else range(len(inputs.data))
        encoder.fill(loader, mine, runtime.is_main)
        if validation is not None:
            encoder.fill(validation.loader, validation.indices, runtime.is_main)
        encoder.text([""])
        editor.text_encoder.to("cpu")
        runtime.wait()
    return Training(editor, model, optimizer, parameters, average, encoder, loader, validation)


def attach(transformer: Any, config: SftConfig) -> list[nn.Parameter]:
    """Put the adapter on the transformer as the options say; its parameters."""
    adapter, model = config.adapter, config.model
    dtype = getattr(torch, adapter.dtype)
    if adapter.init is None:
        parameters = lora.attach(
            transformer, adapter.rank, adapter.alpha, adapter.dropout, seed=config.seed, dtype=dtype
        )
    else:
        parameters = lora.load(transformer, adapter.init, dtype=dtype, dropout=adapter.dropout)
    use_attention(transformer, model.attention)
    checkpoint_blocks(transformer, model.gradient_checkpointing)
    compile_blocks(transformer, model.compile)
    return parameters
