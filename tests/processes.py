"""Programs in processes of their own: started by a launcher, or, which is quicker, forked with all imports done."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(
    ["etchr.sft.trainer", "etchr.rl.trainer", "diffusers.pipelines.flux2.pipeline_flux2_klein"]
)
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}  # as accelerate launch sets them
PATIENCE_S = 600.0  # a machine that is busy elsewhere takes minutes; a test that hangs is ended by pytest


def environment() -> dict[str, str]:
    """Of a child process: quiet, one thread, no network."""
    quiet = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return os.environ | quiet | {"PYTHONPATH": str(ROOT)}


def launch(config_file: str | Path, module: str, *words: str) -> subprocess.CompletedProcess:
    """`python -m MODULE` with these words under `accelerate launch`."""
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config_file), "-m", module]
    return subprocess.run([*start, *words], capture_output=True, text=True, cwd=ROOT, env=environment())


def together(main: Callable[[list[str]], Any], words: list[str], **variables: str) -> None:
    """Run `main(words)` in two processes that train together, as a launcher starts them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    members = [CHILDREN.Process(target=_member, args=(rank, port, variables, main, words)) for rank in (0, 1)]
    for member in members:
        member.start()
    for member in members:
        member.join(PATIENCE_S)
        member.kill()
    assert [member.exitcode for member in members] == [0, 0]


def _member(
    rank: int, port: int, variables: dict[str, str], main: Callable[[list[str]], Any], words: list[str]
) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"} | variables
    main(words)


def kill_when(moment: Callable[[], bool], function: Callable[..., Any], *args: Any, is_light: bool = False) -> None:
    """Start `function(*args)` and end it with SIGKILL as soon as `moment()`.

    What is light needs no torch: it is quicker in an interpreter of its own than behind the imports of the others.
    """
    context = multiprocessing.get_context("spawn") if is_light else CHILDREN
    child = context.Process(target=function, args=args)
    child.start()
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not moment():
            assert child.is_alive(), "the run ended before the moment came"
            assert time.monotonic() < deadline, "the moment did not come"
            time.sleep(0.005)
    finally:
        child.kill()
        child.join()
    assert child.exitcode == -signal.SIGKILL, "the run ended before it could be killed"
