"""Commands: what fills the options, and the one sentence for each mistake."""

import importlib
import inspect
import logging
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from data_prep.sources import SOURCES, find_source
from etchr.config import CONFIG_DIR, PROGRAMS, choices, compose, experiments, parse_command, run_command
from etchr.config_help import described, help_text
from etchr.mllm.settings import ModelConfig
from etchr.rl.settings import RlConfig
from etchr.sft.settings import SftConfig
from evaluation.settings import EditingConfig, EvalConfig, SystemConfig

ROOT = Path(__file__).parent.parent


@dataclass
class Inner:
    """A group of options."""

    depth: int = 3  # how deep
    rate: float | None = None  # per step; null for none


@dataclass
class Outer:
    """Options of a made-up command."""

    out: str = "outputs/x"  # where it goes
    names: list[str] = field(default_factory=list)  # who takes part
    inner: Inner = field(default_factory=Inner)  # the rest
    more: dict[str, Inner] = field(default_factory=dict)  # by name
    maybe: Inner | None = None  # null for none
    quick: bool = False  # skip the slow part

    def __post_init__(self) -> None:
        if self.out == "":
            raise ValueError("out must not be empty")


def test_defaults_and_overrides_of_every_kind():
    assert compose(Outer, None, []) == Outer()
    words = [
        "+out=a/b",
        "names=[x,y]",
        "inner.depth=5",
        "inner.rate=0.5",
        "more.new.depth=1",
        "++maybe.depth=2",
        "quick=true",
    ]
    assert compose(Outer, None, words) == Outer("a/b", ["x", "y"], Inner(5, 0.5), {"new": Inner(1)}, Inner(2), True)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("outt=1", r"no option 'outt' \(did you mean 'out'\?\)"),
        ("inner.dept=1", r"no option 'inner.dept' \(did you mean 'depth'\?\)"),
        ("more.new.dept=1", r"did you mean 'depth'"),
        ("maybe.dept=1", r"did you mean 'depth'"),
        ("inner.depth=deep", r"inner.depth.*'deep'.*[Ii]nteger"),
        ("quick=perhaps", r"quick.*perhaps.*bool"),
        ("out=''", r"out must not be empty"),
        ("quick", r"'quick' is not of the form key=value"),
        ("+foo=1", r"no option 'foo'"),
        ("~more.none", r"more.none.*does not exist"),
        ("inner.depth=1,2", r"holds a comma.*--multirun"),
        ("out=${oc.env:PATH}", r"out: Unsupported interpolation type oc.env"),
        ("hydra.run.dir=x", r"does nothing here"),
        ("hydra/launcher=basic", r"does nothing here.*with --multirun"),
        ("names=[x", r"names=\[x"),
    ],
)
def test_a_mistake_is_one_sentence(word, sentence, capsys):
    with pytest.raises(ValueError, match=sentence):
        compose(Outer, None, [word])
    with pytest.raises(SystemExit) as stop:
        parse_command(Outer, config_name=None, argv=[word], prog="made-up", description="x")
    assert stop.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 2
    assert said[0].startswith("made-up: ")
    assert said[1] == "See: made-up --help"


def test_an_unknown_experiment_names_the_known_ones():
    with pytest.raises(
        ValueError, match=r"no experiment 'quikstart' \(did you mean 'quickstart'\?\); there are: .*quickstart"
    ):
        compose(EvalConfig, "eval", ["experiment=quikstart"])


@pytest.mark.parametrize("name", experiments("eval"))
def test_every_experiment_fits_its_command(name):
    config = compose(EvalConfig, "eval", [f"experiment={name}", "num_samples=3", "systems.extra.kind=oracle_edit"])
    assert config.num_samples == 3  # the command line has the last word
    assert config.systems["extra"] == SystemConfig("oracle_edit")
    assert name.startswith("figure_") or config.systems["direct"].kind == "direct"


def test_an_experiment_of_another_command_says_so():
    with pytest.raises(ValueError, match=r"'nano_sft' belongs to python -m etchr.sft; here there are: claims, "):
        compose(EvalConfig, "eval", ["experiment=nano_sft"])
    assert {path.name for path in (CONFIG_DIR / "experiment").iterdir()} == set(PROGRAMS)


