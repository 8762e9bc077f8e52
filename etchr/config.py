"""Commands and their options: dataclasses with a comment per field, filled by hydra from YAML and `key=value` words.

Every command of the project is parsed here, so that they all behave alike: `--help` prints each option with its
comment and default, `experiment=NAME` picks `configs/experiment/NAME.yaml`, and a mistake is answered by one sentence
and the nearest thing that exists. Loads neither torch nor, before it is needed, hydra.
"""

import ast
import dataclasses
import difflib
import inspect
import sys
import textwrap
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

CONFIG_DIR = Path(__file__).parent.parent / "configs"

T = TypeVar("T")


def parse_command(schema: type[T], *, config_name: str | None, argv: Sequence[str], prog: str, description: str) -> T:
    """The options of a command as an instance of the dataclass `schema`.

    `config_name` names a YAML in `configs/` whose values replace the schema's defaults, below the experiment's and the
    command line's. Prints the help and exits with 0 for `--help`; exits with one sentence for anything else that is
    wrong.
    """
    if any(word in ("-h", "--help") for word in argv):
        print(help_text(schema, config_name, prog, description))
        raise SystemExit(0)
    try:
        return compose(schema, config_name, argv)
    except ValueError as error:
        print(f"{prog}: {error}\nSee: {prog} --help", file=sys.stderr)
        raise SystemExit(2) from None


def compose(schema: type[T], config_name: str | None, overrides: Sequence[str]) -> T:
    """`schema` filled from YAML, experiment and overrides; `ValueError` in one sentence if they do not fit it."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _check_words(schema, overrides, config_name)
    names, rest = _take_experiments(overrides)
    for name in names:
        _check_experiment(name, config_name)
    store = ConfigStore.instance()
    store.store(name="schema", node=schema)
    layers: list[Any] = ["schema"]
    if config_name:
        layers.append(config_name)
    if names:
        layers.append({"experiment": names})
    store.store(name="command", node={"defaults": [*layers, "_self_"]})
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            tree = hydra_compose("command")
        OmegaConf.set_struct(tree, False)  # the schema's own types refuse unknown keys; a dict may grow
        for word in rest:
            tree = _with_override(tree, word)
        filled = OmegaConf.to_object(tree)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_one_sentence(error)) from None
    assert isinstance(filled, schema)
    return filled


def _with_override(tree: Any, word: str) -> Any:
    """`tree` with one `key=value` of hydra's grammar merged into it.

    Hydra itself cannot fill an option that is null or add an entry to a dict of dataclasses; a merge can.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        override = OverridesParser.create().parse_override(word)
        if override.is_sweep_override():
            raise ValueError(f"{word!r} holds a comma; put the value into quotes, or a list into [brackets]")
        value = override.value()
        for part in reversed(override.key_or_group.split(".")):
            value = {part: value}
        return OmegaConf.merge(tree, value)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"{word!r} does not fit: {str(error).splitlines()[0]}") from None


def experiments(config_name: str | None) -> list[str]:
    """The experiments of a command: those whose YAML says `# command: <config_name>` on its second line.

    The first line is hydra's `# @package _global_`.
    """
    found = []
    for path in sorted((CONFIG_DIR / "experiment").glob("*.yaml")):
        if f"# command: {config_name}" in path.read_text(encoding="utf-8").splitlines()[:2]:
            found.append(path.stem)
    return found


def help_text(schema: type, config_name: str | None, prog: str, description: str) -> str:
    """What `--help` prints."""
    lines = [
        f"usage: {prog} [experiment=NAME ...] [key=value ...]" if config_name else f"usage: {prog} [key=value ...]"
    ]
    lines += ["", *(line for part in description.split("\n") for line in textwrap.wrap(part, 100)), "", "options:"]
    for key, default, comment in _described(schema, ""):
        lines.append(f"  {key + '=' + _shown(default):<44} {comment}".rstrip())
    if config_name:
        lines += [
            "",
            "experiments (configs/experiment/NAME.yaml; of several the later ones win):",
            *(f"  {e}" for e in experiments(config_name)),
        ]
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------- words


def _take_experiments(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The experiments that are named, whose values replace each other's in this order, and the other words."""
    names = [word.partition("=")[2] for word in overrides if word.startswith("experiment=")]
    return list(dict.fromkeys(names)), [word for word in overrides if not word.startswith("experiment=")]


def _check_experiment(name: str, config_name: str | None) -> None:
    known = experiments(config_name)
    if name not in known:
        raise ValueError(f"no experiment {name!r}{_near(name, known)}; there are: {', '.join(known) or 'none'}")


def _check_words(schema: type, overrides: Sequence[str], config_name: str | None) -> None:
    """Every word must be `key=value` with a key that the schema has; the keys of a dict are free."""
    for word in overrides:
        key, equals, _ = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r} is not of the form key=value")
        if key == "experiment" and config_name:
            continue
        level: Any = schema
        for part in key.split("."):
            if typing.get_origin(level) is dict:
                level = typing.get_args(level)[1]
                continue
            level = next((hint for hint in (level, *typing.get_args(level)) if dataclasses.is_dataclass(hint)), None)
            if level is None:
                break
            hints = typing.get_type_hints(level)
            if part not in hints:
                names = [field.name for field in dataclasses.fields(level)]
                raise ValueError(f"no option {key!r}{_near(part, names)}; options: {', '.join(names)}")
            level = hints[part]


def _near(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _one_sentence(error: Exception) -> str:
    """The first line of hydra's or omegaconf's message, with the key it is about."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    first = lines[1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    key = getattr(cause, "full_key", None)
    return f"{key}: {first}" if key else first


# ----------------------------------------------------------------------------------------------------------- help


def _described(schema: type, prefix: str) -> list[tuple[str, Any, str]]:
    """(key, default, comment) of every option; nested dataclasses, and those in a dict, flattened with dots."""
    comments = _field_comments(schema)
    hints = typing.get_type_hints(schema)
    out: list[tuple[str, Any, str]] = []
    for field in dataclasses.fields(schema):
        hint = hints[field.name]
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            out.append((prefix + field.name, "", comments.get(field.name, "")))
            out += _described(hint, f"{prefix}{field.name}.")
            continue
        out.append((prefix + field.name, default, comments.get(field.name, "")))
        if typing.get_origin(hint) is dict and dataclasses.is_dataclass(entry := typing.get_args(hint)[1]):
            out += _described(typing.cast(type, entry), f"{prefix}{field.name}.NAME.")
    return out


def _field_comments(schema: type) -> dict[str, str]:
    """The comment after each field in the source of a dataclass: written once, read by `--help` too."""
    comments: dict[str, str] = {}
    for parent in reversed(schema.__mro__):
        if dataclasses.is_dataclass(parent):
            comments |= _own_comments(parent)
    return comments


def _own_comments(schema: type) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(schema))
    lines = source.splitlines()
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    comments = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno:
            tail = lines[node.end_lineno - 1][node.end_col_offset :] if node.end_col_offset else ""
            comments[node.target.id] = tail.partition("#")[2].strip()
    return comments


def _shown(default: Any) -> str:
    if default is dataclasses.MISSING:
        return "REQUIRED"
    return "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
