"""Rows of decode steps are counted, and a record says what of them is kept; tests/vllm has the benchmark with vLLM."""

from types import SimpleNamespace

import pytest

from vico_eval.bench.measurements import engines
from vico_eval.bench.measurements.engine_steps import Steps, VllmSteps, count_rows
from vico_eval.engine.loading import open_engine


@pytest.fixture(scope="module")
def compared():
    opened = open_engine({"pretrained": "vico-tiny-base", "device": "cpu", "batch_size": 2}, show_progress=False)
    steps = Steps()
    count_rows(opened.engine.model.language_model.get_output_embeddings(), steps)
    way = engines.Way(opened.engine, engines.skewed_requests(4, max_new_tokens=6), steps)
    return way, engines.compare(way, way, rounds=1)


def test_a_loop_takes_a_row_for_every_document_until_the_longest_answer_ends(compared):
    way, record = compared
    lengths = [answer.account.generated_tokens for answer in way.answers]
    loop = record["transformers"]
    assert loop["kept_tokens"] == sum(lengths)
    pairs = {2 * max(lengths[i] for i in pair) for pair in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))}
    assert way.rows in {one + other for one in pairs for other in pairs}
    assert loop["useful_share"] == sum(lengths) / way.rows <= 1
    assert (record["answer_tokens"]["fewest"], record["answer_tokens"]["most"]) == (min(lengths), max(lengths))


def test_the_table_has_both_engines(compared):
    _, record = compared
    origin = {"size": "tiny", "processor": "here", "dtype": "float32", "documents": 4, "batch_size": 2}
    made = {"rounds": 1, "threads": 1, "versions": {}, "date": "", "command": ""}
    table = engines.readme({"try": record | origin | made})
    assert "| transformers, batch 2 | 4 |" in table
    assert table.count("| 4 of 4 |") == 1
    assert engines.summary(record)[0].startswith("vLLM is ")


def test_requests_that_end_in_a_step_of_vllm_ran_in_it():
    steps = Steps()
    counter = VllmSteps(steps)
    for running, ended in ((3, 0), (1, 2), (0, 1)):
        counter.record(SimpleNamespace(num_running_reqs=running), SimpleNamespace(finished_requests=[None] * ended))
    counter.record(scheduler_stats=None, iteration_stats=None, engine_idx=0)
    assert steps.rows == 3 + 3 + 1
