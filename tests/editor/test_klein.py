"""KleinEditor against diffusers' own pipeline, on a tiny random FLUX.2-klein."""

import json
import logging
import shutil

import pytest
import torch
from diffusers import Flux2KleinPipeline
from huggingface_hub import constants
from PIL import Image

from etchr.editor import check_editor, efficiency
from etchr.editor.folder import NANO_BASE, EditorSettings
from etchr.editor.klein import Grid, KleinEditor, patchify, to_images, to_pixels, unpatchify, velocity

LAYERS, LENGTH = (1, 2, 3), 24


def picture(seed, size=(64, 64)):
    data = torch.randint(0, 256, (size[1] // 8, size[0] // 8, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(data.byte().numpy()).resize(size, Image.Resampling.BICUBIC)


def load(folder, **settings):
    settings = {"num_inference_steps": 3, "text_encoder_out_layers": LAYERS, "max_sequence_length": LENGTH} | settings
    return KleinEditor.load(folder, device="cpu", **settings)


@pytest.mark.parametrize(
    ("guidance", "size", "further"),
    [
        (3.5, (64, 64), []),
        (1.0, (96, 64), []),
        (3.5, (128, 80), []),
        (3.5, (64, 64), [(64, 64)]),
        (1.0, (96, 64), [(64, 80), (128, 64), (64, 64)]),
    ],
)
def test_an_edit_equals_the_diffusers_pipeline(klein_folder, guidance, size, further):
    editor = load(klein_folder, guidance_scale=guidance)
    pipeline = Flux2KleinPipeline.from_pretrained(klein_folder)
    pipeline.set_progress_bar_config(disable=True)
    source, prompt = picture(0, size), "Red box round the blue square."
    references = [picture(number, each) for number, each in enumerate(further, 1)]
    expected = pipeline(
        image=[source, *references],
        prompt=prompt,
        num_inference_steps=3,
        guidance_scale=guidance,
        max_sequence_length=LENGTH,
        text_encoder_out_layers=LAYERS,
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
    ).images
    condition, grids = zip(*(editor.encode_image(to_pixels([each])) for each in (source, *references)), strict=True)
    grid = grids[0]
    tokens = editor.sample(editor.noise([7], grid), editor.encode_text([prompt]), torch.cat(condition, dim=1), *grids)
    actual = (editor.decode(tokens, grid) / 2 + 0.5).clamp(0, 1)
    assert (actual - expected).abs().max() < 1e-4
    assert expected.std() > 0.01  # the comparison is about a picture, not about a constant
    edit = editor.edit([source], [prompt], [7], [references])[0]
    assert edit.size == size
    difference = (to_pixels([edit]) - to_pixels(to_images(expected * 2 - 1))).abs()
    assert difference.max() <= 1.01 / 127.5  # one level of 255, where rounding falls either way


def test_the_default_settings_are_the_papers(klein_folder):
    assert EditorSettings.read(klein_folder) == EditorSettings(40, 3.5, 512, (9, 18, 27), 1024 * 1024)
    settings = KleinEditor.load(klein_folder, device="cpu", text_encoder_out_layers=LAYERS).settings
    assert settings == EditorSettings(text_encoder_out_layers=LAYERS)


def test_an_edit_does_not_depend_on_its_batch_neighbours(klein_folder):
    editor = load(klein_folder)
    images = [picture(1), picture(2, (96, 64)), picture(3), picture(4)]
    prompts, seeds = ["a", "bb", "ccc", "a"], [5, 6, 7, 5]
    small, wide = picture(5), picture(6, (96, 64))
    for references in (None, [[small], [small], [wide, small], [small]]):  # two of the same sizes, two of their own
        together = editor.edit(images, prompts, seeds, references)
        for index, (image, edit) in enumerate(zip(images, together, strict=True)):
            own = None if references is None else [references[index]]
            alone = editor.edit([image], [prompts[index]], [seeds[index]], own)[0]
            assert alone.size == image.size
            assert (to_pixels([alone]) - to_pixels([edit])).abs().max() <= 1.01 / 127.5
    assert together[0].tobytes() != editor.edit([images[0]], ["a"], [8], [[small]])[0].tobytes()
    drawn = {
        editor.edit([small], ["a"], [8], [each])[0].tobytes() for each in ([], [wide], [wide, small], [small, wide])
    }
    assert len(drawn) == 4  # every reference counts, and so does their order


class SmallMemory(KleinEditor):
    """An editor on a GPU that holds two edits."""

    def edit_batch(self, sources, text, seeds, *references):
        self.batches = [*getattr(self, "batches", []), len(sources)]
        if len(sources) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().edit_batch(sources, text, seeds, *references)


def test_where_memory_runs_out_batches_become_smaller_and_stay_so(klein_folder, caplog):
    editor = load(klein_folder)
    sources, prompts, seeds = [picture(seed) for seed in range(7)], [f"Red box {i}." for i in range(7)], range(7)
    expected = editor.edit(sources, prompts, seeds)
    editor.__class__, editor.room, editor.batch_size = SmallMemory, 2, 7
    edits = editor.edit(sources, prompts, seeds)
    assert (editor.batches, editor.batch_size) == ([7, 4, 2, 2, 2, 1], 2)
    assert all((to_pixels([a]) - to_pixels([b])).abs().max() < 0.02 for a, b in zip(edits, expected, strict=True))
    assert "memory ran out at 7 edits" in caplog.text
    editor.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        editor.edit(sources[:1], prompts[:1], [0])


def test_a_saved_folder_loads_in_diffusers_and_here(klein_folder, tmp_path):
    editor = load(klein_folder)
    editor.save(tmp_path / "saved")
    again = KleinEditor.load(tmp_path / "saved", device="cpu")
    assert again.settings == editor.settings
    pipeline = Flux2KleinPipeline.from_pretrained(tmp_path / "saved")
    for name, weight in pipeline.transformer.state_dict().items():
        assert torch.equal(weight, editor.transformer.state_dict()[name])
    assert not list((tmp_path / "saved").rglob("*.bin"))
    again.save(tmp_path / "copy")
    assert not any(str(tmp_path) in path.read_text() for path in (tmp_path / "copy").rglob("*.json"))
    source = picture(0)
    assert again.edit([source], ["x"], [1])[0].tobytes() == editor.edit([source], ["x"], [1])[0].tobytes()


def test_text_is_encoded_once_per_distinct_prompt(klein_folder):
    editor = load(klein_folder)
    calls = []
    embeddings = editor.text_encoder.get_input_embeddings()
    embeddings.register_forward_hook(lambda module, args, output: calls.append(len(output)))
    embeddings = editor.encode_text(["one", "two", "one"])
    editor.encode_text(["two", "one"])
    assert calls == [2]
    assert embeddings.shape == (3, LENGTH, 48)
    assert torch.equal(embeddings[0], embeddings[2])


def count_forwards(modules):
    calls = [0] * len(modules)
    for index, module in enumerate(modules):
        module.register_forward_hook(lambda *_, index=index: calls.__setitem__(index, calls[index] + 1))
    return calls


@pytest.mark.parametrize("model", ["tiny", "nano"])
@pytest.mark.parametrize("layers", [(1, 2, 3), (2,), (3, 1), (0, 2), (4,), (1, 4), (0,), (2, 2)])
def test_the_text_encoder_stops_after_the_last_layer_needed(klein_folder, model, layers):
    editor = load(klein_folder if model == "tiny" else NANO_BASE, text_encoder_out_layers=layers)
    tokens = editor.tokenizer(["short", "rather longer"], return_tensors="pt", padding="max_length", max_length=LENGTH)
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        full = editor.text_encoder(**inputs, output_hidden_states=True, use_cache=False).hidden_states
        calls = count_forwards([*editor.text_encoder.model.layers, editor.text_encoder.lm_head])
        states = efficiency.text_hidden_states(editor.text_encoder, layers, **inputs)
    assert len(states) == len(layers)
    for layer, state in zip(layers, states, strict=True):
        assert torch.equal(state, full[layer])
    assert calls == [1] * max(layers) + [0] * (4 - max(layers)) + [0]
    assert not any(torch.equal(full[a], full[b]) for a in range(5) for b in range(a))  # a wrong layer would show
    expected = torch.cat([full[layer] for layer in layers], dim=-1)
    editor.tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    assert torch.equal(editor.encode_text(["short", "rather longer"]), expected)


def test_a_folder_saved_after_encoding_has_all_layers(klein_folder, tmp_path):
    editor = load(klein_folder, text_encoder_out_layers=(1, 2))
    editor.encode_text(["x"])
    editor.save(tmp_path / "saved")
    saved = Flux2KleinPipeline.from_pretrained(tmp_path / "saved").text_encoder
    original = Flux2KleinPipeline.from_pretrained(klein_folder).text_encoder
    assert saved.config.num_hidden_layers == editor.text_encoder.config.num_hidden_layers == 4
    assert saved.config.layer_types == original.config.layer_types
    assert saved.state_dict().keys() == original.state_dict().keys()
    assert all(torch.equal(saved.state_dict()[name], weight) for name, weight in original.state_dict().items())
    assert not any(module._forward_hooks for module in editor.text_encoder.modules())  # none is left behind


@pytest.mark.parametrize("layers", [(5,), (-1, 2), (), (1.0,)])
def test_layers_that_the_text_encoder_lacks_are_refused(klein_folder, layers):
    with pytest.raises(ValueError, match="from 0 to the text encoder's last, 4"):
        load(klein_folder, text_encoder_out_layers=layers)
    parts = vars(load(klein_folder))
    names = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
    with pytest.raises(ValueError, match="from 0 to the text encoder's last, 4"):
        KleinEditor(*(parts[name] for name in names), settings=EditorSettings(text_encoder_out_layers=layers))


def test_a_cut_prompt_is_reported(klein_folder, caplog):
    with caplog.at_level(logging.WARNING):
        load(klein_folder).encode_text(["far too long a prompt for so few tokens"])
    assert "is cut to 24" in caplog.text


def test_patches_and_pixels_round_trip():
    latents = torch.randn(2, 4, 6, 8)
    assert torch.equal(unpatchify(patchify(latents)), latents)
    assert torch.equal(patchify(latents), Flux2KleinPipeline._patchify_latents(latents))
    images = [picture(1), picture(2)]
    assert [i.tobytes() for i in to_images(to_pixels(images))] == [i.tobytes() for i in images]


def test_an_image_survives_encoding_at_the_shapes_of_klein(klein_folder):
    editor = load(klein_folder)
    tokens, grid = editor.encode_image(to_pixels([picture(0, (96, 64))]))
    assert grid == Grid(4, 6)  # one token is 16 x 16 px
    assert tokens.shape == (1, 24, 16)
    assert editor.decode(tokens, grid).shape == (1, 3, 64, 96)


def test_what_is_no_klein_folder_is_refused_before_loading(tmp_path):
    with pytest.raises(ValueError, match="no editor folder at"):
        KleinEditor.load(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"has no model_index\.json"):
        KleinEditor.load(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ValueError, match="holds a StableDiffusionPipeline"):
        KleinEditor.load(tmp_path)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("transformer", {"num_layers": 10**6}, "num_layers=1000000 must be a whole number up to 1,000"),
        ("transformer", {"num_single_layers": "two"}, "num_single_layers='two' must be a whole number"),
        ("transformer", {"attention_head_dim": 1e99}, r"attention_head_dim=1e\+99 must be a whole number"),
        ("text_encoder", {"num_hidden_layers": None}, "num_hidden_layers=None must be a whole number"),
        ("vae", {"block_out_channels": 3}, "cannot be read as a FLUX.2-klein: "),
    ],
)
def test_a_folder_that_says_odd_things_is_refused_in_a_sentence(tiny, tmp_path, part, changes, message):
    folder = tmp_path / "odd"
    shutil.copytree(tiny, folder)
    path = folder / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    for device in ("cpu", "meta"):
        with pytest.raises(ValueError, match=message):
            KleinEditor.load(folder, device=device)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"config.json is not JSON|cannot be read as a FLUX.2-klein"):
        KleinEditor.load(folder, device="cpu")


