"""docs/extend.md: every code block of the page, in a file outside the tree, plugged in as it says, and run."""

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

import data_prep
from data_prep.__main__ import main as make
from etchr import editor as editors
from etchr import families, rewards
from etchr.config import compose
from etchr.images import encode_png
from etchr.mllm.protocol import GREEDY, Reply
from etchr.rewards.score import EditRewards
from etchr.rewards.settings import CorrectnessConfig, RewardConfig
from etchr.rl.algorithms import ALGORITHMS
from etchr.rl.settings import RlConfig
from etchr.rl.trainer import train
from etchr.sample import read_parquet
from evaluation import benchmarks, systems
from evaluation.__main__ import main as evaluation
from evaluation.factory import edit_identity
from evaluation.plan import dry_run
from evaluation.run import evaluate
from evaluation.settings import EditingConfig, EvalConfig, SystemConfig
from tests.evaluation.fakes import REJECT, Case
from tests.rewards.fakes import EDIT, SOURCE, ScriptedModel, make_sample
from tests.rl.runs import lines, options

PAGE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
DICTS = (
    data_prep.PROCEDURAL, families.TASK_FAMILY, benchmarks.BENCHMARKS, systems.SYSTEMS, rewards.REWARDS, ALGORITHMS,
    editors.EDITORS,
)  # fmt: skip


def blocks(title: str) -> list[str]:
    """The Python of one section of the page."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    [text] = [part for part in section if part.startswith(f"{title}\n")]
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def plug(tmp_path, monkeypatch):
    """`plug(title)` writes the file of a section and runs what plugs it in; afterwards all is as it was."""
    kept = [dict(known) for known in DICTS]
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def do(title: str) -> None:
        file, line = blocks(title)
        name = re.match(r"# (my_\w+\.py)\n", file)
        assert name
        (folder / name[1]).write_text(file, encoding="utf-8")
        exec(compile(line, "docs/extend.md", "exec"), {})

    yield do
    for known, before in zip(DICTS, kept, strict=True):
        known.clear()
        known.update(before)
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


class Says:
    """A model that says the same to everything."""

    name = "says"

    def __init__(self, text: str) -> None:
        self.text = text

    async def chat(self, messages, sampling=GREEDY):
        return [Reply(self.text)] * sampling.n


def test_every_section_is_tested_and_the_script_runs():
    assert re.findall(r"^## An? (.*)$", PAGE, re.MULTILINE) == [
        "task", "benchmark", "system", "reward", "RL algorithm", "editor",
    ]  # fmt: skip
    [script] = re.findall(r"^```python\n(.*?)^```$", PAGE.split("\n## ")[0], re.MULTILINE | re.DOTALL)
    exec(compile(script, "docs/extend.md", "exec"), {"__name__": "my_run"})


def test_a_task(plug, tmp_path):
    plug("A task")
    for split in ("train", "test"):
        make(["squares", f"split={split}", "num_samples=6", f"out={tmp_path / 'data'}"])
    make(["squares", "split=val", "num_samples=4", "kind=instruction", f"out={tmp_path / 'data'}"])
    train_set, test_set = (read_parquet(tmp_path / "data" / "squares", split) for split in ("train", "test"))
    assert not {sample.meta["scene"] for sample in train_set} & {sample.meta["scene"] for sample in test_set}
    for sample in test_set:
        assert (sample.family, sample.meta["depth"]) == ("perception", int(sample.answer))
        assert sample.image != sample.edit_image
    config = EvalConfig(
        systems={"direct": SystemConfig()}, tasks=["squares"], data=str(tmp_path / "data"), out=str(tmp_path / "out")
    )
    evaluate(config, build_model=lambda _: Says("\\boxed{2}"))
    records = [json.loads(line) for line in (tmp_path / "out" / "records" / "direct.jsonl").read_text().splitlines()]
    assert len(records) == 6


def test_a_benchmark(plug, tmp_path, capsys):
    plug("A benchmark")
    folder = tmp_path / "benchmarks" / "counts"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(encode_png(Image.new("RGB", (32, 32), "white")))
    rows = [{"image": "a.png", "question": f"How many {what}?", "answer": n} for what, n in (("cats", 4), ("dogs", 5))]
    (folder / "counts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = EvalConfig(
        systems={"direct": SystemConfig()},
        tasks=["counts"],
        benchmarks=str(folder.parent),
        out=str(tmp_path / "out"),
    )
    evaluate(config, build_model=lambda _: Says("\\boxed{4}"))
    records = [json.loads(line) for line in (tmp_path / "out" / "records" / "direct.jsonl").read_text().splitlines()]
    assert sorted((record["correct"], record["parts"]["near"]) for record in records) == [(False, True), (True, True)]
    evaluation(["list", f"benchmarks={folder.parent}", f"data={tmp_path}"])
    assert "off by one is reported as near" in " ".join(capsys.readouterr().out.split())


def test_a_system(plug, new_run):
    plug("A system")
    run = new_run([Case("chart", "0", verdict=REJECT), Case("maze", "0", source="\\boxed{5}", verdict=REJECT)])
    config = run.config({"direct": SystemConfig(), "mine": run.edits("trusting")})
    assert "| mine | trusting | 2 | 2 | 2 to 4 |" in dry_run(config)
    tasks = run(config)["systems"]["mine"]["tasks"]
    assert {task: cell["pass_at_1"] for task, cell in tasks.items()} == {"chart": 100, "maze": 0}
    assert "charts are trusted" in (run.out / "report.html").read_text()


def test_a_reward(plug):
    plug("A reward")
    config = RewardConfig(guidance_weight=0, num_decodings=1, correctness=CorrectnessConfig(kind="sparing"))
    model = ScriptedModel({"judge": ["\\boxed{1}"]})
    for edit, wanted in ((SOURCE, 1.0), (EDIT, 0.0)):
        score = asyncio.run(EditRewards(model, model, config).score(make_sample(), edit, 0))
        assert (score.guidance, score.correctness, score.missing) == (None, wanted, None)
    assert compose(RlConfig, "rl", ["experiment=nano_rl", "reward.correctness.kind=sparing"])
    with pytest.raises(ValueError, match=r"correctness.kind='spare' must be one of guidance, correctness, sparing"):
        CorrectnessConfig(kind="spare")


def test_an_rl_algorithm(plug, tiny, pairs, tmp_path):
    plug("An RL algorithm")
    adapter = train(options(tiny, pairs, tmp_path / "run", "objective.kind=regression", "iterations=2"))
    assert "weighted regression" in (adapter / "README.md").read_text()
    for line in lines(tmp_path / "run"):
        assert line["error"] > 0
        assert line["grad_norm"] > 0
        assert "kl" not in line
    assert "kind" not in json.loads((tmp_path / "run" / "run.json").read_text())["reward"]["correctness"]


def test_an_editor(plug, new_run):
    plug("An editor")
    run = new_run([Case("chart", "0")])
    mine = {name: SystemConfig("always_edit", name) for name in ("contrast", "unedited")}
    evaluate(run.config({"direct": SystemConfig(), **mine}), build_model=lambda _: run.model)
    for name in mine:
        assert run.records(name)["chart-0"]["edit"]["editor"] == name
    editing = EditingConfig()
    before = edit_identity(mine["contrast"], editing)
    assert before == edit_identity(mine["contrast"], editing) != edit_identity(mine["unedited"], editing)
    with pytest.raises(ValueError, match=r"editor contrast takes no LoRA, got an\.adapter; leave it out"):
        editors.check_editor("contrast", "an.adapter")
