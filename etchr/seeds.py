"""Seeds from several numbers: what a step or a sample draws depends on its numbers alone, never on what ran before."""

import hashlib


def hash_seed(*numbers: int | str) -> int:
    """A 63-bit seed from several numbers or names, so that neighbouring steps draw unrelated noise."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def server_seed(*numbers: int | str) -> int:
    """`hash_seed` for a request: some servers keep seeds in 32 bits, and vLLM adds the decoding's index."""
    return hash_seed(*numbers) % 2**31
