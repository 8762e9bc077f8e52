"""Is an edit right? A strict comparison of its pixels with the ground-truth edit, without any model.

This is what "edit correctness" means in every table, and what verification is measured against.
"""

import numpy as np
from PIL import Image

BLOCKS = 16  # blocks a side; at 64 px a block is 4x4 px, about the width of what an edit draws
TOLERANCE = 0.16  # largest difference of a block's mean colour, as a share of the range


def edit_matches(edit: Image.Image, ground_truth: Image.Image) -> bool:
    """True iff every one of 16x16 blocks has the ground truth's mean colour up to a tolerance.

    One missing side of a box, one wrong cell of a path or one displaced object is enough to fail; the blur of a small
    VAE is not.
    """
    return edit_error(edit, ground_truth) <= TOLERANCE


def edit_error(edit: Image.Image, ground_truth: Image.Image) -> float:
    """The largest difference of a block's mean colour, 0..1, averaged over the three channels."""
    blocks = [
        np.asarray(i.convert("RGB").resize((BLOCKS,) * 2, Image.Resampling.BOX), float) for i in (edit, ground_truth)
    ]
    return float(np.abs(blocks[0] - blocks[1]).mean(-1).max() / 255)
