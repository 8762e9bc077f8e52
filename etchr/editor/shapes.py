"""The true shapes of FLUX.2-klein: for counting, measuring and testing at full size without its weights.

Source: diffusers' public conversion script, scripts/convert_flux2_to_diffusers.py, and the Qwen3-8B and Qwen3-4B model
cards (the text width is three times the encoder's hidden size).
"""

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
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            transformer = Flux2Transformer2DModel.from_config(config)
    finally:
        torch.set_default_dtype(before)
    return transformer.requires_grad_(False).eval()
