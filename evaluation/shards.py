"""Several processes on one evaluation, as `accelerate launch -m evaluation ...` starts them: one for each GPU."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """One process of several; a single one takes everything."""

    rank: int = 0
    num_shards: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def quiet(self) -> bool:
        """Whether this process shows no progress: one bar is enough, and the shares are equal."""
        return not self.is_main

    def takes(self, number: int) -> bool:
        """Whether the job of this number is this process's. Numbers do not depend on what is done already."""
        return number % self.num_shards == self.rank

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.num_shards > 1:
            from etchr.runtime import wait_for_all

            wait_for_all()


def this_shard() -> Shard:
    """The process's place, from what the launcher put into its environment."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Shard()
    from etchr.runtime import join_processes

    return Shard(*join_processes())
