"""Commands and their options: dataclasses that hydra fills from `configs/` and the command line.

`configs/NAME.yaml` is a command's defaults list; its groups lie beside it, its experiments in
`configs/experiment/NAME`. What people know of hydra works: groups (`model=klein_9b`), `key=value`, `+key=`, `~key`,
`--cfg job`, `--multirun seed=0,1`, a launcher such as `hydra/launcher=submitit_slurm`. What it does besides is left
out: it writes no folder of its own, leaves the working directory and logging alone, and instantiates nothing that a
YAML names. A mistake is answered by one sentence and the nearest thing that exists. Loads neither torch nor, before it
is needed, hydra.
"""

import argparse
import dataclasses
import difflib
import itertools
import os
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from etchr.config_help import help_text

CONFIG_DIR = Path(__file__).parent.parent / "configs"
PROGRAMS = {"sft": "python -m etchr.sft", "rl": "python -m etchr.rl", "eval": "python -m evaluation"}
LAUNCHER = ("hydra/launcher=", "hydra.launcher.")  # how the words begin that choose one, and set it up

T = TypeVar("T")


def parse_command(schema: type[T], *, config_name: str | None, argv: Sequence[str], prog: str, description: str) -> T:
    """The options of a command that does one thing, as an instance of the dataclass `schema`; else as `run_command`."""
    if {"-m", "--multirun"} & set(argv):
        print(f"{prog}: it runs once; leave --multirun out\nSee: {prog} --help", file=sys.stderr)
        raise SystemExit(2)
    found: list[T] = []
    run_command(found.append, schema, config_name=config_name, argv=argv, prog=prog, description=description)
    if not found:  # --cfg
        raise SystemExit(0)
    return found[0]


def run_command(
    task: Callable[[T], Any],
    schema: type[T],
    *,
    config_name: str | None,
    argv: Sequence[str],
    prog: str,
    description: str,
) -> None:
    """Call `task` with the options of a command, an instance of the dataclass `schema`; once for each of a multirun.

    `config_name` names a YAML in `configs/`; null: the options have their defaults and no groups. Prints the help and
    exits with 0 for `--help`, prints the options for `--cfg job`; exits with 2 and one sentence for anything that is
    wrong with them, before the first call.
    """
    parser = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job"])
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    flags, words = parser.parse_known_args(argv)
    if flags.help:
        groups = {} if config_name is None else {name: choices(config_name, name) for name in _groups(config_name)}
        print(help_text(schema, groups, prog, description))
        raise SystemExit(0)
    try:
        if flags.cfg:
            return _show(_tree(schema, config_name, words), flags.resolve)
        launcher = [word for word in words if flags.multirun and word.startswith(LAUNCHER)]
        words = [word for word in words if word not in launcher]
        configs = list(_sweep(schema, config_name, words)) if flags.multirun else [compose(schema, config_name, words)]
    except ValueError as error:
        print(f"{prog}: {error}\nSee: {prog} --help", file=sys.stderr)
        raise SystemExit(2) from None
    if launcher:
        return _launch(task, configs, launcher, prog)
    for config in configs:
        task(config)


def compose(schema: type[T], config_name: str | None, words: Sequence[str]) -> T:
    """`schema` filled from YAML, groups, experiments and words; `ValueError` in one sentence if they do not fit it."""
    from omegaconf import OmegaConf

    with _one_sentence():
        filled = OmegaConf.to_object(_tree(schema, config_name, words))
    assert isinstance(filled, schema)
    return filled


def choices(config_name: str, group: str) -> list[str]:
    """What may be chosen of a group of a command: the names of its YAML files."""
    folder = CONFIG_DIR / group / (config_name if group == "experiment" else "")
    return sorted(path.stem for path in folder.glob("*.yaml"))


def experiments(config_name: str) -> list[str]:
    """The experiments of a command."""
    return choices(config_name, "experiment")


# ---------------------------------------------------------------------------------------------------- composition


