"""The base editor of a training and the adapter on it."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from etchr.editor import lora, lora_files
from etchr.editor.efficiency import checkpoint_blocks, compile_blocks, use_attention
from etchr.editor.folder import check_folder, named_folder
from etchr.editor.klein import KleinEditor
from etchr.training.settings import AdapterConfig, ModelConfig


def base_dtype(model: ModelConfig, device: str) -> str:
    """The frozen base's dtype: bfloat16 on a GPU, float32 on a CPU, unless the options say which."""
    on_gpu = device != "cpu" and torch.cuda.is_available()
    return model.dtype if model.dtype != "auto" else "bfloat16" if on_gpu else "float32"


def check_base(model: ModelConfig, adapter: AdapterConfig) -> str:
    """The base's folder or hub id; `ValueError` if it is none or the adapter does not fit it. No weights are read."""
    base = named_folder(model.base)
    check_folder(base)
    if adapter.init is not None and not Path(adapter.init).exists():
        raise ValueError(f"no adapter at adapter.init={adapter.init}")
    if Path(base).exists():
        transformer = KleinEditor.load(base, device="meta").transformer
        if adapter.init is None:
            lora.attach(transformer, adapter.rank, adapter.alpha)
        else:
            lora_files.check(lora_files.read(adapter.init), lora.targeted_shapes(transformer))
    return base


def load_editor(base: str, model: ModelConfig, device: torch.device, dtype: str, batch_size: int) -> KleinEditor:
    """The editor that is trained, without an adapter; `base` and `dtype` as `check_base` and `base_dtype` gave them."""
    return KleinEditor.load(
        base,
        device=str(device),
        dtype=dtype,
        max_pixels=model.max_pixels,
        quantisation=model.quantisation,
        batch_size=batch_size,
    )


def attach(transformer: Any, model: ModelConfig, adapter: AdapterConfig, seed: int) -> list[nn.Parameter]:
    """Put the adapter on the transformer as the options say; its parameters."""
    dtype = getattr(torch, adapter.dtype)
    if adapter.init is None:
        parameters = lora.attach(transformer, adapter.rank, adapter.alpha, adapter.dropout, seed=seed, dtype=dtype)
    else:
        parameters = lora.load(transformer, adapter.init, dtype=dtype, dropout=adapter.dropout)
    if adapter.one_product:
        lora.use_one_product(transformer)
    use_attention(transformer, model.attention)
    checkpoint_blocks(transformer, model.gradient_checkpointing)
    compile_blocks(transformer, model.compile)
    return parameters
