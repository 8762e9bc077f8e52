"""LoRA files and merges against the real diffusers pipeline, on a tiny random FLUX.2-klein."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from etchr.editor import lora, lora_export, lora_files

RANK, ALPHA = 4, 10.0  # alpha / rank is no power of two: a lost alpha or a rounding shows
KLEIN = {
    "9b": {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
    "4b": {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
}


def forward(transformer: Flux2Transformer2DModel, grad: bool = False) -> Tensor:
    """One velocity on fixed random tokens, (2, 6, 16)."""
    generator = torch.Generator().manual_seed(3)
    dtype = transformer.x_embedder.weight.dtype
    with torch.set_grad_enabled(grad):
        return transformer(
            hidden_states=torch.randn(2, 6, 16, generator=generator).to(dtype),
            encoder_hidden_states=torch.randn(2, 5, 48, generator=generator).to(dtype),
            timestep=torch.tensor([0.3, 0.8]).to(dtype),
            img_ids=torch.arange(24).reshape(1, 6, 4).expand(2, -1, -1),
            txt_ids=torch.zeros(2, 5, 4),
            return_dict=False,
        )[0]


def train(transformer: Any, seed: int = 7) -> None:
    """Stands for training: every B gets random values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, 0.05, generator=generator)


def trained_file(transformer: Any, folder: Path) -> Path:
    lora.attach(transformer, RANK, ALPHA, seed=1)
    train(transformer)
    return lora.save(transformer, folder)


def rewritten(file: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], header: Any = None) -> Path:
    """A copy of the LoRA `file` with other tensors; `header` replaces the LoraConfig."""
    copy = file.with_name("changed.safetensors")
    metadata = None if header is None else {"lora_adapter_metadata": json.dumps(header)}
    save_file(change(load_file(file)), copy, metadata=metadata)
    return copy


def as_training_layout(file: Path) -> Path:
    """`file` with the released training code's keys. It has no alpha, so the factor goes into B here."""
    return rewritten(
        file,
        lambda tensors: {
            key.removeprefix("transformer.").replace(".weight", ".default.weight"): (
                value * ALPHA / RANK if ".lora_B." in key else value
            )
            for key, value in tensors.items()
        },
    )


def edit(folder: Path, lora_file: Path | None = None) -> Tensor:
    """The latents that diffusers' own pipeline makes from `folder`, with a LoRA that it loads itself."""
    pipeline = Flux2KleinPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    if lora_file is not None:
        pipeline.load_lora_weights(str(lora_file))
    return pipeline(
        image=Image.new("RGB", (64, 64), "red"),
        prompt="a box",
        height=64,
        width=64,
        num_inference_steps=2,
        max_sequence_length=16,
        text_encoder_out_layers=(1, 2, 3),
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images


# --- Targets and a fresh adapter ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "linears", "params", "lora_params"), [("9b", 144, 9.08, 2.089), ("4b", 100, 3.876, 1.156)]
)
def test_targets_of_the_published_sizes(size: str, linears: int, params: float, lora_params: float) -> None:
    with torch.device("meta"):
        transformer = Flux2Transformer2DModel(attention_head_dim=128, guidance_embeds=False, **KLEIN[size])
        names = lora.targeted_linears(transformer)
        count = sum(parameter.numel() for parameter in transformer.parameters())
        adapter = lora.attach(transformer, 768)
    assert len(names) == len(set(names)) == linears
    assert count / 1e9 == pytest.approx(params, abs=5e-3)
    assert sum(parameter.numel() for parameter in adapter) / 1e9 == pytest.approx(lora_params, abs=5e-4)
    assert lora.targeted_linears(transformer) == names  # the same with an adapter attached


