"""LoRA files in every layout that users bring: each changes the weights as its own format says, or is refused.

What is expected is computed here from the format's rule (alpha / rank * B A); where diffusers reads the layout too, its
weights are compared as well.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Flux2KleinPipeline
from safetensors.torch import save_file
from torch import Tensor

from etchr.editor import lora, lora_files
from etchr.editor.folder import LORA_FILE
from etchr.editor.klein import KleinEditor
from tests.tiny_klein import tiny_transformer

RANK = 4
Tensors = dict[str, Tensor]
QKV = {"img_attn.qkv": ("to_q", "to_k", "to_v"), "txt_attn.qkv": ("add_q_proj", "add_k_proj", "add_v_proj")}
ONE = {
    **{"img_attn.proj": "attn.to_out.0", "txt_attn.proj": "attn.to_add_out"},
    **{"img_mlp.0": "ff.linear_in", "img_mlp.2": "ff.linear_out"},
    **{"txt_mlp.0": "ff_context.linear_in", "txt_mlp.2": "ff_context.linear_out"},
}
SINGLE = {"linear1": "attn.to_qkv_mlp_proj", "linear2": "attn.to_out"}


@pytest.fixture(scope="module")
def pairs() -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of every layer; the layers that BFL fuses share their A."""
    generator, made = torch.Generator().manual_seed(0), {}
    for name, (rows, columns) in lora.targeted_shapes(tiny_transformer()).items():
        a, b = (torch.randn(shape, generator=generator) / 8 for shape in ((RANK, columns), (rows, RANK)))
        fused = re.sub(r"(to|add)_([kv])(_proj)?$", r"\1_q\3", name)
        made[name] = made[fused][0] if fused in made else a, b
    return made


def plain(pairs: Any, prefix: str = "transformer.", a: str = "lora_A.weight", b: str = "lora_B.weight") -> Tensors:
    """The layers by diffusers' names."""
    return {
        f"{prefix}{name}.{end}": part for name, pair in pairs.items() for end, part in zip((a, b), pair, strict=True)
    }


def bfl(pairs: Any, prefix: str = "diffusion_model.", a: str = "lora_A.weight", b: str = "lora_B.weight") -> Tensors:
    """The layers by BFL's names."""
    layers = {}
    for fused, parts in QKV.items():
        members = [pairs[f"transformer_blocks.0.attn.{part}"] for part in parts]
        layers[f"double_blocks.0.{fused}"] = members[0][0], torch.cat([member[1] for member in members])
    layers |= {f"double_blocks.0.{name}": pairs[f"transformer_blocks.0.{part}"] for name, part in ONE.items()}
    for block in (0, 1):
        for name, part in SINGLE.items():
            layers[f"single_blocks.{block}.{name}"] = pairs[f"single_transformer_blocks.{block}.{part}"]
    return plain(layers, prefix, a, b)


def with_alphas(tensors: Tensors, alpha: float) -> Tensors:
    """And an entry `.alpha` of every layer."""
    return tensors | {f"{key.rpartition('.lora_')[0]}.alpha": torch.tensor(alpha) for key in tensors}


def underscored(tensors: Tensors, prefix: str) -> Tensors:
    """Names as kohya writes them: dots only before what a layer holds."""

    def name(key: str) -> str:
        layer, mark, rest = re.fullmatch(r"(.+?)(\.)((?:lora_|alpha).*)", key).groups()  # type: ignore[union-attr]
        return prefix + layer.replace(".", "_") + mark + rest

    return {name(key): tensor for key, tensor in tensors.items()}


def of_config(**config: Any) -> dict[str, str]:
    """A header with peft's LoraConfig, as diffusers writes it."""
    config["target_modules"] = list(lora.targeted_shapes(tiny_transformer()))
    return {lora_files.METADATA: json.dumps({f"transformer.{key}": value for key, value in config.items()})}


