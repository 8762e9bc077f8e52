"""LoRA files of the FLUX.2-klein transformer: any layout in, one checked record out.

A key names a layer, after a prefix of the program that wrote it, and what it holds of it. Layers are named as in
diffusers (`transformer_blocks.0.attn.to_q`) or as in BFL's own code (`double_blocks.0.img_attn.qkv`; ComfyUI,
ai-toolkit), with dots or, by kohya and OneTrainer, with underscores. What scales a layer is its `.alpha`, or peft's
LoraConfig or kohya's entries in the file header; alpha = rank where nothing says it.

A file that does not fit, or says what is not done here, is an error, never a warning: a "merged" model in which nothing
changed looks like an untrained one.
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

from etchr.editor.folder import find_lora

LORA_TARGETS = re.compile(r"(transformer_blocks|single_transformer_blocks)\.\d+\..+")  # of these, every nn.Linear
PREFIX = "transformer."  # of the pipeline's component, in diffusers' files
BFL_PREFIX = "diffusion_model."
METADATA = "lora_adapter_metadata"  # diffusers' entry in the file header: the LoraConfig as JSON
ALPHAS = ("lora_alpha", "network_alpha", "ss_network_alpha")  # entries of headers that hold one alpha for all layers

# BFL's name of a layer -> the diffusers layers that it holds, in row order (BFL fuses q, k and v of the double blocks)
BFL_DOUBLE: dict[str, tuple[str, ...]] = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.linear_in",),
    "img_mlp.2": ("ff.linear_out",),
    "txt_mlp.0": ("ff_context.linear_in",),
    "txt_mlp.2": ("ff_context.linear_out",),
}
BFL_SINGLE: dict[str, tuple[str, ...]] = {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)}
BLOCKS: dict[
    str, tuple[str, dict[str, tuple[str, ...]]]
] = {  # the block's name -> its name in diffusers, and the diffusers layers of each layer
    "transformer_blocks": ("transformer_blocks", {part: (part,) for parts in BFL_DOUBLE.values() for part in parts}),
    "single_transformer_blocks": ("single_transformer_blocks", {parts[0]: parts for parts in BFL_SINGLE.values()}),
    "double_blocks": ("transformer_blocks", BFL_DOUBLE),
    "single_blocks": ("single_transformer_blocks", BFL_SINGLE),
}
PREFIXES = re.compile(r"(base_model\.model\.|diffusion_model\.|transformer\.|lora_unet_|lora_transformer_)+")
KEY = re.compile(r"(?P<layer>.+?)\.(?:lora_(?P<side>A|B|down|up)(?:\.(?P<adapter>[^.]+))?\.weight|(?P<alpha>alpha))")
LAYER = re.compile(
    r"(?P<block>transformer_blocks|single_transformer_blocks|double_blocks|single_blocks)"
    r"[._](?P<index>\d{1,3})[._](?P<leaf>.+)"
)
OTHER_KINDS = {  # what a key holds -> the kind of adapter that has such
    r"\.(dora_scale|lora_magnitude_vector)": "DoRA",
    r"\.lokr_": "LoKr",
    r"\.hada_": "LoHa",
    r"\.oft_": "OFT",
    r"\.(diff(_b)?|set_weight)$": "full-weight",
    r"\.lora_mid": "convolution",
}
PLAIN_REGEX = re.compile(r"(?!.*(\)[*+?{]|\(\?|\\[1-9]))(?!(.*[*+{]){4}).{1,200}")

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
    layout: str  # "diffusers", "training" (the released training code's keys), "bfl" or "kohya"

    def describe(self) -> str:
        """For example: 144 layers of rank 768, scale 1 (diffusers layout)."""
        ranks = sorted({layer.rank for layer in self.layers.values()})
        scales = sorted({layer.scale for layer in self.layers.values()})
        return (
            f"{len(self.layers)} layers of rank {'/'.join(map(str, ranks))}, "
            f"scale {'/'.join(f'{scale:g}' for scale in scales)} ({self.layout} layout)"
        )


@dataclass
class _Module:
    """What a file holds of one layer, in the file's own names."""

    sides: dict[str, Tensor]  # A, B
    alpha: float | None = None


def read(source: str | Path) -> LoraWeights:
    """The adapter in a file, in a folder's `pytorch_lora_weights.safetensors`, or of a hub id: org/name, org/name/file.

    Raises a `ValueError` that names the keys for what is no plain LoRA of these blocks, for half a pair, for values
    that are not finite and for headers that cannot be followed.
    """
    path = find_lora(source)
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
    modules, adapters, unknown = dict[str, _Module](), set[str | None](), list[str]()
    for key, tensor in tensors.items():
        if kind := next((kind for part, kind in OTHER_KINDS.items() if re.search(part, key)), ""):
            raise ValueError(
                f"{key} is of a {kind} adapter; only plain LoRA is read. Merge it into its base where it was trained, "
                "and give that as the editor"
            )
        match = KEY.fullmatch(key)
        name = "" if match is None else PREFIXES.sub("", match["layer"], count=1)
        if match is None or not LAYER.fullmatch(name):
            unknown.append(key)
            continue
        module = modules.setdefault(name, _Module({}))
        if match["alpha"]:
            module.alpha = _number(f"{name}.alpha", tensor.item() if tensor.numel() == 1 else tuple(tensor.shape))
            continue
        side = {"down": "A", "up": "B"}.get(match["side"], match["side"])
        if side in module.sides:
            raise ValueError(f"the file has lora_{side} of {name} twice")
        module.sides[side] = tensor
        adapters.add(match["adapter"])
    if unknown or not modules:
        raise ValueError(
            f"{len(unknown)} of {len(tensors)} keys are no LoRA of FLUX.2 transformer blocks, for example "
            f"{sorted(unknown)[:3]}; expected keys like 'transformer.transformer_blocks.0.attn.to_q.lora_A.weight'"
        )
    if len(adapters) > 1:
        raise ValueError(f"the file mixes adapters or layouts: {sorted(map(str, adapters))}; give a file with one")
    if adapters != {None}:
        log.warning("LoRA keys carry an adapter name and no alpha (the released training code): alpha = rank is used")
    config = _config(header)
    if any(module.alpha is not None for module in modules.values()) and "lora_alpha" in config:
        raise ValueError("the file gives alpha twice, as entries and as a LoraConfig in its header: remove one of them")
    config = _flat_alpha(header) | config
    layers = dict[str, LoraLayer]()
    for name, module in modules.items():
        for part, layer in _layers(name, module, config):
            if part in layers:
                raise ValueError(f"the file has a LoRA of {part} twice, the second as {name}")
            layers[part] = layer
    return LoraWeights(layers, _layout(next(iter(modules)), adapters != {None}))


