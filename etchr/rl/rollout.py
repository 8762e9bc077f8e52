"""Sampling the edits of a rollout with a stochastic sampler, so that they can be trained on, or sampled again.

What chance decides depends on (seed, iteration, prompt id, number of the edit) alone: not on the number of processes,
nor on what was sampled before.
"""

import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from etchr.editor import geometry
from etchr.editor.klein import KleinEditor, velocity
from etchr.editor.tokens import Grid, to_images, to_pixels
from etchr.flow.schedule import inference_sigmas, shift_sigmas
from etchr.flow.steps import euler_step, transition
from etchr.rewards.score import Score
from etchr.rl.settings import RlConfig
from etchr.sample import EditSample
from etchr.seeds import hash_seed


@dataclass(frozen=True)
class Prompt:
    """What the edits of a group share: encoded once, on the editor's device."""

    sample: EditSample
    source: Image.Image  # at the editor's size
    text: Tensor  # (1, L, D)
    negative: Tensor | None  # (1, L, D) of the empty prompt; None without guidance
    condition: Tensor  # (1, N, C)
    grid: Grid
    sigmas: Tensor  # (T + 1,)


@dataclass(frozen=True)
class StepPlan:
    """Which of the T denoising steps are stochastic, and which S of them are trained in each of the G edits."""

    stochastic: list[bool]
    trained: Tensor  # (G, S) step numbers


@dataclass
class TrainedStep:
    """One denoising step x -> x_next of some edits, and the policy that sampled it. All fp32."""

    sigma: Tensor  # (B,)
    next_sigma: Tensor  # (B,)
    x: Tensor  # (B, N, C)
    x_next: Tensor  # (B, N, C)
    old_mean: Tensor  # (B, N, C)
    log_prob_error: Tensor  # (B,) see `grpo.grpo_loss`; 0 unless x_next was rounded


@dataclass
class Batch:
    """Edits of one prompt that are sampled, and later trained, in one forward: equal shapes give equal numbers."""

    prompt: Prompt
    members: list[int]  # numbers of the edits in their group
    trained: Tensor  # (B, S)
    steps: dict[int, TrainedStep] = field(default_factory=dict)  # by step number, all edits of the batch
    clean: Tensor | None = None  # (B, N, C) the edits' latents x_0, fp32

    def step(self, turn: int) -> TrainedStep:
        """The `turn`-th trained step of every edit, which need not be the same step for all of them."""
        rows = [(self.steps[int(number)], row) for row, number in enumerate(self.trained[:, turn])]
        names = TrainedStep.__dataclass_fields__
        return TrainedStep(**{name: torch.stack([getattr(step, name)[row] for step, row in rows]) for name in names})


@dataclass
class Group:
    """All edits of one prompt in a rollout."""

    place: int  # of the prompt in the iteration's global list
    prompt: Prompt
    batches: list[Batch]
    edits: list[Image.Image]
    scores: list[Future[Score]] = field(default_factory=list)


