"""The command against a real `transformers serve`.

The built-in models are of a class that transformers does not know, so it serves a Qwen3 of random weights with their
tokenizer.
"""

import json
import socket
import sys
import time
from pathlib import Path

import httpx
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from vico_eval.cli import main
from vico_eval.tiny.tokenizer import build_tokenizer

START_S = 120


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "qwen3"
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def served(checkpoint, start_loaded, tmp_path_factory):
    """Its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [Path(sys.executable).with_name("transformers"), "serve", checkpoint]
    log = tmp_path_factory.mktemp("log") / "serve.log"
    (program,) = start_loaded([*words, "--host", "127.0.0.1", "--port", port, "--device", "cpu"], log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(START_S * 5):
            assert program.poll() is None, log.read_text()
            try:
                httpx.get(f"{url}/health", trust_env=False)
                break
            except httpx.ConnectError:
                time.sleep(0.2)
        yield url
    finally:
        program.stop()
        program.end()


def test_table_4_from_a_real_server(served, checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--tokenizer", checkpoint, "--model", checkpoint, "--out", out]
    arguments += ["--requests", 4, "--rounds", 2, "--concurrency", 2, "--warmup", 1, "--max-tokens", 3]
    with pytest.raises(SystemExit) as stop:
        main(["throughput", "serve", served, *map(str, arguments)])
    assert stop.value.code == 0
    assert " 0 failed" in capsys.readouterr().err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["is_complete"]
    assert summary["servers"][0]["tokens_besides_ours"] == 0
    lines = [json.loads(line) for line in (out / "requests.jsonl").read_text().splitlines()]
    assert len(lines) == 8 * 4
    for line in lines:
        assert (line["failure"], line["prompt_tokens"]) == ("", line["setting"]["prompt_tokens"])
        assert 1 <= line["output_tokens"] <= 3
        assert 0 < line["first_token_s"] <= line["last_token_s"] <= line["latency_s"]
    assert all(cell["is_sound"] and cell["requests_per_s"] > 0 for cell in summary["cells"])


def test_a_real_servers_refusal_of_a_wrong_model_is_passed_on(served, checkpoint, tmp_path, capsys):
    arguments = ["--tokenizer", str(checkpoint), "--model", "Qwen/Qwen3-8B", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        main(["throughput", "serve", served, *arguments])
    assert stop.value.code == 1
    err = " ".join(capsys.readouterr().err.split())
    assert "for the model 'Qwen/Qwen3-8B': HTTP 4" in err
    assert "It does not list this model. Nothing was measured." in err
