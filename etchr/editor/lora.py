"""Low-rank adapters of the FLUX.2-klein transformer: which weights, how they start, save, load and merge.

An adapter adds `scale * B @ A` to the weight of every linear layer of the transformer blocks, scale = alpha / rank.
`lora_files` reads its files, `lora_export` writes merged models and the BFL layout.
"""

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import Linear as AdaptedLinear
from safetensors import SafetensorError
from torch import Tensor, nn

from etchr.editor.folder import LORA_FILE
from etchr.editor.lora_files import LORA_TARGETS, LoraLayer, LoraWeights, check, read
from etchr.run_folder import whole


def targeted_linears(transformer: nn.Module) -> list[str]:
    """Names of the linear layers that adapters go on: all of the double and single blocks, nothing outside them.

    Found by pattern, not typed: 12 per double and 2 per single block, i.e. 144 on klein 9B and 100 on 4B. The names do
    not depend on whether adapters are attached.
    """
    names = (
        name.removesuffix(".base_layer")
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name
    )
    return [name for name in names if LORA_TARGETS.fullmatch(name)]


def targeted_shapes(transformer: nn.Module) -> dict[str, torch.Size]:
    """(out_features, in_features) of the targeted linear layers by name; of quantised ones what they stand for."""
    layers: dict[str, Any] = {name: transformer.get_submodule(name) for name in targeted_linears(transformer)}
    return {name: torch.Size((layer.out_features, layer.in_features)) for name, layer in layers.items()}


def _weight(transformer: nn.Module, name: str) -> nn.Parameter:
    weight = transformer.get_submodule(name).weight
    assert isinstance(weight, nn.Parameter)
    return weight


