"""Small data in the published formats of the sources that draw boxes."""

import io
import json

import numpy as np
from PIL import Image


def picture(seed=0, size=(120, 90), kind="PNG"):
    """The bytes of a noisy picture without red."""
    pixels = np.random.default_rng(seed).integers(60, 200, (size[1], size[0], 3), dtype=np.uint8)
    pixels[..., 0] = 40
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def record(label, question="What color is the cup?", answer="The cup is blue.", boxes=((20, 30, 25, 15),), **more):
    """A record of seal_vqa_data, its human turn as SEAL writes it."""
    focus = "; ".join(["<object>"] * len(boxes))
    asked = f"<image>\nAdditional visual information to focus on: {focus}.\n{question}"
    return {
        "image": label,
        "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}],
        "search": "",
        "target_instances": [{"name": f"thing {i}", "bbox": list(box)} for i, box in enumerate(boxes)],
        **more,
    }


def write_seal(root, **files):
    """The folders of the pictures, and JSON files: `GQA=[...]` becomes GQA_data.json."""
    for folder in ("gqa/images", "coco2014/train2014", "coco2017/train2017"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, records in files.items():
        (root / f"{name}_data.json").write_text(json.dumps(records), encoding="utf-8")
    return root


def chart(number=0, *, data=None, **more):
    """A row of RefChartQA."""
    row = {
        "id": f"RefChartQA_human_train_{number}",
        "image": {"bytes": picture(number) if data is None else data, "path": f"chart_{number}.png"},
        "query": f"What is the value of bar {number}?",
        "label": str(10 * number + 5),
        "response": "<box>1,2,3,4</box><grounding-sep>5",
        "type": "human",
        "grounding_bboxes": [{"x": 20.5, "y": 30.25, "w": 25.0, "h": 15.5}],
    }
    return row | more


def write_charts(root, *files, split="train", group=3):
    """Parquet files of these rows, in row groups of `group` rows, with the types of the hub."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    label = (
        pa.list_(pa.string()) if any(isinstance(row["label"], list) for rows in files for row in rows) else pa.string()
    )
    box = pa.struct([(name, pa.float32()) for name in "xywh"])
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("query", pa.string()),
            ("label", label),
            ("response", pa.string()),
            ("type", pa.string()),
            ("grounding_bboxes", pa.list_(box)),
        ]
    )
    (root / "data").mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(files):
        path = root / "data" / f"{split}-{number:05d}-of-{len(files):05d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=group)
    return root


def refused(out, name, split="train"):
    """The reasons of `rejected.jsonl`, by item."""
    lines = (out / name / split / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["item"]: entry["reason"] for entry in map(json.loads, lines)}
