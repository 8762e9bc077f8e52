"""The policies that an update is held against: the one that sampled the rollout, and the one at the start."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from etchr.rl.settings import RlConfig
from etchr.runtime import Runtime
from etchr.training.state import REFERENCE, TrainState, build_state


def build_policy(config: RlConfig, runtime: Runtime, base: str) -> TrainState:
    """The policy that is trained, over the merged Stage I adapter, and with a frozen copy of what the KL needs."""
    goes_on = config.objective.kl > 0 and config.adapter.init is not None
    return build_state(config, runtime, base, merged=config.sft, reference=goes_on)


@contextmanager
def start_policy(transformer: Any) -> Iterator[None]:
    """Inside, the transformer is the policy that training started from: its adapter is off, or the copy is on."""
    has_copy = REFERENCE in transformer.peft_config
    if has_copy:
        transformer.set_adapter(REFERENCE)
    else:
        transformer.disable_adapters()
    try:
        yield
    finally:
        if has_copy:
            transformer.set_adapter("default")
        else:
            transformer.enable_adapters()


@contextmanager
def old_policy(parameters: Sequence[nn.Parameter], old: Sequence[Tensor]) -> Iterator[None]:
    """Inside, the adapter's `parameters` hold the values `old`: those that sampled the rollout."""
    now = copied(parameters)
    _fill(parameters, old)
    try:
        yield
    finally:
        _fill(parameters, now)


def copied(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The values that the parameters have now."""
    return [parameter.detach().clone() for parameter in parameters]


@torch.no_grad()
def _fill(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