def _tree(schema: type, config_name: str | None, words: Sequence[str]) -> Any:
    """The options as hydra composes them, interpolations as they stand.

    Hydra chooses the groups and deletes; the other words are merged into what it made, because hydra itself can neither
    fill an option that is null nor add to a dict of dataclasses, and takes an option with the name of any folder in
    `configs/` for a group.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    OmegaConf.clear_resolver("oc.env")  # options are written down: no key may get into them
    ConfigStore.instance().store(name="schema", node=schema)
    chosen, plain = _chosen(config_name, words)
    _check_words(schema, plain)
    removed = [word for word in plain if word.startswith("~")]
    with _one_sentence(), initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        tree = hydra_compose(config_name or "schema", overrides=[*chosen, *removed])
    OmegaConf.set_struct(tree, False)  # the schema's own types refuse unknown keys; a dict may grow
    for word in plain:
        if word not in removed:
            tree = _with_override(tree, word)
    return tree


def _with_override(tree: Any, word: str) -> Any:
    """`tree` with one `key=value` of hydra's grammar merged into it."""
    from omegaconf import OmegaConf

    value = _one_value(word)
    for part in reversed(_parsed(word).key_or_group.split(".")):
        value = {part: value}
    with _one_sentence(word):
        return OmegaConf.merge(tree, value)


def _chosen(config_name: str | None, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words by which hydra chooses, checked, and the others.

    Experiments are merged in the order in which they are named, by as many words as one likes.
    """
    groups = _groups(config_name) if config_name else []
    chosen, plain, named = [], [], []
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if word.startswith("hydra.searchpath="):
            chosen.append(word)
        elif word.startswith("hydra"):
            raise ValueError(
                f"{word!r} does nothing here: out= is the run folder and the command logs by itself; of hydra's own "
                "options there are hydra.searchpath=[file://FOLDER] and, with --multirun, hydra/launcher=NAME"
            )
        elif config_name is None or key not in groups or value.startswith("{"):
            plain.append(word)
        elif key == "experiment":
            value = _one_value(word)
            named += value if isinstance(value, list) else [value] if value else []
        else:
            _check_choice(config_name, key, _one_value(word))
            chosen.append(f"{key}={value}")
    if config_name and named:
        for name in named if not any(word.startswith("hydra.searchpath=") for word in chosen) else []:
            _check_choice(config_name, "experiment", name)
        chosen.append(f"experiment=[{','.join(f'{config_name}/{name}' for name in dict.fromkeys(named))}]")
    return chosen, plain


def _groups(config_name: str) -> list[str]:
    """The groups of a command: those of its defaults list."""
    listed = yaml.safe_load((CONFIG_DIR / f"{config_name}.yaml").read_text(encoding="utf-8"))["defaults"]
    return [group for entry in listed if isinstance(entry, dict) for group in entry]


def _show(tree: Any, resolve: bool) -> None:
    """Print options as YAML."""
    from omegaconf import OmegaConf

    with _one_sentence():
        print(OmegaConf.to_yaml(tree, resolve=resolve), end="")


# ------------------------------------------------------------------------------------------------------- multirun


def _sweep(schema: type[T], config_name: str | None, words: Sequence[str]) -> Iterator[T]:
    """The options of every run of a multirun, each with a run folder of its own.

    Folders that `out` does not keep apart, by an interpolation such as `out='outputs/s${seed}'` or by experiments that
    differ in it, are named by what is swept, inside `out`.
    """
    options: list[list[str]] = []
    for word in words:
        override = _parsed(word)
        if not override.is_sweep_override():
            options.append([word])
        elif not override.is_discrete_sweep():
            raise ValueError(f"{word!r} is no list of values; write KEY=A,B,C or KEY=range(FROM,TO)")
        else:
            values = override.sweep_string_iterator()
            options.append([f"{override.get_key_element()}={value}" for value in values])
    swept = [number for number, each in enumerate(options) if len(each) > 1]
    runs = [list(run) for run in itertools.product(*options)]
    configs: list[Any] = [compose(schema, config_name, run) for run in runs]
    if len({config.out for config in configs}) < len(configs):
        for config, run in zip(configs, runs, strict=True):
            name = ",".join(sorted(run[number].lstrip("+") for number in swept))
            config.out = f"{config.out}/{re.sub(r'[^A-Za-z0-9_.,=+-]', '_', name)}"
    if len({config.out for config in configs}) < len(configs):
        raise ValueError("two runs of this multirun would share a folder; give each value once")
    yield from configs


def _launch(task: Callable[[Any], Any], configs: Sequence[Any], words: Sequence[str], prog: str) -> None:
    """Run every one through a launcher of hydra, such as that of Slurm, and wait for all.

    The launcher's own configuration is composed of `words` alone: no experiment can name what is to be instantiated.
    """
    from hydra import initialize_config_dir
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins
    from hydra.errors import HydraException
    from hydra.types import HydraContext, RunMode

    def job(_: Any) -> None:
        _name_processes()
        try:
            task(configs[HydraConfig.get().job.num])
        except SystemExit as stop:  # which no launcher carries home
            if stop.code:
                raise RuntimeError(str(stop.code)) from None

    outs = [os.path.abspath(config.out) for config in configs]
    place = os.path.commonpath(outs) if len(outs) > 1 else os.path.dirname(outs[0])
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null", "hydra.sweep.subdir=."]
    with initialize_config_dir(str(CONFIG_DIR), job_name=prog.rpartition(" ")[2], version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        try:
            if any("_target_" in word for word in words):
                raise HydraException("_target_ is not an option")
            tree = hydra.compose_config(None, [*quiet, f"hydra.sweep.dir='{place}'", *words], RunMode.MULTIRUN)
        except HydraException as error:
            raise SystemExit(
                f"{prog}: {str(error).splitlines()[0]}; Slurm's launcher comes with pip install -e '.[slurm]'"
            ) from None
        launcher = Plugins.instance().instantiate_launcher(
            HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks()), job, tree
        )
        for done in launcher.launch([[] for _ in configs], initial_job_idx=0):
            try:
                _ = done.return_value
            except RuntimeError as error:
                raise SystemExit(str(error)) from None


def _name_processes() -> None:
    """Name the tasks of a job that submitit started, on Slurm for example, as torch's own launcher would have."""
    if "SUBMITIT_EXECUTOR" in os.environ and "RANK" not in os.environ:
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        if JobEnvironment().num_tasks > 1:
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)


