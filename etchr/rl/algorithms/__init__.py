"""What Stage II can learn by: one file for each algorithm, and its line here. Loads without torch."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etchr.rl.algorithms.base import Algorithm

ALGORITHMS = {  # objective.kind: module and class
    "grpo": "etchr.rl.algorithms.grpo:Grpo",
    "nft": "etchr.rl.algorithms.nft:Nft",
}


def find(kind: str) -> "type[Algorithm]":
    """The class of an `objective.kind`."""
    module, name = ALGORITHMS[kind].split(":")
    found: type[Algorithm] = getattr(import_module(module), name)
    return found
