"""Convert MMBench V1.1 from VLMEvalKit's TSV to the parquet file that the task reads.

python convert.py MMBench_DEV_EN_V11.tsv [OUT.parquet]
"""

from __future__ import annotations

import argparse
import base64
from pathlib import Path

import datasets
import pandas as pd

OUT = Path(__file__).resolve().parent / "data" / "mmbench_dev_en_v11.parquet"

_TEXTS = ("question", "hint", "A", "B", "C", "D", "answer", "category", "L2-category", "source", "split")

# A base64 image is longer than this; a shorter cell is the index of the row with the same image.
_LONGEST_INDEX = 64
_ROTATION = 1_000_000


def convert(tsv: Path, out: Path) -> int:
    """Write the rows of `tsv` to `out`, with a question's rotations together, and return their number.

    Raises:
        SystemExit: the file lacks a column.
    """
    # Read everything as text, because options such as "None", "NA" or 3 must not be converted.
    table = pd.read_csv(tsv, sep="\t", dtype=str, keep_default_na=False, na_values=[""])
    table = table.rename(columns={"l2-category": "L2-category"})
    optional = {"hint", "source", "D", "C", "split"}
    if missing := [name for name in ("index", "image", *_TEXTS) if name not in table and name not in optional]:
        raise SystemExit(
            f"{tsv} has no column {', '.join(missing)}; expected MMBench_DEV_EN_V11.tsv as downloaded by VLMEvalKit."
        )
    table = table.reindex(columns=["index", "image", *_TEXTS]).astype({"index": int})
    table = table.iloc[table["index"].mod(_ROTATION).argsort(kind="stable")]
    pictures = dict(zip(table["index"], table["image"].astype(str), strict=True))
    rows = {
        name: table[name].astype("object").where(table[name].notna(), "nan").astype(str).tolist() for name in _TEXTS
    }
    rows["index"] = [int(index) for index in table["index"]]
    rows["image"] = [{"bytes": _picture(pictures, index), "path": None} for index in rows["index"]]
    out.parent.mkdir(parents=True, exist_ok=True)
    features = datasets.Features(
        {"index": datasets.Value("int64"), "image": datasets.Image()} | dict.fromkeys(_TEXTS, datasets.Value("string"))
    )
    datasets.Dataset.from_dict(rows, features=features).to_parquet(out)
    return len(rows["index"])


def _picture(pictures: dict[int, str], index: int) -> bytes:
    cell = pictures[index]
    return base64.b64decode(pictures[int(cell)] if len(cell) <= _LONGEST_INDEX else cell)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tsv", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=OUT)
    arguments = parser.parse_args()
    raise SystemExit(None if convert(arguments.tsv, arguments.out) else f"{arguments.tsv} has no rows.")
