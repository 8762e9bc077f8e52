"""Who may import whom: the one-way flow of the house, read from the source with `ast`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_BASE = [
    "sample",
    "families",
    "images",
    "pages",
    "boxes",
    "choices",
    "rows",
    "config",
    "config_help",
    "router",
    "run_folder",
    "seeds",
    "checks",
    "endpoints",
    "bounded_http",
    "serving",
]
BASE = {f"etchr.{name}" for name in _BASE}

# layer -> the layers it may import; `base` is BASE
ALLOWED = {
    "base": {"base"},
    "flow": {"base", "flow"},
    "mllm": {"base", "mllm"},
    "editor": {"base", "flow", "mllm", "editor", "runtime", "muon"},
    "rewards": {"base", "flow", "mllm", "editor", "rewards"},
    "training": {"base", "flow", "mllm", "editor", "runtime", "muon", "checkpoint", "training"},
    "runtime": {"base"},
    "muon": set(),
    "checkpoint": {"base"},
    "publish": {"base", "editor", "publish"},
    "evr": {"base", "mllm", "editor"},
    "sft": {"base", "flow", "mllm", "editor", "rewards", "evr", "runtime", "checkpoint", "training", "sft"},
    "rl": {"base", "flow", "mllm", "editor", "rewards", "evr", "runtime", "checkpoint", "training", "rl"},
    "cli": {"base", "flow", "mllm", "editor", "evr", "publish", "cli"},
}
LIGHT = ("torch", "diffusers", "transformers", "peft", "accelerate")


def modules(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import; this test could not see where it leads"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module):
    if module in BASE or module == "etchr" or any(module.startswith(f"{name}.") for name in BASE):
        return "base"
    return module.split(".")[1]


@pytest.mark.parametrize(("module", "path"), modules("etchr"), ids=lambda value: str(value))
def test_the_library_imports_downwards_only(module, path):
    for name in imports(path):
        assert not name.startswith(("data_prep", "evaluation", "scripts", "tests")), f"{module} imports {name}"
        assert name.split(".")[0] != "vllm", f"{module} imports vllm; it is reached over HTTP"
        if name.startswith("etchr."):
            assert layer(name) in ALLOWED[layer(module)], f"{module} imports {name}"


@pytest.mark.parametrize(("module", "path"), modules("data_prep"), ids=lambda value: str(value))
def test_data_prep_knows_samples_only(module, path):
    asks = module == "data_prep.sources.build" or module.startswith("data_prep.filter_rl")  # the grader, a model
    known = {"base", "mllm"} if asks else {"base"}
    for name in imports(path):
        if name.startswith("etchr."):
            assert layer(name) in known, f"{module} imports {name}"
        assert not name.startswith(("evaluation", *LIGHT)), f"{module} imports {name}"


@pytest.mark.parametrize(("module", "path"), modules("evaluation"), ids=lambda value: str(value))
def test_evaluation_never_sees_a_trainer(module, path):
    for name in imports(path):
        assert not name.startswith(("etchr.sft", "etchr.rl", "data_prep", "tests")), f"{module} imports {name}"


def test_accelerate_stays_in_the_files_that_know_processes():
    for module, path in modules("etchr"):
        if any(name.split(".")[0] == "accelerate" for name in imports(path)):
            assert module in {"etchr.runtime", "etchr.checkpoint", "etchr.sft.trainer", "etchr.rl.trainer"}


@pytest.mark.parametrize(
    "module",
    [
        "etchr",
        "etchr.cli",
        "etchr.config",
        "etchr.sample",
        "etchr.families",
        "etchr.images",
        "etchr.pages",
        "etchr.router",
        "etchr.endpoints",
        "etchr.serving",
        "etchr.editor.remote",
        "etchr.editor.serve",
        "etchr.editor.folder",
        "etchr.mllm.answers",
        "etchr.mllm.chat",
        "etchr.mllm.reader",
        "etchr.mllm.prompts",
        "etchr.mllm.verdict",
        "etchr.rewards.pool",
        "etchr.rewards.settings",
        "etchr.evr",
    ],
)
def test_light_modules_load_without_torch(module):
    code = f"import sys, {module}; print(*[m for m in {LIGHT!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""
