"""Probabilities in place of a single word: what a reply's log-probabilities say where it decides."""

import math
from collections.abc import Collection

from etchr.mllm.protocol import Reply


def token_share(reply: Reply, wanted: Collection[str], others: Collection[str]) -> float | None:
    """The probability mass of `wanted` among `wanted` and `others` where the reply decides between them.

    That is its last token at which one of them is the most probable candidate; tokens are compared without white
    space. None if there is no such token, or the reply has no log-probabilities.
    """
    for candidates in reversed(reply.logprobs or ()):
        best = max(candidates, key=candidates.__getitem__, default="")
        if best.strip() not in wanted and best.strip() not in others:
            continue
        # Relative to the best one, so that no probability, however small, makes the sum 0.
        mass = {token: math.exp(logprob - candidates[best]) for token, logprob in candidates.items()}
        right = sum(value for token, value in mass.items() if token.strip() in wanted)
        wrong = sum(value for token, value in mass.items() if token.strip() in others)
        return right / (right + wrong)
    return None
