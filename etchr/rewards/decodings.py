"""What both rewards share: K decodings of one question, what could not be read asked for again, and their mean."""

from collections.abc import Awaitable, Callable, Collection, Sequence

from etchr.mllm.journal import JournaledModel
from etchr.mllm.logprobs import token_share
from etchr.mllm.protocol import MLLM, CallFailed, Message, Reply, Sampling
from etchr.rewards.settings import RewardConfig
from etchr.seeds import server_seed


class NoLogprobsError(ValueError):
    """A reply without the log-probabilities that a dense reward needs."""


Read = Callable[[Sequence[Reply]], Awaitable[Sequence[float | str]]]  # of each reply its value, or why it has none


async def mean_value(model: MLLM, message: Message, read: Read, config: RewardConfig, seed: int) -> float:
    """The mean of `read` over K decodings at the rewards' temperature, asked for in one request.

    Replies that were cut off or that `read` cannot read are missing: their number is asked for again, up to `retries`
    times, each time with another seed. `CallFailed` with the reason if in the end less than half of K can be read.
    """
    return await _mean(model, message, read, config, seed, config.num_decodings, config.temperature)


async def dense_value(
    model: MLLM, message: Message, wanted: Collection[str], others: Collection[str], config: RewardConfig, seed: int
) -> float:
    """The probability of `wanted` among `wanted` and `others` in one decoding at temperature 0: see `token_share`.

    `NoLogprobsError` if the model gives no log-probabilities; `CallFailed` as in `mean_value`.
    """

    async def read(replies: Sequence[Reply]) -> list[float | str]:
        if any(reply.logprobs is None for reply in replies):
            raise NoLogprobsError(
                f"a dense reward needs log-probabilities and {model.name} gives none: set top_logprobs (20, say) of "
                "the model, start its server so that it gives them, or set dense=false"
            )
        shares = [token_share(reply, wanted, others) for reply in replies]
        pairs = zip(replies, shares, strict=True)
        return [f"no {'/'.join(wanted)} in {tail(reply)}" if share is None else share for reply, share in pairs]

    return await _mean(model, message, read, config, seed, 1, 0.0)


async def _mean(
    model: MLLM, message: Message, read: Read, config: RewardConfig, seed: int, count: int, temperature: float
) -> float:
    values: list[float] = []
    reason, asked = "", list[Sampling]()
    for attempt in range(config.retries + 1):
        wanted = count - len(values)
        try:
            sampling = Sampling(temperature, config.max_tokens, server_seed(seed, attempt), wanted)
            replies = await model.chat([message], sampling)
            asked.append(sampling)
        except CallFailed as error:
            reason = str(error)
            break  # the client has done its own retrying
        whole = [reply for reply in replies[:wanted] if reply.finish_reason != "length"]
        if len(whole) < len(replies):
            reason = f"{model.name} was cut off at max_tokens={config.max_tokens}"
        for value in await read(whole):
            if isinstance(value, str):
                reason = f"{model.name}: {value}"
            else:
                values.append(value)
        if len(values) == count:
            break
    if not values or 2 * len(values) < count:
        if isinstance(model, JournaledModel):
            for sampling in asked:
                await model.forget([message], sampling)  # a server that is mended is asked anew
        raise CallFailed(f"{len(values)} of {count} decodings could be used; {reason}")
    return sum(values) / len(values)


def tail(reply: Reply) -> str:
    """The end of a reply for a message: printable and short, for it comes from outside."""
    return ascii(reply.text[-60:])
