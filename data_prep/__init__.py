"""Data sources: every module here ends in the one Parquet schema of `etchr.sample`."""

from pathlib import Path

from data_prep.chart import Chart
from data_prep.frozen_lake import FrozenLake
from data_prep.jigsaw import Jigsaw
from data_prep.maze import Maze
from data_prep.perception import Perception
from data_prep.task import ProceduralTask
from data_prep.view3d import View3D

PROCEDURAL: dict[str, type[ProceduralTask]] = {
    kind.name: kind for kind in (Perception, Chart, Maze, FrozenLake, Jigsaw, View3D)
}


def procedural_tasks(photos: Path | None = None) -> dict[str, ProceduralTask]:
    """The procedural tasks by name; jigsaw cuts its pieces from the folder `photos` where one is given."""
    return {name: Jigsaw(photos) if kind is Jigsaw else kind() for name, kind in PROCEDURAL.items()}
