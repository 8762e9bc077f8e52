"""What Stage II reads: base, Stage I adapter and prompts, checked before any weights are read."""

from pathlib import Path

from etchr.editor import geometry
from etchr.mllm.answers import ground_truth
from etchr.mllm.settings import model_fingerprint
from etchr.rl.settings import RlConfig
from etchr.run_folder import content_digest
from etchr.runtime import Runtime
from etchr.sample import EditSample
from etchr.training.data import Size
from etchr.training.inputs import Inputs, check_base, read_data


def read_inputs(config: RlConfig, runtime: Runtime) -> Inputs:
    """What is trained on; `ValueError` for all that can be wrong with options, base and data."""
    pieces = max(config.group_size // config.batch_size, 1)
    if config.group_size % min(config.batch_size, config.group_size):
        raise ValueError(f"group_size={config.group_size} must be a multiple of batch_size={config.batch_size}")
    per_update = config.prompts_per_iteration * pieces // config.updates_per_iteration
    if config.prompts_per_iteration % runtime.num_processes or per_update % runtime.num_processes:
        raise ValueError(
            f"prompts_per_iteration={config.prompts_per_iteration} and the {per_update} batches of each update must be "
            f"multiples of the {runtime.num_processes} processes"
        )
    if config.sft is not None and config.model.quantisation is not None:
        raise ValueError("a quantised base takes no merged adapter; use adapter.init=... instead of sft=...")
    if config.sft is not None and not Path(config.sft).exists():
        raise ValueError(f"no Stage I adapter at sft={config.sft}; train one with python -m etchr.sft")
    reward = config.reward
    needs_truth = reward.correctness.view == "truth" and reward.guidance_weight < 1
    base, max_pixels = check_base(config, runtime, config.sft)

    def sizes_of(sample: EditSample) -> tuple[Size]:
        for number in range(sample.num_questions):
            ground_truth(sample.asked(number))  # a sample without one cannot be rewarded
        if needs_truth and sample.edit_image is None:
            raise ValueError(
                f"row {sample.id!r} has no edit_image for reward.correctness.view=truth; choose both or edit"
            )
        return (geometry.fit_size(*sample.image.size, max_pixels=max_pixels),)

    inputs = read_data(
        config,
        runtime,
        base,
        sizes_of,
        batch="prompts_per_iteration",
        num_steps=config.iterations,
        free=("pictures_every",),
    )
    decides = inputs.fingerprint
    if config.sft is not None:
        decides["sft"] = content_digest(Path(config.sft))
    if inputs.held_out is not None:  # it chooses the adapter
        chosen = {name: getattr(config.validation, name) for name in ("split", "num_samples", "seed")}
        decides["validation"] = chosen | {"files": inputs.held_out.about(with_sets=False)["files"]}
    decides["reward"]["reasoner"] = model_fingerprint(reward.reasoner)
    decides["reward"]["judge"] = model_fingerprint(reward.judge or reward.reasoner)
    for name in ("overlap", "max_missing", "retries"):
        del decides["reward"][name]
    for name in ("guidance", "correctness"):
        if decides["reward"][name]["kind"] == name:  # goes unsaid, as it did when there was no other
            del decides["reward"][name]["kind"]
    return inputs
