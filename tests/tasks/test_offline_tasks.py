"""HallusionBench, MMBench in Chinese, MIRB and NLVR2 without a judge: how replies are read, and what they add up to."""

import os
import subprocess
import sys

import pytest
from PIL import Image

from vico_eval.errors import DocumentError
from vico_eval.fixtures.build import TASKS


@pytest.fixture(scope="module")
def hallusion(task_file):
    return task_file("hallusion_bench/hallusion_bench_image_static.yaml")


@pytest.fixture(scope="module")
def mmbench_cn(task_file):
    return task_file("mmbench_cn/mmbench_cn_dev_static.yaml")


@pytest.fixture(scope="module")
def mirb(task_file):
    return task_file("mirb/mirb_micro.yaml")


@pytest.fixture(scope="module")
def nlvr2(task_file):
    return task_file("nlvr2/nlvr2.yaml")


def question(number, figure, right="1", category="VD"):
    names = {"category": category, "subcategory": "map", "set_id": "0", "figure_id": str(figure)}
    return names | {"question_id": str(number), "question": "Is it so?", "gt_answer": right}


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Yes", "yes"),
        ("no.", "no"),
        ("**Yes**, the lines are equal", "yes"),
        ("No, it isn't", "no"),
        ("Yes and no", None),
        ("I know nothing", None),  # neither word, though both begin with one
        ("Yesterday", None),
        ("", None),
    ],
)
def test_yes_and_no_are_words_of_a_reply(hallusion, reply, answer):
    outcome = hallusion.process_results(question(0, 1), [reply])["hallusion_mean"]
    assert (outcome["answer"], outcome["score"]) == (answer, float(answer == "yes"))


def test_hallusion_bench_has_three_accuracies_and_their_mean(hallusion):
    # Two questions about each of two figures: 3 of 4 right, one figure of two, one pair of two.
    docs = [question(number, figure) for figure in (1, 2) for number in (0, 1)]
    outcomes = [
        hallusion.process_results(doc, [reply])["hallusion_mean"]
        for doc, reply in zip(docs, ("Yes", "Yes", "Yes", "I can't tell"), strict=True)
    ]
    assert {name: count(outcomes) for name, count in hallusion.aggregations.items()} == {
        "hallusion_mean": pytest.approx((0.75 + 0.5 + 0.5) / 3),
        "hallusion_questions": 0.75,
        "hallusion_figures": 0.5,
        "hallusion_pairs": 0.5,
        "hallusion_unreadable": 1,
    }


def test_figures_of_other_categories_are_others(hallusion):
    docs = [question(0, 1), question(0, 1, category="VS")]
    outcomes = [
        hallusion.process_results(doc, [reply])["hallusion_mean"]
        for doc, reply in zip(docs, ("Yes", "No"), strict=True)
    ]
    assert hallusion.aggregations["hallusion_figures"](outcomes) == 0.5


def test_hallusion_bench_asks_for_yes_or_no(hallusion):
    text = hallusion.doc_to_text(question(0, 1), hallusion.lmms_eval_specific_kwargs["default"])
    assert text == "Is it so? Please answer yes or no. Answer the question using a single word or phrase."
    with pytest.raises(DocumentError, match=r"question 0 of HallusionBench's set 0 has gt_answer='2'"):
        hallusion.process_results(question(0, 1, right="2"), ["Yes"])