class Sampler:
    """The policy: the editor's transformer, as `model`, under the options of the rollout."""

    def __init__(self, editor: KleinEditor, model: Any, config: RlConfig) -> None:
        self.editor, self.model, self.config = editor, model, config.rollout
        self.seed, self.group_size = config.seed, config.group_size
        self.batch_size = min(config.batch_size, config.group_size)
        settings = editor.settings
        self.num_steps = config.rollout.num_steps or settings.num_inference_steps
        scale = config.rollout.guidance_scale
        self.guidance_scale = settings.guidance_scale if scale is None else scale

    def prompt(self, sample: EditSample, text: str) -> Prompt:
        """Encode a sample and its editing prompt."""
        source = geometry.fit(sample.image, max_pixels=self.editor.settings.max_pixels)
        condition, grid = self.editor.encode_image(to_pixels([source]))
        negative = self.editor.encode_text([""]) if self.guidance_scale > 1 else None
        return Prompt(sample, source, self.editor.encode_text([text]), negative, condition, grid, self.sigmas(grid))

    def sigmas(self, grid: Grid) -> Tensor:
        """The noise levels (T + 1,) from 1 to 0."""
        if self.config.shift is None:
            return inference_sigmas(self.editor.scheduler, grid.num_tokens, self.num_steps)
        even = torch.linspace(1, 0, self.num_steps + 1)[:-1]
        return torch.cat([shift_sigmas(even, math.log(self.config.shift)), torch.zeros(1)])

    def velocity(self, x: Tensor, sigma: Tensor, prompt: Prompt) -> Tensor:
        """The guided velocity (B, N, C) in fp32; the unconditional part carries no gradient."""
        if prompt.negative is None:
            return self._velocity(x, sigma, prompt, prompt.text)
        with torch.no_grad():
            negative = self._velocity(x, sigma, prompt, prompt.negative)
        return negative + self.guidance_scale * (self._velocity(x, sigma, prompt, prompt.text) - negative)

    def conditional_velocity(self, x: Tensor, sigma: Tensor, prompt: Prompt) -> Tensor:
        """The velocity (B, N, C) without guidance, in fp32."""
        return self._velocity(x, sigma, prompt, prompt.text)

    def _velocity(self, x: Tensor, sigma: Tensor, prompt: Prompt, text: Tensor) -> Tensor:
        time = (sigma * 1000).trunc() / 1000 if self.config.released_rounding else sigma
        text, condition = (part.expand(len(x), -1, -1) for part in (text, prompt.condition))
        return velocity(self.model, x, time, text, condition, prompt.grid, prompt.grid).float()

    @torch.no_grad()
    def group(
        self,
        place: int,
        prompt: Prompt,
        iteration: int,
        plan: StepPlan,
        ask: Callable[[int, Image.Image], Future[Score]] | None = None,
    ) -> Group:
        """Sample all edits of a prompt by `plan`; `ask` is asked for the score of each, once it is decoded."""
        seed, name = self.seed, prompt.sample.id
        group = Group(place, prompt, [], [])
        for start in range(0, self.group_size, self.batch_size):
            members = list(range(start, start + self.batch_size))
            batch = Batch(prompt, members, plan.trained[members])
            starts = [hash_seed(seed, iteration, name, 0 if self.config.same_noise else member) for member in members]
            x = self.walk(batch, plan, self.editor.noise(starts, prompt.grid).float(), (seed, iteration, name))
            batch.clean = x
            made = to_images(self.editor.decode(x.to(self.editor.dtype), prompt.grid))
            if ask is not None:
                group.scores += map(ask, members, made)
            group.edits += made
            group.batches.append(batch)
        return group

    def walk(self, batch: Batch, plan: StepPlan, x: Tensor, seeds: tuple[int | str, ...]) -> Tensor:
        """From noise (B, N, C) to clean tokens; the trained steps are kept in the batch."""
        sigmas = batch.prompt.sigmas
        for number in range(self.num_steps):
            sigma, next_sigma = (sigmas[number + i].expand(len(x)) for i in (0, 1))
            v = self.velocity(x, sigma, batch.prompt)
            if not plan.stochastic[number]:
                x = euler_step(x, v, float(sigma[0]), float(next_sigma[0]))
                continue
            policy = transition(self.config.sde, x, v, sigma, next_sigma, sigmas[1], self.config.eta)
            seeds_here = [hash_seed(*seeds, member, number) for member in batch.members]
            x_next = policy.draw(normal_noise(seeds_here, x))
            error = torch.zeros(len(x), device=x.device)
            if self.config.released_rounding:
                exact, x_next = x_next, x_next.bfloat16().float()
                error = policy.log_prob(x_next) - policy.log_prob(exact)
            if (batch.trained == number).any():
                batch.steps[number] = TrainedStep(sigma, next_sigma, x, x_next, policy.mean, error)
            x = x_next
        return x


def normal_noise(seeds: list[int], like: Tensor) -> Tensor:
    """Standard normal noise, one seed per row of `like`, equal on every device."""
    rows = [torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(like.device)
