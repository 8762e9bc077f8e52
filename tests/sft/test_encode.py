"""Encoding with and without caches: nothing twice, nothing stale, nothing of another model."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from etchr.editor.klein import KleinEditor
from etchr.families import TaskFamily
from etchr.router import Router
from etchr.sample import EditSample, write_parquet
from etchr.sft.cache import MemoryCache, NoCache, weights_digest
from etchr.sft.data import Sizing, StepLoader
from etchr.sft.encode import PairEncoder, open_caches
from etchr.training.data import SampleTable, prompt_maker
from etchr.training.mixture import DataSet


def load(folder, **options):
    return KleinEditor.load(folder, device="cpu", **options)


@pytest.fixture(scope="module")
def editor(tiny):
    """Nobody may change it; its own memory of prompts is emptied by `passes`."""
    return load(tiny)


def changed(editor, part):
    """An editor like `editor`, read again, with one weight of a part changed a little."""
    with torch.no_grad():
        next(getattr(editor, part).parameters()).flatten()[0] += 1e-3
    return editor


class Passes:
    """Counts what went through VAE and text encoder: pictures, prompts."""

    def __init__(self, editor):
        self.pictures = self.prompts = 0
        embeddings = editor.text_encoder.get_input_embeddings()
        editor._text.clear()
        self.handles = [
            editor.vae.encoder.register_forward_hook(self._picture),
            embeddings.register_forward_hook(self._prompt),
        ]

    def _picture(self, module, args, output):
        self.pictures += len(output)

    def _prompt(self, module, args, output):
        self.prompts += len(output)


@pytest.fixture
def passes(editor):
    counter = Passes(editor)
    yield counter
    for handle in counter.handles:
        handle.remove()


def loader_of(path, latents):
    router = Router({family: "" for family in TaskFamily})
    sizing = Sizing("native", 64 * 64)
    data = SampleTable([DataSet([str(path)])], prompt_maker("question", router), sizing.of_sample)
    return StepLoader(data, data.plan({}, 2, 0), sizing, latents, 0, 1, 2)


def read(loader):
    return loader.read([0, 1], [0, 1])


def same(left, right):
    return (left.grid, left.condition_grid) == (right.grid, right.condition_grid) and all(
        getattr(left, name).dtype == getattr(right, name).dtype
        and torch.equal(getattr(left, name), getattr(right, name))
        for name in ("target", "condition", "text")
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["none", "memory", "disk"])
def test_a_second_pass_needs_neither_vae_nor_text_encoder(tiny, pairs, tmp_path, kind, dtype):
    editor = load(tiny, dtype=dtype)
    passes = Passes(editor)
    latents, texts = open_caches(kind, str(tmp_path), editor)
    loader = loader_of(pairs / "chart", latents)
    encoder = PairEncoder(editor, latents, texts)
    first = encoder(read(loader))
    assert first.target.dtype == first.text.dtype == getattr(torch, dtype)
    assert (passes.pictures, passes.prompts) == (4, 2)
    assert same(encoder(read(loader)), first)
    assert passes.pictures == (8 if kind == "none" else 4)
    if kind == "disk":
        latents, texts = open_caches(kind, str(tmp_path), editor)
        editor._text.clear()
        assert same(PairEncoder(editor, latents, texts)(read(loader_of(pairs / "chart", latents))), first)
        assert (passes.pictures, passes.prompts) == (4, 2)


def test_tokens_are_those_of_the_editor_and_cover_the_grid(editor, pairs):
    loader = loader_of(pairs / "chart", NoCache())
    batch = read(loader)
    encoded = PairEncoder(editor, NoCache(), NoCache())(batch, [False, True])
    assert (encoded.grid.height, encoded.grid.width) == (4, 4)
    for name, pictures in (("target", batch.targets), ("condition", batch.conditions)):
        pixels = torch.stack([picture.pixels for picture in pictures]).float() / 127.5 - 1
        tokens, grid = editor.encode_image(pixels)
        torch.testing.assert_close(getattr(encoded, name), tokens, rtol=1e-4, atol=1e-4)
        assert grid == encoded.grid
    torch.testing.assert_close(encoded.text, editor.encode_text([batch.prompts[0], ""]), rtol=1e-4, atol=1e-4)


def test_a_batch_of_which_the_cache_knows_a_part_is_completed(editor, pairs, passes):
    latents, texts = MemoryCache(), MemoryCache()
    loader = loader_of(pairs / "chart", latents)
    encoder = PairEncoder(editor, latents, texts)
    alone = encoder(loader.read([1], [0]))
    both = encoder(loader.read([0, 1], [0, 1]))
    assert (passes.pictures, passes.prompts) == (4, 2)
    assert torch.equal(both.target[1:], alone.target)
    assert torch.equal(both.text[1:], alone.text)
    swapped = encoder(loader.read([1, 0], [0, 1]))
    assert torch.equal(swapped.condition, both.condition.flip(0))
    assert torch.equal(swapped.text, both.text.flip(0))


def test_filling_leaves_nothing_to_encode_and_is_not_repeated(editor, pairs, passes):
    latents, texts = MemoryCache(), MemoryCache()
    loader = loader_of(pairs, latents)  # 12 pairs of 64 px, 12 of 96 px that are brought to 64 px
    encoder = PairEncoder(editor, latents, texts)
    num_prompts = len(set(loader.data.prompts))
    for _ in range(2):
        encoder.fill(loader, range(len(loader.data)), show=False)
        assert (passes.pictures, passes.prompts) == (48, num_prompts)
    encoder(read(loader))
    assert (passes.pictures, passes.prompts) == (48, num_prompts)


def test_a_fill_that_was_interrupted_ends_as_an_unbroken_one(editor, pairs, tmp_path):
    """Bit by bit: what is missing is encoded in the batch in which it would have been, whatever else is there."""
    latents, texts = open_caches("disk", str(tmp_path), editor)
    loader = loader_of(pairs, latents)
    encoder = PairEncoder(editor, latents, texts)

    def filled():
        encoder.fill(loader, range(len(loader.data)), show=False)
        return {path: load_file(path)["value"] for path in sorted(tmp_path.rglob("*.safetensors"))}

    whole = filled()
    for number, path in enumerate(whole):
        if number % 3 != 1:
            path.unlink()
    editor._text.clear()
    again = filled()
    assert list(again) == list(whole)
    assert all(torch.equal(again[path], value) for path, value in whole.items())


def test_prompts_that_repeat_are_encoded_once(editor, passes):
    encoder = PairEncoder(editor, NoCache(), MemoryCache())
    text = encoder.text(["a", "b", "a", "", "a"])
    assert passes.prompts == 3
    assert torch.equal(text[0], text[2])
    assert not torch.equal(text[0], text[1])
    encoder.text(["", "b"])
    assert passes.prompts == 3


def test_a_changed_picture_under_the_same_id_gives_other_latents(editor, tmp_path):
    latents, texts = open_caches("disk", str(tmp_path / "cache"), editor)

    def target(shade):
        picture = Image.fromarray(np.full((64, 64, 3), 40, np.uint8))
        edit = Image.new("RGB", (64, 64), (shade, 0, 0))
        samples = [EditSample(name, TaskFamily.CHART, "chart", picture, "Q?", "A", edit_image=edit) for name in "ab"]
        write_parquet(samples, tmp_path / str(shade) / "train.parquet")
        return PairEncoder(editor, latents, texts)(read(loader_of(tmp_path / str(shade), latents)))

    first, second = target(10), target(200)
    assert not torch.equal(first.target, second.target)
    assert torch.equal(first.condition, second.condition)
    assert same(target(10), first)


def test_a_pair_that_stands_in_is_encoded_and_not_kept(editor, pairs):
    latents = MemoryCache()
    batch = read(loader_of(pairs / "chart", latents))
    for picture in (batch.targets[0], batch.conditions[0]):
        picture.key, picture.pixels = "", torch.zeros(3, 64, 64, dtype=torch.uint8)
    pairs_ = PairEncoder(editor, latents, NoCache())(batch)
    assert pairs_.target.isfinite().all()
    assert latents.get("") is None
    assert latents.get(batch.targets[1].key) is not None


# -------------------------------------------------------------------------------------------------- other models


def test_a_digest_changes_with_one_weight_its_dtype_or_its_name():
    layer = torch.nn.Linear(300, 300)
    digest = weights_digest(layer)
    assert digest == weights_digest(layer)
    seen = {digest, weights_digest(torch.nn.Sequential(layer)), weights_digest(layer, layer)}
    with torch.no_grad():
        layer.weight[299, 299] += 1e-3
    seen |= {weights_digest(layer), weights_digest(layer.to(torch.bfloat16))}
    norm = torch.nn.BatchNorm1d(3)
    seen.add(weights_digest(norm))
    norm.get_buffer("running_var")[1] = 2  # a buffer counts too
    seen.add(weights_digest(norm))
    assert len(seen) == 7


@pytest.mark.parametrize("other", ["vae", "text_encoder", "dtype", "max_sequence_length", "layers"])
def test_another_model_finds_no_entry_of_this_one(editor, tiny, tmp_path, other):
    for cache in open_caches("disk", str(tmp_path), editor):
        cache.put("a", torch.ones(3))
    same = [cache.get("a") is not None for cache in open_caches("disk", str(tmp_path), load(tiny))]  # read again
    changes: dict[str, dict[str, Any]] = {
        "dtype": {"dtype": "bfloat16"},
        "max_sequence_length": {"max_sequence_length": 17},
        "layers": {"text_encoder_out_layers": (1, 2, 4)},
    }
    twin = load(tiny, **changes.get(other, {}))
    if other in ("vae", "text_encoder"):
        changed(twin, other)
    latents, texts = (cache.get("a") is not None for cache in open_caches("disk", str(tmp_path), twin))
    assert same == [True, True]
    assert not (latents if other in ("vae", "dtype") else texts)


def test_the_adapter_and_the_transformer_do_not_decide_about_the_cache(editor, tiny, tmp_path):
    """Rank sweeps over one base share its cache."""
    latents, _ = open_caches("disk", str(tmp_path), editor)
    latents.put("a", torch.ones(3))
    again, _ = open_caches("disk", str(tmp_path), changed(load(tiny), "transformer"))
    assert torch.equal(again.get("a"), torch.ones(3))
