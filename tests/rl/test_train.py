"""Stage II runs: what they leave, the KL's reference, many processes, and what they refuse."""

import dataclasses
import itertools
import json
import shutil
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops

from etchr.config import compose
from etchr.editor import lora
from etchr.editor.folder import NANO_BASE
from etchr.editor.klein import KleinEditor
from etchr.editor.tokens import to_pixels
from etchr.hub.cards import CARD_FILE
from etchr.nano.reader import Reader
from etchr.rl.__main__ import main
from etchr.rl.inputs import read_inputs
from etchr.rl.policy import start_policy
from etchr.rl.settings import RlConfig
from etchr.rl.trainer import train
from etchr.sample import read_parquet, write_parquet
from etchr.serving.chat import build_app
from tests.mllm.fake_server import serving
from tests.processes import FSDP, launch, together
from tests.rl.fakes import RIGHT, BlindReader, RuleModel
from tests.rl.runs import asked_about, lines, options, reader_at, scores, told, trainer, words
from tests.sft.runs import weights

LR = 1e-3  # of runs that are compared: every picture changes from one iteration to the next, if by little
LEARNS = ("optim.lr=0.05", "objective.kl=0.01", "updates_per_iteration=1", "iterations=3")


def velocity_of(editor):
    """The velocity of a fixed input."""
    condition, grid = editor.encode_image(to_pixels([Image.effect_noise((64, 64), 60).convert("RGB")] * 2))
    condition = torch.linspace(-1, 1, condition.numel()).view_as(condition)
    with torch.no_grad():
        noise, text = editor.noise([1, 2], grid), editor.encode_text(["Draw a red box.", "Find it."])
        return editor.velocity(noise, torch.tensor([0.9, 0.4]), text, condition, grid, grid)


def differ(one, other):
    return float((one - other).abs().max())


@pytest.fixture(scope="module", params=["sft", "adapter.init"])
def finished(request, tiny, pairs, stage_one, tmp_path_factory):
    """A run from Stage I's adapter in one of the two ways, and what its model computes at the end and as reference."""
    out = tmp_path_factory.mktemp("finished") / "run"
    more = (*LEARNS, f"{request.param}={stage_one}", "validation.every=2", "pictures_every=2", "optim.ema=0.5")
    with trainer(options(tiny, pairs, out, *more), Reader(0.5)) as loop:
        loop.fit()
        state = loop.state
        editor = state.editor
        with start_policy(editor.transformer):
            reference = velocity_of(editor)
        last = velocity_of(editor)
        with state.averaged():  # what is saved
            averaged = velocity_of(editor)
        loop.write()
    return SimpleNamespace(out=out, kind=request.param, reference=reference, last=last, averaged=averaged)


def test_a_run_leaves_adapters_metrics_and_pictures(finished):
    out = finished.out
    assert (out / "adapter" / CARD_FILE).is_file()
    assert (out / "last" / CARD_FILE).is_file()
    rows = {line["step"]: line for line in lines(out) if "reward" in line}
    assert list(rows) == [1, 2, 3]
    told = {"reward", "reward_std", "guidance", "correctness", "missing_share", "zero_variance_share", "kl", "ratio"}
    assert told | {"clip_share", "grad_norm", "lr", "num_updates", "win_rate_std"} <= rows[1].keys()
    line = json.loads((out / "metrics.jsonl").read_text().splitlines()[1])
    assert {"seconds_sampling", "seconds_waiting", "seconds_training", "seconds", "peak_memory_gb"} <= line.keys()
    validated = {line["step"]: line for line in lines(out) if "val_reward" in line}
    assert list(validated) == [0, 2, 3]
    assert {"val_guidance", "val_correctness", "val_pass_at_1", "val_verify_rate"} <= validated[3].keys()
    sheets = sorted(path.name for path in (out / "validation").iterdir())
    steps = {"held_out": (0, 2, 3), "rollout": (1, 2)}
    assert sheets == [f"{name}_step_{step:08d}.png" for name, where in steps.items() for step in where]
    for name, columns in (("held_out", 3), ("rollout", 5)):
        with Image.open(out / "validation" / f"{name}_step_00000002.png") as sheet:
            assert sheet.width > columns * 190
            assert len(sheet.getcolors(2**20) or ()) > 20