def test_no_scorer_of_these_reaches_for_the_network():
    # A judge would be asked through `requests`; lmms-eval's own tasks then wait and score as if it were unsure.
    program = (
        "import requests\n"
        "def refuse(*_, **__): raise SystemExit('asked a judge')\n"
        "requests.post = refuse\n"
        "from lmms_eval.utils import load_yaml_config\n"
        "from vico_eval.paths import tasks_dir\n"
        "place = str(tasks_dir() / 'mmbench_cn/mmbench_cn_dev_static.yaml')\n"
        "task = load_yaml_config(place)\n"
        "options = {'A': 'yi', 'B': 'er', 'C': 'nan', 'D': 'nan'}\n"
        "doc = {'index': 1, 'question': 'q', 'answer': 'A', 'hint': 'nan', 'source': 's', 'split': 'dev',\n"
        "       'category': 'c', 'L2-category': 'l'} | options\n"
        "kept = [task['process_results'](doc, ['no letter'])['gpt_eval_score']]\n"
        "print(task['metric_list'][0]['aggregation'](kept))\n"
    )
    environment = {**os.environ, "OPENAI_API_KEY": "a key"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "0.0"


def test_mmbench_in_chinese_is_circular(mmbench_cn):
    base = {"question": "什么?", "hint": "nan", "source": "s", "split": "dev", "category": "c", "L2-category": "l"}
    rows = [
        base | {"index": 5, "answer": "A", "A": "猫", "B": "狗", "C": "nan", "D": "nan"},
        base | {"index": 1_000_005, "answer": "B", "A": "狗", "B": "猫", "C": "nan", "D": "nan"},
    ]
    for replies, score in ((["A", "B"], 100.0), (["A", "A"], 0.0), (["猫", "猫"], 100.0)):
        pairs = zip(rows, replies, strict=True)
        kept = [mmbench_cn.process_results(row, [reply])["gpt_eval_score"] for row, reply in pairs]
        assert mmbench_cn.aggregations["gpt_eval_score"](kept) == score
    text = mmbench_cn.doc_to_text(rows[0], mmbench_cn.lmms_eval_specific_kwargs["default"])
    assert text.endswith("A. 猫\nB. 狗\n\n请直接使用所提供的选项字母作为答案回答。")


@pytest.mark.parametrize(
    ("subset", "answer", "reply", "score"),
    [
        ("food", "B", "B", 1.0),
        ("food", "B", "B. the second", 1.0),
        ("food", "B", "The answer is B", 0.0),
        ("count", "12", "There are 12.", 1.0),
        ("count", "12", "There are 120.", 0.0),
        ("attribute", "red", "It is Red", 1.0),
        ("attribute", "red", "blue", 0.0),
    ],
)
def test_mirb_is_read_by_lmms_eval_s_rules(mirb, subset, answer, reply, score):
    doc = {"subset": subset, "questions": "q", "answers": answer, "question_id": 1}
    outcome = mirb.process_results(doc, [reply])["mirb_micro"]
    assert (outcome["subset"], outcome["score"]) == (subset, score)


def test_mirb_s_score_is_lmms_eval_s_and_takes_some_of_the_subsets(mirb):
    from lmms_eval.tasks.mirb.utils import mirb_aggregation, mirb_process_results

    subsets = ("food", "sightseeing", "codeu", "plot_code", "analogy", "3d_scene")
    subsets += ("image_jigsaw", "count", "attribute", "visual_chain", "arxiv")
    docs = [
        {"subset": subset, "questions": "q", "answers": "A" if number % 2 else "7", "question_id": number}
        for number, subset in enumerate(subsets)
    ]
    replies = [*("A", "B. no", "7", "8") * 2, "A", "B. no", "7"]
    own = [mirb.process_results(doc, [reply])["mirb_micro"] for doc, reply in zip(docs, replies, strict=True)]
    theirs = [mirb_process_results(doc, [reply])["mirb_score"] for doc, reply in zip(docs, replies, strict=True)]
    assert mirb.aggregations["mirb_micro"](own) == mirb_aggregation(theirs)
    assert mirb.aggregations["mirb_micro"](own[:2]) == sum(outcome["score"] for outcome in own[:2]) / 2
    with pytest.raises(KeyError):
        mirb_aggregation(theirs[:2])


@pytest.mark.parametrize(
    ("reply", "letter"),
    [("A", "A"), ("(B)", "B"), ("b. No", "B"), (" A", "A"), ("C", None), ("Yes", None), ("", None), ("((", None)],
)
def test_nlvr2_reads_the_first_letter(nlvr2, reply, letter):
    outcome = nlvr2.process_results({"options": ["Yes", "No"], "answer": "B"}, [reply])["nlvr2_accuracy"]
    assert outcome == {"letter": letter, "score": float(letter == "B")}


@pytest.mark.parametrize("options", [["True", "False"], ["(A) True", "(B) False"], ["A. True", "B. False"]])
def test_nlvr2_shows_each_letter_once_and_both_pictures(nlvr2, options):
    images = [Image.new(mode, (4, 4)) for mode in ("RGBA", "L")]
    doc = {"question": "<image> <image> Is it so?", "options": options, "answer": "A", "images": images}
    assert nlvr2.doc_to_text(doc) == (
        "<image> <image> Is it so?\nA. True\nB. False\nAnswer with the option's letter from the given choices directly."
    )
    assert [image.mode for image in nlvr2.doc_to_visual(doc)] == ["RGB", "RGB"]


def test_each_has_local_data():
    assert {"hallusion_bench_image_static", "mmbench_cn_dev_static", "mirb_micro", "nlvr2"} <= set(TASKS)
