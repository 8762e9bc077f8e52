"""What `--help` prints: every option with its default and the comment beside it in the source, written once."""

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
import typing
from collections.abc import Mapping, Sequence
from typing import Any


def help_text(schema: type, groups: Mapping[str, Sequence[str]], prog: str, description: str) -> str:
    """The help of a command with the options of the dataclass `schema` and these config groups with their choices."""
    usage = " ".join([prog, *(f"[{group}=NAME]" for group in groups), "[key=value ...]"])
    lines = [f"usage: {usage}", "", *(part for line in description.split("\n") for part in textwrap.wrap(line, 100))]
    lines += ["", "options:"]
    for key, default, comment in described(schema):
        lines.append(f"  {key + '=' + _shown(default):<44} {comment}".rstrip())
    if groups:
        lines += ["", "groups, each a set of options (configs/GROUP/NAME.yaml):"]
        lines += [f"  {group + '=':<14} {', '.join(names)}" for group, names in groups.items() if group != "experiment"]
        lines += ["", "experiments, each a whole run; of several, experiment=[A,B], the later ones win:"]
        lines += [f"  {name}" for name in groups["experiment"]]
        lines += [
            "",
            "several runs: --multirun seed=0,1,2 optim.lr=1e-4,2e-4 makes one of each, in folders inside out=",
        ]
    return "\n".join([*lines, "", "--cfg job prints the options that come out, --resolve without references"])


def described(schema: type, prefix: str = "") -> list[tuple[str, Any, str]]:
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
            out += described(hint, f"{prefix}{field.name}.")
            continue
        out.append((prefix + field.name, default, comments.get(field.name, "")))
        if typing.get_origin(hint) is dict and dataclasses.is_dataclass(entry := typing.get_args(hint)[1]):
            out += described(typing.cast(type, entry), f"{prefix}{field.name}.NAME.")
    return out


def _field_comments(schema: type) -> dict[str, str]:
    """The comments of all fields, those of parents too."""
    comments: dict[str, str] = {}
    for parent in reversed(schema.__mro__):
        if dataclasses.is_dataclass(parent):
            comments |= _own_comments(parent)
    return comments


def _own_comments(schema: type) -> dict[str, str]:
    """The comments on the lines of each field's definition, as many as it has."""
    source = textwrap.dedent(inspect.getsource(schema))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    by_line = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    comments = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            comments[node.target.id] = " ".join(by_line[line] for line in lines if line in by_line)
    return comments


def _shown(default: Any) -> str:
    if default is dataclasses.MISSING:
        return "REQUIRED"
    return "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
