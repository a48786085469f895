"""The same documents give the same answers and accounts by VLMEvalKit, by a direct call, and by lmms-eval."""

import json
import subprocess
from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import vico_eval
from vico_eval.commands.arguments import parse_arguments
from vico_eval.engine.requests import ImageInput, Message, Request, Text

from .conftest import ARGUMENTS, GENERATION
from .test_runs import answers

ROOT = Path(__file__).resolve().parents[2]

TASK = """\
task: agreement
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: question
doc_to_target: answer
process_results: !function utils.process_results
generation_kwargs: {{max_new_tokens: 8, do_sample: false}}
metric_list: [{{metric: right, aggregation: mean, higher_is_better: true}}]
"""

UTILS = """\
from io import BytesIO
from PIL import Image

def doc_to_visual(doc):
    return [Image.open(BytesIO(image)).convert("RGB") for image in doc["images"]]

def process_results(doc, results):
    return {"right": float(results[0].lower() == doc["answer"])}
"""


@pytest.fixture(scope="module")
def by_vlmevalkit(finished):
    return {(line["task"], line["doc_id"]): (line["text"], line["account"]) for line in answers(finished)}


def comparable(account):
    """The last digit of a router's score may move with the shape of a batch."""
    return {name: value for name, value in account.items() if name != "p_compress"}


def pictures(document):
    return [Image.open(BytesIO(image)) for image in document.images]


@pytest.fixture(scope="module")
def model():
    arguments = parse_arguments(ARGUMENTS, "arguments")
    return vico_eval.load("vico-tiny", method="vico", **arguments)


def test_the_prompts_are_the_same(asked, data, model, open_model):
    from vlmeval.dataset import build_dataset

    for task in ("POPE", "ChartQA_TEST"):
        dataset = build_dataset(task)
        asking = open_model(task, dataset)
        own = [document for document in asked if document.task == task]
        for document, (_, row) in zip(own, dataset.data.iterrows(), strict=True):
            request = asking._request(asking.build_prompt(row, dataset=task), task)
            # What lmms-eval's adapter makes of a document: its pictures, then its question.
            content = (*map(ImageInput, pictures(document)), Text(document.asked))
            direct = Request(key="direct", messages=(Message("user", content),))
            prompt = model.engine.preprocessor(direct).text
            assert asking._engine.preprocessor(request).text == prompt
            assert ("Image-2: " in prompt) == (len(document.images) == 2)


def test_a_direct_call_says_the_same(asked, by_vlmevalkit, model):
    for document in asked:
        answer = model.ask(document.asked, images=pictures(document), **parse_arguments(GENERATION, "generation"))
        text, account = by_vlmevalkit[document.task, document.index]
        assert (answer.text, comparable(answer.account.to_dict())) == (text, comparable(account))


def test_lmms_eval_says_the_same(asked, by_vlmevalkit, tmp_path, request):
    python = request.config.getoption("--lmms-python", default=None)
    if python is None:
        pytest.skip("no --lmms-python was given; run: make test-vlmeval")
    rows = [{"images": document.images, "question": document.asked, "answer": document.answer} for document in asked]
    pd.DataFrame(rows).to_parquet(tmp_path / "documents.parquet")
    (tmp_path / "agreement.yaml").write_text(TASK.format(data=tmp_path / "documents.parquet"), encoding="utf-8")
    (tmp_path / "utils.py").write_text(UTILS, encoding="utf-8")
    command = [python, "-m", "lmms_eval", "--model", "vico_internvl", "--tasks", "agreement"]
    command += ["--model_args", f"pretrained=vico-tiny,{ARGUMENTS},record_dir={tmp_path / 'run'}"]
    command += ["--include_path", str(tmp_path), "--output_path", str(tmp_path / "run"), "--log_samples"]
    # The folder of the command comes first where Python looks for packages: both sides run this code.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = list((tmp_path / "run").rglob("*_samples_agreement.jsonl"))
    assert len(found) == 1, done.stdout + done.stderr
    samples = [json.loads(line) for line in found[0].read_text(encoding="utf-8").splitlines()]
    assert len(samples) == len(asked)
    for sample in samples:
        document = asked[sample["doc_id"]]
        text, account = by_vlmevalkit[document.task, document.index]
        assert sample["input"] == document.asked
        assert sample["filtered_resps"] == text
        assert comparable(sample["token_counts"][0]["account"]) == comparable(account)