def test_the_adapter_alone_makes_of_the_bare_base_what_was_trained(finished, tiny):
    plain = velocity_of(KleinEditor.load(tiny, device="cpu"))
    loaded = velocity_of(KleinEditor.load(tiny, device="cpu", lora=finished.out / "last"))
    assert differ(loaded, finished.averaged) < 1e-4
    assert differ(loaded, finished.last) > 1e-3
    assert differ(loaded, finished.reference) > 1e-3
    assert differ(loaded, plain) > 1e-3
    best = json.loads((finished.out / "best" / "best.json").read_text())["iteration"]
    adapter, last = weights(finished.out), weights(finished.out, "last/pytorch_lora_weights")
    assert all(torch.equal(adapter[key], last[key]) for key in adapter) == (best == 3)


def test_the_card_says_what_was_trained(finished):
    card = (finished.out / "last" / CARD_FILE).read_text()
    rank, stage = (7, "SFT + RL") if finished.kind == "sft" else (3, "RL")  # 3 of Stage I and 4 over it
    assert f"rank, alpha | {rank}," in card
    assert stage in card
    assert "win\\_rate" in card or "win_rate" in card


def test_the_reference_of_the_kl_is_the_policy_at_the_start(finished, tiny, stage_one):
    start = velocity_of(KleinEditor.load(tiny, device="cpu", lora=stage_one))
    assert differ(start, velocity_of(KleinEditor.load(tiny, device="cpu"))) > 1e-2
    assert differ(finished.reference, start) < 1e-5
    assert differ(finished.last, start) > 1e-3
    kl = [line["kl"] for line in lines(finished.out) if "kl" in line]
    assert kl[0] == 0  # nothing has been changed yet
    assert 0 < kl[1] < kl[2]


@pytest.mark.parametrize("kind", ["grpo", "nft"])
def test_a_kl_holds_the_policy_back(tiny, pairs, stage_one, tmp_path, kind):
    away = {}
    for weight in (1e-9, 1e4):
        more = (*LEARNS, f"sft={stage_one}", f"objective.kind={kind}", f"objective.kl={weight}", "optim.lr=0.01")
        train(options(tiny, pairs, tmp_path / str(weight), *more))
        away[weight] = lines(tmp_path / str(weight))[-1]["kl"]
    assert away[1e4] < 0.8 * away[1e-9]


def test_adapter_init_goes_on_with_that_adapter(tiny, pairs, stage_one, tmp_path):
    train(options(tiny, pairs, tmp_path, f"adapter.init={stage_one}", "iterations=1", "optim.lr=1e-9"))
    start = weights(stage_one.parent)
    here = weights(tmp_path)
    assert here.keys() == start.keys()
    assert all(torch.allclose(here[key], start[key], atol=1e-6) for key in start)


def test_options_that_matter_change_the_weights(tiny, pairs, tmp_path):
    plain = ("iterations=1", "prompts_per_iteration=4")
    train(options(tiny, pairs, tmp_path / "plain", *plain))
    others = [
        "objective.advantage=zscore",
        "rollout.eta=0.3",
        "objective.normalise_ratio=false",
        "reward.overlap=false",
    ]
    for number, more in enumerate(others):
        train(options(tiny, pairs, tmp_path / str(number), *plain, more))
        there, here = weights(tmp_path / "plain"), weights(tmp_path / str(number))
        same = all(torch.equal(there[key], here[key]) for key in there)
        assert same == (more == "reward.overlap=false"), more


