"""Who may import whom, and what is called what, read from the source with `ast`."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BASE = {
    f"etchr.{name}"
    for name in (
        *("sample", "families", "images", "router", "seeds", "config", "config_help", "checks", "run_folder", "jsonl"),
        *("boxes", "choices", "rows", "pages", "parquet", "concurrent", "http"),
    )
}

# layer -> the layers it may import; `base` is BASE
ALLOWED = {
    "base": {"base"},
    "flow": {"base", "flow"},
    "mllm": {"base", "mllm"},
    "editor": {"base", "flow", "mllm", "editor", "runtime"},
    "rewards": {"base", "flow", "mllm", "editor", "rewards"},
    "training": {"base", "flow", "mllm", "editor", "hub", "runtime", "training"},
    "runtime": {"base"},
    "hub": {"base", "editor", "hub"},
    "serving": {"base", "mllm", "editor", "evr", "serving"},
    "nano": {"base", "flow", "mllm", "editor", "serving", "runtime", "training", "nano"},
    "evr": {"base", "mllm", "editor"},
    "sft": {"base", "flow", "mllm", "editor", "rewards", "evr", "runtime", "training", "sft"},
    "rl": {"base", "flow", "mllm", "editor", "rewards", "evr", "runtime", "training", "rl"},
    "bench": {"base", "editor", "runtime", "training", "sft", "rl", "bench"},
    "cli": {"base", "flow", "mllm", "editor", "evr", "hub", "nano", "serving", "cli"},
}
CHOOSES_NANO = {"etchr.mllm.settings"}  # where a model is chosen by its name
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


def test_imports_are_one_way():
    wrong = []
    for package in ("etchr", "data_prep", "evaluation"):
        for module, path in modules(package):
            wrong += [f"{module} imports {name}" for name in imports(path) if not may_import(module, name)]
    assert not wrong


def may_import(module, name):
    """Whether the way from `module` to `name` is downwards."""
    here, there = module.split(".")[0], name.split(".")[0]
    if there in ("vllm", "tests", "scripts"):  # vllm is reached over HTTP
        return False
    if here == "etchr":
        if there != "etchr":
            return there not in ("data_prep", "evaluation")
        return layer(name) in ALLOWED[layer(module)] or (module in CHOOSES_NANO and layer(name) == "nano")
    if here == "evaluation":  # and never sees a trainer
        return there != "data_prep" and not name.startswith(("etchr.sft", "etchr.rl"))
    asks = module == "data_prep.sources.build" or module.startswith("data_prep.filter_rl")  # the grader, a model
    known = {"base", "mllm"} if asks else {"base"}
    return there not in ("evaluation", *LIGHT) and (there != "etchr" or layer(name) in known)


def test_a_class_name_stands_for_one_thing():
    places = {}
    for package in ("etchr", "data_prep", "evaluation"):
        for module, path in modules(package):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef):
                    places.setdefault(node.name, []).append(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_accelerate_stays_in_the_file_that_knows_processes():
    for module, path in modules("etchr"):
        if any(name.split(".")[0] == "accelerate" for name in imports(path)):
            assert module == "etchr.runtime"


LOADS_WITHOUT_TORCH = [
    "etchr",
    "etchr.cli",
    "etchr.config",
    "etchr.sample",
    "etchr.families",
    "etchr.images",
    "etchr.pages",
    "etchr.router",
    "etchr.http.endpoints",
    "etchr.http.application",
    "etchr.editor.remote",
    "etchr.serving.edits",
    "etchr.editor.folder",
    "etchr.mllm.answers",
    "etchr.mllm.chat",
    "etchr.nano.reader",
    "etchr.mllm.prompts",
    "etchr.mllm.verdict",
    "etchr.rewards.pool",
    "etchr.rewards.settings",
    "etchr.evr",
]


def test_light_modules_load_without_torch():
    """In one interpreter, one after the other: the first that brings in something heavy is named."""
    code = f"""
import importlib, sys
for module in {LOADS_WITHOUT_TORCH!r}:
    importlib.import_module(module)
    if heavy := [name for name in {LIGHT!r} if name in sys.modules]:
        sys.exit(f"{{module}} loads {{heavy}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
