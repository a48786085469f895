"""Documents' values against the scores that lmms-eval's own aggregations make of the same samples."""

import math
import random
from typing import get_args

import numpy as np
import pytest

from vico_eval.errors import ReportError
from vico_eval.report.paired.columns import columns_of
from vico_eval.report.paired.draws import Draws
from vico_eval.report.scores.benchmarks import Benchmark, as_column
from vico_eval.report.scores.by_document import READERS, READINGS, Terms, from_terms, mean_of_groupings, plain
from vico_eval.report.scores.count_run import count_run
from vico_eval.report.stats.loyalty import loyalty
from vico_eval.report.stats.retention import retention_standard_error
from vico_eval.report.stats.side_by_side import measure
from vico_eval.report.stats.uncertainty import compare_with_baseline
from vico_eval.runs.read import read_run
from vico_eval.score_rules import ByDocument
from vico_eval.suites import load_benchmarks

from .conftest import sample, write_run
from .scored_samples import FIELDS, aggregated, fields_of, mmbench_v11, mmiu, pope

COLUMNS: dict[str, Benchmark] = {name: as_column(entry) for name, entry in load_benchmarks().items()}


def read(folder, fields_by_task, metrics):
    """A run whose samples lines hold these fields."""
    lines = {
        task: [{**sample(doc_id, None), **own} for doc_id, own in enumerate(fields)]
        for task, fields in fields_by_task.items()
    }
    return read_run(write_run(folder, lines, metrics=metrics))


def read_random(folder, name, seed, monkeypatch):
    """A run of random documents, whose metrics are what lmms-eval makes of them."""
    folder.mkdir()
    fields = {task: fields_of(name, seed + 1000 * place) for place, task in enumerate(COLUMNS[name].tasks)}
    metrics = {task: aggregated(name, own, monkeypatch, folder) for task, own in fields.items()}
    return read(folder, fields, metrics)


def test_every_reader_has_a_name_in_the_catalogue():
    assert set(READERS) == set(get_args(ByDocument)) == set(FIELDS)
    used = {getattr(entry.score, "documents", None) for entry in load_benchmarks().values()}
    assert set(READERS) <= used


def test_every_benchmark_of_the_papers_tables_has_values():
    without = [
        name
        for name, entry in load_benchmarks().items()
        if entry.score.kind in ("task_mean", "metric_sum") and entry.score.documents is None
    ]
    assert without == []


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("seed", range(3))
def test_the_mean_of_the_values_is_the_score(name, seed, tmp_path, monkeypatch):
    run = read_random(tmp_path / "run", name, seed, monkeypatch)
    column = COLUMNS[name]
    tasks = list(run.tasks.values())
    documents = column.document_scores(tasks)
    assert documents is not None
    assert 0 < column.rule.score(tasks) < 100
    assert documents.values.mean() == pytest.approx(column.rule.score(tasks), abs=5e-4)  # MMMU's has five digits
    assert set(documents.scores) == {0.0, 100.0}
    assert len(documents.scores) == sum(len(task.documents) for task in tasks)


@pytest.mark.parametrize("name", FIELDS)
def test_samples_of_other_results_are_refused(name, tmp_path, monkeypatch):
    run = read_random(tmp_path / "run", name, 0, monkeypatch)
    other = read_random(tmp_path / "other", name, 2, monkeypatch)
    mixed = [
        type(own)(**{key: getattr(own, key) for key in own.__slots__} | {"documents": other.tasks[task].documents})
        for task, own in run.tasks.items()
    ]
    if name in READINGS:
        assert COLUMNS[name].document_scores(mixed) is None
        return
    with pytest.raises(ReportError, match="are from different runs"):
        COLUMNS[name].document_scores(mixed)


