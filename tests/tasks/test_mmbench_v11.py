"""MMBench V1.1: how replies are read, how rotations make a question, and the converter."""

import base64
import io
import math
import runpy
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from lmms_eval.tasks import TaskManager
from PIL import Image

from vico_eval.errors import DocumentError
from vico_eval.paths import tasks_dir

COLUMNS = {"question": "What is it?", "hint": "nan", "category": "c", "L2-category": "l", "source": "s", "split": "dev"}
ANIMALS = {"A": "a cat", "B": "a dog", "C": "a horse", "D": "nan"}


@pytest.fixture(scope="module")
def task(task_file):
    return task_file("mmbench_v11/mmbench_v11_en_dev.yaml")


def row(index, answer, **options):
    return COLUMNS | {"index": index, "answer": answer} | ANIMALS | options


def score(task, replies):
    """The three metrics of (row, reply) pairs."""
    outcomes = [task.process_results(doc, [reply]) for doc, reply in replies]
    return {name: count([outcome[name] for outcome in outcomes]) for name, count in task.aggregations.items()}


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("**B**", "B"),
        ("The answer is B: a dog", "B"),
        ("A dog", "A"),  # an article at the end of a short reply reads as a letter, as in the original
        ("A cat and a dog sit there, see B", None),  # two letters, two texts
        ("B, since the other pictures show something else", None),  # a letter alone, but not at the end
        ("B, since the picture shows a dog and no more", "B"),  # neither, but one option's text
        ("It is A HORSE of some kind, really", "C"),
        ("D", None),  # there is no option D
        ("b", None),
        ("Bob", None),
        ("a cat or a dog", None),
        ("", None),
        (" \n", None),
    ],
)
def test_a_letter_is_read_exactly(task, reply, letter):
    outcome = task.process_results(row(7, "B"), [reply])["mmbench_v11_exact"]
    told = {"index": 7, "options": 3, "L2-category": "l"}
    assert outcome == told | {"letter": letter, "score": float(letter == "B")}


@pytest.mark.parametrize("missing", ["nan", "", None])
def test_an_option_that_is_not_there_is_never_read(task, missing):
    # As text, "nan" is in "banana" and "" in every reply.
    doc = row(1, "A", A="a banana", B="a cow", C=missing, D=missing)
    assert task.process_results(doc, ["I see a banana in it"])["mmbench_v11_exact"]["letter"] == "A"


def test_a_question_counts_if_every_rotation_is_right(task):
    rotations = [row(5, "A"), row(1_000_005, "C"), row(2_000_005, "B")]
    other = [row(6, "B"), row(1_000_006, "A"), row(2_000_006, "C")]
    right = [(doc, doc["answer"]) for doc in rotations]
    # The second question has two of three right: 1 of 2 questions, where 5 of 6 rows are right.
    two_of_three = [(other[0], "B"), (other[1], "A"), (other[2], "no idea at all")]
    assert score(task, [*two_of_three, *right]) == {
        "mmbench_v11_exact": 0.5,
        "mmbench_v11_unreadable": 1,
        "mmbench_v11_incomplete": 0,
    }


def test_the_same_letter_to_every_rotation_earns_nothing(task):
    assert score(task, [(row(5, "A"), "A"), (row(1_000_005, "C"), "A"), (row(2_000_005, "B"), "A")]) == {
        "mmbench_v11_exact": 0.0,
        "mmbench_v11_unreadable": 0,
        "mmbench_v11_incomplete": 0,
    }


def test_a_question_without_all_its_rotations_is_left_out_and_counted(task):
    # As at the end of a limited run. It would otherwise be easier than the others; answered twice, it is no more whole.
    partial = [(row(6, "B"), "B"), (row(1_000_006, "A"), "A"), (row(1_000_006, "A"), "A")]
    whole = [(row(5, "A"), "A"), (row(1_000_005, "C"), "B"), (row(2_000_005, "B"), "B")]
    assert score(task, [*partial, *whole])["mmbench_v11_exact"] == 0.0
    assert score(task, [*partial, *whole])["mmbench_v11_incomplete"] == 1
    assert math.isnan(score(task, partial)["mmbench_v11_exact"])


def test_a_row_without_a_public_answer_is_refused(task):
    with pytest.raises(DocumentError, match=r"row 3 of MMBench V1\.1 has the answer None.*use the dev split"):
        task.process_results(row(3, None), ["A"])


def picture(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_the_converter_writes_what_the_task_reads(tmp_path):
    folder = tmp_path / "tasks" / "mmbench_v11"
    shutil.copytree(tasks_dir() / "mmbench_v11", folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    table = pd.DataFrame(
        {
            "index": [1, 2, 1_000_001, 1_000_002],
            "question": ["One?", "Two?", "One?", "Two?"],
            "hint": ["A hint.", None, "A hint.", None],
            "A": ["yes", "5", "no", "6"],
            "B": ["no", "6", "yes", "5"],
            "C": None,
            "D": None,
            "answer": ["A", "B", "B", "A"],
            "category": "c",
            "l2-category": "l",
            "image": [picture("red"), picture("blue"), "1", "2"],
            "split": "dev",
        }
    )
    table.to_csv(tmp_path / "in.tsv", sep="\t", index=False)
    subprocess.run([sys.executable, str(folder / "convert.py"), str(tmp_path / "in.tsv")], check=True)

    manager = TaskManager(include_path=str(folder.parent), include_defaults=False)
    task = manager.load_task_or_group("mmbench_v11_en_dev", task_type="chat")["mmbench_v11_en_dev"]
    rows = list(task.eval_docs)
    assert [doc["index"] for doc in rows] == [1, 1_000_001, 2, 1_000_002]  # a question's rotations together
    (message,) = task.doc_to_messages(rows[3])
    image, text = message["content"]
    assert image["url"].getpixel((0, 0)) == (0, 0, 255)  # of the row whose index stood in the picture's place
    assert text["text"].startswith("Two? There are several options:\nA. 6\nB. 5\n")
    assert text["text"].endswith("Answer with the option's letter from the given choices directly.")
    (message,) = task.doc_to_messages(rows[0])
    assert message["content"][1]["text"].startswith("A hint. One? ")
    outcomes = [task.process_results(doc, [doc["answer"]])["mmbench_v11_exact"] for doc in rows]
    assert task.aggregation()["mmbench_v11_exact"](outcomes) == 1.0


def test_the_converter_says_what_a_file_lacks(tmp_path):
    (tmp_path / "in.tsv").write_text("index\tquestion\n1\tq\n")
    convert = runpy.run_path(str(tasks_dir() / "mmbench_v11" / "convert.py"))["convert"]
    with pytest.raises(SystemExit, match="no column image, A, B, answer, category, L2-category; expected MMBench_DEV"):
        convert(tmp_path / "in.tsv", tmp_path / "out.parquet")
