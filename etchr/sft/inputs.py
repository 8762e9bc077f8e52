"""What Stage I reads: base and pairs, checked before any weights are read."""

from etchr.runtime import Runtime
from etchr.sft.data import Sizing
from etchr.sft.settings import SftConfig
from etchr.training.inputs import Inputs, check_base, read_data


def read_inputs(config: SftConfig, runtime: Runtime) -> tuple[Inputs, Sizing]:
    """What is trained on, and at which sizes; `ValueError` for all that can be wrong with options, base and data."""
    if config.global_batch_size % runtime.num_processes:
        raise ValueError(
            f"global_batch_size={config.global_batch_size} must be a multiple of the {runtime.num_processes} processes"
        )
    base, max_pixels = check_base(config, runtime)
    sizing = Sizing(config.data.geometry, max_pixels, config.data.bucket_step)
    inputs = read_data(
        config,
        runtime,
        base,
        sizing.of_sample,
        batch="global_batch_size",
        num_steps=config.steps,
        free=("log_every",),
        free_of_data=("cache", "cache_dir", "precompute", "num_workers"),
    )
    return inputs, sizing
