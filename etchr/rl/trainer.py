"""The trainer of Stage II, Pref-GRPO: sample edits, have them rewarded, move the policy towards the better ones.

What an iteration sees depends on (seed, iteration) alone, so a run that is killed ends as an unbroken one, and so do
one process and many.
"""

import logging
import math
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import astuple
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from etchr.mllm.journal import CallJournal
from etchr.rewards.cache import RewardCache, score_key
from etchr.rewards.pool import RewardPool
from etchr.rewards.score import EditRewards, Score
from etchr.rl import algorithms
from etchr.rl.finish import keep_best, write_adapters
from etchr.rl.inputs import read_inputs
from etchr.rl.logger import Moments, RlLogger
from etchr.rl.policy import build_policy
from etchr.rl.rollout import Batch, Group, Sampler
from etchr.rl.scores import Scores
from etchr.rl.settings import RlConfig
from etchr.rl.validation import RlValidation
from etchr.runtime import Runtime, grad_norm
from etchr.sample import EditSample
from etchr.seeds import hash_seed, server_seed
from etchr.training.optim import lr_factor
from etchr.training.run import Run, open_run
from etchr.training.state import TrainState

log = logging.getLogger(__name__)


class TooManyMissing(ValueError):  # noqa: N818 - a fact about the reward servers, not a defect of the program
    """Too few edits of a rollout could be scored to learn from them."""


def train(config: RlConfig) -> Path:
    """Run a training, or go on with the one in `config.out`; the folder of the finished adapter.

    Raises `ValueError` for what the options, the data, the base or an endpoint cannot do, before the base's weights are
    read where that can be known; `TooManyMissing` where the reward models do not answer; `OSError` where the disk is
    full. Checkpoints written before stay whole.
    """
    runtime = Runtime(config.device, config.model.dtype, config.adapter.needs_autocast, config.threads)
    inputs = read_inputs(config, runtime)
    with open_run(config, runtime, inputs) as run:
        if not run.is_finished():
            cache = RewardCache(run.folder / "rewards", runtime.rank)
            calls = CallJournal(run.folder / "calls", runtime.rank)
            with RewardPool(EditRewards.from_config(config.reward, runtime.rank, calls), cache) as pool:
                state = build_policy(config, runtime, inputs.base)
                trainer = RlTrainer(config, run, state, pool)
                trainer.fit()
            trainer.write()
    return run.adapter


