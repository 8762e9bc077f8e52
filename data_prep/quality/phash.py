"""Pictures that look alike: a perceptual hash, the hashes near each other, and the rows that share a picture.

Nothing here compares every picture with every other one, and nothing holds a picture: a row is a few numbers.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, LOW = 32, 8  # the picture is shrunk to SIDE x SIDE; LOW x LOW of its frequencies make the hash
REDUCED = 8  # side of the colour reduction that confirms what the hash says
MAX_DISTANCE = 10  # of the 64 bits: beyond, unlike pictures meet as often as like ones
BUDGET = 20_000_000  # pairs looked at in each table of `NearPairs`: all pairs of 6,000 hashes
CHUNK = 1 << 14  # pairs handled at a time

# One row of a data set: digests of its id, of its encoded picture and of its question, the picture's hash and its
# reduction, the number of the row in its file, of the file, and of the set that the row belongs to.
KEYS = np.dtype(
    [
        *(("id", "u8"), ("picture", "u8"), ("question", "u8"), ("hash", "u8"), ("reduced", "u1", (3 * REDUCED**2,))),
        *(("row", "u4"), ("file", "u4"), ("set", "u1")),
    ]
)

Array = NDArray[Any]

_COSINES = np.cos(np.pi * np.outer(np.arange(LOW), 2 * np.arange(SIDE) + 1) / (2 * SIDE))  # DCT-II, a row a frequency
_WEIGHTS = np.uint64(1) << np.arange(63, -1, -1, dtype=np.uint64)


def perceptual_hash(image: Image.Image) -> int:
    """The 64-bit DCT hash of a picture: which of its 8x8 lowest frequencies lie above their median.

    Scaling, recompression and mild changes of brightness flip few bits. Zauner, "Implementation and Benchmarking of
    Perceptual Image Hash Functions" (2010), with the block of frequencies that starts at the mean. Rounding keeps
    frequencies that are zero by symmetry from depending on the last digit.
    """
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    spectrum = np.round(_COSINES @ np.asarray(grey, dtype=np.float64) @ _COSINES.T, 3)
    return int(_WEIGHTS[(spectrum > np.median(spectrum)).ravel()].sum(dtype=np.uint64))


def reduction(image: Image.Image) -> bytes:
    """The mean colours of 8x8 fields. The hash sees neither colour nor, in a drawing, one cell among many; this does.

    A map of a frozen lake with one hole elsewhere is within 4 bits; some field of it differs by a quarter of the scale.
    """
    return image.convert("RGB").resize((REDUCED, REDUCED), Image.Resampling.BOX).tobytes()


class NearPairs:
    """All pairs (i, j) of different places in `hashes` within `distance` bits of each other, each once, in chunks.

    The bits are cut into `distance` + 2 blocks. Two hashes within the distance agree in at least two of them, so one
    table for every two blocks, sorted by those bits, brings the pair together (Manku, Jain and Das Sarma, "Detecting
    Near-Duplicates for Web Crawling", 2007). In a table that holds more than `budget` pairs with equal bits the closest
    in order are looked at, and `complete` turns False.
    """

    def __init__(self, hashes: Array, distance: int, budget: int = BUDGET) -> None:
        self.hashes, self.distance, self.budget = np.asarray(hashes, dtype=np.uint64), distance, budget
        self.complete = True

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        edges = np.linspace(0, 64, self.distance + 3).astype(int)
        blocks = [(1 << int(high)) - (1 << int(low)) for low, high in pairwise(edges)]
        masks = [np.uint64(first | second) for first, second in combinations(blocks, 2)]
        for number, mask in enumerate(masks):
            for i, j in self._table(mask):
                differs = self.hashes[i] ^ self.hashes[j]
                keep = np.bitwise_count(differs) <= self.distance
                for earlier in masks[:number]:
                    keep &= (differs & earlier) != 0  # else that table had the pair
                if keep.any():
                    yield i[keep], j[keep]

    def _table(self, mask: np.uint64) -> Iterator[tuple[Array, Array]]:
        """Pairs of equal bits under `mask`: neighbours in sorted order, then those two apart, and so on."""
        bits = self.hashes & mask
        order = np.argsort(bits, kind="stable")
        bits = bits[order]
        at, step, spent = np.arange(len(bits)), 1, 0
        while True:
            at = at[at < len(bits) - step]
            at = at[bits[at] == bits[at + step]]
            if not len(at):
                return
            if spent >= self.budget:
                self.complete = False
                return
            for start in range(0, len(at), CHUNK):
                part = at[start : start + CHUNK]
                yield order[part], order[part + step]
            spent, step = spent + len(at), step + 1


class Sharing:
    """Which rows have a partner: another row with the same picture, or a similar one, and with the same question.

    Pictures are the same if their encoded bytes are. They are similar if their hashes differ in at most `distance` bits
    and no field of their reductions by more than `tolerance` of 255.
    """

    def __init__(self, keys: Array, distance: int, tolerance: int) -> None:
        self.keys, self.distance, self.tolerance = keys, distance, tolerance
        _, first, self.picture = np.unique(keys["picture"], return_index=True, return_inverse=True)
        questions, question = np.unique(keys["question"], return_inverse=True)
        self.num_questions = len(questions)
        # a picture with a question; sorted by picture, so those of one picture lie together
        self.askings, self.asking = np.unique(self.picture * self.num_questions + question, return_inverse=True)
        starts = np.searchsorted(self.askings // max(self.num_questions, 1), np.arange(len(first) + 1))
        self.starts, self.num_askings = starts[:-1], np.diff(starts)
        bits = np.uint64(1) << keys["set"].astype(np.uint64)
        self.holds, self.holds_asking = _gather(self.picture, bits, len(first)), _gather(self.asking, bits)
        self.near, self.near_asking = np.zeros_like(self.holds), np.zeros_like(self.holds_asking)
        pairs = NearPairs(keys["hash"][first], distance)
        for i, j in pairs:
            alike = _farthest(keys["reduced"][first[i]], keys["reduced"][first[j]]) <= tolerance
            self._meet(i[alike], j[alike])
        self.complete = pairs.complete

    def _meet(self, i: Array, j: Array) -> None:
        """Note in which sets the pictures `i` have the neighbours `j`, and the other way round."""
        np.bitwise_or.at(self.near, i, self.holds[j])
        np.bitwise_or.at(self.near, j, self.holds[i])
        swap = self.num_askings[i] > self.num_askings[j]
        i, j = np.where(swap, j, i), np.where(swap, i, j)
        counts = self.num_askings[i]
        mine = np.repeat(self.starts[i] - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        wanted = np.repeat(j, counts) * self.num_questions + self.askings[mine] % max(self.num_questions, 1)
        theirs = np.minimum(np.searchsorted(self.askings, wanted), len(self.askings) - 1)
        found = self.askings[theirs] == wanted
        mine, theirs = mine[found], theirs[found]
        np.bitwise_or.at(self.near_asking, mine, self.holds_asking[theirs])
        np.bitwise_or.at(self.near_asking, theirs, self.holds_asking[mine])

    def partners(self, rows: Array, sets: Sequence[int]) -> dict[str, Array]:
        """For each of `rows`, all of one set, whether another row of `sets` shares what the name says."""
        own = int(self.keys["set"][rows[0]]) if len(rows) else -1
        other = np.uint64(sum(1 << number for number in sets if number != own))
        every = np.uint64(sum(1 << number for number in sets))
        flags = {}
        for what, number, holds, near in (
            ("picture", self.picture[rows], self.holds, self.near),
            ("picture_and_question", self.asking[rows], self.holds_asking, self.near_asking),
        ):
            same = (holds[number] & other) != 0
            if own in sets:
                same |= np.bincount(number, minlength=len(holds))[number] > 1
            flags[f"same_{what}"] = same
            flags[f"similar_{what}"] = same | ((near[number] & every) != 0)
        return flags

    def partner(self, row: int, sets: Sequence[int]) -> int | None:
        """The row of `sets` most like `row` with its question, after it where they are of one set; None without one."""
        mine = self.keys[row]
        others = np.isin(self.keys["set"], sets) & (self.keys["question"] == mine["question"])
        if mine["set"] in sets:
            others[: row + 1] = False
        others &= np.bitwise_count(self.keys["hash"] ^ mine["hash"]) <= self.distance  # 0 for the same picture
        found = np.flatnonzero(others)[:CHUNK]
        is_other = self.keys["picture"][found] != mine["picture"]
        fields = _farthest(self.keys["reduced"][found], mine["reduced"])
        close = ~is_other | (fields <= self.tolerance)
        bits = np.bitwise_count(self.keys["hash"][found] ^ mine["hash"])
        order = np.lexsort((found[close], fields[close], bits[close], is_other[close]))
        return int(found[close][order[0]]) if len(order) else None


def _farthest(a: Array, b: Array) -> Array:
    """The largest difference between the fields of two reductions each; uint8 of shape (pairs, fields)."""
    return (np.maximum(a, b) - np.minimum(a, b)).max(axis=1, initial=0)


def _gather(places: Array, bits: Array, size: int | None = None) -> Array:
    """The bits that meet at each place."""
    out = np.zeros(size if size is not None else int(places.max(initial=-1)) + 1, dtype=np.uint64)
    np.bitwise_or.at(out, places, bits)
    return out