NAMED = {"a": "lora_A.default.weight", "b": "lora_B.default.weight"}
DOWN = {"a": "lora_down.weight", "b": "lora_up.weight"}
# name -> (tensors, header, scale of a layer by its name, whether diffusers reads it alike)
Zoo = dict[str, tuple[Callable[[Any], Tensors], dict[str, str], Callable[[str], float], bool]]
ZOO: Zoo = {
    "diffusers": (plain, of_config(r=4, lora_alpha=8), lambda name: 2.0, True),
    "diffusers, no header": (plain, {}, lambda name: 1.0, True),
    "diffusers, rslora": (plain, of_config(r=4, lora_alpha=8, use_rslora=True), lambda name: 4.0, True),
    "a pattern of alphas": (
        plain,
        of_config(r=4, lora_alpha=4, alpha_pattern={r"attn\.to_[qkv]": 16, r"single_transformer_blocks\.1\..*": 8}),
        lambda name: 4.0 if re.search(r"attn\.to_[qkv]$", name) else 2.0 if ".1." in name else 1.0,
        True,
    ),
    "a pattern of one layer": (
        plain,
        of_config(r=4, lora_alpha=4, alpha_pattern={r"^transformer_blocks.0.ff.linear_in": 16}),
        lambda name: 4.0 if name == "transformer_blocks.0.ff.linear_in" else 1.0,
        True,
    ),
    "peft": (lambda pairs: plain(pairs, "base_model.model."), {}, lambda name: 1.0, True),
    "peft over diffusers": (lambda pairs: plain(pairs, "base_model.model.transformer."), {}, lambda name: 1.0, False),
    "DiffSynth": (
        lambda p: plain(p, "", "lora_A.default.weight", "lora_B.default.weight"),
        {},
        lambda name: 1.0,
        False,
    ),
    "bare": (lambda pairs: plain(pairs, ""), {}, lambda name: 1.0, False),
    "peft over BFL": (lambda pairs: bfl(pairs, "base_model.model.diffusion_model."), {}, lambda name: 1.0, False),
    "ai-toolkit": (bfl, {}, lambda name: 1.0, True),
    "ai-toolkit, expanded": (lambda pairs: plain(pairs, "diffusion_model."), {}, lambda name: 1.0, True),
    "BFL names and a header": (bfl, of_config(r=4, lora_alpha=2), lambda name: 0.5, True),
    "ComfyUI with alphas": (lambda pairs: with_alphas(bfl(pairs), 8.0), {}, lambda name: 2.0, False),
    "lora_down and up": (lambda pairs: bfl(pairs, **DOWN, prefix="diffusion_model."), {}, lambda name: 1.0, False),
    "kohya": (
        lambda pairs: underscored(with_alphas(bfl(pairs, "", **DOWN), 2.0), "lora_unet_"),
        {"ss_network_alpha": "2.0", "ss_network_dim": "4"},
        lambda name: 0.5,
        True,
    ),
    "kohya without alphas": (
        lambda pairs: underscored(bfl(pairs, "", **DOWN), "lora_unet_"),
        {"ss_network_alpha": "None"},
        lambda name: 1.0,
        True,
    ),
    "OneTrainer": (
        lambda pairs: underscored(with_alphas(plain(pairs, "", **DOWN), 1.0), "lora_transformer_"),
        {},
        lambda name: 0.25,
        False,
    ),
    "OneTrainer, dotted": (
        lambda pairs: with_alphas(plain(pairs, "transformer.", **DOWN), 1.0),
        {},
        lambda name: 0.25,
        False,
    ),
    "one alpha in the header": (plain, {"lora_alpha": "6"}, lambda name: 1.5, False),
    "another name of it": (plain, {"network_alpha": "1"}, lambda name: 0.25, False),
}


def written(tensors: Tensors, header: dict[str, str], folder: Path) -> Path:
    path = folder / "lora.safetensors"
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, path, header)
    return path


def in_diffusers(file: Path) -> dict[str, Tensor]:
    """How diffusers' own loader changes the weights of a transformer, by layer."""
    transformer = tiny_transformer()
    state, metadata = Flux2KleinPipeline.lora_state_dict(file, return_lora_metadata=True)
    Flux2KleinPipeline.load_lora_into_transformer(state, transformer, metadata=metadata, adapter_name="x")
    layers = {name: module for name, module in transformer.named_modules() if hasattr(module, "get_delta_weight")}
    return {name: module.get_delta_weight("x") for name, module in layers.items()}


@pytest.mark.parametrize("kind", ZOO)
def test_every_layout_has_the_strength_that_its_format_says(pairs, tmp_path, kind):
    make, header, scale, is_read_by_diffusers = ZOO[kind]
    file = written(make(pairs), header, tmp_path)
    read = lora_files.read(file)
    wanted = {name: scale(name) * b @ a for name, (a, b) in pairs.items()}
    assert read.layers.keys() == wanted.keys()
    for name, layer in read.layers.items():
        assert torch.allclose(layer.scale * layer.b @ layer.a, wanted[name], atol=1e-6), (kind, name)
    lora.load(tiny_transformer(), file)
    if is_read_by_diffusers:
        theirs = in_diffusers(file)
        assert theirs.keys() == wanted.keys()
        assert all(torch.allclose(theirs[name], wanted[name], atol=1e-6) for name in wanted), kind


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.bfloat16])
def test_weights_of_few_bits_are_read_as_they_are(pairs, tmp_path, dtype):
    """fp8 holds no more than bfloat16 does, so nothing is rounded."""
    narrow = {key: tensor.to(dtype) for key, tensor in plain(pairs).items()}
    layers = lora_files.read(written(narrow, {}, tmp_path)).layers
    for name, layer in layers.items():
        assert torch.equal(layer.a.float(), narrow[f"transformer.{name}.lora_A.weight"].float())
        assert layer.b.isfinite().all()


