"""The benchmark of both engines, where both are: its numbers are of answers that were really given."""

import json
import os
import subprocess
from pathlib import Path

from .servers import SETTINGS

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "engines.py"


def test_a_record_says_how_much_of_what_was_decoded_is_kept(vllm_python, tmp_path):
    asked = ["--size", "small", "--documents", "6", "--batch-size", "3", "--max-new-tokens", "48", "--threads", "1"]
    done = subprocess.run(
        [vllm_python, BENCHMARK, *asked, "--out", tmp_path, "--name", "try"],
        env=os.environ | SETTINGS,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "try.json").read_text(encoding="utf-8"))
    loop, vllm = record["transformers"], record["vllm"]
    assert record["equal_answers"] == 6
    assert record["answer_tokens"]["fewest"] < record["answer_tokens"]["most"] <= 48
    assert loop["kept_tokens"] == vllm["kept_tokens"]
    # A loop's steps are as many as the longest answer of each batch has tokens.
    longest = record["answer_tokens"]["most"]
    assert longest * 3 <= loop["decoded_rows"] <= 2 * longest * 3
    assert loop["useful_share"] == loop["kept_tokens"] / loop["decoded_rows"] < 0.95
    assert 0.9 < vllm["useful_share"] < 1.1
    table = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| 6 of 6 |" in table
    assert f"vLLM is {vllm['speedup']:.2f} times as fast" in done.stdout
