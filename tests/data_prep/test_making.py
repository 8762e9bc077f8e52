"""Tasks made side by side: the same files as one after the other, and clean ends of all kinds."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.making import DataConfig, make_all

ROOT = Path(__file__).parents[2]


def digests(out):
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def test_any_number_of_processes_makes_the_same_files_and_keeps_what_is_there(tmp_path, capsys):
    names = ["chart", "perception", "jigsaw"]
    make_all(names, DataConfig(num_samples=6, processes=1, out=str(tmp_path / "one")))
    make_all(names, DataConfig(num_samples=6, processes=3, out=str(tmp_path / "three")))
    assert digests(tmp_path / "one") == digests(tmp_path / "three")
    assert len(digests(tmp_path / "one")) == 6
    said = capsys.readouterr().out.splitlines()
    assert sorted(said) == sorted(
        f"{tmp_path}/{run}/{name}/test.parquet: 6 samples" for run in ("one", "three") for name in names
    )
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    make_all(names, DataConfig(num_samples=6, processes=2, out=str(tmp_path / "one")))
    assert all("one" not in line or line.endswith("kept") for line in capsys.readouterr().out.splitlines())
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}


def test_a_task_that_fails_is_said_and_stops_the_others(tmp_path):
    config = DataConfig(photos=str(tmp_path), num_samples=200_000, processes=2, out=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="no photographs"):
        make_all(["chart", "jigsaw"], config)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # charts would have taken minutes


def heed_interrupts():
    """Tests that a script runs in its background ignore Ctrl-C, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def running(tmp_path):
    """A command that has minutes to go, in a group of processes of its own as a shell gives it."""
    command = [sys.executable, "-m", "data_prep", "all", "split=train", "num_samples=200000", "processes=2"]
    process = subprocess.Popen(
        [*command, f"out={tmp_path}"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )
    until = time.monotonic() + 60
    while not list(tmp_path.rglob(".*.part")) and time.monotonic() < until:
        time.sleep(0.1)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def group(process):
    """The processes of its group that are at work, by their numbers."""
    states = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = status.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == process.pid and state != "Z":
            states[int(status.parent.name)] = state
    return states


def assert_ends(process):
    """Its group empties soon: a worker may still be on its way out when the command itself is gone."""
    until = time.monotonic() + 30
    while group(process) and time.monotonic() < until:
        time.sleep(0.1)
    assert not group(process)


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs Linux' /proc")
def test_an_interrupted_command_says_one_sentence_and_leaves_nothing_half(running, tmp_path):
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert said.decode().splitlines()[-1] == "interrupted; what is whole stays, and the same command makes the rest"
    assert b"Traceback" not in said
    assert_ends(running)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs Linux' /proc")
def test_workers_end_with_a_command_that_is_killed(running):
    assert len(group(running)) > 2
    running.kill()
    running.wait(60)
    assert_ends(running)


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs Linux' /proc")
def test_a_worker_that_is_killed_ends_the_command_with_a_sentence(running):
    worker, *_ = (pid for pid in group(running) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(worker, signal.SIGKILL)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert said.decode().splitlines()[-1].startswith("a worker was killed, probably for want of memory")
    assert b"Traceback" not in said
    assert_ends(running)
