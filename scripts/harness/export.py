"""Samples as JSON lines for a harness that knows nothing of this project: prompt, picture, answer, the edit's seed.

python scripts/harness/export.py DATA OUT.jsonl [SEED]
"""

import json
import sys
from pathlib import Path

from etchr.images import to_data_uri
from etchr.mllm.answers import answer_type, ground_truth
from etchr.mllm.prompts import answer_prompt
from etchr.sample import read_parquet
from evaluation.systems.base import noise_of, sample_seed


def main(data: str, out: str, seed: str = "126") -> None:
    """Write every test sample below `data`; SEED is that of the run which it is compared with."""
    samples = [sample for path in sorted(Path(data).glob("*/test.parquet")) for sample in read_parquet(path)]
    lines = [
        {
            "id": sample.id,
            "prompt": answer_prompt(sample.question, sample.choices, answer_type(sample), with_edit=False),
            "image": to_data_uri(sample.image),
            "target": ground_truth(sample),
            "family": str(sample.family),
            "question": sample.question,
            "seed": sample_seed(int(seed), noise_of(sample)),
        }
        for sample in samples
    ]
    Path(out).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(f"{out}: {len(lines)} samples")


if __name__ == "__main__":
    main(*sys.argv[1:])
