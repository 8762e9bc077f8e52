"""What a finished run leaves: the best adapter and the last one, each with its model card."""

import json
import logging
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from etchr.checkpoint import averaged, trainable
from etchr.editor import lora, lora_files
from etchr.editor.card import AdapterCard, write_card
from etchr.rl.settings import RlConfig
from etchr.rl.setup import Inputs, Training
from etchr.run_folder import whole, write_atomically
from etchr.runtime import Runtime
from etchr.training.card import common_facts

log = logging.getLogger(__name__)

MEASURES = ("reward", "val_reward", "val_pass_at_1", "val_verify_rate")
WEIGHTS, NOTE = "adapter.safetensors", "best.json"


def keep_best(
    folder: Path, config: RlConfig, run: Training, runtime: Runtime, done: int, values: dict[str, float], best: float
) -> None:
    """Keep the weights if no earlier ones had a validation reward of `best` or more, and enough of it is there."""
    with averaged(run.model, run.average):
        weights = trainable(run.model)
    too_few = values["val_missing_share"] > config.reward.max_missing
    if not runtime.is_main or too_few or values.get("val_reward", -1.0) <= best:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / WEIGHTS) as part:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, part)
    write_atomically(folder / NOTE, json.dumps({"iteration": done, **values}, indent=2).encode() + b"\n")


def write_adapters(folder: Path, config: RlConfig, runtime: Runtime, inputs: Inputs, run: Training, total: int) -> None:
    """Write `last/` beside `folder`, then `folder`: the best by validation reward, or the last without validation.

    A run over a merged Stage I adapter leaves adapters that hold both, so each works on the base alone.
    """
    with averaged(run.model, run.average):
        weights = trainable(run.model)
    if runtime.is_main:
        _write(folder.parent / "last", config, inputs, run, weights, total, run.measures)
        best = folder.parent / "best"
        if (best / NOTE).is_file():
            note = json.loads((best / NOTE).read_text(encoding="utf-8"))
            weights = load_file(best / WEIGHTS)
            _write(folder, config, inputs, run, weights, note["iteration"], note)
        else:
            _write(folder, config, inputs, run, weights, total, run.measures)
        log.info("adapter: %s", folder)
    runtime.wait()


def _write(
    folder: Path,
    config: RlConfig,
    inputs: Inputs,
    run: Training,
    weights: dict[str, Tensor],
    iterations: int,
    measures: dict[str, float],
) -> None:
    editor = run.editor
    if config.sft is None:
        lora.save(editor.transformer, folder, weights=weights)
    else:
        lora.save_joined(editor.transformer, folder, lora_files.read(config.sft), weights)
    written = lora_files.read(folder).layers
    reward, objective = config.reward, config.objective

    rank = max(layer.rank for layer in written.values())
    card = AdapterCard(
        **common_facts(config.model.base, editor.settings, config.data.prompt, inputs.router),
        stage="RL" if config.sft is None else "SFT + RL",
        rank=rank,
        alpha=max(layer.scale * layer.rank for layer in written.values()),
        num_linears=len(written),
        num_parameters=sum(layer.a.numel() + layer.b.numel() for layer in written.values()),
        steps=iterations * config.updates_per_iteration,
        num_pairs=iterations * config.prompts_per_iteration * config.group_size,
        data=sorted(set(inputs.prompts.tasks)),
        settings={
            "seed": config.seed,
            "iterations": iterations,
            "prompts, edits of each": f"{config.prompts_per_iteration}, {config.group_size}",
            "advantage": objective.advantage,
            "weight of guidance": reward.guidance_weight,
            "decodings": reward.num_decodings,
            **run.algorithm.about(),
            "KL weight": objective.kl,
            "optimizer": f"{config.optim.name}, lr {config.optim.lr:g}, {config.optim.schedule}",
            "base dtype": str(editor.dtype).removeprefix("torch."),
        },
        metrics={name: measures[name] for name in MEASURES if name in measures},
    )
    write_card(folder, card)
