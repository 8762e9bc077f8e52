"""Trainings through the public command: what they learn, leave and refuse."""

import json
import resource
import shutil
import subprocess

import pytest
import torch
import yaml
from PIL import Image

from etchr.config import compose
from etchr.editor.folder import NANO_BASE
from etchr.editor.klein import KleinEditor
from etchr.sft.__main__ import main
from etchr.sft.settings import SftConfig
from etchr.sft.trainer import train
from tests.processes import ROOT, environment, launch, together
from tests.sft.runs import command, metrics, options, weights, words

QUESTION = "Draw a red box for the chart question. What is the value of the green bar?"


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def close(a, b, tolerance):
    return a.keys() == b.keys() and all(torch.allclose(a[key], b[key], atol=tolerance, rtol=0) for key in a)


def test_a_run_learns_and_leaves_an_adapter_that_loads(pairs, tmp_path):
    out = tmp_path / "run"
    more = ["experiment=nano_sft", f"out={out}", f"data.paths=[{pairs / 'chart'}]", "steps=30", "global_batch_size=8"]
    more += ["batch_size=8", "log_every=5", "optim.warmup_steps=2", "adapter.rank=8", "adapter.alpha=16"]
    more += ["validation.every=15", "validation.num_samples=4", "validation.num_pictures=2", "threads=1"]
    main(more)
    losses = metrics(out)
    assert losses[30] < 0.8 * losses[5]
    assert metrics(out, "val_loss")[30] < metrics(out, "val_loss")[15]
    line = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert {"loss", "lr", "grad_norm", "pairs_per_s", "mfu", "peak_memory_gb"} <= line.keys()
    assert 0 < line["mfu"] < 1.5
    with Image.open(out / "validation" / "step_00000030.png") as sheet:
        assert sheet.width > 500
    editor = KleinEditor.load(NANO_BASE, device="cpu", lora=out / "adapter")
    plain = KleinEditor.load(NANO_BASE, device="cpu")
    source = Image.new("RGB", (64, 64), "white")
    assert editor.edit([source], [QUESTION], [1])[0].tobytes() != plain.edit([source], [QUESTION], [1])[0].tobytes()
    card = (out / "adapter" / "README.md").read_text()
    assert "rank, alpha | 8, 16" in card
    assert "max_sequence_length" in card  # what diffusers' pipeline must be told about nano
    assert yaml.safe_load((out / "config.yaml").read_text())["adapter"]["rank"] == 8