@pytest.fixture
def on_the_hub(tmp_path, monkeypatch):
    """`on_the_hub(name, folder, **index)` puts a folder into a hub cache of its own, its model_index.json changed."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(name, folder, settings=None, **index):
        model = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        snapshot = model / "snapshots" / ("c0ffee" * 6 + "beef")
        shutil.copytree(folder, snapshot)
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text(snapshot.name)
        entries = json.loads((snapshot / "model_index.json").read_text()) | index
        (snapshot / "model_index.json").write_text(json.dumps(entries))
        if settings is not None:
            (snapshot / "editor.json").write_text(json.dumps(settings))
        return snapshot

    return put


def test_a_hub_id_gets_the_check_that_a_folder_gets(klein_folder, on_the_hub):
    for name, kind in (("org/dev", "Flux2Pipeline"), ("org/klein-kv", "Flux2KleinKVPipeline")):
        folder = on_the_hub(name, klein_folder, _class_name=kind)
        for each in (name, folder):
            with pytest.raises(ValueError, match=f"holds a {kind}, not a Flux2KleinPipeline"):
                check_editor(str(each))
            with pytest.raises(ValueError, match=f"holds a {kind}, not a Flux2KleinPipeline"):
                KleinEditor.load(each, device="cpu")
    check_editor("org/unknown")  # edits that are kept need no weights
    with pytest.raises(ValueError, match=r"the hub has no model_index\.json of org/unknown for us"):
        KleinEditor.load("org/unknown", device="cpu")

    own = {"num_inference_steps": 2, "guidance_scale": 2.5, "max_pixels": 4096, "text_encoder_out_layers": LAYERS}
    on_the_hub("org/klein", klein_folder, own)
    settings = KleinEditor.load("org/klein", device="cpu").settings
    assert settings == EditorSettings(2, 2.5, 512, LAYERS, 4096)


def test_a_distilled_klein_has_four_steps_without_guidance(klein_folder, on_the_hub, tmp_path):
    folder = on_the_hub("org/distilled", klein_folder, is_distilled=True)
    pipeline = Flux2KleinPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    asked = {"max_sequence_length": LENGTH, "text_encoder_out_layers": LAYERS}
    expected = pipeline(
        image=picture(0),
        prompt="x",
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
        **asked,
    ).images
    for name in (folder, "org/distilled"):
        editor = KleinEditor.load(name, device="cpu", **asked)
        assert (editor.settings.num_inference_steps, editor.settings.guidance_scale) == (4, 1.0)
        made = to_pixels(editor.edit([picture(0)], ["x"], [7]))
        assert (made - to_pixels(to_images(expected * 2 - 1))).abs().max() <= 1.01 / 127.5
        assert editor.with_sampling(8).settings.num_inference_steps == 8
        refusal = pytest.raises(ValueError, match=r"guidance_scale=3\.5: a distilled klein was made to run without")
        with refusal:
            editor.with_sampling(guidance_scale=3.5)
        with refusal:
            KleinEditor.load(name, device="cpu", guidance_scale=3.5, **asked)
    editor.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "model_index.json").read_text())["is_distilled"] is True
    assert EditorSettings.read(tmp_path / "saved") == editor.settings


def test_bad_settings_and_unpaired_inputs_are_refused(klein_folder):
    with pytest.raises(ValueError, match="num_inference_steps=0"):
        load(klein_folder, num_inference_steps=0)
    with pytest.raises(TypeError, match="guidence_scale"):
        load(klein_folder, guidence_scale=2.0)
    with pytest.raises(ValueError, match="do not pair up"):
        load(klein_folder).edit([picture(0)], ["a", "b"], [1])
    with pytest.raises(ValueError, match="2 lists of references and 1 images do not pair up"):
        load(klein_folder).edit([picture(0)], ["a"], [1], [[], []])


def test_the_velocity_is_differentiable(klein_folder):
    editor = load(klein_folder)
    condition, grid = editor.encode_image(to_pixels([picture(0)]))
    latents = editor.noise([1], grid).requires_grad_()
    editor.velocity(latents, torch.tensor([0.5]), editor.encode_text(["x"]), condition, grid, grid).sum().backward()
    assert latents.grad.abs().sum() > 0


def test_the_velocity_of_a_wrapped_transformer_is_the_editors(klein_folder):
    editor = load(klein_folder)
    condition, grid = editor.encode_image(to_pixels([picture(0)]))
    arguments = editor.noise([1], grid), torch.tensor([0.5]), editor.encode_text(["x"]), condition, grid, grid

    class Wrapped(torch.nn.Module):  # as DDP: no attribute of the model shows
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, **inputs):
            return self.module(**inputs)

    with torch.no_grad():
        assert torch.equal(velocity(Wrapped(editor.transformer), *arguments), editor.velocity(*arguments))