# ------------------------------------------------------------------------------------------------ words and mistakes


def _parsed(word: str) -> Any:
    """One word in hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if "=" not in word and not word.startswith("~"):
        raise ValueError(f"{word!r} is not of the form key=value")
    with _one_sentence(word):
        return OverridesParser.create().parse_override(word)


def _one_value(word: str) -> Any:
    """The value that a word gives, which may not be one of several for a multirun."""
    override = _parsed(word)
    if override.is_sweep_override():
        raise ValueError(
            f"{word!r} holds a comma; put the value into quotes, or a list into [brackets], or give --multirun to run "
            "each of them"
        )
    return override.value()


def _check_choice(config_name: str, group: str, name: str | None) -> None:
    known = choices(config_name, group)
    if name in known or name is None:
        return
    for other, program in PROGRAMS.items() if group == "experiment" else ():
        if name in experiments(other):
            raise ValueError(f"experiment {name!r} belongs to {program}; here there are: {', '.join(known)}")
    raise ValueError(f"no {group} {name!r}{_near(str(name), known)}; there are: {', '.join(known) or 'none'}")


def _check_words(schema: type, words: Iterable[str]) -> None:
    """Every word must be `key=value` with a key that the schema has; the keys of a dict are free."""
    for word in words:
        key, equals, _ = word.lstrip("+~").partition("=")
        if not (equals or word.startswith("~")):
            raise ValueError(f"{word!r} is not of the form key=value")
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


@contextmanager
def _one_sentence(word: str | None = None) -> Iterator[None]:
    """Turn an error of hydra or omegaconf, about `word` or about a key that it knows, into one of one sentence."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        cause: BaseException = error
        while word is None and cause.__cause__ is not None:
            cause = cause.__cause__
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
        first = lines[1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]
        key = getattr(cause, "full_key", None)
        about = f"{word!r} does not fit: " if word is not None else f"{key}: " if key else ""
        raise ValueError(about + first) from None
