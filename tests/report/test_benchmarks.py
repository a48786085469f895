import math

import pytest

from vico_eval.errors import ConfigError, ReportError
from vico_eval.report.scores.benchmarks import Benchmark, as_column, table_spec
from vico_eval.report.tables.layout import order_rows
from vico_eval.runs.read import read_run
from vico_eval.runs.results import TaskResult
from vico_eval.suites import load_benchmarks

from .conftest import sample, write_run

COLUMNS: dict[str, Benchmark] = {name: as_column(entry) for name, entry in load_benchmarks().items()}
AI2D, BLINK, MME, MMSTAR, MMT, OCRBENCH, POPE, TEXTVQA = (
    COLUMNS[name] for name in ("ai2d", "blink", "mme", "mmstar", "mmt_bench", "ocrbench", "pope", "textvqa")
)


def read_tasks(folder, tasks, metrics) -> list[TaskResult]:
    run = read_run(write_run(folder, tasks, metrics=metrics))
    return [run.tasks[name] for name in tasks]


def test_a_reported_metric_is_scaled_to_100(tmp_path):
    lines = [sample(0, 1.0), sample(1, 0.3)]  # soft accuracy, mean 0.65
    metrics = {"textvqa_val": {"exact_match,none": 0.65, "submission,none": None}}
    tasks = read_tasks(tmp_path, {"textvqa_val": lines}, metrics)
    assert TEXTVQA.rule.score(tasks) == pytest.approx(65.0)
    documents = TEXTVQA.document_scores(tasks)
    assert documents is not None
    assert list(documents.scores) == list(documents.values) == [100.0, 30.0]
    assert list(documents.units) == [0, 1]


def test_the_filter_is_part_of_the_key(tmp_path):
    lines = [sample(0, 1.0)]
    tasks = read_tasks(tmp_path, {"ai2d": lines}, {"ai2d": {"exact_match,none": 1.0}})
    with pytest.raises(ReportError, match=r"`exact_match,flexible-extract` of task ai2d is None.*exact_match,none"):
        AI2D.rule.score(tasks)


@pytest.mark.parametrize("value", ["N/A", [], None, float("nan"), True])
def test_what_is_no_number_is_no_score(tmp_path, value):
    tasks = read_tasks(tmp_path, {"textvqa_val": [sample(0, 1.0)]}, {"textvqa_val": {"exact_match,none": value}})
    with pytest.raises(ReportError, match="expected a number"):
        TEXTVQA.rule.score(tasks)


def test_a_scorer_that_had_too_few_documents_leaves_its_cell_open(tmp_path):
    key = "mmbench_v11_exact,none"
    column = COLUMNS["mmbench_v11"]
    tasks = read_tasks(tmp_path, {"mmbench_v11_en_dev": [sample(0, 1.0)]}, {"mmbench_v11_en_dev": {key: float("nan")}})
    assert math.isnan(column.rule.score(tasks))


def test_samples_that_belong_to_other_results_are_refused(tmp_path):
    lines = [sample(0, 1.0), sample(1, 0.0)]
    tasks = read_tasks(tmp_path, {"textvqa_val": lines}, {"textvqa_val": {"exact_match,none": 1.0}})
    with pytest.raises(ReportError, match=r"a score of 100 of 100 for textvqa_val, but .* give 50\."):
        TEXTVQA.rule.score(tasks)


def test_mmstar_is_the_mean_over_questions(tmp_path):
    # Categories of 3 and 1 questions: (1 + 1 + 0) / 3 and 0 / 1. Macro would be 33.3, over questions 2 / 4.
    scores = [{"score": score, "l2_category": category} for score, category in [(1, "a"), (1, "a"), (0, "a"), (0, "b")]]
    lines = [sample(doc_id, score, metric="average") for doc_id, score in enumerate(scores)]
    tasks = read_tasks(tmp_path, {"mmstar": lines}, {"mmstar": {"average,none": 1 / 3}})
    assert MMSTAR.rule.score(tasks) == 50.0


def test_blink_is_the_mean_over_the_questions_of_all_subtasks(tmp_path):
    # One subtask of 4 right of 4, thirteen of 0 of 1: 4 / 17 over questions, 1 / 14 over subtasks.
    right = [sample(doc_id, {"is_correct": True}, metric="blink_acc") for doc_id in range(4)]
    wrong = [sample(0, {"is_correct": False}, metric="blink_acc")]
    lines = {name: right if name == "blink_jigsaw" else wrong for name in BLINK.tasks}
    assert len(BLINK.tasks) == 14
    assert BLINK.rule.score(read_tasks(tmp_path, lines, {})) == pytest.approx(100 * 4 / 17)


def test_ocrbench_counts_the_documents_there_are(tmp_path):
    # lmms-eval divides hits by 1000 whatever the limit: 1 hit of 2 is reported as 0.001.
    lines = [sample(doc_id, {"score": score}, metric="ocrbench_accuracy") for doc_id, score in enumerate((1, 0))]
    tasks = read_tasks(tmp_path, {"ocrbench": lines}, {"ocrbench": {"ocrbench_accuracy,none": 0.001}})
    assert OCRBENCH.rule.score(tasks) == 50.0