class RlTrainer:
    """The loop of a run."""

    def __init__(self, config: RlConfig, run: Run, state: TrainState, pool: RewardPool) -> None:
        self.config, self.run, self.state, self.pool = config, run, state, pool
        self.runtime, self.data, self.total = run.runtime, run.inputs.data, run.inputs.total
        self.sampler = Sampler(state.editor, state.model, config)
        self.algorithm = algorithms.find(config.objective.kind)(config, self.sampler, state.parameters)
        self.lr_factor = lr_factor(config.optim, self.total * config.updates_per_iteration, self.runtime.num_processes)
        self.validation: RlValidation | None = None
        if run.inputs.held_out is not None:
            self.validation = RlValidation(config, run.inputs.held_out, state, pool, self.runtime)

    def fit(self) -> None:
        """From the last checkpoint to the last iteration."""
        run, config = self.run, self.config
        start = run.begin(self.state)
        self.journal = RlLogger(run, start)
        self.state.editor.transformer.eval()  # there is no dropout, and sampling and training must agree
        (seen,) = self.runtime.sum(float(self.journal.has_validation(start)))  # the main process knows
        if self._looks_at(start) and not seen:
            self._validate(start)
        steps, show = range(start, self.total), self.runtime.is_main
        bar = tqdm(steps, "RL", initial=start, total=self.total, unit="iteration", disable=not show)
        for iteration in bar:
            try:
                self.iterate(iteration)
            except TooManyMissing:
                if iteration > max(run.checkpoints.steps(), default=start):
                    self._save(iteration)
                raise
            done = iteration + 1
            if done % config.save_every == 0 or done == self.total or self._looks_at(done):
                self._save(done)
            if self._looks_at(done):
                self._validate(done)
            bar.set_postfix(reward=f"{self.journal.last.get('reward', math.nan):.3f}", refresh=False)
        self.journal.close()

    def write(self) -> None:
        """Write the adapters and their model cards."""
        told = "edits that the models were asked about: %d, known before: %d, without a score: %d"
        log.info(told, *astuple(self.pool.stats))
        write_adapters(self.config, self.run, self.state, self.algorithm, self.journal.last)

    def iterate(self, iteration: int) -> None:
        """One rollout and the updates on it."""
        config, moments = self.config, Moments()
        begin = time.perf_counter()
        self.pool.keep_for(iteration)
        self.algorithm.prepare()
        groups = self.sample(iteration)
        sampled = time.perf_counter()
        scores = Scores(config, self.runtime, groups)
        for update in range(config.updates_per_iteration):
            self.update(iteration, update, groups, scores, moments)
        scores.share()
        seconds = {
            "seconds_sampling": sampled - begin,
            "seconds_waiting": scores.seconds,
            "seconds_training": time.perf_counter() - sampled - scores.seconds,
        }
        values = moments.values(self.runtime) | self.algorithm.stats(self.runtime) | seconds
        self.journal.iteration(iteration + 1, scores, values, groups)

    def sample(self, iteration: int, rows: np.ndarray | None = None) -> list[Group]:
        """This process's groups, of the iteration's prompts or of `rows` (P,); their edits are being scored."""
        config, runtime, groups = self.config, self.runtime, []
        rows = self.run.inputs.plan.batch(iteration) if rows is None else rows
        for place in range(runtime.rank, len(rows), runtime.num_processes):
            row = int(rows[place])
            sample = self.data.sample(row)
            sample = sample.asked(hash_seed(config.seed, iteration, sample.id, "question"))
            ask = partial(self.submit, iteration, sample) if config.reward.overlap else None
            with runtime.autocast():
                prompt = self.sampler.prompt(sample, self.data.prompts[row])
                plan = self.algorithm.plan(self.sampler.num_steps, hash_seed(config.seed, iteration, sample.id))
                groups.append(self.sampler.group(place, prompt, iteration, plan, ask))
        if not config.reward.overlap:
            for group in groups:
                ask = partial(self.submit, iteration, group.prompt.sample)
                group.scores = [ask(member, edit) for member, edit in enumerate(group.edits)]
        return groups

    def submit(self, iteration: int, sample: EditSample, member: int, edit: Image.Image) -> Future[Score]:
        """Ask for the score of an edit."""
        seed = server_seed(self.config.seed, iteration, sample.id, member, "reward")
        return self.pool.submit(iteration, score_key(sample.id, edit, seed), sample, edit, seed)

    def update(self, iteration: int, update: int, groups: list[Group], scores: Scores, moments: Moments) -> None:
        """One optimizer step on a part of the rollout."""
        config, state = self.config, self.state

        # ----- gradient step
        learned = self.accumulate(iteration, update, groups, scores, moments)
        if update == 0:
            self._check_missing(scores)  # before anything is changed
        if not learned:
            return
        norm = grad_norm(state.parameters, config.optim.clip)
        if not math.isfinite(norm):
            raise ValueError(f"the gradient norm is {norm} in iteration {iteration + 1}; lower optim.lr in a new out=")
        lr = config.optim.lr * self.lr_factor(iteration * config.updates_per_iteration + update)
        state.update(lr)
        # -----
        moments.update(norm, lr)

    def accumulate(self, iteration: int, update: int, groups: list[Group], scores: Scores, moments: Moments) -> bool:
        """The gradient of an update, whether there is one. Groups whose edits are all equally good cost nothing."""
        config, runtime, algorithm, learned = self.config, self.runtime, self.algorithm, False
        num_edits = config.prompts_per_iteration * config.group_size / config.updates_per_iteration
        for batch, advantage, is_last in self._learnable(update, groups, scores):
            advantage = advantage.to(runtime.device)
            counts = advantage != 0
            num_turns = algorithm.num_turns(batch)
            for turn in range(num_turns):
                with runtime.accumulating(self.state.model, last=is_last and turn == num_turns - 1):
                    with runtime.autocast():
                        loss = algorithm.loss(batch, turn, advantage, iteration, is_first=update == 0)
                    loss = (loss * counts).sum() / (num_edits * num_turns)
                    runtime.backward(loss * runtime.num_processes)  # processes average
                moments.num += int(counts.sum())
            learned = True
        return learned

    def _learnable(self, update: int, groups: list[Group], scores: Scores) -> Iterator[tuple[Batch, Tensor, bool]]:
        """The batches of an update that some process learns from, with advantages, and whether it is the last.

        All processes get equally many, in step; one batch is held back, so that the last is known to be the last.
        """
        held: tuple[Batch, Tensor] | None = None
        for batch in self._part(update, groups):
            advantage = scores.advantage(batch)
            (useful,) = self.runtime.sum(float(advantage.count_nonzero()))
            if useful:
                if held is not None:
                    yield *held, False
                held = batch, advantage
        if held is not None:
            yield *held, True

    def _part(self, update: int, groups: list[Group]) -> list[Batch]:
        """The batches of this process in an update: the first batch of every group, then the second of every one."""
        config = self.config
        pieces = len(groups[0].batches)
        size = config.prompts_per_iteration * pieces // config.updates_per_iteration
        order = [
            (piece * config.prompts_per_iteration + group.place, group.batches[piece])
            for piece in range(pieces)
            for group in groups
        ]
        return [batch for place, batch in order if place // size == update]

    def _check_missing(self, scores: Scores) -> None:
        """Stop where too many scores do not come; waits for those on their way only if they could be too many."""
        if scores.missing_at_most() <= self.config.reward.max_missing:
            return
        scores.share()
        share = scores.missing_share()
        if share > self.config.reward.max_missing:
            self.state.optimizer.zero_grad()
            raise TooManyMissing(
                f"{share:.0%} of a rollout's edits have no score, more than reward.max_missing="
                f"{self.config.reward.max_missing:g}: {scores.reason()}. Start the same command again when that is "
                "mended; what was scored is kept"
            )

    def _looks_at(self, done: int) -> bool:
        every = self.config.validation.every
        return self.validation is not None and (done % every == 0 or done == self.total)

    def _save(self, done: int) -> None:
        self.run.save(done, self.state)
        self.pool.prune(min(self.run.checkpoints.steps(), default=0))

    def _validate(self, done: int) -> None:
        """Rewards and pictures with the weights that would be saved now; the best ones are kept."""
        assert self.validation is not None
        self.pool.keep_for(None)  # unchanged edits come up again
        values, page = self.validation(done)
        keep_best(self.run, self.state, done, values, self.journal.best())
        self.journal.write(done, values, page, "held_out")
