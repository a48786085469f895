import math

import pandas as pd
import pytest
import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

from vico_eval.report import write_report

from .conftest import sample, write_run

TASKS = ("tiny_read", "tiny_doc")


@pytest.fixture
def written(tmp_path):
    rows = (("vanilla", "Vanilla", [1, 1, 0, 1]), ("vico", "ViCO <b>", [1, 0, 0, 1]))
    folders = []
    for system, title, scores in rows:
        lines = {task: [sample(place, float(score)) for place, score in enumerate(scores)] for task in TASKS}
        place = tmp_path / system
        data_sets = {"tiny_read": "revision " + "a" * 40}
        folders.append((None, write_run(place, lines, system=system, title=title, data_sets=data_sets)))
    return write_report(
        folders,
        table="tiny",
        benchmarks=["Read", "Doc"],
        out=tmp_path / "out",
        has_documents=True,
        has_model_index=True,
    )


def test_every_document_of_every_run(written):
    frame = pd.read_parquet(written.documents)
    assert len(frame) == 2 * 2 * 4
    own = frame[(frame["row"] == "ViCO <b>") & (frame["benchmark"] == "Doc")]
    assert own["score"].tolist() == own["value"].tolist() == [100, 0, 0, 100]
    assert own["doc_id"].tolist() == ["0", "1", "2", "3"]
    assert set(own["task"]) == {"tiny_doc"}
    assert set(own["system"]) == {"vico"}
    assert own["p_compress"].isna().all()
    # Documents of one cluster number are the same documents in every row.
    assert frame.groupby(["benchmark", "doc_id"], observed=True)["cluster"].nunique().eq(1).all()
    means = frame.groupby(["row", "benchmark"], observed=True)["value"].mean()
    numbers = pd.read_csv(written.csv)
    for (row, benchmark), mean in means.items():
        told = numbers[(numbers["row"] == row) & (numbers["benchmark"] == benchmark) & (numbers["metric"] == "score")]
        assert math.isclose(told["value"].item(), mean)


def test_results_for_model_cards(written):
    index = yaml.safe_load(written.model_index.read_text())["model-index"]
    name, results = model_index_to_eval_results([entry for entry in index if entry["name"] == "ViCO <b>"])
    assert name == "ViCO <b>"
    by_name = {(result.dataset_name, result.metric_type): result for result in results}
    read = by_name["Read", "score"]
    assert (read.dataset_type, read.metric_value) == ("tiny_read", 50.0)
    assert read.dataset_revision == "revision " + "a" * 40
    assert by_name["Doc", "score"].dataset_revision is None
    (retention,) = [result for result in results if result.metric_type == "retention"]
    assert retention.metric_value == pytest.approx(66.67)


def test_what_was_asked_for_before_goes_with_the_next_report(written, tmp_path):
    again = write_report([(None, tmp_path / "vanilla")], table="tiny", out=tmp_path / "out")
    assert again.documents is again.model_index is None
    assert {"documents.parquet", "model-index.yaml"} <= {path.name for path in again.removed}
    assert not written.documents.exists()
