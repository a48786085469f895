"""The catalogue of benchmarks and the suites: what ships, against the papers' tables, and what a wrong file says."""

import shutil

import pytest
import yaml

from vico_eval import paths
from vico_eval.cards import load_cards
from vico_eval.errors import ConfigError
from vico_eval.report.papers.layout import published_dir
from vico_eval.report.papers.printed import published_csv, read_numbers
from vico_eval.suites import load_benchmarks, load_suite, suite_names, task_names

TABLES = {f"vico-table{number}": ("vico", number) for number in (1, 2, 3, 5, 6)} | {
    "internvl-x-table1": ("internvl-x", 1),
    "tops": ("tops", 2),
    "avtp": ("avtp", 2),
}

CATALOGUE = """
docvqa:
  title: DocVQA
  tasks: [docvqa_val]
  split: validation
  score: {kind: metric, key: "anls,none", field: [anls]}
subtitles:
  title: Subtitles
  tasks: [subtitles_64]
  split: test
  score: {kind: document_mean, field: [score]}
"""
SUITE = "name: own\ntitle: Own\ntable: own-1\nfile_stem: own\ncards: vico\nbenchmarks: [docvqa]\n"


@pytest.fixture
def folder(tmp_path):
    """A folder of tasks with two benchmarks and a suite."""

    def write(catalogue=CATALOGUE, suite=SUITE, override="group: subtitles_64\ntask: [{task: videomme, frames: 64}]\n"):
        shutil.rmtree(tmp_path, ignore_errors=True)
        for place, text in {
            "benchmarks.yaml": catalogue,
            "suites/own.yaml": suite,
            "overrides/subtitles_64.yaml": override,
        }.items():
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).write_text(text)
        return tmp_path

    return write


def printed_columns(paper: str, number: int) -> list[str]:
    printed = read_numbers(published_csv(published_dir(), paper, number))
    # Of the paper's own model, since a table may begin with models that lack some columns.
    scores = [entry for entry in printed if entry.metric == "score" and entry.model == printed[-1].model]
    if paper in ("tops", "avtp"):
        return list(dict.fromkeys(entry.benchmark for entry in scores))  # their settings are budgets
    return list(dict.fromkeys(f"{entry.benchmark} {entry.setting}".strip() for entry in scores))


@pytest.mark.parametrize("name", TABLES)
def test_a_suite_has_the_columns_of_its_paper_s_table_in_their_order(name):
    catalogue = load_benchmarks()
    titles = [catalogue[benchmark].title for benchmark in load_suite(name).benchmarks]
    assert titles == printed_columns(*TABLES[name])


def test_the_ablations_of_internvl_x_average_over_the_printed_six():
    printed = read_numbers(published_csv(published_dir(), "internvl-x", 2))
    (average,) = {entry.setting for entry in printed if entry.benchmark == "Avg"}
    catalogue = load_benchmarks()
    titles = [catalogue[benchmark].title for benchmark in load_suite("internvl-x-table2").benchmarks]
    assert titles == average.split(", ")


@pytest.mark.parametrize("name", suite_names())
def test_the_rows_of_a_suite_are_cards_of_its_family(name):
    suite = load_suite(name)
    assert set(suite.rows) <= set(load_cards(paths.models_dir(), suite.cards))


def test_table_names_are_the_short_ones_and_no_two_suites_share_one():
    tables = [load_suite(name).table for name in suite_names()]
    assert sorted(tables) == [
        *("avtp-2", "internvl-x", "internvl-x-1", "internvl-x-2", "qwen-vl", "tiny", "tops-2"),
        *("vico-1", "vico-2", "vico-3", "vico-5", "vico-6", "vico-baselines"),
    ]
    # These are both, of one suite; otherwise a name must not mean one suite here and another there.
    assert set(tables) & set(suite_names()) == {"qwen-vl", "tiny", "vico-baselines"}


def test_vico_s_own_tables_stay_as_they_are_when_cards_are_added():
    own = [
        *("vanilla", "vanilla_vir", "single_tile", "downsample", "fastv", "sparsevlm"),
        *("pool", "all_compress", "random", "image_vir", "vico"),
    ]
    assert list(load_suite("vico-table3").rows) == list(load_suite("tiny").rows) == own
    baselines = load_suite("vico-baselines")
    assert baselines.rows == ()
    assert baselines.benchmarks == load_suite("vico-table3").benchmarks


@pytest.mark.parametrize("name", ["tops", "avtp"])
def test_a_table_of_the_plain_model_has_a_budget_of_its_own(name):
    suite = load_suite(name)
    cards = load_cards(paths.models_dir(), suite.cards)
    assert {cards[row].weights for row in suite.rows} == {"base"}
    assert suite.budgets == ({"tops": 256 / 1280, "avtp": 0.5}[name],)


