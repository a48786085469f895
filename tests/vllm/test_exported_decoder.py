"""vLLM's own reading of an exported decoder is transformers': the same greedy tokens, from ids and from embeddings."""

import base64
import io
import json
import os
import subprocess

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM

from .servers import SETTINGS

PROMPTS = [[*range(60, 60 + length)] for length in (5, 12, 30)]
NUM_NEW = 24

SCRIPT = """\
import json, sys
from vllm import LLM, SamplingParams

prompts = json.load(sys.stdin)
model = LLM(model=sys.argv[1], dtype="float32", enforce_eager=True)
settings = SamplingParams(temperature=0, max_tokens=int(sys.argv[2]), ignore_eos=True)
answers = model.generate([{"prompt_token_ids": ids} for ids in prompts], settings)
print("ANSWERS", json.dumps([list(answer.outputs[0].token_ids) for answer in answers]))
"""


ABSENT = """\
from importlib.util import find_spec
from transformers.utils import is_torchvision_available
print([name for name in ("torchvision", "torchaudio", "torchcodec") if find_spec(name)], is_torchvision_available())
"""


def test_libraries_that_do_not_load_with_vllms_torch_are_absent(vllm_python):
    done = subprocess.run([str(vllm_python), "-c", ABSENT], capture_output=True, text=True, timeout=300)
    assert done.stdout.split("\n")[0] == "[] False", done.stderr


@pytest.fixture(scope="module")
def decoder(decoder_of):
    return AutoModelForCausalLM.from_pretrained(decoder_of("vico-tiny"), dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def expected(decoder):
    """Greedy tokens by transformers, the end of text among them."""
    answers = []
    for ids in PROMPTS:
        tokens = list(ids)
        with torch.inference_mode():
            for _ in range(NUM_NEW):
                tokens.append(int(decoder(torch.tensor([tokens])).logits[0, -1].argmax()))
        answers.append(tokens[len(ids) :])
    assert len({tuple(answer) for answer in answers}) > 1  # they can be told apart
    return answers


def ask(server, **request):
    request |= {"model": str(server.model), "max_tokens": NUM_NEW, "temperature": 0, "ignore_eos": True}
    reply = httpx.post(f"{server.url}/v1/completions", json=request | {"return_token_ids": True}, timeout=60)
    assert reply.status_code == 200, reply.text
    return [choice["token_ids"] for choice in reply.json()["choices"]]


def encoded(embeddings):
    buffer = io.BytesIO()
    torch.save(embeddings, buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def test_in_one_process_greedy_tokens_are_those_of_transformers(vllm_python, decoder_of, expected):
    done = subprocess.run(
        [str(vllm_python), "-c", SCRIPT, str(decoder_of("vico-tiny")), str(NUM_NEW)],
        input=json.dumps(PROMPTS),
        env=os.environ | SETTINGS,
        capture_output=True,
        text=True,
        timeout=600,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")] or [done.stderr[-3000:]]
    assert json.loads(line.removeprefix("ANSWERS ")) == expected


def test_a_server_gives_them_too(vllm_server, expected):
    assert ask(vllm_server, prompt=PROMPTS) == expected


def test_a_server_gives_them_for_embeddings(vllm_server, decoder, expected):
    for ids, tokens in zip(PROMPTS, expected, strict=True):
        embeddings = decoder.get_input_embeddings()(torch.tensor(ids)).detach()
        assert ask(vllm_server, prompt_embeds=encoded(embeddings)) == [tokens]


def test_a_killed_server_comes_back_at_its_address(vllm_server, expected):
    url = vllm_server.url
    vllm_server.kill()
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{url}/health", timeout=5)
    vllm_server.restart()
    assert vllm_server.url == url
    assert ask(vllm_server, prompt=PROMPTS) == expected