def test_a_document_without_the_metric_is_named(tmp_path):
    lines = [sample(0, {"points": 1}, metric="average")]
    tasks = read_tasks(tmp_path, {"mmstar": lines}, {})
    with pytest.raises(ReportError, match=r"`average\.score` of document 0 is None"):
        MMSTAR.rule.score(tasks)


def test_mme_is_perception_and_cognition_over_28(tmp_path):
    metrics = {"mme": {"mme_perception_score,none": 1700.0, "mme_cognition_score,none": 680.0}}
    tasks = read_tasks(tmp_path, {"mme": [sample(0, {"score": 1.0}, metric="mme_perception_score")]}, metrics)
    assert MME.rule.score(tasks) == pytest.approx(85.0)  # 2380 / 28
    assert MME.document_scores(tasks) is None


def test_pope_is_the_mean_of_three_f1_scores(tmp_path):
    f1 = dict(zip(POPE.tasks, (0.9, 0.8, 0.7), strict=True))
    metrics = {name: {"pope_f1_score,none": value} for name, value in f1.items()}
    lines = [sample(0, {"score": 1.0}, metric="pope_f1_score")]
    tasks = read_tasks(tmp_path, dict.fromkeys(POPE.tasks, lines), metrics)
    assert POPE.rule.score(tasks) == pytest.approx(80.0)


def test_mmt_bench_is_the_mean_over_questions_where_lmms_eval_rounds(tmp_path):
    # 1 of 3: lmms-eval writes 33.33333, which is not the documents' mean to the last digit.
    lines = [sample(doc_id, {"overall": float(doc_id == 0), "ocr": 0.0}, metric="accuracy") for doc_id in range(3)]
    tasks = read_tasks(tmp_path, {"mmt_val": lines}, {"mmt_val": {"accuracy,none": 33.33333, "submission,none": []}})
    assert MMT.rule.score(tasks) == pytest.approx(100 / 3, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "metric", "reported", "score"),
    [
        ("mmbench", "gpt_eval_score,none", 81.5, 81.5),
        ("mmmu", "mmmu_acc,none", 0.61556, 61.556),
        ("mmmu_thinking", "mmmu_acc,none", 0.734, 73.4),
        ("seed_image", "seed_image,none", 0.75, 75.0),
        ("mmbench_v11", "mmbench_v11_exact,none", 0.8, 80.0),
        ("mmiu", "mmiu_macro20,none", 0.525, 52.5),
    ],
)
def test_a_metric_whose_documents_say_nothing_is_taken_as_reported(tmp_path, name, metric, reported, score):
    (task,) = COLUMNS[name].tasks
    (result,) = read_tasks(tmp_path, {task: [sample(0, {"pred": "A"}, metric="m")]}, {task: {metric: reported}})
    assert COLUMNS[name].rule.score([result]) == pytest.approx(score)
    assert COLUMNS[name].document_scores([result]) is None


@pytest.mark.parametrize("name", ["videomme", "videomme_subtitles"])
def test_video_mme_is_the_mean_over_questions(tmp_path, name):
    # The task with subtitles is an override; lmms-eval files its results under the name of the task.
    (task,) = COLUMNS[name].tasks
    assert task == {"videomme": "videomme", "videomme_subtitles": "videomme_w_subtitle"}[name]
    lines = [sample(doc_id, {"score": float(doc_id > 0)}, metric="videomme_perception_score") for doc_id in range(4)]
    assert COLUMNS[name].rule.score(read_tasks(tmp_path, {task: lines}, {})) == 75.0


def test_the_source_says_how_a_number_is_averaged():
    assert POPE.rule.source == "mean over tasks of pope_f1_score,none x 100"
    assert BLINK.rule.source == "mean over documents of blink_acc.is_correct x 100"
    assert MME.rule.source == "(mme_perception_score,none + mme_cognition_score,none) x 0.0357143"


def test_a_table_is_called_by_its_own_name_or_its_suites():
    assert table_spec("vico-3") == table_spec("vico-table3")
    spec = table_spec("tiny-internvl-x")
    assert (spec.name, spec.file_stem, len(spec.benchmarks)) == ("internvl-x", "internvl_x", 9)


def test_an_unknown_table_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown suite 'vico-4' \(did you mean 'vico-\d'\?\); known are .*vico-1"):
        table_spec("vico-4")


@pytest.mark.parametrize(
    ("table", "first", "last"),
    [("vico-3", "vanilla", "vico"), ("internvl-x", "internvl_x_base", "internvl_x_full")],
)
def test_rows_are_in_the_order_of_the_cards(table, first, last):
    systems = table_spec(table).systems
    assert (systems[0], systems[-1]) == (first, last)
    titles = {"A": last, "other": "unknown", "B": first, "C": last}
    assert list(order_rows(titles, systems)) == ["B", "A", "C", "other"]
