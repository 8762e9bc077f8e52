"""LoRA files of the FLUX.2-klein transformer: three layouts in, one checked record out.

Layouts: diffusers' (`transformer.<layer>.lora_A.weight`, alpha in the header), the released training code's
(`<layer>.lora_A.default.weight`, alpha = rank), BFL's and ComfyUI's (`diffusion_model.double_blocks...`). A file that
does not fit is an error here, never a warning: a "merged" model in which nothing changed looks like an untrained one.
"""

import json
import logging
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

LORA_TARGETS = re.compile(r"(transformer_blocks|single_transformer_blocks)\.\d+\..+")  # of these, every nn.Linear
LORA_FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for in a folder
PREFIX = "transformer."  # of the pipeline's component, in diffusers' files
METADATA = "lora_adapter_metadata"  # diffusers' entry in the file header: the LoraConfig as JSON
KEY = re.compile(r"(?:transformer\.)?(?P<name>.+)\.lora_(?P<side>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")
BFL_PREFIX = "diffusion_model."
BFL_KEY = re.compile(r"diffusion_model\.(double|single)_blocks\.\d{1,3}\..+\.lora_[AB]\.weight")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoraLayer:
    """One adapted linear layer: its weight changes by `scale * b @ a`."""

    a: Tensor  # (rank, in_features)
    b: Tensor  # (out_features, rank)
    scale: float  # alpha / rank

    @property
    def rank(self) -> int:
        return self.a.shape[0]


@dataclass(frozen=True)
class LoraWeights:
    """An adapter as read from a file, on the CPU."""

    layers: dict[str, LoraLayer]  # by the linear layer's name in the transformer
    layout: str  # "diffusers", "training" (the released training code's keys) or "bfl"

    def describe(self) -> str:
        """For example: 144 layers of rank 768, scale 1 (diffusers layout)."""
        ranks = sorted({layer.rank for layer in self.layers.values()})
        scales = sorted({layer.scale for layer in self.layers.values()})
        return (
            f"{len(self.layers)} layers of rank {'/'.join(map(str, ranks))}, "
            f"scale {'/'.join(f'{scale:g}' for scale in scales)} ({self.layout} layout)"
        )


def read(source: str | Path) -> LoraWeights:
    """The adapter in a file, or in a folder's `pytorch_lora_weights.safetensors`.

    Layouts: diffusers (`transformer.<layer>.lora_A.weight`, alpha in the header), the released training code
    (`<layer>.lora_A.default.weight`, alpha = rank) and BFL/ComfyUI (`diffusion_model.double_blocks...`). Raises a
    `ValueError` that names the keys for anything else, for half a pair and for values that are not finite.
    """
    path = Path(source)
    path = path / LORA_FILE if path.is_dir() else path
    if not path.is_file() or path.suffix != ".safetensors":
        raise ValueError(f"no LoRA file at {path}; give a .safetensors file or a folder with {LORA_FILE}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error})") from None
    try:
        weights = _parse(tensors, header)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    log.info("read LoRA %s: %s", path.name, weights.describe())
    return weights


def _parse(tensors: dict[str, Tensor], header: dict[str, str]) -> LoraWeights:
    layout = ""
    if any(key.startswith(BFL_PREFIX) for key in tensors):
        tensors, layout, header = _from_bfl(tensors), "bfl", {}
    pairs: dict[str, dict[str, Tensor]] = {}
    adapters, unknown = set(), []
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match is None or not LORA_TARGETS.fullmatch(match["name"]):
            unknown.append(key)
        else:
            pair = pairs.setdefault(match["name"], {})
            if match["side"] in pair:
                raise ValueError(f"the file has lora_{match['side']} of {match['name']} twice")
            pair[match["side"]] = tensor
            adapters.add(match["adapter"])
    if unknown or not pairs:
        raise ValueError(
            f"{len(unknown)} of {len(tensors)} keys are no LoRA of FLUX.2 transformer blocks, for example "
            f"{sorted(unknown)[:3]}; expected keys like 'transformer.transformer_blocks.0.attn.to_q.lora_A.weight'"
        )
    if len(adapters) > 1:
        raise ValueError(f"the file mixes adapters or layouts: {sorted(map(str, adapters))}; give a file with one")
    if adapters != {None}:
        layout = "training"
        log.warning("LoRA keys carry an adapter name and no alpha (the released training code): alpha = rank is used")
    config = _config(header)
    layers = {name: _layer(name, pair, config) for name, pair in pairs.items()}
    return LoraWeights(layers, layout or "diffusers")


