"""Checkpointing, compilation, attention backends and quantisation: less memory or time, the same results."""

import copy
import importlib.util

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from etchr.editor import efficiency, lora
from etchr.editor.folder import NANO_BASE
from etchr.editor.klein import KleinEditor

BLOCKS = 3  # of the tiny transformer: one double, two single


def inputs(seed=3):
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(2, 6, 16, generator=generator),
        "encoder_hidden_states": torch.randn(2, 5, 48, generator=generator),
        "timestep": torch.tensor([0.3, 0.8]),
        "img_ids": torch.arange(24).reshape(6, 4),
        "txt_ids": torch.zeros(5, 4),
        "return_dict": False,
    }


def adapted(transformer):
    """The transformer with an adapter whose B is not zero, and its parameters."""
    parameters = lora.attach(transformer, 2, seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(0, 0.1, generator=generator)
    return parameters


def blocks(transformer):
    return [*transformer.transformer_blocks, *transformer.single_transformer_blocks]


def output_and_gradients(transformer, parameters):
    for parameter in parameters:
        parameter.grad = None
    output = transformer(**inputs())[0]
    output.square().sum().backward()
    return output.detach(), [parameter.grad.clone() for parameter in parameters]


def assert_same(one, other, tolerance):
    (output, gradients), (other_output, other_gradients) = one, other
    torch.testing.assert_close(output, other_output, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradients, other_gradients, rtol=tolerance, atol=tolerance)
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients)  # they are not all zero


def count_calls(transformer):
    calls = [0] * BLOCKS
    for index, block in enumerate(blocks(transformer)):
        block.attn.register_forward_hook(lambda *_, index=index: calls.__setitem__(index, calls[index] + 1))
    return calls


@pytest.mark.parametrize(
    ("every", "calls"), [(0, [1, 1, 1]), (1, [2, 2, 2]), (2, [2, 1, 2]), (3, [2, 1, 1]), (9, [2, 1, 1])]
)
def test_checkpointed_blocks_run_twice_and_give_the_same_gradients(transformer, twin, every, calls):
    expected = output_and_gradients(twin, adapted(twin))
    parameters = adapted(transformer)
    efficiency.checkpoint_blocks(transformer, every)
    counted = count_calls(transformer)
    assert_same(output_and_gradients(transformer, parameters), expected, 0)
    assert counted == calls
    with torch.no_grad():
        transformer(**inputs())
    assert counted == [count + 1 for count in calls]  # nothing is recomputed where nothing is differentiated


def test_checkpointing_can_be_changed_and_survives_a_copy(transformer):
    efficiency.checkpoint_blocks(transformer, 1)
    efficiency.checkpoint_blocks(transformer, 2)
    other = copy.deepcopy(transformer)
    counted = count_calls(other)
    output_and_gradients(other, list(other.transformer_blocks.parameters()))
    assert counted == [2, 1, 2]
    efficiency.checkpoint_blocks(transformer, 0)
    counted = count_calls(transformer)
    output_and_gradients(transformer, list(transformer.transformer_blocks.parameters()))
    assert counted == [1, 1, 1]


@pytest.mark.parametrize("every", [-1, 1.5, None])
def test_a_count_that_is_none_is_refused(transformer, every):
    with pytest.raises(ValueError, match="must be a whole number"):
        efficiency.checkpoint_blocks(transformer, every)