def test_one_of_the_listed_questions_is_asked_about_a_group_and_graded_by_its_own_answer(tiny, pairs, tmp_path):
    known = {f"What is in field {number}?": f"{number}0" for number in range(5)}
    listed = [{"question": q, "answer": a, "answer_type": "number", "choices": None} for q, a in known.items()]

    def ask(call):
        question = next((q for q in known if q in call.text), None)
        asked[call.kind].append(question)
        return [f"\\boxed{{{known[question]}}}" if call.kind == "answer" else RIGHT] * call.n

    def changed(sample):
        meta = {**sample.meta, "pairs": listed, "edit_question": sample.question}
        return dataclasses.replace(sample, id=f"listed {sample.id}", meta=meta).asked(0)

    write_parquet(map(changed, read_parquet(pairs / "chart" / "train.parquet")), tmp_path / "train.parquet")
    write_parquet(map(changed, read_parquet(pairs / "chart" / "val.parquet")), tmp_path / "val.parquet")
    told, drawn = [], []
    for run in ("one", "again"):
        asked = {"answer": [], "judge": []}
        config = options(tiny, tmp_path, tmp_path / run, "iterations=8", "validation.every=8")
        with trainer(config, RuleModel(ask)) as loop:
            prompts = set(loop.data.prompts)
            for iteration in range(8):
                for group in loop.sample(iteration):
                    sample = group.prompt.sample
                    drawn.append((iteration, sample.id, sample.question))
                    assert [score.result().guidance for score in group.scores] == [1.0] * config.group_size
            told.append({kind: Counter(questions) for kind, questions in asked.items()})
            held_out, _ = loop.validation(0)
            assert (held_out["val_guidance"], held_out["val_pass_at_1"]) == (1, 1)
        assert prompts == {f"Draw a red box for the chart question. {s.question}"
                           for s in read_parquet(pairs / "chart" / "train.parquet")}  # fmt: skip
    assert drawn[: len(drawn) // 2] == drawn[len(drawn) // 2 :]  # by seed, iteration and sample alone
    assert told[0] == told[1]
    assert told[0]["answer"] == told[0]["judge"] == Counter({
        question: config.group_size * times for question, times in Counter(q for *_, q in drawn[:16]).items()
    })  # fmt: skip
    assert set(told[0]["answer"]) == set(known)
    pair = {**listed[3], "answer": "many"}
    bad = [dataclasses.replace(s, meta={**s.meta, "pairs": [*listed[:3], pair]}) for s in read_parquet(tmp_path)]
    write_parquet(bad, tmp_path / "bad" / "train.parquet")
    with pytest.raises(ValueError, match="its answer 'many' is no number"):
        read_inputs(options(tiny, tmp_path / "bad", tmp_path / "out"), loop.runtime)


def test_wandb_runs_offline(tiny, pairs, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    train(options(tiny, pairs, tmp_path / "run", "iterations=1", "wandb.mode=offline", "pictures_every=1"))
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


# --------------------------------------------------------------------------------------------------- processes


@pytest.mark.parametrize(
    ("how", "more"),
    [
        ("DDP", ("objective.advantage=win_rate", "adapter.init={}", "validation.every=2")),
        ("DDP", ("objective.advantage=gdpo", "sft={}", "objective.kind=nft")),
        ("FSDP2", ("objective.advantage=win_rate", "adapter.init={}", "validation.every=2", "optim.ema=0.9")),
    ],
)
def test_two_processes_learn_what_one_does(tiny, pairs, stage_one, tmp_path, how, more):
    """Sums round otherwise in two processes, which moves a pixel by a grey level: no reward looks at it here."""
    more = (*(word.format(stage_one) for word in more), "objective.kl=0.1", "iterations=2", f"optim.lr={LR}")
    one, two = tmp_path / "one", tmp_path / "two"
    of_one, of_two = BlindReader(), BlindReader()
    with serving(build_app(of_one)) as url_of_one, serving(build_app(of_two)) as url_of_two:
        words_of_two = (*more, *reader_at(url_of_two, of_two))
        config = options(tiny, pairs, one, *more, *reader_at(url_of_one, of_one))
        train(config)
        together(main, words(tiny, pairs, two, *words_of_two), **(FSDP if how == "FSDP2" else {}))
        about = json.loads((two / "environment.json").read_text())
        assert (about["num_processes"], about["distribution"]) == (2, how)
        for mine, theirs in zip(lines(one), lines(two), strict=True):
            assert theirs == pytest.approx(mine, rel=1e-3, abs=1e-12)
            rewards = [key for key in mine if key.removeprefix("val_") in ("reward", "guidance", "correctness")]
            assert [theirs[key] for key in rewards] == [mine[key] for key in rewards]
            assert mine.get("zero_variance_share", 0) < 1  # there is something to learn
        edits = asked_about(of_one, config, pairs)
        assert_alike(edits, asked_about(of_two, config, pairs))
        shares = [scores(two, rank) for rank in (0, 1)]
        assert all(shares)
        records = told(scores(one), edits)
        assert len(records) == sum(map(len, shares))
        assert told(itertools.chain(*shares), asked_about(of_two, config, pairs)) == records
        assert_close(weights(one), weights(two))
        if how == "FSDP2":  # and one process goes on where two stopped
            shutil.rmtree(two / "checkpoints" / "step_00000002")
            shutil.rmtree(two / "adapter")
            train(options(tiny, pairs, two, *words_of_two))
            shares = [scores(two, rank) for rank in (0, 1)]
            assert told(itertools.chain(*shares), asked_about(of_two, config, pairs)) == records
            assert_close(weights(one), weights(two))


@pytest.mark.slow
def test_accelerate_launches_it(tiny, pairs, tmp_path):
    start = words(tiny, pairs, tmp_path / "run", "iterations=1")
    done = launch("configs/accelerate/cpu.yaml", "etchr.rl", *start)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["num_processes"] == 2
    assert (tmp_path / "run" / "adapter").is_dir()


def assert_alike(one, two):
    """That two runs asked about the same edits, but for the grey level by which rounding moves a pixel."""
    assert one.keys() == two.keys()
    for address in one:
        assert len(one[address].pictures) == len(two[address].pictures)
        for mine, theirs in zip(one[address].pictures, two[address].pictures, strict=True):
            assert farthest(mine, theirs) <= 1, address
    rollouts = [address for address in one if len(address) == 3]
    assert len(rollouts) == 16
    for mine, theirs in itertools.combinations(rollouts, 2):  # and that no other address would have done
        if mine[:2] == theirs[:2]:
            assert farthest(one[mine].pictures[0], one[theirs].pictures[0]) > 20, (mine, theirs)


def farthest(one, two):
    """The largest difference of two pictures in grey levels."""
    return max(high for _, high in ImageChops.difference(one, two).getextrema())


def assert_close(one, two):
    """Where a gradient is little more than rounding, Adam's epsilon (1e-8) keeps that out of the step."""
    assert one.keys() == two.keys()
    assert max(differ(one[key], two[key]) for key in one) < 0.02 * LR  # of four steps of LR each


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rollout.sde=odd", r"rollout.sde='odd' must be one of flow, dance, cps"),
        ("rollout.trained=some", r"rollout.trained='some' must be one of all, fraction, window"),
        ("data.prompt=both", r"data.prompt='both' must be one of question, instruction"),
        ("objective.kind=ppo", r"objective.kind='ppo' must be one of grpo, nft"),
        ("objective.advantage=mean", r"objective.advantage='mean' must be one of win_rate, gdpo, zscore"),
        ("group_size=1", r"group_size=1 must be at least 2"),
        ("prompts_per_iteration=0", r"prompts_per_iteration=0 must be at least 1"),
        ("updates_per_iteration=0", r"updates_per_iteration=0 must be at least 1"),
        ("batch_size=0", r"batch_size=0 must be at least 1"),
        ("rollout.window=0", r"rollout.window=0 must be at least 1"),
        ("objective.kl=-1", r"objective.kl=-1.0 must be at least 0"),
        ("objective.num_levels=0", r"objective.num_levels=0 must be at least 1"),
        ("rollout.eta=0", r"rollout.eta=0.0 must be above 0"),
        ("objective.beta=0", r"objective.beta=0.0 must be above 0"),
        ("objective.max_advantage=0", r"objective.max_advantage=0.0 must be above 0"),
        ("epochs=0", r"epochs=0.0 must be above 0"),
        ("iterations=0", r"iterations=0 must be at least 1"),
        ("rollout.num_steps=1", r"rollout.num_steps=1 must be at least 2, or null"),
        ("rollout.guidance_scale=-1", r"rollout.guidance_scale=-1.0 must be at least 0 and finite, or null"),
        ("rollout.shift=0", r"rollout.shift=0.0 must be above 0 and finite, or null"),
        ("rollout.fraction=0", r"rollout.fraction=0.0 must be above 0 and at most 1"),
        ("rollout.window_range=[0.6,0.5]", r"rollout.window_range=\[0.6, 0.5\] must be two numbers"),
        ("rollout.window_range=[0.1]", r"rollout.window_range=\[0.1\] must be two numbers"),
        ("objective.ties=2", r"objective.ties=2.0 must lie between 0 and 1"),
        ("objective.clip=1", r"objective.clip=1.0 must be above 0 and below 1"),
        ("objective.clip_high=-1", r"objective.clip_high=-1.0 must be above 0 and finite, or null"),
        ("adapter.dropout=0.1", r"adapter.dropout must be 0"),
        ("data.paths=[]", r"data.paths is empty"),
        ("updates_per_iteration=3", r"a rollout of 8 batches does not split into updates_per_iteration=3"),
        ("reward.guidance_weight=2", r"guidance_weight=2.0 must lie between 0 and 1"),
        ("optim.lr=0", r"optim.lr=0.0 must be above 0"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_read(word, message):
    with pytest.raises(ValueError, match=message) as caught:
        compose(RlConfig, "rl", [word])
    assert "\n" not in str(caught.value)


def test_options_that_exclude_each_other_are_refused():
    with pytest.raises(ValueError, match=r"rollout.eta=1.0 must be below 1 for cps"):
        compose(RlConfig, "rl", ["rollout.sde=cps", "rollout.eta=1"])
    with pytest.raises(ValueError, match=r"sft=.* trains a new LoRA over .* give one of the two"):
        compose(RlConfig, "rl", ["sft=one", "adapter.init=other"])


@pytest.fixture(scope="module")
def hollow(tiny, tmp_path_factory):
    """The tiny base without its weights."""
    folder = tmp_path_factory.mktemp("hollow") / "tiny"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """An adapter of another base."""
    transformer = KleinEditor.load(NANO_BASE, device="cpu").transformer
    lora.attach(transformer, rank=2)
    return lora.save(transformer, tmp_path_factory.mktemp("wide")).parent


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["group_size=4", "batch_size=3", "updates_per_iteration=1"],
            r"group_size=4 must be a multiple of batch_size=3",
        ),
        (["model.base=nowhere"], r"no editor folder at nowhere"),
        (["adapter.rank=99"], r"LoRA rank must be between 1 and 32"),
        (["adapter.init=nowhere"], "no LoRA file at nowhere"),
        (["sft=nowhere"], r"no Stage I adapter at sft=nowhere; train one with python -m etchr.sft"),
        (["sft={pairs}"], r"no LoRA file at .*pytorch_lora_weights.safetensors"),
        (["sft={wide}"], r"the LoRA adapts 4 layers that this transformer does not have"),
        (["adapter.init={wide}"], r"the LoRA adapts 4 layers that this transformer does not have"),
        (["sft={stage_one}", "model.quantisation=int8"], r"a quantised base takes no merged adapter"),
        (["data.paths=[nowhere]"], r"no train data at nowhere; make some with: python -m data_prep"),
        (["validation.every=1", "validation.paths=[nowhere]"], r"no val data at nowhere; .*validation.every=0"),
        (["prompts_per_iteration=50"], r"24 samples are fewer than prompts_per_iteration=50"),
        (["data.weights.mase=2"], r"data.weights names \['mase'\]; the data hold: chart, perception"),
        (["data.router=nowhere.yaml"], r"no router file at nowhere.yaml"),
    ],
)
def test_what_cannot_work_is_said_before_weights_are_read(hollow, wide, pairs, stage_one, tmp_path, more, message):
    more = [word.format(pairs=pairs, stage_one=stage_one, wide=wide) for word in more]
    with pytest.raises(ValueError, match=message) as caught:
        train(options(hollow, pairs, tmp_path / "run", *more))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("more", "sharded", "message"),
    [
        (("prompts_per_iteration=3", "updates_per_iteration=1"), False, r"multiples of the 2 processes"),
        (("updates_per_iteration=4",), False, r"the 1 batches of each update must be multiples of the 2 processes"),
        (("optim.name=muon",), True, r"optim.name=muon needs whole matrices; use adamw with FSDP"),
    ],
)
def test_what_two_processes_cannot_share_is_refused(tiny, pairs, tmp_path, more, sharded, message):
    two: Any = SimpleNamespace(num_processes=2, is_sharded=sharded)
    with pytest.raises(ValueError, match=message):
        read_inputs(options(tiny, pairs, tmp_path, *more), two)


def test_a_sample_that_cannot_be_rewarded_is_named(tiny, pairs, tmp_path):
    samples = list(read_parquet(pairs / "chart" / "train.parquet"))
    for name, changes, more, message in (
        ("answer", {"answer": "plenty"}, (), samples[3].id),
        ("truth", {"edit_image": None}, ("reward.correctness.view=truth",), r"has no edit_image for .*view=truth"),
    ):
        broken = [*samples[:3], dataclasses.replace(samples[3], **changes), *samples[4:]]
        write_parquet(broken, tmp_path / f"{name}.parquet")
        with pytest.raises(ValueError, match=message) as caught:
            train(options(tiny, tmp_path / f"{name}.parquet", tmp_path / "run", *more))
        assert samples[3].id in str(caught.value)


def test_a_gradient_that_is_not_finite_stops_the_run(tiny, pairs, tmp_path):
    more = ("optim.lr=1e18", "optim.clip=null", "updates_per_iteration=1")
    with pytest.raises(ValueError, match=r"the gradient norm is (nan|inf) in iteration \d; lower optim.lr"):
        train(options(tiny, pairs, tmp_path, *more))
    assert not (tmp_path / "adapter").exists()
