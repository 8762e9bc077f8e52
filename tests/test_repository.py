"""What may not lie in the repository: keys, private addresses, paths of one machine, pickles, large files."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = {".py", ".sh", ".md", ".yaml", ".toml", ".txt", ".json", ".html", ""}
FORBIDDEN = {
    "a key": re.compile(r"(?:sk|hf|ghp|wandb)[-_][A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY"),
    "a private address": re.compile(r"\b(?:10\.\d{1,3}|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}\b"),
    "a path of one machine": re.compile(r"(?<![\w.])/(?:home|root|mnt|Users|work|tmp)/\w"),
}


def tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_tracked_files_hold_no_key_and_no_trace_of_a_machine():
    for path in tracked():
        if path.suffix in TEXT and path != Path(__file__):
            text = path.read_text(encoding="utf-8", errors="replace")
            for what, pattern in FORBIDDEN.items():
                found = pattern.search(text)
                assert not found, f"{path.relative_to(ROOT)} holds {what}: {found and found[0][:40]}"


def test_no_pickle_and_nothing_large_is_tracked():
    for path in tracked():
        assert path.suffix not in {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".pyc"}, path
        assert path.stat().st_size < 8 * 2**20, path
