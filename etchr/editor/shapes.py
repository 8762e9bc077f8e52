"""The true shapes of FLUX.2-klein: for counting, measuring and testing at full size without its weights.

Source: diffusers' public conversion script, scripts/convert_flux2_to_diffusers.py, and the Qwen3-8B and Qwen3-4B model
cards (the text width is three times the encoder's hidden size).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from etchr.editor.folder import NANO_BASE

KLEIN: dict[str, Any] = {  # what 9B and 4B have in common
    "patch_size": 1,
    "in_channels": 128,
    "attention_head_dim": 128,
    "timestep_guidance_channels": 256,
    "mlp_ratio": 3.0,
    "axes_dims_rope": [32, 32, 32, 32],
    "rope_theta": 2000,
    "guidance_embeds": False,
}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "9b": KLEIN | {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
    "4b": KLEIN | {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
}
QWEN3: dict[str, Any] = {  # what the text encoders of 9B and 4B have in common
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rope_theta": 1_000_000,
}
TEXT_ENCODERS: dict[str, dict[str, Any]] = {
    "9b": QWEN3 | {"hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": False},
    "4b": QWEN3 | {"hidden_size": 2560, "intermediate_size": 9728, "tie_word_embeddings": True},
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 32,
}
SCHEDULER: dict[str, Any] = {"use_dynamic_shifting": True, "shift": 3.0}
SIZES = ("nano", *TRANSFORMERS)


def transformer_config(size: str) -> dict[str, Any]:
    """The `Flux2Transformer2DModel` config of klein 9b or 4b, or of the nano base kept in the repository."""
    from diffusers import Flux2Transformer2DModel

    if size not in SIZES:
        raise ValueError(f"size={size!r} must be one of {', '.join(SIZES)}")
    if size == "nano":
        return dict(Flux2Transformer2DModel.load_config(NANO_BASE / "transformer"))
    return dict(TRANSFORMERS[size])


def random_transformer(size: str, device: str | torch.device, dtype: torch.dtype) -> Any:
    """A frozen `Flux2Transformer2DModel` of that size, random, made on the device in its dtype: no larger copy before.

    Drawn by torch's usual rules on `device`, from its current stream of random numbers.
    """
    from diffusers import Flux2Transformer2DModel

    config = transformer_config(size)
    return _made(lambda: Flux2Transformer2DModel.from_config(config), device, dtype)


def random_folder(size: str, folder: str | Path, device: str | torch.device, dtype: torch.dtype) -> None:
    """Write a klein-base folder of size 9b or 4b with random weights of every part, and the nano base's tokenizer.

    What a run on it costs is what a run on the real weights costs: 35 GB for 9b in bfloat16, 17 GB for 4b.
    """
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    from etchr.editor.klein import KleinEditor

    if size not in TEXT_ENCODERS:
        raise ValueError(f"size={size!r} must be one of {', '.join(TEXT_ENCODERS)}")
    KleinEditor(
        random_transformer(size, device, dtype),
        _made(lambda: AutoencoderKLFlux2(**VAE), device, dtype),
        _made(lambda: Qwen3ForCausalLM(Qwen3Config(**TEXT_ENCODERS[size])), device, dtype),
        AutoTokenizer.from_pretrained(NANO_BASE / "tokenizer"),
        FlowMatchEulerDiscreteScheduler(**SCHEDULER),
    ).save(folder)


def _made(build: Callable[[], Any], device: str | torch.device, dtype: torch.dtype) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            network = build()
    finally:
        torch.set_default_dtype(before)
    return network.requires_grad_(False).eval()
