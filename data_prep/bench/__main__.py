"""`python -m etchr.bench data`: what each source costs on this machine, in outputs/bench_data/table.md.

Every source is run twice by its own command, on few rows and on many, so that the start of the processes can be taken
off. Inputs are made up (see `inputs.py`); what comes out is removed once it is measured.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.bench.inputs import CASES, Case
from data_prep.workers import workers
from etchr.checks import Natural, Positive, check, one_of
from etchr.config import parse_command
from etchr.run_folder import write_atomically

PARTS_A_PROCESS = 4
MIXTURE = ("vstar", "refchartqa", "mazes", "jigsaws", "dl3dv")  # one source of each family
MIXTURE_ROWS = 400_000  # as many as the paper's Stage I has
SHOWN_ROWS = 100_000
Result = dict[str, Any]


@dataclass
class DataBenchConfig:
    """Options of `python -m etchr.bench data`."""

    sources: list[str] = field(default_factory=lambda: list(CASES))  # to measure
    scale: Positive = 1.0  # of the number of rows that are measured
    processes: Natural = 0  # of each source; 0: as many as there are CPUs
    out: str = "outputs/bench_data"  # folder for table.md and results.json

    def __post_init__(self) -> None:
        check(self)
        for name in self.sources:
            one_of("sources", name, tuple(CASES))
        if not self.sources:
            raise ValueError(f"sources=[] must name at least one of {', '.join(CASES)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the table."""
    words = list(sys.argv[1:] if argv is None else argv)
    config = parse_command(
        DataBenchConfig, config_name=None, argv=words, prog="python -m etchr.bench data", description=__doc__ or ""
    )
    try:
        results = {name: measure(name, CASES[name], config) for name in config.sources}
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
    out = Path(config.out)
    text = table(results, config, " ".join(["bash scripts/bench.sh data", *words]))
    write_atomically(out / "results.json", json.dumps(results, indent=2).encode() + b"\n")
    write_atomically(out / "table.md", text.encode())
    print(text)


def measure(name: str, case: Case, config: DataBenchConfig) -> Result:
    """Run a source on few rows and on many; what the rows between the two cost.

    `ValueError` with the end of its output if the command fails.
    """
    count = max(2, round(case.count * config.scale))
    processes = config.processes or os.cpu_count() or 1
    folder = Path(config.out) / "work" / name
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "inputs").mkdir(parents=True)
        with workers(1) as pool:  # not here: a process counts the memory of the one that started it as its own
            options = pool.submit(case.make, folder / "inputs", count).result()
        items = case.items(count)
        words = [case.source, *options, f"processes={processes}", "val_share=0"]
        few = _run([*words, "part_size=1", f"num_items={min(processes, items)}"], folder / "few")
        many = _run([*words, f"part_size={max(1, items // (processes * PARTS_A_PROCESS))}"], folder / "many")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = many["rows"] - few["rows"]
    if rows <= 0:
        raise ValueError(f"{name} gave {many['rows']} rows of all its items; raise scale={config.scale}")
    seconds, cpu = (max(many[part] - few[part], 1e-9) for part in ("seconds", "cpu"))
    result = {
        "rows": many["rows"],
        "rows_per_second": rows / seconds,
        "cpu_ms_per_row": 1000 * cpu / rows,
        "mb_per_row": many["bytes"] / many["rows"] / 1e6,
        "peak_gb": many["peak_gb"],
        "start_s": few["seconds"],
    }
    print(f"{name}: {result['rows_per_second']:.1f} rows a second")
    return result


def _run(words: list[str], out: Path) -> dict[str, float]:
    """One command: its wall and processor seconds, the most memory of one process, and the rows and bytes it wrote."""
    out.mkdir()
    log = out / "log.txt"
    begin = time.perf_counter()
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "data_prep", *words, f"out={out}"]
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)  # which tells of the processes below it too
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise ValueError(f"{' '.join(command[1:])} failed: {log.read_text(errors='replace')[-500:]}")
    files = list(out.rglob("train-*.parquet"))
    return {
        "seconds": seconds,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_gb": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9,
        "rows": sum(map(_num_rows, files)),
        "bytes": sum(file.stat().st_size for file in files),
    }


def _num_rows(file: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(file).num_rows)


def table(results: dict[str, Result], config: DataBenchConfig, command: str) -> str:
    """The measurements as Markdown."""
    processes = config.processes or os.cpu_count() or 1
    lines = [
        f"Command: `{command}`, {time.strftime('%Y-%m-%d')}. {os.cpu_count()} CPUs ({platform.machine()}), {processes} "
        f"processes, Python {platform.python_version()}. Made-up inputs; the start of the processes is taken off.",
        "",
        f"| source | rows | rows/s | CPU ms a row | MB a row | GB a process | {SHOWN_ROWS:,} rows: core hours | GB |",
        "| --- |" + " ---: |" * 7,
    ]
    for name, result in results.items():
        hours, size = _cost(result, SHOWN_ROWS)
        lines.append(
            f"| {name} | {result['rows']:,} | {result['rows_per_second']:.1f} | {result['cpu_ms_per_row']:.0f} | "
            f"{result['mb_per_row']:.3f} | {result['peak_gb']:.2f} | {hours:.1f} | {size:.1f} |"
        )
    if set(MIXTURE) <= set(results):
        costs = [_cost(results[name], MIXTURE_ROWS // len(MIXTURE)) for name in MIXTURE]
        hours, size = (sum(part) for part in zip(*costs, strict=True))
        lines += [
            "",
            f"{MIXTURE_ROWS:,} rows, as many of {', '.join(MIXTURE)}: {hours:.1f} core hours, {size:,.0f} GB.",
        ]
    return "\n".join(lines) + "\n"


def _cost(result: Result, rows: int) -> tuple[float, float]:
    """Hours of a CPU and 1e9 bytes of so many rows."""
    return rows * result["cpu_ms_per_row"] / 3.6e6, rows * result["mb_per_row"] / 1000


if __name__ == "__main__":
    main()
