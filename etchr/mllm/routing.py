"""The family that an understanding model names for a question, as `prompts.ROUTE` asks for it."""

from etchr.families import TaskFamily
from etchr.mllm.answers import last_box, plain
from etchr.mllm.logprobs import token_share
from etchr.mllm.prompts import ROUTE_FAMILY
from etchr.mllm.protocol import Reply
from etchr.router import Route


def read_route(reply: Reply) -> Route:
    """The family in a reply, with the model's own probability where it gives one.

    A reply that cannot be read names no family; one that says 0 is sure that none would help.
    """
    families = [None, *map(TaskFamily.parse, ROUTE_FAMILY)]
    numbers = [str(number) for number in range(len(families))]
    said = plain(last_box(reply.text) or reply.text).strip(" .")
    if said not in numbers:
        return Route(None, 0.0)
    share = token_share(reply, {said}, set(numbers) - {said})
    return Route(families[int(said)], 1.0 if share is None else share)