def test_an_offline_task_stands_in_for_one_that_asks_a_judge():
    catalogue = load_benchmarks()
    names = ("hallusion_bench", "mmbench_en", "mmbench_cn")
    assert all(task.endswith("_static") for name in names for task in catalogue[name].tasks)


def test_every_benchmark_is_a_column_of_some_suite():
    used = {benchmark for name in suite_names() for benchmark in load_suite(name).benchmarks}
    assert used == set(load_benchmarks())


def test_mmmu_thinks_for_vico_and_answers_at_once_for_internvl_x():
    catalogue = load_benchmarks()
    assert catalogue["mmmu_thinking"].model_args == {"thinking": True}
    assert catalogue["mmmu"].model_args == {}
    assert task_names(catalogue["mmmu_thinking"]) == task_names(catalogue["mmmu"]) == ("mmmu_val",)


def test_chance_in_a_score_and_a_judge_are_said():
    catalogue = load_benchmarks()
    for name in ("mmmu", "mmmu_thinking", "mmt_bench", "qbench2"):
        assert "random letter" in catalogue[name].note
    assert [name for name, benchmark in catalogue.items() if benchmark.judge] == ["mmvet"]


def test_frames_of_subtitles_and_of_the_model_agree():
    benchmark = load_benchmarks()["videomme_subtitles"]
    (name,) = benchmark.tasks
    override = yaml.safe_load((paths.tasks_dir() / "overrides" / f"{name}.yaml").read_text(encoding="utf-8"))
    default = override["task"][0]["lmms_eval_specific_kwargs"]["default"]
    assert default["frame_num"] == benchmark.model_args["num_frames"] == 64


def test_the_results_of_an_override_are_those_of_its_task(folder):
    tasks = folder()
    catalogue = load_benchmarks(tasks)
    assert task_names(catalogue["subtitles"], tasks) == ("videomme",)
    assert task_names(catalogue["docvqa"], tasks) == ("docvqa_val",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("split: validation", "spilt: validation"), r"benchmarks\.yaml does not fit: .*docvqa\.spilt: Extra inputs"),
        (("kind: metric", "kind: median"), r"docvqa\.score: .*'median'.*'task_mean'"),
        (("field: [anls]", "fields: [anls]"), r"docvqa\.score\.metric\.fields: Extra inputs"),
        (("field: [anls]", "field: [anls], full: 0"), r"docvqa\.score\.metric\.full: .*greater than 0"),
        (("[docvqa_val]", "[docvqa_val, docvqa_test]"), r"docvqa: .*`metric` takes one task"),
        (("[docvqa_val]", "[]"), r"docvqa\.tasks: .*at least 1"),
        (("docvqa:", "docvqa: ["), r"benchmarks\.yaml is not valid YAML"),
    ],
)
def test_a_wrong_catalogue_names_the_file_and_the_key(folder, change, message):
    with pytest.raises(ConfigError, match=message):
        load_benchmarks(folder(catalogue=CATALOGUE.replace(*change)))


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        (SUITE.replace("cards: vico", "cards: vicco"), r"own\.yaml does not fit: cards: .*'vico' or 'internvl-x'"),
        (SUITE + "row: [vanilla]\n", r"own\.yaml does not fit: row: Extra inputs"),
        (SUITE.replace("name: own", "name: mine"), r"describes suite `mine`; expected the file's name, `own`"),
        (SUITE.replace("[docvqa]", "[dokvqa]"), r"unknown benchmark 'dokvqa' in suites/own\.yaml .*mean 'docvqa'"),
        (SUITE.replace("[docvqa]", "[docvqa, docvqa]"), r"suites/own\.yaml has two columns titled DocVQA"),
    ],
)
def test_a_wrong_suite_names_the_file_and_the_key(folder, suite, message):
    with pytest.raises(ConfigError, match=message):
        load_suite("own", folder(suite=suite))


def test_an_unknown_suite_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown suite 'vico-tabel1' \(did you mean 'vico-table1'\?\); known are"):
        load_suite("vico-tabel1")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "group: subtitles_64\ntask: [{frames: 64}]\n",
            r"subtitles_64\.yaml does not fit: task\.0\.task: Field required",
        ),
        ("group: subtitles_64\ntask: videomme\n", r"subtitles_64\.yaml does not fit: task: "),
        (
            "group: other\ntask: [{task: videomme}]\n",
            r"defines group `other`; expected the file's name, `subtitles_",
        ),
    ],
)
def test_a_wrong_override_names_the_file_and_the_key(folder, override, message):
    tasks = folder(override=override)
    with pytest.raises(ConfigError, match=message):
        task_names(load_benchmarks(tasks)["subtitles"], tasks)