def _from_bfl(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """BFL/ComfyUI keys to diffusers' keys, by diffusers' own converter."""
    from diffusers import Flux2KleinPipeline

    unknown = sorted(key for key in tensors if not BFL_KEY.fullmatch(key))
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(tensors)} keys are no plain lora_A/lora_B of BFL transformer blocks "
            f"(alpha keys and DoRA are not read), for example {unknown[:3]}"
        )
    return Flux2KleinPipeline.lora_state_dict(tensors)


def _layer(name: str, pair: dict[str, Tensor], config: dict[str, Any]) -> LoraLayer:
    if set(pair) != {"A", "B"}:
        raise ValueError(f"{name} has lora_{next(iter(pair))} but not its partner")
    a, b = pair["A"], pair["B"]
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or a.shape[0] < 1:
        raise ValueError(f"{name}: lora_A {tuple(a.shape)} and lora_B {tuple(b.shape)} are no pair of one rank")
    if not a.is_floating_point() or not b.is_floating_point() or not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError(f"{name}: lora_A or lora_B holds values that are not finite numbers")
    return LoraLayer(a, b, _scale(name, a.shape[0], config))


def _config(header: dict[str, str]) -> dict[str, Any]:
    """The transformer's LoraConfig in a file header as plain values; empty where there is none.

    Only numbers are taken from it: the header is as foreign as the weights, and peft would run its patterns as regular
    expressions.
    """
    try:
        entries = json.loads(header.get(METADATA) or "{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{METADATA} in the header is not JSON ({error})") from None
    if not isinstance(entries, dict):
        raise ValueError(f"{METADATA} in the header must be a JSON object")
    config = {key.removeprefix(PREFIX): value for key, value in entries.items()}
    if config.get("use_dora"):
        raise ValueError("this is a DoRA adapter; only plain LoRA is read")
    return config


def _scale(name: str, rank: int, config: dict[str, Any]) -> float:
    """alpha / rank of one layer: by peft's rules, 1 without a header."""
    alpha = config.get("lora_alpha", rank)
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"alpha_pattern in the header must be a JSON object, got {patterns!r}")
    for pattern, value in patterns.items():
        plain = pattern.removeprefix("^").removesuffix("$").replace("\\", "")
        if name == plain or name.endswith(f".{plain}"):
            alpha = value
            break
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < abs(alpha) < 1e9:
        raise ValueError(f"{name}: alpha in the header must be a number other than 0, got {alpha!r}")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def check(weights: LoraWeights, shapes: dict[str, torch.Size], *, partial: bool = False) -> None:
    """Raise a `ValueError` that names the layers unless `weights` fit targeted layers of these (out, in) `shapes`."""
    foreign = sorted(set(weights.layers) - set(shapes))
    if foreign:
        raise ValueError(
            f"the LoRA adapts {len(foreign)} layers that this transformer does not have, e.g. {foreign[:3]}"
        )
    missing = sorted(set(shapes) - set(weights.layers))
    if missing and not partial:
        raise ValueError(
            f"the LoRA lacks {len(missing)} of {len(shapes)} targeted layers, e.g. {missing[:3]}; "
            "pass --partial (partial=True) if it was trained on fewer"
        )
    for name, layer in weights.layers.items():
        if (layer.b.shape[0], layer.a.shape[1]) != tuple(shapes[name]):
            raise ValueError(
                f"{name} is {tuple(shapes[name])} but the LoRA is for {(layer.b.shape[0], layer.a.shape[1])}: "
                "it belongs to a model of another size"
            )
