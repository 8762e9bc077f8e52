"""Adapters leave the project: as a complete merged klein folder, or as a LoRA file in BFL's names for ComfyUI."""

import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from etchr.editor.lora import check_mergeable, merged_weight, targeted_shapes
from etchr.editor.lora_files import BFL_DOUBLE, BFL_PREFIX, BFL_SINGLE, LoraLayer, LoraWeights, read
from etchr.run_folder import whole, whole_folder


def export_bfl(source: str | Path, file: str | Path) -> Path:
    """Write the adapter in `source` to `file` under BFL's names, which ComfyUI, ai-toolkit and diffusers read.

    alpha / rank is folded into B, so the file needs no alpha and strength 1 means what was trained. The three adapters
    of a fused q, k, v become one of three times the rank: A stacked, B block-diagonal. That is exact, and the zeros
    cost space (9B at rank 768: 2.39 instead of 2.09 billion values).
    """
    file = Path(file)
    if file.suffix != ".safetensors" or file.exists():
        raise ValueError(f"the export must be a new .safetensors file, got {file}")
    weights = read(source)
    tensors: dict[str, Tensor] = {}
    left = set(weights.layers)
    blocks = {tuple(name.split(".", 2)[:2]) for name in weights.layers}
    for kind, index in sorted(blocks):
        bfl_kind, names = ("single", BFL_SINGLE) if kind.startswith("single") else ("double", BFL_DOUBLE)
        for bfl_name, parts in names.items():
            members = [f"{kind}.{index}.{part}" for part in parts]
            present = [weights.layers[name] for name in members if name in weights.layers]
            if not present:
                continue
            if len(present) != len(members):
                raise ValueError(f"BFL fuses {members} into one layer, but the LoRA adapts only {len(present)} of them")
            key = f"{BFL_PREFIX}{bfl_kind}_blocks.{index}.{bfl_name}"
            tensors[f"{key}.lora_A.weight"] = torch.cat([layer.a for layer in present])
            tensors[f"{key}.lora_B.weight"] = torch.block_diag(*map(_folded, present))
            left -= set(members)
    if left:
        raise ValueError(f"BFL's layout has no name for {len(left)} layers of the LoRA, e.g. {sorted(left)[:3]}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole(file) as part:
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, part, metadata={"format": "pt"})
    return file


def _folded(layer: LoraLayer) -> Tensor:
    """scale * B, in B's dtype where that is exact (a scale of 1 or another power of two), else in float32."""
    exact = layer.b.float() * layer.scale
    return exact.to(layer.b.dtype) if torch.equal(exact.to(layer.b.dtype).float(), exact) else exact


def merge_folder(
    base_folder: str | Path, lora: str | Path, out_folder: str | Path, scale: float = 1.0, *, partial: bool = False
) -> Path:
    """Merge the adapter in `lora` into the klein model in `base_folder` and write a complete model to `out_folder`.

    Shard by shard, so memory holds one shard and the adapter; tensors that are not targeted are copied bit for bit.
    Raises a `ValueError` unless every targeted weight changed. `out_folder` must not exist or be empty; it appears
    complete or not at all.
    """
    base, out = Path(base_folder), Path(out_folder)
    components = _components(base)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} already holds something; merge into a new folder")
    weights = read(lora)
    check_mergeable(weights, _folder_shapes(base / "transformer"), scale, partial=partial)
    with whole_folder(out) as part:
        for name in components:
            if name != "transformer":
                shutil.copytree(base / name, part / name)
        for pattern in ("*.json", "LICENSE*", "NOTICE*"):  # the index, our editor's settings, the terms
            for file in base.glob(pattern):
                shutil.copyfile(file, part / file.name)
        _merge_shards(base / "transformer", part / "transformer", weights, scale)
    return out


def _components(base: Path) -> list[str]:
    """The component folders that model_index.json lists; what else lies in a model folder is not part of the model."""
    index = base / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{base} is no diffusers model folder: it has no model_index.json")
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        names = [name for name, value in entries.items() if isinstance(value, list) and value != [None, None]]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{index} is not a model index ({error})") from None
    for name in ("transformer", *names):
        if Path(name).name != name or not (base / name).is_dir():
            raise ValueError(f"{base} has no component folder {name!r}")
    return names


def _folder_shapes(folder: Path) -> dict[str, torch.Size]:
    """(out, in) of every targeted linear layer of the transformer in `folder`, from its config alone."""
    from diffusers import Flux2Transformer2DModel

    try:
        config = Flux2Transformer2DModel.load_config(folder)
    except OSError as error:
        raise ValueError(f"{folder} is no transformer folder ({error})") from None
    if config.get("_class_name") != "Flux2Transformer2DModel":
        raise ValueError(f"{folder} holds a {config.get('_class_name')}, not a Flux2Transformer2DModel")
    with torch.device("meta"):
        return targeted_shapes(Flux2Transformer2DModel.from_config(config))


def _merge_shards(source: Path, target: Path, weights: LoraWeights, scale: float) -> None:
    target.mkdir()
    for file in source.glob("*.json"):  # the config and the index of the shards, which keep their names
        shutil.copyfile(file, target / file.name)
    merged = set()
    for shard in sorted(source.glob("*.safetensors")):
        try:
            with safe_open(shard, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
                metadata = file.metadata() or {"format": "pt"}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{shard} is not a readable safetensors file ({error})") from None
        for key in tensors:
            name = key.removesuffix(".weight")
            if name in weights.layers:
                tensors[key] = merged_weight(name, tensors[key], weights.layers[name], scale)
                merged.add(name)
        save_file(tensors, target / shard.name, metadata=metadata)
    missing = sorted(set(weights.layers) - merged)
    if missing:
        raise ValueError(f"{source} holds no safetensors weights for {len(missing)} layers, e.g. {missing[:3]}")