@pytest.mark.parametrize(("backend", "every"), [("eager", 0), ("aot_eager", 2)])
def test_compiled_blocks_give_the_same_output_and_gradients(transformer, twin, backend, every, tmp_path):
    torch._dynamo.reset()
    expected = output_and_gradients(twin, adapted(twin))
    plain_file = lora.save(twin, tmp_path / "plain")
    parameters = adapted(transformer)
    names = list(transformer.state_dict())
    efficiency.checkpoint_blocks(transformer, every)
    efficiency.compile_blocks(transformer, backend)
    frames = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert_same(output_and_gradients(transformer, parameters), expected, 1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > frames  # it did compile
    assert list(transformer.state_dict()) == names
    compiled_file = lora.save(transformer, tmp_path / "compiled")
    saved, plain_saved = load_file(compiled_file), load_file(plain_file)
    assert saved.keys() == plain_saved.keys()
    assert all(torch.equal(saved[name], plain_saved[name]) for name in saved)


def test_an_adapter_can_be_attached_to_compiled_blocks(transformer, twin):
    torch._dynamo.reset()
    efficiency.compile_blocks(transformer, "eager")
    with torch.no_grad():
        torch.testing.assert_close(transformer(**inputs())[0], twin(**inputs())[0])
    expected = output_and_gradients(twin, adapted(twin))
    assert_same(output_and_gradients(transformer, adapted(transformer)), expected, 1e-5)


def test_no_backend_compiles_nothing_and_an_unknown_one_is_refused(transformer):
    efficiency.compile_blocks(transformer, None)
    with pytest.raises(ValueError, match=r"no compiler backend 'gcc'; it has .*inductor"):
        efficiency.compile_blocks(transformer, "gcc")
    assert all(block._compiled_call_impl is None for block in blocks(transformer))


def test_native_attention_is_the_default(transformer, twin):
    expected = output_and_gradients(twin, adapted(twin))
    parameters = adapted(transformer)
    efficiency.use_attention(transformer, None)
    assert all(block.attn.processor._attention_backend is None for block in blocks(transformer))
    efficiency.use_attention(transformer, "native")
    assert all(block.attn.processor._attention_backend == "native" for block in blocks(transformer))
    assert_same(output_and_gradients(transformer, parameters), expected, 1e-5)


def test_attention_that_cannot_be_had_is_refused(transformer):
    with pytest.raises(ValueError, match=r"no attention backend 'fast'; it has .*\bnative\b"):
        efficiency.use_attention(transformer, "fast")
    if importlib.util.find_spec("xformers") is None:
        with pytest.raises(ValueError, match=r"'xformers' cannot be used here .*; there are .*\bnative\b"):
            efficiency.use_attention(transformer, "xformers")
    assert all(block.attn.processor._attention_backend is None for block in blocks(transformer))


# ---------------------------------------------------------------------------------------------- quantisation


@pytest.mark.parametrize("name", sorted(efficiency.QUANTISATIONS))
def test_quantisation_without_its_library_is_refused(klein_folder, name):
    library = efficiency.QUANTISATIONS[name]
    if importlib.util.find_spec(library) is not None:
        pytest.skip(f"{library} is installed")
    with pytest.raises(ValueError, match=rf"needs {library}; install it with pip install 'etchr\[quant\]'"):
        KleinEditor.load(NANO_BASE, device="cpu", quantisation=name)


def test_an_unknown_quantisation_is_refused():
    with pytest.raises(ValueError, match="quantisation='int3' must be one of int8, fp8, nf4, or None"):
        KleinEditor.load(NANO_BASE, device="cpu", quantisation="int3")


def test_4_bit_needs_a_gpu_and_meta_has_no_weights():
    pytest.importorskip("bitsandbytes")
    with pytest.raises(ValueError, match="needs a CUDA GPU"):
        KleinEditor.load(NANO_BASE, device="cpu", quantisation="nf4")
    with pytest.raises(ValueError, match="meta"):
        KleinEditor.load(NANO_BASE, device="meta", quantisation="nf4")


def velocity_inputs(editor):
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    condition, grid = editor.encode_image(pixels)
    text = editor.encode_text(["Mark the red cell."])
    return editor.noise([1], grid), torch.tensor([0.5]), text, condition, grid, grid


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "tolerance"), [("int8", 0.03), ("fp8", 0.2)])
def test_a_quantised_transformer_trains_an_adapter(tmp_path, name, tolerance, dtype):
    pytest.importorskip("torchao")
    plain = KleinEditor.load(NANO_BASE, device="cpu", dtype=dtype)
    editor = KleinEditor.load(NANO_BASE, device="cpu", dtype=dtype, quantisation=name)
    assert editor.dtype == plain.dtype
    assert editor.name == f"{plain.name}+{name}"
    arguments = velocity_inputs(plain)
    with torch.no_grad():
        expected, actual = plain.velocity(*arguments).float(), editor.velocity(*arguments).float()
    error = (actual - expected).norm() / expected.norm()
    assert 1e-4 < error < tolerance  # close, and rounded for sure
    linears = [(n, m) for n, m in editor.transformer.named_modules() if isinstance(m, torch.nn.Linear)]
    rounded = [n for n, m in linears if type(m.weight) is not torch.nn.Parameter]
    assert rounded == lora.targeted_linears(editor.transformer)
    for path in ("x_embedder", "proj_out", "double_stream_modulation_img.linear"):
        one, other = (e.transformer.get_submodule(path).weight for e in (plain, editor))
        assert torch.equal(one, other)

    transformer = editor.transformer
    efficiency.checkpoint_blocks(transformer, 2)
    parameters = lora.attach(transformer, 4, seed=0)
    assert all(parameter.dtype == torch.float32 for parameter in parameters)
    before = editor.velocity(*arguments)
    before.float().square().mean().backward()
    assert all(parameter.grad is not None for parameter in parameters)
    torch.optim.AdamW(parameters, lr=1e-3).step()
    trained = editor.velocity(*arguments).detach().float()
    assert (trained - actual).norm() / actual.norm() > 1e-3

    lora.save(transformer, tmp_path / "adapter")
    again = KleinEditor.load(NANO_BASE, device="cpu", dtype=dtype, quantisation=name, lora=tmp_path / "adapter")
    with torch.no_grad():
        reloaded = again.velocity(*arguments).float()
    assert (reloaded - trained).norm() / trained.norm() < (1e-5 if dtype == "float32" else 1e-2)
    lora.load(plain.transformer, tmp_path / "adapter")  # and it fits the unquantised model
    with pytest.raises(ValueError, match="is quantised and not for saving"):
        editor.save(tmp_path / "folder")
    assert again.edit([Image.new("RGB", (64, 64), "red")], ["x"], [1])[0].size == (64, 64)