def test_targets_leave_out_what_is_outside_the_blocks(transformer: Any) -> None:
    names = lora.targeted_linears(transformer)
    assert len(names) == 12 * 1 + 2 * 2
    assert all(name.startswith(("transformer_blocks.", "single_transformer_blocks.")) for name in names)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_adapter_changes_nothing_and_alone_is_trainable(transformer: Any, dtype: torch.dtype) -> None:
    transformer.to(dtype).requires_grad_(False)
    before = forward(transformer)
    parameters = lora.attach(transformer, RANK, ALPHA)
    assert torch.equal(forward(transformer), before)
    trainable = {id(parameter) for parameter in transformer.parameters() if parameter.requires_grad}
    assert trainable == {id(parameter) for parameter in parameters}
    assert len(parameters) == 2 * 16
    assert {parameter.dtype for parameter in parameters} == {torch.float32}


def test_a_trained_adapter_adds_alpha_over_rank_times_b_a(transformer: Any) -> None:
    base = {name: weight.clone() for name, weight in transformer.state_dict().items()}
    lora.attach(transformer, RANK, ALPHA, seed=1)
    train(transformer)
    got = forward(transformer)
    layers = {name: transformer.get_submodule(name) for name in lora.targeted_linears(transformer)}
    deltas = {n: ALPHA / RANK * m.lora_B["default"].weight @ m.lora_A["default"].weight for n, m in layers.items()}
    transformer.unload_lora()
    transformer.load_state_dict(
        {key: value + deltas.get(key.removesuffix(".weight"), 0) for key, value in base.items()}
    )
    assert (forward(transformer) - got).abs().max() < 1e-5


@pytest.mark.parametrize("product", ["weight", "fused"])
def test_every_product_has_the_outputs_and_gradients_of_peft(transformer: Any, product: str) -> None:
    transformer.double()
    parameters = lora.attach(transformer, RANK, ALPHA, seed=1, dtype=torch.float64)
    train(transformer)

    def seen() -> list[Tensor]:
        for parameter in parameters:
            parameter.grad = None
        out = forward(transformer, grad=True)
        out.square().sum().backward()
        return [out.detach(), *(parameter.grad for parameter in parameters if parameter.grad is not None)]

    usual = seen()
    lora.use_product(transformer, product)
    assert len(usual) == 1 + 2 * 16
    for one, other in zip(usual, seen(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)

    # where there is more to do than one adapter it is peft's own
    transformer.disable_adapters()
    bare = forward(transformer)
    transformer.enable_adapters()
    lora.attach(transformer, RANK, ALPHA, adapter_name="other", dtype=torch.float64)
    transformer.set_adapter(["default", "other"])  # the other one is untrained
    torch.testing.assert_close(forward(transformer), usual[0], rtol=1e-10, atol=1e-10)
    assert not torch.equal(bare, usual[0])


@pytest.mark.parametrize("product", ["peft", "weight", "fused"])
def test_every_product_drops_the_adapters_input_alone(transformer: Any, product: str) -> None:
    lora.attach(transformer, RANK, ALPHA, dropout=0.5, seed=1)
    train(transformer)
    lora.use_product(transformer, product)
    transformer.train()
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        outputs.append(forward(transformer))
    assert torch.equal(*outputs)
    transformer.eval()
    whole = forward(transformer)
    assert not torch.allclose(whole, outputs[0])
    transformer.disable_adapters()
    bare = forward(transformer)
    transformer.enable_adapters()
    transformer.train()
    for name, module in transformer.named_modules():
        if name.endswith("lora_dropout.default"):
            module.p = 1.0
    assert torch.allclose(forward(transformer), bare)


class CastBytes(TorchDispatchMode):
    """Counts the bytes that casts between float types write."""

    written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].is_floating_point() and args[0].dtype != result.dtype:
            self.written += result.nbytes
        return result


def cast_bytes(transformer: Any, autocast: bool) -> int:
    with CastBytes() as casts, torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False):
        forward(transformer, grad=True).float().square().sum().backward()
    return casts.written


