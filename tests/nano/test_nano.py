"""The nano recipe at a small budget: it makes a klein folder, learns, and goes on bit for bit after a kill."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import Flux2KleinPipeline
from safetensors.torch import load_file

from data_prep import procedural_tasks
from data_prep.task import generate
from etchr.editor.folder import NANO_BASE, EditorSettings
from etchr.editor.klein import KleinEditor
from etchr.editor.tokens import to_pixels
from etchr.nano import data as nano_data
from etchr.nano import model as nano_model
from etchr.nano import train as nano
from etchr.nano import vae as nano_vae
from etchr.router import Router
from etchr.runtime import Runtime
from etchr.sample import write_parquet
from tests.processes import together


@pytest.fixture(scope="module")
def samples():
    task = procedural_tasks()["perception"]
    return list(generate(task, split="train", num_samples=128, seed=0, size=64, kind="instruction"))


@pytest.fixture(scope="module")
def trained(samples, tmp_path_factory):
    out = tmp_path_factory.mktemp("nano") / "base"
    config = nano.NanoConfig(
        out=str(out),
        vae_steps=160,
        vae_batch_size=16,
        steps=240,
        batch_size=8,
        checkpoint_every=1000,
        last_steps=100,
    )
    return out, nano.train(samples, config)


@pytest.mark.slow
def test_a_small_budget_of_the_recipe_learns(trained, samples):
    out, made = trained
    first, last = (course["loss_per_100_steps"] for course in made["courses"])
    assert last[-1] < 0.7 * first[0]
    editor = KleinEditor.load(out, device="cpu")
    pixels = to_pixels([sample.image for sample in samples[:16]])
    tokens, grid = editor.encode_image(pixels)
    assert (editor.decode(tokens, grid) - pixels).abs().mean() < 0.5 * (pixels - pixels.mean()).abs().mean()
    # Latents are normalised by the statistics of the *patchified* latents: about mean 0 and variance 1.
    assert tokens.mean().abs() < 0.15
    assert 0.7 < tokens.std() < 1.3


@pytest.mark.slow
def test_the_result_is_a_normal_klein_folder(trained):
    out, _ = trained
    pipeline = Flux2KleinPipeline.from_pretrained(out)
    assert sum(weight.numel() for weight in pipeline.transformer.parameters()) == 921_984
    assert not list(out.rglob("*.pt")), "the checkpoint of a finished training is removed"
    assert KleinEditor.load(out).settings == nano_model.SETTINGS


@pytest.mark.slow
def test_an_interrupted_training_ends_with_the_same_weights(samples, tmp_path):
    config = nano.NanoConfig(steps=12, batch_size=4, checkpoint_every=4, last_steps=8)
    sources = ((to_pixels([s.image for s in samples[:16]]) + 1) * 127.5).round().byte()
    prompts = [sample.question for sample in samples[:16]]
    runtime = Runtime(device="cpu")

    def fresh():
        editor = nano_model.build(prompts, seed=0)
        nano_vae.set_latent_statistics(editor, sources)
        pairs = nano_data.PixelPairs(sources, sources.flip(0), prompts, ["perception"] * 16)
        return editor, nano_data.encode_corpus(editor, pairs, runtime)

    class KilledError(Exception):
        pass

    first, last = config.courses()

    def interrupt(after):
        calls = iter(range(after))

        def hook(module, args):
            if next(calls, None) is None:
                raise KilledError

        return hook

    editor, corpus = fresh()
    nano.train_transformer(editor, corpus, config, first, runtime)
    unbroken = {name: weight.clone() for name, weight in editor.transformer.state_dict().items()}

    file = tmp_path / "checkpoint.pt"
    editor, corpus = fresh()
    editor.transformer.register_forward_pre_hook(interrupt(after=10))
    with pytest.raises(KilledError):
        nano.train_transformer(editor, corpus, config, first, runtime, file)
    editor, corpus = fresh()
    nano.train_transformer(editor, corpus, config, first, runtime, file)
    for name, weight in editor.transformer.state_dict().items():
        assert torch.equal(weight, unbroken[name]), name

    ends = []
    for there in (None, file):  # the finished course's checkpoint may still lie there
        editor.transformer.load_state_dict(unbroken)
        nano.train_transformer(editor, corpus, config, last, runtime, there)
        ends.append({name: weight.clone() for name, weight in editor.transformer.state_dict().items()})
    assert all(torch.equal(weight, ends[1][name]) for name, weight in ends[0].items())

    other = replace(config, seed=1)
    with pytest.raises(ValueError, match="belongs to another configuration"):
        nano.train_transformer(fresh()[0], corpus, other, first, runtime, file)


@pytest.mark.slow
def test_a_finished_training_is_left_alone_and_another_one_refused(trained, samples):
    out, made = trained
    before = (out / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes()
    config = nano.NanoConfig(**made["config"])
    assert nano.train(samples, config) == made
    assert (out / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match="made from other options or data"):
        nano.train(samples, replace(config, vae_lr=1e-3))
    with pytest.raises(ValueError, match="made from other options or data"):
        nano.train(samples[:100], config)


@pytest.mark.slow
def test_two_processes_make_what_one_makes(samples, tmp_path):
    data = tmp_path / "data" / "perception"
    data.mkdir(parents=True)
    write_parquet(samples[:32], data / "train.parquet")
    words = [f"data={data.parent}", f"questions={data.parent}", "vae_steps=6", "decoder_steps=3", "vae_batch_size=8"]
    words += ["steps=4", "last_steps=2", "batch_size=8", "threads=1", "muon_lr=1e-3", "adamw_lr=1e-4", "vae_lr=1e-4"]
    nano.main([*words, f"out={tmp_path / 'one'}"])
    together(nano.main, [*words, f"out={tmp_path / 'two'}"])
    for part in ("transformer", "vae"):
        one, two = (load_file(tmp_path / out / part / "diffusion_pytorch_model.safetensors") for out in ("one", "two"))
        start = getattr(nano_model.build([s.question for s in samples[:32]], 0), part).state_dict()
        moved, apart = (
            torch.stack([(one[name] - other[name]).float().norm() for name in one]).norm() for other in (start, two)
        )
        assert apart < 0.02 * moved > 0  # the sums of a gradient round otherwise


@pytest.mark.parametrize(
    "options",
    [{"steps": 0}, {"ema": 2.0}, {"emphasis": {"chart": 0}}, {"last_emphasis": {"maze": -1}}, {"warmup_steps": 0}],
)
def test_bad_options_are_refused_at_once(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        nano.NanoConfig(**options)


def test_samples_without_an_edit_are_refused(samples, tmp_path):
    bad = [replace(sample, edit_image=None) for sample in samples[:16]]
    with pytest.raises(ValueError, match="needs an edit_image"):
        nano.train(bad, nano.NanoConfig(out=str(tmp_path)))


def test_cell_names_and_digits_are_single_tokens():
    tokenizer = nano_model.build_tokenizer(["Fill blue: a1 b2", "Place the pieces: UL2 UR0 LL3 LR1"])
    start = len(tokenizer("Place the pieces:")["input_ids"])
    assert len(tokenizer("Place the pieces: UL2 UR0 LL3 LR1")["input_ids"]) == start + 4
    assert len(tokenizer("Fill blue: a1 b2 f6")["input_ids"]) == len(tokenizer("Fill blue:")["input_ids"]) + 3
    assert len(tokenizer("A1 D4")["input_ids"]) == len(tokenizer("A1")["input_ids"]) + 1


# ---------------------------------------------------------------------------------- the folder in the repository


def test_the_kept_base_is_small_plain_and_says_how_it_was_made():
    files = [path for path in NANO_BASE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10 * 2**20
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja", ".md", ".txt"}
    assert "| explicit instruction |" in (NANO_BASE / "README.md").read_text()
    made = json.loads((NANO_BASE / "training.json").read_text())
    assert {"config", "num_samples", "vae_seconds", "courses", "torch"} <= set(made)


def test_the_kept_bases_tokenizer_covers_every_question():
    editor = KleinEditor.load(NANO_BASE)
    assert editor.settings == EditorSettings.read(NANO_BASE) == nano_model.SETTINGS
    router = Router.load()
    for task in procedural_tasks().values():
        for kind in ("question", "instruction"):
            for sample in generate(task, split="val", num_samples=20, seed=0, size=64, kind=kind):
                prompt = router.prompt(sample.question, sample.family) if kind == "question" else sample.question
                ids = editor.tokenizer(prompt + "<|im_end|>")["input_ids"]
                assert len(ids) <= nano_model.SETTINGS.max_sequence_length
