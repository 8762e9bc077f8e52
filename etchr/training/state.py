"""What is trained and what goes with it: the editor with its adapter, the optimizer, and the average of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from etchr.editor import lora
from etchr.editor.efficiency import checkpoint_blocks, compile_blocks, use_attention
from etchr.editor.klein import KleinEditor
from etchr.runtime import Runtime
from etchr.training.optim import build_optimizer
from etchr.training.settings import AdapterConfig, EditorConfig

GATHER = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
REFERENCE = "reference"  # the name of a frozen copy of the adapter that training goes on with


@dataclass
class TrainState:
    """What the loop works on."""

    editor: KleinEditor
    model: Any  # the transformer as accelerate wraps it
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]  # the adapter's
    ema: EMAModel | None

    def update(self, lr: float) -> None:
        """One step of the optimizer, and of the average, along the gradients, which are then gone."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.step(self.parameters)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model holds the averaged weights where there are any: those that are looked at and left."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        try:
            yield
        finally:
            self.ema.restore(self.parameters)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the adapter's weights by name, whole and on the CPU (in the main process, if it is sharded)."""
        state: dict[str, Any] = get_model_state_dict(self.model, options=GATHER)
        return {name: value.clone() for name, value in state.items()}

    def averaged_weights(self) -> dict[str, Tensor]:
        """As `weights`, of the average where there is one."""
        with self.averaged():
            return self.weights()


def build_state(
    config: Any, runtime: Runtime, base: str, merged: str | None = None, reference: bool = False
) -> TrainState:
    """Load the base, put the adapter on it, and everything round it, by the options that both stages share.

    The adapter in `merged` is first fused into the base. With `reference` a frozen copy of `config.adapter.init` stays
    beside the one that is trained.
    """
    editor = KleinEditor.load(
        base,
        device=str(runtime.device),
        dtype=runtime.dtype,
        max_pixels=config.model.max_pixels,
        quantisation=config.model.quantisation,
        batch_size=config.batch_size,
    )
    if merged is not None:
        lora.merge(editor.transformer, merged, partial=True)
    attach(editor.transformer, config.model, config.adapter, config.seed)
    if reference:
        lora.load(editor.transformer, config.adapter.init, adapter_name=REFERENCE, dtype=editor.dtype)
        editor.transformer.set_adapter("default")
    model = runtime.prepare(editor.transformer)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(parameters, config.optim)
    ema = EMAModel(parameters, decay=config.optim.ema) if config.optim.ema else None
    return TrainState(editor, model, optimizer, parameters, ema)


def attach(transformer: Any, model: EditorConfig, adapter: AdapterConfig, seed: int) -> list[nn.Parameter]:
    """Put the adapter on the transformer as the options say; its parameters."""
    dtype = getattr(torch, adapter.dtype)
    if adapter.init is None:
        parameters = lora.attach(transformer, adapter.rank, adapter.alpha, adapter.dropout, seed=seed, dtype=dtype)
    else:
        parameters = lora.load(transformer, adapter.init, dtype=dtype, dropout=adapter.dropout)
    lora.use_product(transformer, adapter.product)
    use_attention(transformer, model.attention)
    checkpoint_blocks(transformer, model.gradient_checkpointing)
    compile_blocks(transformer, model.compile)
    return parameters
