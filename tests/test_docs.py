"""Every command that the documents name exists and takes the options that it is given there.

Nothing is run to its end: what is composed of Hydra's options prints them (`--cfg job`), what is typer's is parsed.
"""

import importlib
import re
import shlex
from pathlib import Path

import typer
from typer.testing import CliRunner

from etchr.cli import app

ROOT = Path(__file__).parent.parent
DOCS = [*sorted(set(ROOT.glob("*.md")) - {ROOT / "CHANGELOG.md"}), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?:bash|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:python -m|accelerate launch|bash scripts/|etchr )[^`]*)`")
ELLIPSIS = re.compile(r"\s\.\.\.|\s\S+=\[?\.\.\.|\|")  # the rest is left to the reader
SCRIPTS = {"scripts/bench.sh": "etchr.bench", "scripts/serve_vllm.sh": "evaluation.vllm_server"}
OTHERS = {"pre-commit", "export", "pip", ".venv/bin/pip", "git", "curl"}
ADDED = {"squares", "counts", "trusting", "sparing", "regression", "contrast"}  # what docs/extend.md adds, in a test


def commands() -> list[str]:
    """The commands in blocks and in running text, each once, without comments and continued lines."""
    found: dict[str, None] = {}
    for path in DOCS:
        text = path.read_text(encoding="utf-8")
        lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
        lines += [words.replace("\n", " ") for words in INLINE.findall(text)]
        for line in lines:
            for command in re.sub(r"\s#.*", "", line).split("&&"):
                if command.strip() and not command.strip().startswith("#"):
                    found[" ".join(command.split())] = None
    return list(found)


def parsed_by_typer(words: list[str]) -> None:
    """Raises for a command or an option that is none."""
    name, *rest = words
    if name == "--help":
        return
    group = typer.main.get_command(app)
    command = group.get_command(group.make_context("etchr", [name, "--help"], resilient_parsing=True), name)
    assert command is not None, f"no command {name}"
    if rest and rest != ["--help"]:
        command.make_context(name, rest).close()


def composed(module: str, words: list[str]) -> None:
    """Compose a command's options as it does, without doing anything."""
    if module == "etchr.nano.reader" or "download" in words:
        words = [*words, "--help"]
    elif "--help" not in words and "list" not in words:
        if "--multirun" in words:  # the first of the runs
            words = [re.sub(r"(=[^\[{,]+),.*", r"\1", word) for word in words if word != "--multirun"]
        words = [word for word in words if word not in ("--cfg", "job")] + ["--cfg", "job"]
    main = importlib.import_module(f"{module}.__main__" if _is_package(module) else module).main
    try:
        main(words)
    except SystemExit as done:
        if done.code:
            raise ValueError(f"ends with {done.code!r}") from None


def _is_package(module: str) -> bool:
    return (ROOT / module.replace(".", "/") / "__main__.py").is_file()


def check(command: str) -> None:
    command = command.replace("=~/", "=/data/")  # as a shell has it
    command = re.sub(r"^[A-Z_]+=\S+ ", "", command)
    words = shlex.split(ELLIPSIS.split(command)[0] if ELLIPSIS.search(command) else command)
    if not words or words[0] in OTHERS or words == ["python", "-m"]:
        return
    if words[0] == "accelerate":
        assert words[1] == "launch"
        if "-m" not in words:
            return
        words = ["python", *words[words.index("-m") :]]
    if words[0] == "bash":
        assert (ROOT / words[1]).is_file()
        if words[1] not in SCRIPTS or len(words) == 2:
            return
        words = ["python", "-m", *SCRIPTS[words[1]].split(), *words[2:]]
    if words[0] == "etchr":
        return parsed_by_typer(words[1:])
    assert words[:2] == ["python", "-m"], words
    composed(words[2], words[3:])


def test_every_command_explains_itself():
    """Help texts are rich's markup: square brackets in one may break it."""
    group = typer.main.get_command(app)
    own = [name for name, command in group.commands.items() if command.params]
    assert {"ask", "edit", "serve", "merge", "export", "push"} <= set(own)
    for name in own:
        done = CliRunner().invoke(app, [name, "--help"])
        assert (done.exit_code, done.exception) == (0, None), name
        assert "Usage" in done.output


def test_every_command_of_the_documents_is_one(capsys):
    told = [command for command in commands() if not any(word in command for word in ADDED)]
    assert len(told) > 100
    wrong = []
    for command in told:
        try:
            check(command)
        except Exception as error:
            wrong.append(f"{command}\n    {type(error).__name__}: {error}")
    capsys.readouterr()
    assert not wrong, "\n".join(wrong)