def _layout(name: str, is_named: bool) -> str:
    if "." not in name:
        return "kohya"
    if name.startswith(("double_blocks", "single_blocks")):
        return "bfl"
    return "training" if is_named else "diffusers"


def _layers(name: str, module: _Module, config: dict[str, Any]) -> list[tuple[str, LoraLayer]]:
    """The diffusers layers that a module of the file adapts; a fused one's B is cut between them."""
    found = LAYER.fullmatch(name)
    assert found is not None
    block, known = BLOCKS[found["block"]]
    parts = next((parts for leaf, parts in known.items() if found["leaf"] in (leaf, leaf.replace(".", "_"))), ())
    if not parts:
        raise ValueError(f"{name} is no layer of FLUX.2 that is adapted here; those are {', '.join(known)}")
    if set(module.sides) != {"A", "B"}:
        have = " and ".join(f"lora_{side}" for side in sorted(module.sides)) or "alpha"
        raise ValueError(f"{name} has {have} but not its partner")
    a, b = (_plain(module.sides[side]) for side in "AB")
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or a.shape[0] < 1 or b.shape[0] % len(parts):
        raise ValueError(f"{name}: lora_A {tuple(a.shape)} and lora_B {tuple(b.shape)} are no pair of one rank")
    if not a.is_floating_point() or not b.is_floating_point() or not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError(f"{name}: lora_A or lora_B holds values that are not finite numbers")
    names = [f"{block}.{int(found['index'])}.{part}" for part in parts]
    rank, own = a.shape[0], {} if module.alpha is None else {"lora_alpha": module.alpha}
    return [
        (part, LoraLayer(a, rows, _scale(part, rank, config | own)))
        for part, rows in zip(names, b.chunk(len(parts)), strict=True)
    ]


def _plain(tensor: Tensor) -> Tensor:
    """fp8 as bfloat16, which holds its values exactly and can be computed with."""
    return tensor.to(torch.bfloat16) if tensor.is_floating_point() and tensor.itemsize == 1 else tensor


def _config(header: dict[str, str]) -> dict[str, Any]:
    """The transformer's LoraConfig in a file header as plain values; empty where there is none."""
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


def _flat_alpha(header: dict[str, str]) -> dict[str, Any]:
    """The alpha of all layers that kohya and others write into a header by itself."""
    found = {name: header[name] for name in ALPHAS if header.get(name, "None") != "None"}
    return {"lora_alpha": _number(*next(iter(found.items())))} if found else {}


def _number(name: str, value: Any) -> float:
    """A usable alpha; headers hold numbers as text."""
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < abs(number) < 1e9:
        raise ValueError(f"{name} in the file must be a number other than 0, got {value!r}")
    return number


def _scale(name: str, rank: int, config: dict[str, Any]) -> float:
    """alpha / rank of one layer: by peft's rules, 1 where nothing is said."""
    said = _of_layer(name, config, "rank_pattern", config.get("r", rank))
    if said != rank:
        raise ValueError(f"{name} has rank {rank}, but the header says {said!r}")
    alpha = _number(f"{name}: alpha", _of_layer(name, config, "alpha_pattern", config.get("lora_alpha", rank)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_layer(name: str, config: dict[str, Any], table: str, default: Any) -> Any:
    """What one of peft's patterns says of a layer.

    They are regular expressions from a foreign file: one that could take for ever is refused.
    """
    from peft.utils.other import get_pattern_key

    patterns = config.get(table) or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"{table} in the header must be a JSON object, got {patterns!r}")
    for pattern in patterns:
        if not PLAIN_REGEX.fullmatch(pattern):
            raise ValueError(f"{table} in the header has a pattern too involved to follow: {pattern[:80]!r}")
        try:
            re.compile(pattern)
        except re.error:
            raise ValueError(f"{table} in the header has {pattern[:80]!r}, which is no regular expression") from None
    return patterns.get(get_pattern_key(list(patterns), name), default)


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
            "if it was trained on fewer, merge it into the base first (etchr merge --partial)"
        )
    if missing:
        log.warning("the LoRA adapts %d of %d layers; the others stay as they are", len(weights.layers), len(shapes))
    for name, layer in weights.layers.items():
        if (layer.b.shape[0], layer.a.shape[1]) != tuple(shapes[name]):
            raise ValueError(
                f"{name} is {tuple(shapes[name])} but the LoRA is for {(layer.b.shape[0], layer.a.shape[1])}: "
                "it belongs to a model of another size"
            )