def test_two_processes_give_the_curve_of_one(tiny, pairs, tmp_path):
    more = ("steps=5", "validation.every=5", "optim.ema=0.9", "data.weights.chart=0.5")
    train(options(tiny, pairs, tmp_path / "one", *more, "batch_size=4"))
    together(main, words(tiny, pairs, tmp_path / "two", *more))
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["num_processes"] == 2
    for key in ("loss", "grad_norm", "val_loss"):
        one, two = metrics(tmp_path / "one", key), metrics(tmp_path / "two", key)
        assert one.keys() == two.keys()
        assert [one[step] for step in one] == pytest.approx([two[step] for step in one], rel=2e-5)
    assert close(weights(tmp_path / "one"), weights(tmp_path / "two"), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_slices_of_the_model_on_two_processes_give_the_curve_of_one(tiny, pairs, tmp_path, dtype):
    config = yaml.safe_load((ROOT / "configs/accelerate/fsdp2.yaml").read_text())
    file = tmp_path / "fsdp.yaml"
    file.write_text(yaml.safe_dump(config | {"use_cpu": True, "num_processes": 2}))
    more = ("steps=4", "save_every=2", "optim.ema=0.9", f"model.dtype={dtype}", "validation.every=4")
    train(options(tiny, pairs, tmp_path / "one", *more))
    two = tmp_path / "two"
    done = launch(file, "etchr.sft", *words(tiny, pairs, two, *more))
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((two / "environment.json").read_text())["distribution"] == "FSDP2"
    tolerance = {"float32": 2e-5, "bfloat16": 2e-3}[dtype]  # of bfloat16 one rounding of a product differs at times
    for key in ("loss", "val_loss"):
        assert metrics(two, key) == pytest.approx(metrics(tmp_path / "one", key), rel=tolerance)
    if dtype == "bfloat16":  # what is trained stays in fp32
        for name in ("adapter", "average", "optimizer"):
            kept = weights(two, f"checkpoints/step_00000004/{name}")
            assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
        return
    shutil.rmtree(two / "checkpoints" / "step_00000004")  # and it goes on from its own checkpoint
    shutil.rmtree(two / "adapter")
    done = launch(file, "etchr.sft", *words(tiny, pairs, two, *more))
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("adapter/pytorch_lora_weights", "checkpoints/step_00000004/optimizer"):
        assert close(weights(tmp_path / "one", name), weights(two, name), 1e-5)


@pytest.mark.slow
def test_an_fp32_adapter_on_a_bfloat16_base_keeps_what_bfloat16_loses(tiny, pairs, tmp_path):
    more = ("model.dtype=bfloat16", "optim.lr=1e-6", "steps=4", "save_every=4")
    start = {}
    for dtype in ("float32", "bfloat16"):
        train(options(tiny, pairs, tmp_path / dtype, *more, f"adapter.dtype={dtype}"))
        train(options(tiny, pairs, tmp_path / f"{dtype}_start", *more, f"adapter.dtype={dtype}", "optim.lr=1e-30"))
        trained, untrained = weights(tmp_path / dtype), weights(tmp_path / f"{dtype}_start")
        assert {t.dtype for t in trained.values()} == {getattr(torch, dtype)}
        states = weights(tmp_path / dtype, "checkpoints/step_00000004/optimizer")
        assert {t.dtype for k, t in states.items() if "exp_avg" in k} == {getattr(torch, dtype)}
        factors = [key for key in trained if "lora_A" in key]
        start[dtype] = sum(float((trained[k] != untrained[k]).float().mean()) for k in factors) / len(factors)
    assert start["float32"] > 0.9  # entries of A that an update of 1e-6 has moved
    assert start["bfloat16"] < 0.1


@pytest.mark.slow
def test_what_saves_time_or_memory_does_not_change_the_weights(tiny, pairs, tmp_path):
    train(options(tiny, pairs, tmp_path / "plain"))
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    for name, more in {
        "memory": ["data.cache=memory"],
        "disk": ["data.cache=disk", cache],
        "again": ["data.cache=disk", cache],
        "workers": ["data.num_workers=1"],
        "checkpointing": ["model.gradient_checkpointing=2"],
    }.items():
        train(options(tiny, pairs, tmp_path / name, *more))
        assert equal(weights(tmp_path / "plain"), weights(tmp_path / name)), name
    train(options(tiny, pairs, tmp_path / "filled", "data.cache=memory", "data.precompute=true"))
    assert close(weights(tmp_path / "plain"), weights(tmp_path / "filled"), 1e-5)  # encoded in batches: other rounding
    train(options(tiny, pairs, tmp_path / "accumulated", "batch_size=1"))
    assert close(weights(tmp_path / "plain"), weights(tmp_path / "accumulated"), 1e-5)


def test_options_that_matter_change_the_weights(tiny, pairs, tmp_path):
    train(options(tiny, pairs, tmp_path / "plain", "steps=2"))
    for number, more in enumerate(
        [
            "seed=1",
            "flow.draw=uniform",
            "data.prompt_dropout=0.9",
            "optim.clip=0.001",
            "data.router=configs/router/none.yaml",
        ]
    ):
        train(options(tiny, pairs, tmp_path / str(number), "steps=2", more))
        assert not equal(weights(tmp_path / "plain"), weights(tmp_path / str(number))), more


@pytest.mark.slow
def test_the_released_recipe_trains_in_bfloat16(tiny, pairs, tmp_path):
    out = tmp_path / "run"
    more = ["model.dtype=bfloat16", "adapter.dtype=bfloat16", "flow.draw=released", "flow.stratified=false"]
    more += ["flow.released_rounding=true", "optim.schedule=released", "optim.clip=null", "steps=2"]
    train(options(tiny, pairs, out, *more, "global_batch_size=2"))
    assert {tensor.dtype for tensor in weights(out).values()} == {torch.bfloat16}
    states = weights(out, "checkpoints/step_00000002/optimizer")
    assert {t.dtype for key, t in states.items() if key.endswith("exp_avg_sq")} == {torch.bfloat16}
    assert metrics(out, "lr") == pytest.approx({1: 0.01 / 3, 2: 0.01 / 3}, rel=1e-5)


def test_training_goes_on_from_an_adapter(tiny, pairs, tmp_path):
    train(options(tiny, pairs, tmp_path / "first"))
    first = tmp_path / "first" / "adapter"
    train(options(tiny, pairs, tmp_path / "second", f"adapter.init={first}", "steps=1", "optim.lr=1e-9"))
    assert close(weights(tmp_path / "first"), weights(tmp_path / "second"), 1e-6)


def test_wandb_runs_offline(tiny, pairs, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    train(options(tiny, pairs, tmp_path / "run", "steps=2", "wandb.mode=offline", "validation.every=2"))
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("adapter.rank=99", r"LoRA rank must be between 1 and 32, the smaller side of transformer_blocks"),
        ("model.base=nowhere", r"no editor folder at nowhere"),
        ("data.paths=[nowhere]", r"no train data at nowhere; make some with: python -m data_prep"),
        ("global_batch_size=99", r"24 samples are fewer than global_batch_size=99"),
        ("data.weights.mase=2", r"data.weights names \['mase'\]; the data hold: chart, perception"),
        ("model.quantisation=int3", r"int3"),
        ("model.attention=none_such", r"none_such"),
        ("adapter.init=nowhere", "no LoRA file at nowhere"),
        ("data.router=nowhere.yaml", r"no router file at nowhere.yaml"),
    ],
)
def test_what_cannot_work_is_one_sentence(tiny, pairs, tmp_path, word, message):
    with pytest.raises((ValueError, SystemExit), match=message) as caught:
        train(options(tiny, pairs, tmp_path / "run", word))
    assert "\n" not in str(caught.value)


