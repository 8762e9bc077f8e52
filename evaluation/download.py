"""`python -m evaluation download NAME ...`: fetch the files of benchmarks from the hub to where they are looked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from etchr.config import parse_command
from etchr.families import TASKS
from evaluation.archives import free_bytes, unpack
from evaluation.benchmarks import BENCHMARKS, find_benchmark
from evaluation.benchmarks.benchmark import Benchmark, HubFiles, LoadOptions

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PROG = "python -m evaluation download"


@dataclass
class DownloadConfig:
    """Options of `python -m evaluation download`."""

    benchmarks: str = "outputs/benchmarks"  # folder with a folder for each benchmark


@dataclass(frozen=True)
class HubFile:
    """A file of a data set."""

    name: str
    size: int


def main(argv: Sequence[str]) -> None:
    """Download the benchmarks that are named; nothing is fetched if one of the names is none."""
    names = [word for word in argv if "=" not in word and not word.startswith("-")]
    hosted = _hosted()
    config = parse_command(
        DownloadConfig,
        config_name=None,
        argv=[word for word in argv if word not in names],
        prog=f"{PROG} NAME [NAME ...]",
        description="Fetch benchmarks from the hub (HF_ENDPOINT names another server). Stopped and started again, the "
        f"same command goes on where it stopped.\nNAME is one of: {hosted}.",
    )
    if not names:
        raise ValueError(f"name what to download: {hosted}")
    root = Path(config.benchmarks)
    wanted = {name: hub_files(name, root) for name in names}

    from huggingface_hub import HfApi

    for name, files in wanted.items():
        benchmark, folder = find_benchmark(name, root, root)
        download(benchmark, files, folder, HfApi())


def _hosted() -> str:
    """The names of the benchmarks on the hub."""
    return ", ".join(name for name, benchmark in BENCHMARKS.items() if benchmark.hub is not None)


def hub_files(name: str, root: Path) -> HubFiles:
    """What is to be fetched for a benchmark; `ValueError` that says how it is had if it is not on the hub."""
    if name not in (*TASKS, *BENCHMARKS):
        raise ValueError(f"no benchmark {name!r}; to be downloaded are: {_hosted()}")
    benchmark, _ = find_benchmark(name, Path("outputs/data"), root)
    if benchmark.hub is None:
        raise ValueError(f"{name} is not downloaded but made, with: {command(benchmark, root)}")
    return benchmark.hub


def command(benchmark: Benchmark, root: Path) -> str:
    """What gets a benchmark's data below the folder `root`."""
    told = benchmark.get.replace("out=BENCHMARKS", f"out={root}")
    elsewhere = benchmark.hub is not None and str(root) != DownloadConfig.benchmarks
    return f"{told} benchmarks={root}" if elsewhere else told


def download(benchmark: Benchmark, hub: HubFiles, folder: Path, api: "HfApi") -> None:
    """Fetch and unpack a benchmark's files into `folder`, and see that they can be read.

    `ValueError` in one sentence for whatever goes wrong; what has been fetched stays for the next time.
    """
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError

    try:
        commit, files = listed(hub, api)
        missing = [file for file in files if not _there(folder, file)]
        size, free = sum(file.size for file in missing), free_bytes(folder)
        if size > free:
            raise ValueError(f"{benchmark.title} needs {size:,} bytes more, of which {free:,} are free at {folder}")
        print(f"{benchmark.title}: {len(files)} files of {hub.repo_id} at {commit[:12]}, {size / 1e6:,.1f} MB to fetch")
        patterns = list(hub.patterns)
        api.snapshot_download(
            hub.repo_id, repo_type="dataset", revision=commit, allow_patterns=patterns, local_dir=folder
        )
        for file in files:
            if not _there(folder, file):
                raise ValueError(f"{folder / file.name} is not what the hub has; remove it and start again")
    except GatedRepoError:
        raise ValueError(
            f"{hub.repo_id} asks for consent: accept its terms on its page, log in with: hf auth login, and start again"
        ) from None
    except RepositoryNotFoundError:
        raise ValueError(f"{api.endpoint} has no public data set {hub.repo_id}") from None
    except (HTTPError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"cannot fetch {hub.repo_id}: {reason}; the same command goes on where it stopped") from None
    for file in files:
        if file.name.endswith(".zip"):
            try:
                print(f"{file.name}: {unpack(folder / file.name, folder):,} pictures")
            except OSError as error:
                raise ValueError(f"cannot unpack {file.name}: {error}; the same command goes on from here") from None
    samples = benchmark.load(folder, LoadOptions())
    print(f"{benchmark.name}: {len(samples):,} samples in {folder}")


def listed(hub: HubFiles, api: "HfApi") -> tuple[str, list[HubFile]]:
    """The commit and the files of a data set that its patterns name; `ValueError` if one names none."""
    info = api.dataset_info(hub.repo_id, files_metadata=True)
    files = [
        HubFile(file.rfilename, file.size or 0)
        for file in info.siblings or ()
        if any(fnmatchcase(file.rfilename, pattern) for pattern in hub.patterns)
    ]
    for pattern in hub.patterns:
        if not any(fnmatchcase(file.name, pattern) for file in files):
            raise ValueError(
                f"{hub.repo_id} has no file {pattern} any more; its files are not those that are read here"
            )
    for file in files:  # names come from outside
        if file.name.startswith("/") or ".." in PurePosixPath(file.name).parts or "\\" in file.name:
            raise ValueError(f"{hub.repo_id} names a file that lies outside of it: {file.name[:100]!r}")
    if not info.sha:
        raise ValueError(f"{hub.repo_id} has no commit")
    return info.sha, files


def _there(folder: Path, file: HubFile) -> bool:
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.size