def test_experiments_are_merged_in_the_order_of_their_names():
    repeated = compose(EvalConfig, "eval", ["experiment=paper_table", "experiment=kimi_k2_5"])
    assert repeated == compose(EvalConfig, "eval", ["experiment=[paper_table,kimi_k2_5]"])
    assert (repeated.out, len(repeated.tasks)) == ("outputs/kimi_k2_5", 11)


def test_an_option_may_be_called_as_a_folder_of_configs():
    words = ["systems.direct.kind=direct", "data=some/folder", "router=configs/router/none.yaml"]
    config = compose(EvalConfig, "eval", words)
    assert (config.data, config.router) == ("some/folder", "configs/router/none.yaml")


def test_help_prints_every_option_with_its_comment(capsys):
    text = help_text(Outer, {}, "made-up", "Does something.")
    for part in ("out=outputs/x", "where it goes", "inner.depth=3", "how deep", "more.NAME.depth", "Does something."):
        assert part in text
    with pytest.raises(SystemExit) as stop:
        parse_command(EvalConfig, config_name="eval", argv=["--help"], prog="p", description="d")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "quickstart" in printed
    assert "reasoner.api_key_env" in printed


@pytest.mark.parametrize("schema", [SystemConfig, ModelConfig, EditingConfig, EvalConfig])
def test_every_field_of_an_evaluation_has_a_comment_and_help_prints_it(schema):
    text = help_text(EvalConfig, {}, "p", "d")
    for name in schema.__dataclass_fields__:
        line = re.search(rf"^    {name}: .*$", inspect.getsource(schema), re.MULTILINE)[0]
        comment = line.partition("  # ")[2]
        assert len(comment) > 5
        assert re.search(rf"^  (\S+\.)?{name}=.* {re.escape(comment)}$", text, re.MULTILINE)


def test_importing_the_parser_is_cheap():
    code = "import sys, etchr.config; print(*[m for m in ('hydra', 'omegaconf', 'torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""


@dataclass
class Wrapped:
    """An option whose line the formatter had to wrap."""

    rate: float = (
        0.5  # how often
    )  # fmt: skip


def test_a_comment_on_a_wrapped_line_is_not_lost():
    ((_, _, comment),) = described(Wrapped)
    assert comment.startswith("how often")


def schemas():
    """(module, dataclass) of every command: whatever the sources give to one of these functions."""
    for path in sorted(path for name in ("etchr", "data_prep", "evaluation") for path in (ROOT / name).rglob("*.py")):
        for name in re.findall(r"(?:parse|run|train)_command\(\s*(?:[a-z_]+,\s*)?([A-Z]\w+)", path.read_text("utf-8")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), name


def test_every_option_of_every_command_has_help():
    found = {getattr(importlib.import_module(module), name) for module, name in schemas()}
    found |= {find_source(name)[0] for name in SOURCES}
    assert found > {SftConfig, RlConfig, EvalConfig}
    assert len(found) > 20
    bare = [f"{schema.__name__}.{key}" for schema in found for key, _, said in described(schema) if len(said) < 5]
    assert bare == []


# -------------------------------------------------------------------------------------------------------- hydra


@dataclass
class Sweepable:
    """Options of a made-up command that runs."""

    out: str = "outputs/x"  # where it goes
    seed: int = 0  # of everything
    inner: Inner = field(default_factory=Inner)  # the rest
    maybe: Inner | None = None  # null for none

    def __post_init__(self) -> None:
        if self.seed > 5:
            raise ValueError(f"seed={self.seed} must be at most 5")


def sweep(*words):
    """The options of every run."""
    found = []
    run_command(found.append, Sweepable, config_name=None, argv=words, prog="made-up", description="x")
    return found


