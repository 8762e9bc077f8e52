"""Drawn paths on a board of cells: followed without a choice, or how far they are from being a line."""

from heapq import heappop, heappush

STEPS = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}
Cell = tuple[int, int]


def follow(marked: set[Cell], start: Cell, goal: Cell) -> tuple[list[str] | None, set[Cell]]:
    """Walk from start to goal over marked cells, without ever choosing: the moves, and the marks left over."""
    here, left = start, set(marked) - {start, goal}
    moves: list[str] = []
    while True:
        around = {name: (here[0] + dr, here[1] + dc) for name, (dr, dc) in STEPS.items()}
        ahead = [(name, cell) for name, cell in around.items() if cell in left]
        last = [name for name, cell in around.items() if cell == goal]
        if last and not ahead:
            return [*moves, last[0]], left
        if len(ahead) != 1:
            return None, left
        moves.append(ahead[0][0])
        here = ahead[0][1]
        left.remove(here)


def nearly(marked: set[Cell], start: Cell, goal: Cell, count: int) -> float:
    """How nearly marks on a board of `count` cells a side make a line from start to goal, at most a half.

    It is halved by each cell that must be filled at least to close the gaps, and by each one where the line forks.
    Walls and holes are not looked at: this sees the gap in a line, and finds no way through a maze.
    """
    line = {*marked, start, goal}
    gaps, queue = {start: 0}, [(0, start)]  # cells to fill until here
    while queue and (here := heappop(queue))[1] != goal:
        for cell in _around(here[1]):
            gap = here[0] + (cell not in line)
            if min(cell) >= 0 and max(cell) < count and gap < gaps.get(cell, count**2):
                gaps[cell] = gap
                heappush(queue, (gap, cell))
    forks = sum(len(line.intersection(_around(cell))) > 2 for cell in marked)
    return float(0.5 ** max(gaps[goal] + forks, 1))


def _around(cell: Cell) -> list[Cell]:
    return [(cell[0] + dr, cell[1] + dc) for dr, dc in STEPS.values()]