def test_a_fused_product_casts_the_adapters_weights_and_nothing_else(transformer: Any, twin: Any) -> None:
    """The input of a layer is as long as the sequence; the adapter is cast once forward, its gradient once backward."""
    transformer.bfloat16().x_embedder.weight.requires_grad_(True)  # or there is nothing to go backward to
    bare = cast_bytes(transformer, autocast=False)
    parameters = lora.attach(transformer, RANK, ALPHA, seed=1)
    transformer.x_embedder.weight.requires_grad_(True)
    lora.use_product(transformer, "fused")
    adapter = sum(parameter.numel() for parameter in parameters)
    assert cast_bytes(transformer, autocast=False) <= bare + (2 + 4) * adapter

    lora.attach(twin.bfloat16(), RANK, ALPHA, seed=1)
    twin.x_embedder.weight.requires_grad_(True)
    assert cast_bytes(twin, autocast=True) > bare + 3 * (2 + 4) * adapter  # of 22 tokens; the longer, the more


def test_the_start_depends_on_the_seed_alone(transformer: Any, twin: Any) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = lora.attach(transformer, RANK, seed=5)
    assert torch.equal(torch.rand(3), expected)  # the caller's random stream is untouched
    second = lora.attach(twin, RANK, seed=5)
    twin.unload_lora()
    other = lora.attach(twin, RANK, seed=6)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 33}, r"transformer_blocks\.0\..* \(.*32.*\), got 33"),
        ({"rank": 0}, "got 0"),
        ({"rank": -1}, "got -1"),
        ({"rank": 4, "alpha": 0.0}, "alpha"),
        ({"rank": 4, "alpha": float("nan")}, "alpha"),
        ({"rank": 4, "dropout": 1.0}, "dropout"),
    ],
)
def test_attach_refuses_what_cannot_be_trained(transformer: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lora.attach(transformer, **options)
    assert not getattr(transformer, "peft_config", None)


def test_a_second_adapter_needs_its_own_name(transformer: Any) -> None:
    lora.attach(transformer, RANK)
    with pytest.raises(ValueError, match="already has an adapter 'default'"):
        lora.attach(transformer, RANK)


def test_attach_refuses_another_kind_of_model() -> None:
    with pytest.raises(ValueError, match="no linear layer to adapt"):
        lora.attach(torch.nn.Sequential(torch.nn.Linear(4, 4)), 2)


# --- Files ----------------------------------------------------------------------------------------------------------


def test_save_writes_what_diffusers_writes(transformer: Any, tmp_path: Path) -> None:
    file = trained_file(transformer, tmp_path / "ours")
    assert [path.name for path in file.parent.iterdir()] == ["pytorch_lora_weights.safetensors"]
    layers = {name: transformer.get_submodule(name) for name in lora.targeted_linears(transformer)}
    expected = {f"transformer.{name}.lora_A.weight": layer.lora_A["default"].weight for name, layer in layers.items()}
    expected |= {f"transformer.{name}.lora_B.weight": layer.lora_B["default"].weight for name, layer in layers.items()}
    got = load_file(file)
    assert set(got) == set(expected)
    assert all(torch.equal(got[key], expected[key]) for key in got)
    state, config = Flux2KleinPipeline.lora_state_dict(str(file), return_lora_metadata=True)
    assert set(state) == set(expected)
    assert (config["transformer.r"], config["transformer.lora_alpha"]) == (RANK, ALPHA)


def test_alpha_and_training_survive_a_round_trip(transformer: Any, twin: Any, tmp_path: Path) -> None:
    file = trained_file(transformer, tmp_path)
    parameters = lora.load(twin, tmp_path)
    assert torch.equal(forward(twin), forward(transformer))
    assert {parameter.requires_grad for parameter in parameters} == {True}
    assert sum(parameter.requires_grad for parameter in twin.parameters()) == len(parameters) == 32
    again = lora.save(twin, tmp_path / "again")
    first, second = load_file(file), load_file(again)
    assert all(torch.equal(first[key], second[key]) for key in first | second)
    assert lora_files.read(again).layers["transformer_blocks.0.attn.to_q"].scale == ALPHA / RANK


def test_save_in_bfloat16(transformer: Any, tmp_path: Path) -> None:
    lora.attach(transformer, RANK)
    file = lora.save(transformer, tmp_path, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.bfloat16}


def test_save_without_an_adapter_is_an_error(transformer: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no adapter 'default' to save"):
        lora.save(transformer, tmp_path)


def test_the_released_training_layout_is_read_and_reported(
    transformer: Any, twin: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = as_training_layout(trained_file(transformer, tmp_path))
    assert "transformer_blocks.0.attn.to_q.lora_A.default.weight" in load_file(file)
    lora.load(twin, file)
    assert (forward(twin) - forward(transformer)).abs().max() < 1e-5
    assert "alpha = rank" in caplog.text
    assert lora_files.read(file).describe() == "16 layers of rank 4, scale 1 (training layout)"


def test_bfl_export_is_exact_layer_by_layer(transformer: Any, tmp_path: Path) -> None:
    """Through diffusers' own converter: each layer's B @ A is the trained alpha / rank * B @ A."""
    file = trained_file(transformer, tmp_path)
    exported = lora_export.export_bfl(file, tmp_path / "comfy.safetensors")
    keys = set(load_file(exported))
    assert all(key.startswith(("diffusion_model.double_blocks.0.", "diffusion_model.single_blocks.")) for key in keys)
    assert load_file(exported)["diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight"].shape == (3 * RANK, 32)
    assert len(keys) == 2 * (8 + 2 * 2)
    state = Flux2KleinPipeline.lora_state_dict(str(exported))
    original = load_file(file)
    assert {key for key in state} == set(original)
    for key in original:
        if ".lora_A." in key:
            partner = key.replace(".lora_A.", ".lora_B.")
            expected = ALPHA / RANK * original[partner].double() @ original[key].double()
            assert (state[partner].double() @ state[key].double() - expected).abs().max() < 1e-8


def test_bfl_export_keeps_the_dtype_where_scaling_is_exact(transformer: Any, tmp_path: Path) -> None:
    lora.attach(transformer, RANK, alpha=2 * RANK)
    train(transformer)
    file = lora.save(transformer, tmp_path, dtype=torch.bfloat16)
    exported = load_file(lora_export.export_bfl(file, tmp_path / "comfy.safetensors"))
    assert {tensor.dtype for tensor in exported.values()} == {torch.bfloat16}


def test_bfl_export_never_overwrites(transformer: Any, tmp_path: Path) -> None:
    file = trained_file(transformer, tmp_path)
    for target in (file, tmp_path / "comfy.ckpt"):
        with pytest.raises(ValueError, match=r"must be a new \.safetensors file"):
            lora_export.export_bfl(file, target)


def test_a_bfl_file_loads_and_trains_on(transformer: Any, twin: Any, tmp_path: Path) -> None:
    exported = lora_export.export_bfl(trained_file(transformer, tmp_path), tmp_path / "comfy.safetensors")
    lora.load(twin, exported)  # ranks 12 and 4 in one adapter
    assert (forward(twin) - forward(transformer)).abs().max() < 1e-5
    lora.save(twin, tmp_path / "again")
    mixed = lora_files.read(tmp_path / "again")
    assert {layer.rank for layer in mixed.layers.values()} == {RANK, 3 * RANK}
    assert {layer.scale for layer in mixed.layers.values()} == {1.0}


def test_an_adapter_of_fewer_layers_needs_partial(transformer: Any, twin: Any, tmp_path: Path) -> None:
    file = rewritten(
        trained_file(transformer, tmp_path),
        lambda tensors: {key: value for key, value in tensors.items() if "single" in key},
    )
    for use in (lora.load, lora.merge):
        with pytest.raises(ValueError, match=r"lacks 12 of 16 targeted layers.*etchr merge --partial"):
            use(twin, file)
    assert len(lora.load(twin, file, partial=True)) == 2 * 4


Q = "transformer.transformer_blocks.0.attn.to_q"


def _with(key: str, value: Tensor) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {**tensors, key: value}


def _renamed(old: str, new: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {key.replace(old, new): value for key, value in tensors.items()}


BAD_FILES = {
    "other model": (_renamed("transformer_blocks", "blocks"), "24 of 32 keys are no LoRA of FLUX.2"),
    "text encoder too": (_with("text_encoder.layers.0.q.lora_A.weight", torch.ones(1)), "1 of 33 keys"),
    "layer that is not there": (
        _renamed("single_transformer_blocks.1", "single_transformer_blocks.9"),
        "does not have",
    ),
    "layer twice": (_with(f"{Q[12:]}.lora_A.weight", torch.ones(RANK, 32)), "twice"),
    "half a pair": (lambda t: {k: v for k, v in t.items() if k != f"{Q}.lora_B.weight"}, "not its partner"),
    "two ranks": (_with(f"{Q}.lora_A.weight", torch.ones(2, 32)), "no pair of one rank"),
    "rank 0": (lambda t: {k: v[:0] if "_A" in k else v[:, :0] for k, v in t.items()}, "no pair of one rank"),
    "other size": (_with(f"{Q}.lora_A.weight", torch.ones(RANK, 48)), "a model of another size"),
    "NaN": (_with(f"{Q}.lora_A.weight", torch.full((RANK, 32), float("nan"))), "not finite"),
    "infinity": (_with(f"{Q}.lora_B.weight", torch.full((32, RANK), float("inf"))), "not finite"),
    "integers": (_with(f"{Q}.lora_B.weight", torch.ones(32, RANK, dtype=torch.int32)), "not finite"),
    "nothing": (lambda _: {}, "0 of 0 keys"),
    "two adapters": (
        lambda t: {k.replace(".weight", f".{'x' if 'single' in k else 'y'}.weight"): v for k, v in t.items()},
        "mixes adapters",
    ),
    "BFL alpha": (
        lambda _: {"diffusion_model.single_blocks.0.linear1.alpha": torch.ones(1)},
        "has alpha but not its partner",
    ),
    "BFL block number": (
        lambda _: {"diffusion_model.single_blocks.999999999.linear1.lora_A.weight": torch.ones(1, 1)},
        "1 of 1 keys",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
@pytest.mark.parametrize("use", [lora.load, lora.merge])
def test_a_file_that_does_not_fit_is_an_error_and_touches_nothing(
    transformer: Any, twin: Any, tmp_path: Path, case: str, use: Callable[..., Any]
) -> None:
    change, message = BAD_FILES[case]
    file = rewritten(trained_file(transformer, tmp_path), change)
    before = {key: value.clone() for key, value in twin.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        use(twin, file)
    after = twin.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize(
    "header",
    [
        [1],
        {"transformer.use_dora": True},
        {"transformer.lora_alpha": "(a+)+$"},
        {"transformer.lora_alpha": 0},
        {"transformer.lora_alpha": float("nan")},
        {"transformer.lora_alpha": 10**400},
        {"transformer.alpha_pattern": 3},
        {"transformer.alpha_pattern": {"attn.to_q": None}},
    ],
)
def test_a_foreign_header_is_checked(transformer: Any, twin: Any, tmp_path: Path, header: Any) -> None:
    file = rewritten(trained_file(transformer, tmp_path), dict, header)
    with pytest.raises(ValueError, match=r"header|DoRA"):
        lora.load(twin, file)


def test_alpha_per_layer_means_what_it_means_to_diffusers(
    klein_folder: Path, transformer: Any, twin: Any, tmp_path: Path
) -> None:
    header = {
        "r": RANK,
        "lora_alpha": 6,
        "alpha_pattern": {"attn.to_q": 2, r"^single_transformer_blocks\.1\.attn\.to_out": 9},
    }
    header["target_modules"] = lora.targeted_linears(transformer)
    file = rewritten(
        trained_file(transformer, tmp_path), dict, {f"transformer.{key}": value for key, value in header.items()}
    )
    lora.load(twin, file)
    theirs = Flux2Transformer2DModel.from_pretrained(klein_folder / "transformer")
    theirs.load_lora_adapter(load_file(file), metadata={f"transformer.{key}": value for key, value in header.items()})
    assert (forward(twin) - forward(theirs)).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["", "missing.safetensors", "junk.safetensors", "pickle.bin"])
def test_only_safetensors_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "junk.safetensors").write_bytes(b"\xff" * 64)
    (tmp_path / "pickle.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match=r"no LoRA file at|not a readable safetensors"):
        lora_files.read(tmp_path / name)


# --- Merging --------------------------------------------------------------------------------------------------------


def test_merged_is_base_plus_adapter(transformer: Any, twin: Any, tmp_path: Path) -> None:
    file = trained_file(transformer, tmp_path)
    before = {key: value.clone() for key, value in twin.state_dict().items()}
    merged = lora.merge(twin, file)
    assert merged.layout == "diffusers"
    assert (forward(twin) - forward(transformer)).abs().max() < 1e-5
    changed = {key.removesuffix(".weight") for key, value in twin.state_dict().items() if not value.equal(before[key])}
    assert changed == set(lora.targeted_linears(twin))


def test_merge_scale_is_linear(transformer: Any, twin: Any, tmp_path: Path) -> None:
    file = trained_file(transformer, tmp_path)
    name = "transformer_blocks.0.ff.linear_in"
    start = twin.get_submodule(name).weight.clone()
    lora.merge(twin, file, scale=0.5)
    half = twin.get_submodule(name).weight - start
    lora.merge(twin, file, scale=0.5)
    whole = twin.get_submodule(name).weight - start
    assert (whole - 2 * half).abs().max() < 1e-6 < half.abs().max()


def test_a_bfloat16_base_is_rounded_once(transformer: Any, twin: Any, tmp_path: Path) -> None:
    file = trained_file(transformer, tmp_path)
    twin.to(torch.bfloat16)
    layer = lora_files.read(file).layers["transformer_blocks.0.attn.to_q"]
    exact = twin.transformer_blocks[0].attn.to_q.weight.double() + layer.scale * layer.b.double() @ layer.a.double()
    lora.merge(twin, file)
    got = twin.transformer_blocks[0].attn.to_q.weight
    assert got.dtype == torch.bfloat16
    assert ((got.double() - exact).abs() <= exact.abs() * 2**-7.999).all()  # half a unit in the last place


def _zero_b(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: torch.zeros_like(value) if ".lora_B." in key else value for key, value in tensors.items()}


@pytest.mark.parametrize(
    ("change", "scale", "message"),
    [
        (_zero_b, 1.0, "16 layers of the LoRA are untrained"),
        (
            _with(f"{Q}.lora_B.weight", torch.zeros(32, RANK)),
            1.0,
            "1 layers .* untrained.*transformer_blocks.0.attn.to_q",
        ),
        (dict, 0.0, "merge scale"),
        (dict, float("nan"), "merge scale"),
        (dict, float("inf"), "merge scale"),
        (dict, 1e-30, "merging does not change .*transformer_blocks"),
        (_with(f"{Q}.lora_B.weight", torch.full((32, RANK), 3e38)), 100.0, "infinite or NaN"),
    ],
)
def test_a_merge_that_changes_nothing_or_too_much_fails_loudly(
    transformer: Any, twin: Any, tmp_path: Path, change: Any, scale: float, message: str
) -> None:
    file = rewritten(trained_file(transformer, tmp_path), change)
    with pytest.raises(ValueError, match=message):
        lora.merge(twin, file, scale)


def test_merge_refuses_a_transformer_with_an_adapter(transformer: Any, tmp_path: Path) -> None:
    file = trained_file(transformer, tmp_path)
    with pytest.raises(ValueError, match="carries an adapter"):
        lora.merge(transformer, file)


def test_every_file_edits_like_the_merged_folder(klein_folder: Path, transformer: Any, tmp_path: Path) -> None:
    """The files through diffusers' pipeline; the released training layout, which it ignores, through our merge."""
    file = trained_file(transformer, tmp_path / "lora")
    merged = edit(lora_export.merge_folder(klein_folder, file.parent, tmp_path / "merged"))
    bfl = lora_export.export_bfl(file, tmp_path / "comfy.safetensors")
    training = lora_export.merge_folder(klein_folder, as_training_layout(file), tmp_path / "training")
    from_bfl = lora_export.merge_folder(klein_folder, bfl, tmp_path / "from_bfl")
    assert (edit(klein_folder) - merged).abs().max() > 1e-2
    for result in (edit(klein_folder, file), edit(klein_folder, bfl), edit(training), edit(from_bfl)):
        assert (result - merged).abs().max() < 1e-5


def test_merge_folder_copies_the_model_and_nothing_else(klein_folder: Path, transformer: Any, tmp_path: Path) -> None:
    file = trained_file(transformer, tmp_path / "lora")
    pipeline = Flux2KleinPipeline.from_pretrained(klein_folder)
    base = tmp_path / "base"
    pipeline.save_pretrained(base, max_shard_size="20KB")
    assert len(list((base / "transformer").glob("*.safetensors"))) > 2
    (base / "flux-2-klein.safetensors").write_bytes(b"the unmerged weights in one file")
    (base / "LICENSE.md").write_text("licence")
    (base / "editor.json").write_text("{}")
    out = lora_export.merge_folder(base, file, tmp_path / "new" / "merged")
    assert sorted(path.name for path in out.iterdir()) == [
        "LICENSE.md", "editor.json", "model_index.json", "scheduler", "text_encoder", "tokenizer", "transformer", "vae",
    ]  # fmt: skip
    assert [path.name for path in out.parent.iterdir()] == ["merged"]
    for path in (path for path in out.rglob("*") if path.is_file() and "transformer/diff" not in path.as_posix()):
        assert path.read_bytes() == (base / path.relative_to(out)).read_bytes()
    for shard in (base / "transformer").glob("*.safetensors"):
        old, new = load_file(shard), load_file(out / "transformer" / shard.name)
        for key in old | new:
            assert old[key].equal(new[key]) == (key.removesuffix(".weight") not in lora.targeted_linears(transformer))
        with safe_open(out / "transformer" / shard.name, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}


def test_merge_folder_leaves_nothing_behind_when_it_fails(klein_folder: Path, transformer: Any, tmp_path: Path) -> None:
    file = trained_file(transformer, tmp_path / "lora")
    out = tmp_path / "out" / "merged"
    out.parent.mkdir()
    with pytest.raises(ValueError, match="does not change"):
        lora_export.merge_folder(klein_folder, file, out, scale=1e-30)
    assert list(out.parent.iterdir()) == []
    with pytest.raises(ValueError, match="untrained"):
        lora_export.merge_folder(klein_folder, rewritten(file, _zero_b), out)
    with pytest.raises(ValueError, match=r"no model_index\.json"):
        lora_export.merge_folder(tmp_path, file, out)
    out.mkdir()
    (out / "precious").touch()
    with pytest.raises(ValueError, match="already holds something"):
        lora_export.merge_folder(klein_folder, file, out)
    assert [path.name for path in out.iterdir()] == ["precious"]


def test_merge_folder_keeps_to_the_model_folder(klein_folder: Path, transformer: Any, tmp_path: Path) -> None:
    file = trained_file(transformer, tmp_path / "lora")
    base = tmp_path / "base"
    (base / "transformer").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    for index in ({"transformer": ["a", "b"], "../secret": ["a", "b"]}, {"vae": ["a", "b"]}):
        (base / "model_index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match="no component folder"):
            lora_export.merge_folder(base, file, tmp_path / "merged")
    (base / "model_index.json").write_text("[]")
    with pytest.raises(ValueError, match="not a model index"):
        lora_export.merge_folder(base, file, tmp_path / "merged")
