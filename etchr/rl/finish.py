"""What a run leaves: the best weights while it goes on, at its end the best adapter and the last one."""

import json
import logging
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from etchr.rl.algorithms.base import Algorithm
from etchr.rl.settings import RlConfig
from etchr.run_folder import whole_folder
from etchr.training.adapter import write_adapter
from etchr.training.run import Run
from etchr.training.state import TrainState

log = logging.getLogger(__name__)

MEASURES = ("reward", "val_reward", "val_pass_at_1", "val_verify_rate")
WEIGHTS, NOTE = "adapter.safetensors", "best.json"


def keep_best(run: Run, state: TrainState, done: int, values: dict[str, float], best: float) -> None:
    """Keep the weights if no earlier ones had a validation reward of `best` or more, and enough of it is there."""
    weights = state.averaged_weights()
    too_few = values["val_missing_share"] > run.config.reward.max_missing
    if not run.runtime.is_main or too_few or values.get("val_reward", -1.0) <= best:
        return
    try:
        with whole_folder(run.folder / "best") as part:
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, part / WEIGHTS)
            note = json.dumps({"iteration": done, **values}, indent=2)
            (part / NOTE).write_text(note + "\n", encoding="utf-8")
    except SafetensorError as error:
        raise OSError(f"cannot keep the best weights in {run.folder / 'best'}: {error}") from None


def write_adapters(
    config: RlConfig, run: Run, state: TrainState, algorithm: Algorithm, measures: dict[str, float]
) -> None:
    """Write `last/`, then `adapter/`: the best by validation reward, or the last without validation.

    A run over a merged Stage I adapter leaves adapters that hold both, so each works on the base alone.
    """

    def write(folder: Path, weights: dict[str, Tensor], iterations: int, measures: dict[str, float]) -> None:
        settings: dict[str, Any] = {
            "iterations": iterations,
            "prompts, edits of each": f"{config.prompts_per_iteration}, {config.group_size}",
            "advantage": config.objective.advantage,
            "weight of guidance": config.reward.guidance_weight,
            "decodings": config.reward.num_decodings,
            **algorithm.about(),
            "KL weight": config.objective.kl,
        }
        write_adapter(
            folder,
            run,
            state,
            weights,
            stage="RL" if config.sft is None else "SFT + RL",
            merged=config.sft,
            steps=iterations * config.updates_per_iteration,
            num_samples=iterations * config.prompts_per_iteration * config.group_size,
            settings=settings,
            metrics={name: measures[name] for name in MEASURES if name in measures},
        )

    weights, iterations = state.averaged_weights(), run.inputs.total
    if run.runtime.is_main:
        write(run.folder / "last", weights, iterations, measures)
        best = run.folder / "best"
        if (best / NOTE).is_file():
            try:
                measures = json.loads((best / NOTE).read_text(encoding="utf-8"))
                weights, iterations = load_file(best / WEIGHTS), int(measures["iteration"])
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                raise ValueError(
                    f"{best} is damaged ({error}); remove it, and the last weights become the adapter"
                ) from None
        write(run.adapter, weights, iterations, measures)
        log.info("adapter: %s", run.adapter)
    run.runtime.wait()