def test_terms_by_hand():
    # Means of 3 and 2 documents, 2 / 3 and 0: 100 / 3. A document of the first moves it by half of 100 / 3, six times
    # that in a mean over six; of the spread of three, 2 / 3 are left beside their own mean. One doesn't count.
    rights = [1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    documents = from_terms(Terms(rights, rights, [1.0] * 6, ["a", "a", "a", "b", "b", None]))
    assert documents is not None
    mean, each = 100 / 3, 100 * math.sqrt(3 / 2)
    assert list(documents.values) == pytest.approx([mean + each / 3] * 2 + [mean - 2 * each / 3] + [mean] * 3)
    assert list(documents.strata) == [0, 0, 0, 1, 1, -1]
    assert list(documents.scores) == [100, 100, 0, 0, 0, 100]


def test_a_value_is_the_scores_slope_in_its_document():
    generator = np.random.default_rng(0)
    parts = {name: generator.random(30) for name in ("numerators", "denominators")}
    strata = [place % 3 for place in range(30)]
    documents = from_terms(Terms([1.0] * 30, *(list(part) for part in parts.values()), strata))

    def score(weights):
        sums = [np.bincount(strata, weights=weights * part) for part in parts.values()]
        return 100 * np.mean(sums[0] / sums[1])

    step = 1e-6
    even = np.ones(30)
    slopes = [30 * (score(even + step * one) - score(even)) / step for one in np.eye(30)]
    assert list(documents.values) == pytest.approx(score(even) + math.sqrt(10 / 9) * np.array(slopes), abs=1e-2)


def test_groups_of_several_groupings_are_the_score_s_slopes_too():
    # Pairs and threes of twelve documents, the last of which is in a group by itself.
    generator = np.random.default_rng(1)
    rights = (generator.random(12) < 0.6).astype(float)
    groupings = [[place // 2 for place in range(12)], [*(place // 3 for place in range(9)), 3, 3, 4]]
    documents = from_terms(mean_of_groupings(list(rights), groupings, [0] * 12))

    def score(weights):
        shares = []
        for labels in groupings:
            groups = {label: [place for place, own in enumerate(labels) if own == label] for label in set(labels)}
            mass = {label: sum(weights[places]) / len(places) for label, places in groups.items()}
            right = sum(mass[label] * all(rights[places]) for label, places in groups.items())
            shares.append(right / sum(mass.values()))
        return 100 * np.mean(shares)

    step = 1e-6
    even = np.ones(12)
    slopes = [12 * (score(even + step * one) - score(even)) / step for one in np.eye(12)]
    assert list(documents.values) == pytest.approx(score(even) + np.array(slopes), abs=1e-2)
    assert documents.values.mean() == pytest.approx(score(even))


def test_a_part_of_one_document_has_no_spread(tmp_path):
    fields = [mmiu(random.Random(0), 0), *(mmiu(random.Random(place), 20 + place) for place in range(20))]
    scores = [own["mmiu_macro20"]["score"] for own in fields]
    metrics = [{"mmiu_macro20,none": (scores[0] + np.mean(scores[1:])) / 2}] * 2
    line, error = compared(tmp_path, "mmiu", [fields, fields], metrics)
    assert line["left_out"] == "a part of the score depends on one document or image"
    assert math.isnan(error)


def test_what_is_no_part_of_the_score_is_not_lost(tmp_path):
    # Fifteen of two spatial tasks, fifteen of another one.
    fields = [mmiu(random.Random(0), place) for place in (*range(15), *range(50, 65))]
    runs = []
    for row in range(2):
        for own in fields:
            own["mmiu_macro20"]["score"] = 1.0 - row
        run = read(tmp_path / str(row), {"mmiu": fields}, {"mmiu": {"mmiu_macro20,none": 1.0 - row}})
        runs.append(count_run(f"row {row}", run, [COLUMNS["mmiu"]]))
    line = loyalty(measure(runs, [COLUMNS["mmiu"]]), ["row 0", "row 1"], ["MMIU"], "row 0").iloc[0]
    assert (line["documents"], line["lost"], line["gained"]) == (30, 15, 0)


@pytest.mark.parametrize("size", [3, 49, 98, 900])
def test_a_plain_means_values_are_its_scores_to_the_last_digit(size):
    # Whether a test of right and wrong fits is asked of the values.
    rights = [float(place % 7 > 1) for place in range(size)]
    terms = from_terms(Terms(rights, rights, [1.0] * size, [""] * size))
    for documents in (plain(100 * right for right in rights), terms):
        assert list(documents.values) == [100 * right for right in rights]
        assert list(documents.units) == list(range(size))
        assert set(documents.strata) == {0}


@pytest.mark.parametrize(
    "field", [None, {}, [], "word", {"task": ["a"]}, {"score": math.nan}, {"score": 10**400}, {"score": "word"}]
)
def test_a_field_of_something_else_is_no_values(field, tmp_path):
    fields = [mmiu(random.Random(place), 20 + place) for place in range(20)]
    own = fields[7]["mmiu_macro20"]
    fields[7]["mmiu_macro20"] = own | field if isinstance(field, dict) and field else field
    run = read(tmp_path, {"mmiu": fields}, {"mmiu": {"mmiu_macro20,none": 0.5}})
    assert COLUMNS["mmiu"].document_scores(list(run.tasks.values())) is None


def test_nothing_that_counts_is_no_values(tmp_path, monkeypatch):
    assert from_terms(Terms([1.0], [1.0], [1.0], [None])) is None
    # A limited run whose only question lacks a rotation; the scorer says NaN.
    fields = {"mmbench_v11_en_dev": [mmbench_v11(random.Random(0), 0)]}
    run = read(tmp_path, fields, {"mmbench_v11_en_dev": {"mmbench_v11_exact,none": math.nan}})
    assert COLUMNS["mmbench_v11"].document_scores(list(run.tasks.values())) is None


def test_a_model_that_never_says_yes_has_an_f1_of_zero(tmp_path):
    fields = [pope(random.Random(place), place) for place in range(20)]
    for own in fields:
        own["pope_f1_score"]["prediction"] = "perhaps"
    metrics = {task: {"pope_f1_score,none": 0} for task in COLUMNS["pope"].tasks}
    run = read(tmp_path, dict.fromkeys(COLUMNS["pope"].tasks, fields), metrics)
    documents = COLUMNS["pope"].document_scores(list(run.tasks.values()))
    assert list(documents.values) == [0.0] * 60


def drawn_anew(scores: np.ndarray, score, groups: np.ndarray) -> float:
    """Standard deviation of 100 x score(row) / score(baseline) over draws of groups, each score computed anew."""
    generator = np.random.default_rng(1)
    members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    ratios = []
    for _ in range(1500):
        drawn = np.concatenate([members[group] for group in generator.integers(0, len(members), len(members))])
        base, own = (score(row, drawn) for row in scores)
        ratios.append(100 * own / base)
    return float(np.std(ratios))


def compared(tmp_path, name, rows, metrics):
    """`Avg.` line of the comparison of two rows, and the same standard error by the delta method."""
    runs = []
    for row, (fields, own) in enumerate(zip(rows, metrics, strict=True)):
        run = read(tmp_path / str(row), {COLUMNS[name].tasks[0]: fields}, {COLUMNS[name].tasks[0]: own})
        runs.append(count_run(f"row {row}", run, [COLUMNS[name]]))
    measured = measure(runs, [COLUMNS[name]])
    title = COLUMNS[name].title
    lines = compare_with_baseline(drawn(measured, [title]), "row 0")
    scores = measured.cells.pivot(index="row", columns="benchmark", values="score")
    error = retention_standard_error(measured.values, scores, "row 0")["row 1"]
    return lines[lines["benchmark"] == title].iloc[0], error


def drawn(measured, titles) -> Draws:
    rows = ["row 0", "row 1"]
    return Draws(rows, columns_of(measured, rows, titles))


def test_mmes_interval_is_that_of_drawing_its_pictures_anew(tmp_path):
    categories = np.repeat([0, 1], [120, 480])
    pictures = np.arange(600) // 2
    generator = np.random.default_rng(0)
    base = (generator.random(600) < 0.85).astype(float)
    own = np.where(generator.random(600) < 0.15, generator.random(600) < 0.5, base).astype(float)

    def score(rights, drawn):
        total = 0.0
        for category in (0, 1):
            chosen = drawn[categories[drawn] == category].reshape(-1, 2)  # whole pictures
            pairs = rights[chosen]
            total += 100 * pairs.mean() + 100 * pairs.all(axis=1).mean()
        return total

    names = ("existence", "celebrity")
    rows = [
        [
            {"mme_perception_score": {"question_id": str(picture), "category": names[category], "score": right}}
            for picture, category, right in zip(pictures, categories, rights, strict=True)
        ]
        for rights in (base.tolist(), own.tolist())
    ]
    everything = np.arange(600)
    metrics = [
        {"mme_perception_score,none": score(rights, everything), "mme_cognition_score,none": 0.0}
        for rights in (base, own)
    ]
    line, error = compared(tmp_path, "mme", rows, metrics)
    expected = drawn_anew(np.stack([base, own]), score, pictures)
    assert line["standard_error"] == pytest.approx(expected, rel=0.08)
    assert error == pytest.approx(expected, rel=0.08)
    assert line["retention"] == pytest.approx(100 * score(own, everything) / score(base, everything))
    assert line["test"] == "paired t over documents scored together"


def test_rows_that_agree_on_a_category_of_few_pictures_may_have_lost_one_unseen(tmp_path):
    # 5 of 25 pictures are of one category: each is 200 / 5 of 400 marks, and 2.5 may be lost.
    categories = ["existence"] * 10 + ["scene"] * 40
    fields = [
        {"mme_perception_score": {"question_id": str(number // 2), "category": category, "score": 1.0}}
        for number, category in enumerate(categories)
    ]
    metrics = [{"mme_perception_score,none": 400.0, "mme_cognition_score,none": 0.0}] * 2
    line, _ = compared(tmp_path, "mme", [fields, fields], metrics)
    assert line["retention"] == 100
    assert line["low"] == pytest.approx(100 - 2.5 * 100 * 40 / 400, abs=0.8)


def test_f1s_interval_is_that_of_drawing_its_questions_anew(tmp_path):
    generator = np.random.default_rng(0)
    truth = generator.random(800) < 0.5
    base = np.where(generator.random(800) < 0.12, ~truth, truth)
    own = np.where(generator.random(800) < 0.08, ~base, base)

    def f1(said, drawn):
        hits = (said & truth)[drawn].sum()
        return 200 * hits / (2 * hits + (said != truth)[drawn].sum())

    words = np.array(["no", "yes"])
    rows = [
        [
            {
                "pope_f1_score": {
                    "question_id": "1",
                    "score": float(one == right),
                    "prediction": str(words[int(one)]),
                    "ground_truth": str(words[int(right)]),
                }
            }
            for one, right in zip(said, truth, strict=True)
        ]
        for said in (base, own)
    ]
    everything = np.arange(800)
    runs = []
    for row, (fields, said) in enumerate(zip(rows, (base, own), strict=True)):
        tasks = dict.fromkeys(COLUMNS["pope"].tasks, fields)
        metrics = {task: {"pope_f1_score,none": f1(said, everything) / 100} for task in COLUMNS["pope"].tasks}
        run = read(tmp_path / str(row), tasks, metrics)
        runs.append(count_run(f"row {row}", run, [COLUMNS["pope"]]))
    measured = measure(runs, [COLUMNS["pope"]])
    lines = compare_with_baseline(drawn(measured, ["POPE"]), "row 0")
    line = lines[lines["benchmark"] == "POPE"].iloc[0]
    # Three splits of the same F1, drawn independently: its error over the root of three.
    expected = drawn_anew(np.stack([base, own]), f1, everything) / math.sqrt(3)
    assert line["standard_error"] == pytest.approx(expected, rel=0.08)
    assert line["retention"] == pytest.approx(100 * f1(own, everything) / f1(base, everything))
    assert line["test"] == "paired t"
