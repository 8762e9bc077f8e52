"""Evidence while it runs: held-out prompts, edited as at inference, rewarded, verified and answered from."""

from concurrent.futures import Future

import torch
from PIL import Image

from etchr.editor import geometry
from etchr.evr import Proposal, Trace, Verdict, edit_verify_reason
from etchr.mllm.answers import is_correct
from etchr.mllm.protocol import Sampling
from etchr.rewards.cache import score_key
from etchr.rewards.pool import RewardPool
from etchr.rewards.score import Score
from etchr.rl.settings import RlConfig
from etchr.runtime import Runtime
from etchr.sample import EditSample
from etchr.seeds import hash_seed, server_seed
from etchr.training.data import SampleTable
from etchr.training.pictures import even, sheet
from etchr.training.plan import chunks_of_one_size, in_step
from etchr.training.state import TrainState


class RlValidation:
    """Held-out prompts and how they are looked at; the same at every call."""

    def __init__(
        self, config: RlConfig, data: SampleTable, state: TrainState, pool: RewardPool, runtime: Runtime
    ) -> None:
        self.config, self.data, self.state, self.pool, self.runtime = config, data, state, pool, runtime
        self.editor = state.editor
        self.sampling = Sampling(max_tokens=config.reward.max_tokens)
        rows = even(data.tasks, config.validation.num_samples)
        self.chunks = chunks_of_one_size(rows, data.sizes, self.editor.batch_size)

    def __call__(self, iteration: int) -> tuple[dict[str, float], Image.Image | None]:
        """Reward, its parts, verify rate and Pass@1 over the held-out prompts, and a sheet of the first edits.

        The processes share the work, and each gets the whole.
        """
        seen: list[tuple[EditSample, Image.Image, Future[Score], Future[Trace]]] = []
        with self.state.averaged(), self.runtime.autocast(), torch.no_grad():
            for rows, is_mine in in_step(self.chunks, self.runtime.rank, self.runtime.num_processes):
                samples = [self._sample(row) for row in rows]
                edits = self._edit(samples, [self.data.prompts[row] for row in rows])
                if is_mine:
                    for sample, edit in zip(samples, edits, strict=True):
                        seen.append((sample, edit, *self._ask(iteration, sample, edit)))
        values = self._values([(sample, score.result(), trace.result()) for sample, _, score, trace in seen])
        return values, self._sheet(seen) if self.runtime.is_main else None

    def _sample(self, row: int) -> EditSample:
        """A held-out sample with one of its questions, the same every time."""
        sample = self.data.sample(row)
        return sample.asked(hash_seed(self._seed, sample.id, "question"))

    def _edit(self, samples: list[EditSample], texts: list[str]) -> list[Image.Image]:
        sources = [geometry.fit(sample.image, max_pixels=self.editor.settings.max_pixels) for sample in samples]
        # One by one, as rollouts encode them, for the editor remembers: in a batch the last bits may differ.
        text = torch.cat([self.editor.encode_text([text]) for text in texts])
        return self.editor.edit_batch(sources, text, [hash_seed(self._seed, sample.id) for sample in samples])

    def _ask(self, iteration: int, sample: EditSample, edit: Image.Image) -> tuple[Future[Score], Future[Trace]]:
        seed = server_seed(self._seed, sample.id, "reward")
        score = self.pool.submit(iteration, score_key(sample.id, edit, seed), sample, edit, seed)

        async def propose(_: EditSample) -> Proposal:
            return Proposal(edit, self.editor.name)

        reasoner = self.pool.rewards.reasoner
        trace = self.pool.run(edit_verify_reason(sample, propose, reasoner, reasoner, self.sampling))
        return score, trace

    def _values(self, outcomes: list[tuple[EditSample, Score, Trace]]) -> dict[str, float]:
        alpha = self.config.reward.guidance_weight
        scored = [score for _, score, _ in outcomes if score.missing is None]
        guidance = sum(score.guidance or 0.0 for score in scored)
        correctness = sum(score.correctness or 0.0 for score in scored)
        traces = [(sample, trace) for sample, _, trace in outcomes if trace.unscored is None]
        right: float = sum(is_correct(trace.answer, sample) for sample, trace in traces)
        accepted: float = sum(trace.verdict is Verdict.ACCEPTED for _, trace in traces)
        counts = (len(outcomes), len(scored), guidance, correctness, len(traces), right, accepted)
        num, num_scored, guidance, correctness, num_traces, right, accepted = self.runtime.sum(*map(float, counts))
        values = {"val_missing_share": round((num - num_scored) / num, 6)}  # exact as val_reward is
        if num_scored:
            values |= {
                # as exact as metrics.jsonl keeps it: a tie stays a tie when a run goes on
                "val_reward": round((alpha * guidance + (1 - alpha) * correctness) / num_scored, 6),
            }
            parts = {"val_guidance": (guidance, alpha), "val_correctness": (correctness, 1 - alpha)}
            values |= {name: total / num_scored for name, (total, weight) in parts.items() if weight}
        if num_traces:
            values |= {"val_pass_at_1": right / num_traces, "val_verify_rate": accepted / num_traces}
        tasks = sorted({self.data.tasks[row] for rows in self.chunks for row in rows})
        seen = [sum(sample.task == task for sample, _ in traces) for task in tasks]
        wins = [sum(is_correct(t.answer, sample) for sample, t in traces if sample.task == task) for task in tasks]
        sums = self.runtime.sum(*map(float, seen + wins))
        for task, count, won in zip(tasks, sums[: len(tasks)], sums[len(tasks) :], strict=True):
            if count:
                values[f"val_pass_at_1_{task}"] = won / count
        return values

    def _sheet(self, seen: list[tuple[EditSample, Image.Image, Future[Score], Future[Trace]]]) -> Image.Image | None:
        order = even([sample.task for sample, *_ in seen], self.config.validation.num_pictures)
        rows = []
        for sample, edit, score, trace in (seen[index] for index in order):
            verdict = trace.result().verdict or "no verdict"
            words = f"{sample.question}   guidance {score.result().guidance}, {verdict}"
            rows.append((words, [sample.image, edit, *([sample.edit_image] if sample.edit_image else [])]))
        return sheet(["source", "edit", "ground truth"], rows) if rows else None

    @property
    def _seed(self) -> int:
        return self.config.validation.seed
