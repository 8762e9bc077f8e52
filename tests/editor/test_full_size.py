"""The true shapes of FLUX.2-klein-base-9B and 4B on the meta device: nothing in the editor assumes nano.

The transformers' shapes are those of `etchr.editor.shapes`, the text encoders' those of the Qwen3 model cards.
"""

import json
import shutil

import pytest
import torch
from PIL import Image
from transformers import Qwen3Config, Qwen3ForCausalLM

from etchr.editor import lora, shapes
from etchr.editor.folder import EditorSettings
from etchr.editor.klein import Grid, KleinEditor
from etchr.editor.shapes import TEXT_ENCODERS, TRANSFORMERS, random_folder

SHAPES = {
    "9b": {
        "text": {"hidden_size": 4096, "intermediate_size": 12288},
        "billions": (9.08, 2.089),
        "text_billions": 8.19,  # of the Qwen3 model cards, as is 4.02
        "linears": 144,
    },
    "4b": {
        "text": {"hidden_size": 2560, "intermediate_size": 9728},
        "billions": (3.876, 1.156),
        "text_billions": 4.02,
        "linears": 100,
    },
}


def write_folder(folder, tiny, size):
    """A klein-base folder as it lies on the hub, without its weights."""
    shutil.copytree(tiny / "tokenizer", folder / "tokenizer")
    parts = {
        "transformer": {"_class_name": "Flux2Transformer2DModel"} | TRANSFORMERS[size],
        "vae": {"_class_name": "AutoencoderKLFlux2", "block_out_channels": [128, 256, 512, 512], "latent_channels": 32}
        | {
            f"{way}_block_types": [f"{name}Block2D"] * 4 for way, name in (("down", "DownEncoder"), ("up", "UpDecoder"))
        },
        "text_encoder": {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            **SHAPES[size]["text"],
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
        },
        "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True, "shift": 3.0},
    }
    files = {"scheduler": "scheduler_config.json"}
    for name, config in parts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / files.get(name, "config.json")).write_text(json.dumps(config))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Flux2KleinPipeline", "is_distilled": False}))


@pytest.mark.parametrize("size", SHAPES)
def test_a_klein_base_folder_works_at_its_true_shape(klein_folder, tmp_path, size):
    shape, joint = SHAPES[size], TRANSFORMERS[size]["joint_attention_dim"]
    write_folder(tmp_path / size, klein_folder, size)
    editor = KleinEditor.load(tmp_path / size, device="meta", dtype="bfloat16")
    assert editor.settings == EditorSettings()  # no editor.json: the paper's settings
    weights = sum(weight.numel() for weight in editor.transformer.parameters())
    assert weights / 1e9 == pytest.approx(shape["billions"][0], abs=0.005)

    pixels = torch.empty(1, 3, 768, 1344, device="meta")
    condition, grid = editor.encode_image(pixels)
    assert 3 * editor.text_encoder.config.hidden_size == joint
    text = torch.empty(1, 512, joint, device="meta", dtype=torch.bfloat16)
    assert grid == Grid(48, 84)
    assert condition.shape == (1, 48 * 84, 128)
    latents = torch.empty_like(condition)
    velocity = editor.velocity(latents, torch.tensor([0.5]), text, condition, grid, grid)
    assert velocity.shape == latents.shape
    assert editor.decode(velocity, grid).shape == pixels.shape
    assert velocity.dtype is torch.bfloat16

    assert len(lora.targeted_linears(editor.transformer)) == shape["linears"]
    with torch.device("meta"):  # or peft first draws the 9B adapter's two billion numbers
        added = sum(weight.numel() for weight in lora.attach(editor.transformer, rank=768))
    assert added / 1e9 == pytest.approx(shape["billions"][1], abs=0.0005)


@pytest.mark.parametrize("size", SHAPES)
def test_the_text_encoder_is_as_large_as_its_model_card_says(size):
    with torch.device("meta"):
        encoder = Qwen3ForCausalLM(Qwen3Config(**TEXT_ENCODERS[size]))
    assert sum(weight.numel() for weight in encoder.parameters()) / 1e9 == pytest.approx(
        SHAPES[size]["text_billions"], abs=0.005
    )
    assert 3 * encoder.config.hidden_size == TRANSFORMERS[size]["joint_attention_dim"]


def test_random_weights_make_a_folder_that_edits(monkeypatch, tmp_path):
    small = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 1, "joint_attention_dim": 96}
    monkeypatch.setitem(TRANSFORMERS, "4b", TRANSFORMERS["4b"] | small)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    monkeypatch.setitem(TEXT_ENCODERS, "4b", TEXT_ENCODERS["4b"] | small | {"vocab_size": 1000})
    monkeypatch.setitem(shapes.VAE, "block_out_channels", (32, 32, 32, 32))
    torch.manual_seed(0)
    random_folder("4b", tmp_path, "cpu", torch.float32)
    editor = KleinEditor.load(tmp_path, device="cpu", num_inference_steps=2, max_sequence_length=16)
    (edit,) = editor.edit([Image.new("RGB", (64, 48))], ["Mark it."], [0])
    assert edit.size == (64, 48)
    assert editor.transformer.config.in_channels == 128
    with pytest.raises(ValueError, match="size='nano' must be one of 9b, 4b"):
        random_folder("nano", tmp_path, "cpu", torch.float32)