def attach(
    transformer: Any,
    rank: int,
    alpha: float | None = None,
    dropout: float = 0.0,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    adapter_name: str = "default",
) -> list[nn.Parameter]:
    """Freeze `transformer`, put a fresh trainable adapter on it and return the adapter's parameters.

    B starts at 0, so the output does not change; A is uniform in +-1/sqrt(in_features) (peft's own start) and depends
    on `seed` and the layer order alone, not on the device. `alpha` None means `rank`. The parameters are float32 by
    default: in bfloat16 small updates are lost.
    """
    shapes = targeted_shapes(transformer)
    for name, (out_features, in_features) in shapes.items():
        if not 1 <= rank <= min(out_features, in_features):
            raise ValueError(
                f"LoRA rank must be between 1 and {min(out_features, in_features)}, the smaller side of {name} "
                f"({out_features}x{in_features}), got {rank}"
            )
    alpha = float(rank if alpha is None else alpha)
    if not math.isfinite(alpha) or alpha <= 0:
        raise ValueError(f"alpha must be a positive number, got {alpha}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
    _inject(transformer, dict.fromkeys(shapes, rank), dict.fromkeys(shapes, alpha), dropout, adapter_name)
    generator = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad():
        for name in shapes:
            layer = transformer.get_submodule(name)
            a, b = layer.lora_A[adapter_name], layer.lora_B[adapter_name]
            b.weight.zero_()
            if not a.weight.is_meta:
                bound = a.in_features**-0.5
                start = torch.empty(a.weight.shape, device="cpu").uniform_(-bound, bound, generator=generator)
                a.weight.copy_(start)
    return _own(transformer, adapter_name, dtype)


def _inject(
    transformer: Any, ranks: dict[str, int], alphas: dict[str, float], dropout: float, adapter_name: str
) -> None:
    """Put an adapter with these ranks and alphas by layer name on `transformer`; its values are left to the caller."""
    if not ranks:
        raise ValueError("found no linear layer to adapt; a FLUX.2 transformer is needed")
    if adapter_name in getattr(transformer, "peft_config", {}):
        raise ValueError(f"the transformer already has an adapter {adapter_name!r}; give another adapter_name")
    rank = Counter(ranks.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # any number works; only the annotation says int
        lora_dropout=dropout,
        target_modules=list(ranks),
        rank_pattern={_exactly(name): other for name, other in ranks.items() if other != rank},
        alpha_pattern={_exactly(name): other for name, other in alphas.items() if other != alpha},
    )
    with torch.device("meta"):  # peft would draw a start, two billion numbers at 9B, that is replaced anyway
        transformer.add_adapter(config, adapter_name)
    for name in ranks:
        layer = transformer.get_submodule(name)
        for side in (layer.lora_A, layer.lora_B):
            side[adapter_name].to_empty(device=layer.get_base_layer().weight.device)


class _FastLinear(AdaptedLinear):
    """peft's adapted linear layer, which goes on doing whatever is not one active adapter."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., in_features) to (..., out_features), as peft's."""
        name = self.active_adapters[0]
        alone = self.active_adapters == [name] and name in self.lora_A and name not in self.lora_variant
        if self.disable_adapters or self.merged or not alone:
            return super().forward(x, *args, **kwargs)
        a, b = cast(Tensor, self.lora_A[name].weight), cast(Tensor, self.lora_B[name].weight)
        return self.product(x, a, b, self.scaling[name], self.lora_dropout[name])

    def product(self, x: Tensor, a: Tensor, b: Tensor, scale: float, dropout: nn.Module) -> Tensor:
        """W x + scale * B A dropout(x)."""
        raise NotImplementedError


class _WeightProduct(_FastLinear):
    """One product with W + scale * B @ A instead of three products and a sum."""

    def product(self, x: Tensor, a: Tensor, b: Tensor, scale: float, dropout: nn.Module) -> Tensor:
        """The dropout of an input cannot be had from a weight."""
        if not isinstance(dropout, nn.Identity):
            return super(_FastLinear, self).forward(x)
        base = cast(nn.Linear, self.base_layer)
        return F.linear(x, base.weight + scale * (b @ a).to(base.weight.dtype), base.bias)


class _FusedProduct(_FastLinear):
    """Three products in the dtype of x, the last of which adds itself to the first."""

    def product(self, x: Tensor, a: Tensor, b: Tensor, scale: float, dropout: nn.Module) -> Tensor:
        """A and B are rounded where they are used; peft rounds what is as long as the sequence, again and again."""
        result = self.base_layer(x)
        narrow = F.linear(dropout(x), a.to(x.dtype))
        rows = torch.addmm(result.flatten(0, -2), narrow.flatten(0, -2), b.to(x.dtype).T, alpha=scale)
        return rows.view_as(result)


_PRODUCTS: dict[str, type[AdaptedLinear]] = {"peft": AdaptedLinear, "fused": _FusedProduct, "weight": _WeightProduct}


def use_product(transformer: nn.Module, product: str) -> None:
    """How every adapted layer adds its adapter: `peft`, `fused` or `weight`; outputs and gradients stay.

    `fused` is for full size: with an fp32 adapter on a bfloat16 base peft needs autocast, which casts the input of
    every layer there and back; this needs none. `weight` pays where the rank is not small beside the layer's width, as
    at nano size: a step of Stage I takes little more than one without an adapter. It costs memory for a second weight,
    and another for its gradient, a layer at a time.
    """
    for module in transformer.modules():
        if type(module) is AdaptedLinear:
            module.__class__ = _PRODUCTS[product]


def _exactly(name: str) -> str:
    """A key of peft's rank_pattern that means the layer `name` alone."""
    return f"^{re.escape(name)}"


def _own(transformer: nn.Module, adapter_name: str, dtype: torch.dtype) -> list[nn.Parameter]:
    """Make the adapter's parameters the only trainable ones, in `dtype`; they are returned."""
    transformer.requires_grad_(False)
    parameters = [
        parameter
        for name, parameter in transformer.named_parameters()
        if f".lora_A.{adapter_name}." in name or f".lora_B.{adapter_name}." in name
    ]
    for parameter in parameters:
        parameter.data = parameter.data.to(dtype)
        parameter.requires_grad_(True)
    return parameters


def save(
    transformer: Any,
    folder: str | Path,
    *,
    adapter_name: str = "default",
    dtype: torch.dtype | None = None,
    weights: dict[str, Tensor] | None = None,
) -> Path:
    """Write the adapter to `folder`/pytorch_lora_weights.safetensors as diffusers' pipelines read it; the file.

    Rank and alpha travel in the header, cut down to what every peft version knows. Weights keep their dtype unless
    `dtype` is given (bfloat16 halves the file). `weights` by the transformer's parameter names replace its own, as
    where it holds a slice of them only. The file is complete or absent: it is renamed into place. Raises `OSError`
    where it cannot be written.
    """
    from diffusers import Flux2KleinPipeline

    if adapter_name not in getattr(transformer, "peft_config", {}):
        raise ValueError(f"the transformer has no adapter {adapter_name!r} to save")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(transformer, state_dict=weights, adapter_name=adapter_name)
    weights = {key: value.detach().to("cpu", dtype).contiguous() for key, value in weights.items()}
    try:
        with whole(folder / LORA_FILE) as part:
            Flux2KleinPipeline.save_lora_weights(
                part.parent,
                transformer_lora_layers=weights,
                transformer_lora_adapter_metadata=_header(transformer.peft_config[adapter_name]),
                weight_name=part.name,
            )
    except SafetensorError as error:
        raise OSError(f"cannot write the adapter to {folder}: {error}") from None
    return folder / LORA_FILE


def save_joined(transformer: Any, folder: str | Path, first: LoraWeights, weights: dict[str, Tensor]) -> Path:
    """Write one adapter that does what `first` and the transformer's own adapter over it do together; the file.

    B1 A1 s1 + B2 A2 s2 = [s1 B1, s2 B2] [A1; A2]: its rank is the sum of both, its scale 1. `weights` are those of the
    adapter on `transformer`, by the transformer's parameter names, as for `save`.
    """
    config = transformer.peft_config["default"]
    layers = {name: (layer.a.float(), layer.b.float() * layer.scale) for name, layer in first.layers.items()}
    scale = config.lora_alpha / config.r
    for key in (key for key in weights if ".lora_A." in key):
        name, a = key.partition(".lora_A.")[0], weights[key].float()
        b = weights[key.replace(".lora_A.", ".lora_B.")].float() * scale
        if name in layers:
            a, b = torch.cat([layers[name][0], a]), torch.cat([layers[name][1], b], dim=1)
        layers[name] = a, b
    with torch.device("meta"):
        shell = type(transformer).from_config(transformer.config)
    ranks = {name: a.shape[0] for name, (a, _) in layers.items()}
    _inject(shell, ranks, {name: float(rank) for name, rank in ranks.items()}, 0.0, "default")
    joined = {f"{name}.lora_A.default.weight": a for name, (a, _) in layers.items()}
    joined |= {f"{name}.lora_B.default.weight": b for name, (_, b) in layers.items()}
    return save(shell, folder, weights=joined)


def _header(config: LoraConfig) -> dict[str, Any]:
    """The entries of `config` that say what the weights mean; its other fields differ between peft versions."""
    return {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "rank_pattern": config.rank_pattern,
        "alpha_pattern": config.alpha_pattern,
        "target_modules": sorted(config.target_modules or ()),
    }


def load(
    transformer: Any,
    source: str | Path,
    *,
    adapter_name: str = "default",
    dtype: torch.dtype = torch.float32,
    dropout: float = 0.0,
    partial: bool = False,
) -> list[nn.Parameter]:
    """Put the adapter in `source` (see `read`) on `transformer`, trainable; its parameters are returned.

    Everything else is frozen. Raises a `ValueError` that names the layers if the file does not fit the transformer;
    `partial` accepts an adapter that covers only some of the targeted layers.
    """
    weights = read(source)
    check(weights, targeted_shapes(transformer), partial=partial)
    layers = weights.layers
    ranks = {name: layer.rank for name, layer in layers.items()}
    _inject(
        transformer, ranks, {name: layer.scale * layer.rank for name, layer in layers.items()}, dropout, adapter_name
    )
    parameters = _own(transformer, adapter_name, dtype)
    with torch.no_grad():
        for name, layer in layers.items():
            module = transformer.get_submodule(name)
            module.lora_A[adapter_name].weight.copy_(layer.a)
            module.lora_B[adapter_name].weight.copy_(layer.b)
    return parameters


def merged_weight(name: str, weight: Tensor, layer: LoraLayer, scale: float) -> Tensor:
    """`weight` + scale * alpha/rank * B @ A, computed in float32 and returned in `weight`'s dtype and device.

    Raises a `ValueError` that names the layer if the result equals `weight` or is not finite.
    """
    a, b = (side.to(weight.device, torch.float32) for side in (layer.a, layer.b))
    merged = torch.addmm(weight.float(), b, a, alpha=scale * layer.scale).to(weight.dtype)
    if not merged.isfinite().all():
        raise ValueError(f"merging makes {name} infinite or NaN; the LoRA or the base weights are damaged")
    if torch.equal(merged, weight):
        raise ValueError(f"merging does not change {name}: the LoRA is untrained (B = 0) or far too small there")
    return merged


@torch.no_grad()
def merge(transformer: nn.Module, source: str | Path, scale: float = 1.0, *, partial: bool = False) -> LoraWeights:
    """Fuse the adapter in `source` into the weights of `transformer`, in place; what was merged.

    Every targeted weight must change or it is a `ValueError`; the others stay bit for bit as they are. Where a file
    does not fit, nothing has been touched; after an error that names a single weight the transformer is half merged.
    """
    if getattr(transformer, "is_quantized", False):
        raise ValueError("the transformer is quantised, so nothing can be merged into it; load it without quantisation")
    if getattr(transformer, "peft_config", None):
        raise ValueError("the transformer carries an adapter; merge into one without (transformer.unload_lora())")
    weights = read(source)
    check_mergeable(weights, targeted_shapes(transformer), scale, partial=partial)
    for name, layer in weights.layers.items():
        parameter = _weight(transformer, name)
        parameter.copy_(merged_weight(name, parameter, layer, scale))
    return weights


def check_mergeable(
    weights: LoraWeights, shapes: dict[str, torch.Size], scale: float, *, partial: bool = False
) -> None:
    """Raise a `ValueError` unless `weights` fit layers of these (out, in) `shapes` and would change every one."""
    if not 0 < abs(scale) <= 1000:
        raise ValueError(f"the merge scale must be a number other than 0, usually 1 and at most 1000, got {scale}")
    check(weights, shapes, partial=partial)
    idle = [name for name, layer in weights.layers.items() if not (layer.a.any() and layer.b.any())]
    if idle:
        raise ValueError(f"{len(idle)} layers of the LoRA are untrained (A or B is 0), e.g. {idle[:3]}")