@pytest.mark.parametrize(
    ("words", "outs"),
    [
        (["seed=1"], ["outputs/x"]),
        (["seed=0,1"], ["outputs/x/seed=0", "outputs/x/seed=1"]),
        (["seed=range(0,2)", "out=y"], ["y/seed=0", "y/seed=1"]),
        (["seed=0,1", "inner.depth=1,2", "out=y"], [f"y/inner.depth={d},seed={s}" for s in (0, 1) for d in (1, 2)]),
        (["maybe.depth=1,2", "out=y"], ["y/maybe.depth=1", "y/maybe.depth=2"]),
        (["out=a,b"], ["a", "b"]),
        (["seed=0,1", "out=y/s${seed}"], ["y/s0", "y/s1"]),
        (["seed=0,1", "out='y/../z'"], ["y/../z/seed=0", "y/../z/seed=1"]),
    ],
)
def test_every_run_of_a_multirun_has_its_own_folder(words, outs):
    configs = sweep("--multirun", *words)
    assert [config.out for config in configs] == outs
    assert sweep("-m", *words) == configs  # the same command finds the same folders


def test_what_is_swept_cannot_leave_the_run_folder():
    outs = [config.out for config in sweep("--multirun", "+maybe={depth: 1},{depth: 2}", "seed=0,1")]
    assert len(set(outs)) == 4
    assert all(re.fullmatch(r"outputs/x/[^/]+", out) for out in outs)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["seed=0,9"], "seed=9 must be at most 5"),  # before the first run
        (["seed=1,1"], "two runs of this multirun would share a folder"),
        (["seed=interval(0,1)"], "is no list of values"),
        (["seed=0,1", "hydra/launcher=slurmm"], "Could not find 'hydra/launcher/slurmm'"),
        (["seed=0,1", "+hydra.launcher.x._target_=os.abort"], "no option .hydra.launcher.x._target_"),
        (["seed=0,1", "hydra.launcher._target_=os.abort"], "_target_ is not an option"),
    ],
)
def test_a_multirun_that_cannot_be_starts_nothing(words, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        sweep("--multirun", *words)
    assert re.search(sentence, str(stop.value.code) + capsys.readouterr().err)


def test_a_launcher_runs_them_and_hydra_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    handlers, level = list(logging.root.handlers), logging.root.level
    assert [config.seed for config in sweep("--multirun", "seed=0,1", "hydra/launcher=basic")] == [0, 1]
    assert [config.seed for config in sweep("--multirun", "seed=0,1")] == [0, 1]
    assert Path.cwd() == tmp_path
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert (list(logging.root.handlers), logging.root.level) == (handlers, level)


def test_a_run_that_fails_under_a_launcher_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fail(config):
        raise SystemExit(f"seed {config.seed} failed")

    argv = ["--multirun", "seed=0,1", "hydra/launcher=basic"]
    with pytest.raises(SystemExit, match="seed 0 failed"):
        run_command(fail, Sweepable, config_name=None, argv=argv, prog="made-up", description="x")


def test_cfg_prints_the_options_and_runs_nothing(capsys, monkeypatch):
    monkeypatch.setenv("A_KEY", "secret")
    assert sweep("--cfg", "job", "seed=3", "out=y/s${seed}", "maybe.depth=4") == []
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["seed"], printed["out"], printed["maybe"]["depth"]) == (3, "y/s${seed}", 4)
    assert sweep("--cfg", "job", "--resolve", "seed=3", "out=y/s${seed}") == []
    assert yaml.safe_load(capsys.readouterr().out)["out"] == "y/s3"
    with pytest.raises(SystemExit):
        sweep("--cfg", "job", "--resolve", "out=${oc.env:A_KEY}")
    assert "secret" not in "".join(capsys.readouterr())


def test_groups_are_chosen_over_an_experiment_s_and_below_the_command_line():
    config = compose(SftConfig, "sft", ["experiment=sft_9b", "model=klein_4b", "optim=muon", "optim.lr=0.5"])
    assert (config.model.base, config.model.max_pixels) == ("black-forest-labs/FLUX.2-klein-base-4B", 1048576)
    assert (config.optim.name, config.optim.schedule, config.optim.lr) == ("muon", "linear", 0.5)
    assert compose(SftConfig, "sft", ["model={base: x}"]).model.base == "x"
    with pytest.raises(ValueError, match=r"no model 'klein_9c' \(did you mean 'klein_9b'\?\)"):
        compose(SftConfig, "sft", ["model=klein_9c"])


@pytest.mark.parametrize("group", ["model", "data", "rollout", "reward", "objective", "optim"])
def test_every_choice_of_a_group_fits_a_command_that_has_it(group):
    for name in choices("rl", group):
        compose(RlConfig, "rl", [f"{group}={name}"])
