"""A training that is killed and started again ends as an unbroken one."""

import shutil

import pytest
import torch

from etchr.sft.__main__ import main
from etchr.sft.trainer import train
from tests.processes import kill_when
from tests.sft.runs import metrics, options, weights, words

MUON = (
    *("optim.name=muon", "optim.schedule=linear", "optim.warmup_steps=2", "data.cache=memory", "data.precompute=true"),
    *("validation.every=2", "data.bucketing=false"),
)
MORE = ("optim.ema=0.9", "data.prompt_dropout=0.3", "adapter.dropout=0.2", "optim.schedule=cosine")


KEEP_ALL = ("save_every=1", "keep_checkpoints=9", "data.weights.chart=0.75")


@pytest.fixture(scope="module", params=["adamw", "muon"])
def unbroken(request, tiny, pairs, tmp_path_factory):
    """A run of 6 steps with a checkpoint after each; the data hold 5 batches, so it enters the second epoch."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    more = (*(MORE if request.param == "adamw" else MUON), *KEEP_ALL)
    train(options(tiny, pairs, out, *more))
    return out, more


@pytest.mark.parametrize("last", [1, 2, 3, 4, 5])
def test_a_run_goes_on_exactly_from_every_checkpoint(unbroken, tiny, pairs, tmp_path, last):
    unbroken, more = unbroken
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    shutil.rmtree(out / "adapter")
    for step in range(last + 1, 7):
        shutil.rmtree(out / "checkpoints" / f"step_{step:08d}")
    train(options(tiny, pairs, out, *more))
    kept = [path.stem for path in (unbroken / "checkpoints" / "step_00000006").glob("*.safetensors")]
    for name in ("adapter/pytorch_lora_weights", *(f"checkpoints/step_00000006/{stem}" for stem in kept)):
        there, here = weights(unbroken, name), weights(out, name)
        assert there.keys() == here.keys()
        assert all(torch.equal(there[key], here[key]) for key in there), name
    assert metrics(out) == metrics(unbroken)


@pytest.mark.parametrize("cache", [pytest.param("disk", marks=pytest.mark.slow), "memory"])
def test_a_killed_run_ends_as_an_unbroken_one(tiny, pairs, tmp_path, cache):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    more = ("steps=16", "save_every=3", f"data.cache={cache}", f"data.cache_dir={tmp_path / 'cache'}")
    journal = broken / "metrics.jsonl"

    def has_5_lines():
        return journal.is_file() and journal.read_bytes().count(b"\n") >= 5

    kill_when(has_5_lines, main, words(tiny, pairs, broken, *more))
    assert not (broken / "adapter").exists()
    train(options(tiny, pairs, broken, *more))
    train(options(tiny, pairs, whole, *more))
    there, here = weights(whole), weights(broken)
    assert all(torch.equal(there[key], here[key]) for key in there)
    assert metrics(broken) == metrics(whole)
    assert list(metrics(broken)) == list(range(1, 17))


def test_checkpoints_rotate_and_the_last_one_stays(tiny, pairs, tmp_path):
    out = tmp_path / "run"
    train(options(tiny, pairs, out, "steps=7", "save_every=2", "keep_checkpoints=2"))
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step_00000006", "step_00000007"]


def test_a_finished_run_is_left_as_it_is(tiny, pairs, tmp_path):
    out = tmp_path / "run"
    config = options(tiny, pairs, out)
    train(config)
    before = weights(out), metrics(out)
    train(config)
    assert metrics(out) == before[1]
    assert all(torch.equal(value, before[0][key]) for key, value in weights(out).items())


def test_other_options_are_refused_in_the_same_folder(tiny, pairs, tmp_path):
    out = tmp_path / "run"
    train(options(tiny, pairs, out, "steps=2"))
    with pytest.raises(ValueError, match=r"holds a run with other settings \(optim.lr: 0.01 there, 0.02 here\)"):
        train(options(tiny, pairs, out, "steps=2", "optim.lr=0.02"))


def test_a_damaged_checkpoint_is_named_with_the_way_out(tiny, pairs, tmp_path):
    out = tmp_path / "run"
    config = options(tiny, pairs, out)
    train(config)
    folder = out / "checkpoints" / "step_00000006"
    path, note = folder / "optimizer.safetensors", folder / "state.json"
    sound, said = path.read_bytes(), note.read_text()
    shutil.rmtree(out / "adapter")
    flipped = bytearray(sound)
    flipped[-1] ^= 1  # of a number: a sound file with other weights
    for data in (sound[:100], bytes(flipped)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"optimizer.safetensors is damaged .*; remove .*step_00000006 to go on"):
            train(config)
    path.write_bytes(sound)
    for damage in ("{}", "null", "[" * 100_000, said.replace('"step": 6', '"step": 4')):
        note.write_text(damage)
        with pytest.raises(ValueError, match=r"state.json is damaged .*; remove .*step_00000006 to go on"):
            train(config)
    note.write_text(said)
    shutil.rmtree(out / "checkpoints" / "step_00000004")
    folder.rename(folder.with_name("step_00000004"))  # it is not what its name says
    with pytest.raises(ValueError, match=r"state.json is damaged \(it is of step 6\)"):
        train(config)


def test_an_adapter_that_was_lost_or_cut_is_written_again(tiny, pairs, tmp_path):
    config = options(tiny, pairs, tmp_path / "run", "steps=2")
    train(config)
    path = tmp_path / "run" / "adapter" / "pytorch_lora_weights.safetensors"
    sound, tensors = path.read_bytes(), weights(tmp_path / "run")
    for damage in (None, sound[:-100]):
        path.unlink()
        if damage is not None:
            path.write_bytes(damage)
        train(config)
        again = weights(tmp_path / "run")
        assert all(torch.equal(again[key], tensors[key]) for key in tensors | again)


@pytest.mark.parametrize("line", ["null", "{}", '{"step": "1"}', "[1]"])
def test_a_damaged_line_of_metrics_is_named(tiny, pairs, tmp_path, line):
    config = options(tiny, pairs, tmp_path, "steps=2")
    train(config)
    shutil.rmtree(tmp_path / "adapter")
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl holds a damaged line .*; remove that line"):
        train(config)


def test_a_run_that_goes_on_averages_the_steps_of_an_unbroken_one(tiny, pairs, tmp_path):
    """Also where it is saved in the middle of the steps that make a line."""
    more = ("log_every=4", "save_every=3", "keep_checkpoints=9")
    train(options(tiny, pairs, tmp_path / "whole", *more))
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "adapter")
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "step_00000006")
    train(options(tiny, pairs, tmp_path / "broken", *more))
    assert list(metrics(tmp_path / "whole")) == [3, 4, 6]
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "broken")
