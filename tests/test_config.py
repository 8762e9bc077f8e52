"""Commands: what fills the options, and the one sentence for each mistake."""

import inspect
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from etchr.config import CONFIG_DIR, compose, experiments, help_text, parse_command
from etchr.mllm.settings import ModelConfig
from evaluation.settings import EditingConfig, EvalConfig, SystemConfig


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
        "out=a/b",
        "names=[x,y]",
        "inner.depth=5",
        "inner.rate=0.5",
        "more.new.depth=1",
        "maybe.depth=2",
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
        ("inner.depth=1,2", r"holds a comma"),
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
    assert config.systems["direct"].kind == "direct"


def test_every_experiment_file_belongs_to_a_command():
    for path in (CONFIG_DIR / "experiment").glob("*.yaml"):
        assert "# command: " in path.read_text(encoding="utf-8"), f"{path.name} names no command"


def test_help_prints_every_option_with_its_comment(capsys):
    text = help_text(Outer, None, "made-up", "Does something.")
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
    text = help_text(EvalConfig, "eval", "p", "d")
    for name in schema.__dataclass_fields__:
        line = re.search(rf"^    {name}: .*$", inspect.getsource(schema), re.MULTILINE)[0]
        comment = line.partition("  # ")[2]
        assert len(comment) > 5
        assert re.search(rf"^  (\S+\.)?{name}=.* {re.escape(comment)}$", text, re.MULTILINE)


def test_importing_the_parser_is_cheap():
    code = "import sys, etchr.config; print(*[m for m in ('hydra', 'omegaconf', 'torch', 'numpy') if m in sys.modules])"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == ""
