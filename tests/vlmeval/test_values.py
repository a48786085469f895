"""What documents add to VLMEvalKit's scores, against its own evaluation of invented predictions."""

import json
import random

import numpy as np
import pandas as pd
import pytest

from vico_eval.report.scores.benchmarks import as_column
from vico_eval.runs.read import read_run
from vico_eval.suites import load_benchmarks

ROTATION = 1_000_000


def yes_or_no(generator):
    return {"answer": generator.choice(("Yes", "No")), "prediction": generator.choice(("Yes", "no.", "perhaps"))}


def pope(generator):
    categories = ("random", "popular,adversarial", "adversarial")
    return [yes_or_no(generator) | {"index": place, "category": categories[place % 3]} for place in range(40)]


def mme(generator):
    # Categories of 3 and 12 pictures.
    return [
        yes_or_no(generator)
        | {
            "index": place,
            "category": "code_reasoning" if place < 6 else "OCR",
            "image_path": f"{place // 2}.png",
        }
        for place in range(30)
    ]


def mmbench(generator):
    # Two to four options, each in every place once.
    rows = []
    for question in range(20):
        options = [f"thing {letter}" for letter in "PQRS"[: 2 + question % 3]]
        for rotation in range(len(options)):
            letters = dict(zip("ABCD", options[rotation:] + options[:rotation], strict=False))
            said = "A" if generator.random() < 0.2 else f"{'ABCD'[-rotation % len(options)]}."
            rows.append(
                {
                    "index": question + ROTATION * rotation,
                    "answer": "ABCD"[-rotation % len(options)],
                    "prediction": said,
                }
                | {"question": f"Which of {question}?", "category": "c", "l2-category": "l", "split": "dev"}
                | letters
            )
    return rows


def mmmu(generator):
    # Only those of validation count.
    return [
        {
            "index": place,
            "question": "Which?",
            "answer": generator.choice("AB"),
            "prediction": generator.choice("AB"),
            "A": "this",
            "B": "that",
            "split": "validation" if place % 3 else "dev",
            "category": "c",
        }
        for place in range(30)
    ]


def docvqa(generator):
    words = ("invoice", "invoices", "1989", "1988", "total")
    return [
        {"index": place, "answer": str(generator.sample(words, 2)), "prediction": generator.choice(words)}
        for place in range(30)
    ]


def ocrbench(generator):
    categories = ("Regular Text Recognition", "Handwritten Mathematical Expression Recognition")
    return [
        {
            "index": place,
            "answer": str([generator.choice(("Stop", "a + b", "x^2")), "Exit"]),
            "prediction": generator.choice(("It says STOP", "a+b", "x ^ 2", "exit", "nothing")),
            "category": categories[place % 2],
        }
        for place in range(30)
    ]


def evaluated(name, path, table):
    """VLMEvalKit's metrics, as its status names them."""
    from vlmeval.dataset.image_mcq import ImageMCQDataset
    from vlmeval.dataset.image_vqa import ImageVQADataset, OCRBench
    from vlmeval.dataset.image_yorn import ImageYORNDataset
    from vlmeval.smp.status_report import flatten_summary_metrics

    kinds = {"pope": ImageYORNDataset, "mme": ImageYORNDataset, "ocrbench": OCRBench, "docvqa": ImageVQADataset}
    kind = kinds.get(name, ImageMCQDataset)
    dataset = object.__new__(kind)
    dataset.dataset_name = load_benchmarks()[name].vlmevalkit.dataset
    dataset.data = table
    return flatten_summary_metrics(dataset.evaluate(str(path), model="exact_matching", nproc=1))


@pytest.mark.parametrize("make", [pope, mme, mmbench, mmmu, docvqa, ocrbench])
def test_values_have_the_mean_that_vlmevalkit_reports(make, tmp_path, monkeypatch):
    name = make.__name__
    monkeypatch.setenv("PRED_FORMAT", "tsv")
    column = as_column(load_benchmarks()[name]).of("VLMEvalKit")
    (task,) = column.tasks
    rows = make(random.Random(0))
    table = pd.DataFrame(rows)
    model = tmp_path / "model"
    model.mkdir()
    path = model / f"model_{task}.tsv"
    table.to_csv(path, sep="\t", index=False)
    metrics = evaluated(name, path, table)
    entry = {"status": "done", "judge_model": "exact_matching", "metrics": metrics, "prediction_file": path.name}
    (model / "status.json").write_text(json.dumps({"model_name": "model", "datasets": {task: entry}}))
    tasks = [read_run(tmp_path).tasks[task]]
    score = column.rule.score(tasks)
    documents = column.document_scores(tasks)
    assert 0 < score < 100
    assert documents is not None
    assert documents.values.mean() == pytest.approx(score)
    assert len(documents.values) == len(rows)
    assert 0 < np.nanmean(documents.scores) < 100  # of rotations only the question has one