NAME = "transformer.transformer_blocks.0.attn.to_q"
REFUSED: dict[str, tuple[Tensors, dict[str, str], str]] = {
    "DoRA of peft": ({f"{NAME}.lora_magnitude_vector": torch.ones(32)}, {}, "DoRA adapter; only plain LoRA is read"),
    "DoRA of kohya": ({"lora_unet_single_blocks_0_linear1.dora_scale": torch.ones(3)}, {}, "DoRA adapter"),
    "LoKr": ({"diffusion_model.single_blocks.0.linear1.lokr_w1": torch.ones(3, 3)}, {}, "LoKr adapter"),
    "LoHa": ({"lora_unet_single_blocks_0_linear1.hada_w1_a": torch.ones(3, 3)}, {}, "Merge it into its base"),
    "differences": ({"diffusion_model.single_blocks.0.linear1.diff": torch.ones(3)}, {}, "full-weight adapter"),
    "a layer outside the blocks": ({"diffusion_model.img_in.lora_A.weight": torch.ones(4, 3)}, {}, "1 of 33 keys"),
    "a layer of FLUX.1": (
        {"lora_unet_double_blocks_0_img_mod_lin.lora_down.weight": torch.ones(4, 3)},
        {},
        "no layer of FLUX.2 that is adapted here; those are img_attn.qkv",
    ),
    "alpha of 0": ({f"{NAME}.alpha": torch.tensor(0.0)}, {}, "must be a number other than 0, got 0.0"),
    "alpha of many": ({f"{NAME}.alpha": torch.ones(2)}, {}, r"must be a number other than 0, got \(2,\)"),
    "alpha twice": ({f"{NAME}.alpha": torch.tensor(1.0)}, of_config(lora_alpha=2), "gives alpha twice"),
    "an alpha that is none": ({}, {"network_alpha": "strong"}, "network_alpha in the file must be .* got 'strong'"),
    "another rank": ({}, of_config(r=4, rank_pattern={r"attn\.to_q": 8}), "has rank 4, but the header says 8"),
    "no regular expression": ({}, of_config(alpha_pattern={"(": 8}), "is no regular expression"),
    "one that takes for ever": ({}, of_config(alpha_pattern={"(.*)*x": 8}), "too involved to follow"),
    "one that is long": ({}, of_config(alpha_pattern={"." * 500: 8}), "too involved to follow"),
    "two names of a layer": ({f"diffusion_model.{NAME[12:]}.lora_A.weight": torch.ones(4, 32)}, {}, "twice"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_followed_is_refused_with_its_value(pairs, tmp_path, kind):
    more, header, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        lora_files.read(written(plain(pairs) | more, header, tmp_path))


def test_patterns_that_are_followed_take_no_time():
    """Every pattern of these repeats at most thrice, nothing that repeats: names are short, so that is nothing."""
    name = "single_transformer_blocks.19.attn.to_qkv_mlp_proj"
    for pattern in (".*.*.*y", "[a-z_.]*[0-9]*[a-z._]*!", "(a|b|c).x"):
        assert lora_files._of_layer(name, {"alpha_pattern": {pattern: 2}}, "alpha_pattern", 1) == 1
    for pattern in ("(a+)+$", "(.*)*", "a{1,99}b{1,99}c{1,99}d{1,99}", r"(a)\1", "(?=a)b", "(x)?+"):
        with pytest.raises(ValueError, match="too involved"):
            lora_files._of_layer(name, {"alpha_pattern": {pattern: 2}}, "alpha_pattern", 1)


def test_an_adapter_of_some_layers_is_used_with_a_warning(pairs, tiny, tmp_path, caplog):
    """The released RL code makes one: of 120 of 144 layers."""
    some = {key: tensor for key, tensor in plain(pairs).items() if "to_out" not in key}
    KleinEditor.load(tiny, device="cpu", lora=written(some, {}, tmp_path))
    assert "the LoRA adapts 13 of 16 layers" in caplog.text


def test_a_lora_may_lie_on_the_hub(pairs, tmp_path, monkeypatch):
    asked = []

    def download(repo_id, name):
        asked.append((repo_id, name))
        if repo_id != "org/name":
            raise OSError("no such model")
        return str(file)

    file = written(plain(pairs), {}, tmp_path)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    for source, name in (("org/name", LORA_FILE), ("org/name/a/b.safetensors", "a/b.safetensors")):
        assert lora_files.read(source).layers.keys() == pairs.keys()
        assert asked.pop() == ("org/name", name)
    for source in ("org/other", "./org/name", f"{tmp_path}/x", f"{tmp_path}/x/y.safetensors", "name", "../name"):
        with pytest.raises(ValueError, match=r"no LoRA file at .*one of the hub: org/name"):
            lora_files.read(source)
    assert asked == [("org/other", LORA_FILE)]