def test_a_distilled_klein_is_no_base(tiny, pairs, tmp_path):
    index = json.loads((tiny / "model_index.json").read_text()) | {"is_distilled": True}
    shutil.copytree(tiny, tmp_path / "distilled")
    (tmp_path / "distilled" / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"distilled is a distilled klein, whose few steps training would undo"):
        train(options(tmp_path / "distilled", pairs, tmp_path / "run"))


@pytest.mark.parametrize(
    "word",
    ["optim.name=sgd", "steps=0", "data.cache=ram", "optim.lr=0", "flow.draw=odd", "validation.sigmas=[2.0]"],
)
def test_options_out_of_range_are_refused_before_anything_is_read(word):
    with pytest.raises(ValueError, match=word.partition("=")[0].rpartition(".")[2]):
        compose(SftConfig, "sft", [word])


def test_a_base_that_is_not_klein_is_refused(pairs, tmp_path):
    folder = tmp_path / "flux1"
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(ValueError, match="holds a FluxPipeline, not a Flux2KleinPipeline"):
        train(options(folder, pairs, tmp_path / "run"))


def test_a_loss_that_is_not_finite_stops_before_the_update(tiny, pairs, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=r"the loss is \S+, its gradient norm \S+ at step \d+; lower optim.lr"):
        train(options(tiny, pairs, out, "optim.lr=1e15", "optim.clip=null", "save_every=1", "keep_checkpoints=9"))
    kept = list((out / "checkpoints").glob("step_*"))
    assert kept
    for path in kept:
        assert all(t.isfinite().all() for t in weights(out, f"checkpoints/{path.name}/adapter").values())
    assert not (out / "adapter").exists()


