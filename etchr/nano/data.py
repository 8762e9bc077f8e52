"""What the nano base is trained on: pairs as pixels, and encoded once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from etchr.editor.klein import KleinEditor
from etchr.runtime import Runtime
from etchr.sample import EditSample


@dataclass(frozen=True)
class PixelPairs:
    """The training pairs: uint8 pictures (N, 3, H, W), and of each its prompt and task."""

    sources: Tensor
    targets: Tensor
    prompts: list[str]
    tasks: list[str]

    @classmethod
    def of(cls, samples: Iterable[EditSample], multiple: int = 1) -> "PixelPairs":
        """The largest `multiple` of pairs; `ValueError` for one without an edit, or for pictures of several sizes."""
        sources, targets, prompts, tasks = [], [], [], []
        for sample in samples:
            if sample.edit_image is None:
                raise ValueError("every training sample needs an edit_image")
            sources.append(np.asarray(sample.image))
            targets.append(np.asarray(sample.edit_image))
            prompts.append(sample.question)
            tasks.append(sample.task)
        if len({picture.shape for picture in (*sources, *targets)}) > 1:
            raise ValueError("the training pictures differ in size; make them with one size=N")
        count = len(prompts) // multiple * multiple

        def stack(pictures: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(pictures[:count])).permute(0, 3, 1, 2).contiguous()

        return cls(stack(sources), stack(targets), prompts[:count], tasks[:count])


@dataclass(frozen=True)
class Corpus:
    """A data set encoded once: training the transformer then touches neither VAE nor text encoder."""

    sources: Tensor  # (N, T, C) clean latent tokens of the condition images
    targets: Tensor  # (N, T, C) clean latent tokens of the edits
    text: Tensor  # (P, L, D) embeddings of the distinct prompts
    prompt_of: Tensor  # (N,) row of `text`
    tasks: list[str]  # of the samples
    grid: Any  # token grid that all images share

    def epoch(self, emphasis: Mapping[str, int]) -> Tensor:
        """The samples of one epoch; those of a task come `emphasis[task]` times, once by default."""
        return torch.arange(len(self.tasks)).repeat_interleave(
            torch.tensor([emphasis.get(task, 1) for task in self.tasks])
        )


def encode_corpus(editor: KleinEditor, pairs: PixelPairs, runtime: Runtime) -> Corpus:
    """Encode the pairs, every process its share of them."""

    def tokens(pixels: Tensor, what: str) -> tuple[Tensor, Any]:
        batches = tqdm(runtime.share(pixels).split(64), desc=what, leave=False, disable=not runtime.is_main)
        parts = [editor.encode_image(batch.float() / 127.5 - 1) for batch in batches]
        return runtime.gather(torch.cat([part for part, _ in parts])), parts[0][1]

    distinct = list(dict.fromkeys(pairs.prompts))
    row = {prompt: index for index, prompt in enumerate(distinct)}
    source_tokens, grid = tokens(pairs.sources, "encode sources")
    return Corpus(
        sources=source_tokens,
        targets=tokens(pairs.targets, "encode edits")[0],
        text=editor.encode_text(distinct),
        prompt_of=torch.tensor([row[prompt] for prompt in pairs.prompts]),
        tasks=pairs.tasks,
        grid=grid,
    )
