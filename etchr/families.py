"""The five task families of the paper and the six procedural tasks that stand for them."""

from enum import StrEnum


class TaskFamily(StrEnum):
    """A kind of intermediate image: what the editor is asked to make visible."""

    PERCEPTION = "perception"  # a red box round the evidence
    CHART = "chart"  # a red box round the asked value
    LOGIC = "logic"  # the traced path
    JIGSAW = "jigsaw"  # the restored picture
    VIEW3D = "view3d"  # the other viewpoint

    @classmethod
    def parse(cls, name: str) -> "TaskFamily":
        """The family called `name`; a `ValueError` that lists the families if there is none."""
        try:
            return cls(name)
        except ValueError:
            raise ValueError(f"unknown task family {name!r}; known: {', '.join(cls)}") from None


# Tasks in the order in which tables print them.
TASK_FAMILY: dict[str, TaskFamily] = {
    "perception": TaskFamily.PERCEPTION,
    "chart": TaskFamily.CHART,
    "maze": TaskFamily.LOGIC,
    "frozen_lake": TaskFamily.LOGIC,
    "jigsaw": TaskFamily.JIGSAW,
    "view3d": TaskFamily.VIEW3D,
}
TASKS = TASK_FAMILY.keys()  # a view: a task that is added to the dict is a task everywhere