def test_a_picture_that_breaks_off_is_left_out_and_counted_or_stops_the_run(tiny, pairs, tmp_path):
    import pyarrow.parquet as pq

    table = pq.read_table(pairs / "chart" / "train.parquet")
    rows = table.to_pylist()
    rows[3]["edit_image"]["bytes"] = rows[3]["edit_image"]["bytes"][:-60]  # its header is whole
    rows[5]["family"] = "odd"
    broken = tmp_path / "train.parquet"
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), broken)
    more = ("global_batch_size=11", "batch_size=11", "steps=2", "data.bad_rows=skip")  # each step sees all that is left
    train(options(tiny, broken, tmp_path / "one", *more))
    assert metrics(tmp_path / "one", "num_skipped") == {1: 1.0, 2: 1.0}
    with pytest.raises(ValueError, match=r"bad row '\S+': unknown task family 'odd'.*; data.bad_rows=skip"):
        train(options(tiny, broken, tmp_path / "stopped", *more[:-1]))
    rows[5]["family"] = "chart"
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), broken)
    with pytest.raises(ValueError, match=r"bad row '\S+': not a readable image .*; data.bad_rows=skip"):
        train(options(tiny, broken, tmp_path / "late", "global_batch_size=12", "steps=2"))


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_whole(tiny, pairs, tmp_path):
    out = tmp_path / "run"
    more = ("save_every=3", "keep_checkpoints=9")
    train(options(tiny, pairs, out, *more))
    shutil.rmtree(out / "checkpoints" / "step_00000006")
    shutil.rmtree(out / "adapter")
    kept = {path: path.read_bytes() for path in (out / "checkpoints").rglob("*.*")}

    def no_room() -> None:  # in the child alone: files of 8 kB at most; a checkpoint is larger
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    run = command(*words(tiny, pairs, out, *more))
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, env=environment(), preexec_fn=no_room)
    assert done.returncode == 1
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("cannot go on: cannot write the checkpoint of step 6")
    assert "the one of step 3 is whole" in sentence
    assert {path: path.read_bytes() for path in (out / "checkpoints").rglob("*.*")} == kept


# ------------------------------------------------------------------------------------------------------- multirun


def test_a_multirun_leaves_what_single_runs_leave_and_goes_on(tiny, pairs, tmp_path):
    for seed in (1, 2):
        train(options(tiny, pairs, tmp_path / f"alone{seed}", f"seed={seed}"))
    sweep = ["--multirun", "seed=1,2", *words(tiny, pairs, tmp_path / "sweep")]
    main(sweep)
    shutil.rmtree(tmp_path / "sweep/seed=2/adapter")
    shutil.rmtree(tmp_path / "sweep/seed=2/checkpoints/step_00000006")
    before = (tmp_path / "sweep/seed=1/metrics.jsonl").stat().st_mtime_ns
    main(sweep)
    assert (tmp_path / "sweep/seed=1/metrics.jsonl").stat().st_mtime_ns == before  # it was finished
    for seed in (1, 2):
        assert equal(weights(tmp_path / f"sweep/seed={seed}"), weights(tmp_path / f"alone{seed}"))
        assert metrics(tmp_path / f"sweep/seed={seed}") == metrics(tmp_path / f"alone{seed}")


def test_two_processes_make_every_run_of_a_multirun_together(tiny, pairs, tmp_path):
    more = ("steps=3", "batch_size=4")
    train(options(tiny, pairs, tmp_path / "one", *more, "seed=2"))
    together(main, ["-m", "seed=1,2", *words(tiny, pairs, tmp_path / "sweep", *more)])
    for seed in (1, 2):
        about = json.loads((tmp_path / f"sweep/seed={seed}/environment.json").read_text())
        assert about["num_processes"] == 2
    assert close(weights(tmp_path / "one"), weights(tmp_path / "sweep/seed=2"), 1e-5)
    assert not equal(weights(tmp_path / "sweep/seed=1"), weights(tmp_path / "sweep/seed=2"))


def test_accelerate_launches_a_multirun(tiny, pairs, tmp_path):
    start = words(tiny, pairs, tmp_path / "s${seed}", "steps=1")
    done = launch("configs/accelerate/cpu.yaml", "etchr.sft", "--multirun", "seed=1,2", *start)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s1", "s2"]
    assert all((tmp_path / name / "adapter").is_dir() for name in ("s1", "s2"))
