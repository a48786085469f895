"""MMIU: pictures from the extracted archives, how replies are read, and the averages."""

import math

import datasets
import pytest
from lmms_eval.tasks import TaskManager
from PIL import Image

from vico_eval.errors import MediaError
from vico_eval.paths import tasks_dir

PATHS = ["./2D-spatial/point_tracking/0_0.jpg", "./2D-spatial/point_tracking/0_1.jpg"]
DOC = {
    "task": "point_tracking",
    "question": "Where is the point?",
    "context": "Select from the following choices.\nA: at the left\nB: at the right\n",
    "options": "A: at the left\nB: at the right",
    "output": "B",
    "input_image_path": PATHS,
}


@pytest.fixture(scope="module")
def task(task_file):
    return task_file("mmiu/mmiu.yaml")


@pytest.fixture
def images(tmp_path, monkeypatch):
    """The folder of the archives, with a red and a blue picture."""
    for path, colour in zip(PATHS, ("red", "blue"), strict=True):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (30, 20), colour).save((tmp_path / path), "PNG")
    monkeypatch.setenv("MMIU_IMAGES", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("B: at the right", "B"),
        ("Because of the shadow", "B"),  # the first character decides, as in the original
        ("It is at the right.", "B"),
        ("either at the right or at the left", "A"),  # the first option, not the first mention
        ("  A\n", "A"),
        ("C", None),  # a letter that is no option
        ("b", None),
        ("It is AT THE LEFT", None),
        ("", None),
        (" \n ", None),
    ],
)
def test_a_reply_is_read_as_internvl_s_script_reads_it(task, reply, letter):
    outcome = task.process_results(DOC, [reply])["mmiu_micro"]
    assert outcome == {"task": "point_tracking", "spatial": True, "letter": letter, "score": float(letter == "B")}


def test_an_option_without_text_matches_no_reply(task):
    doc = DOC | {"options": "A:\nB: up\n"}
    assert task.process_results(doc, ["somewhere up there"])["mmiu_micro"]["letter"] == "B"
    assert task.process_results(doc, ["somewhere down there"])["mmiu_micro"]["letter"] is None


def test_a_reply_of_one_character_is_a_letter_or_nothing(task):
    # As in the original: "5" is not looked up among the options, "5 of them" is.
    doc = DOC | {"options": "A: 3\nB: 5"}
    assert task.process_results(doc, ["5"])["mmiu_micro"]["letter"] is None
    assert task.process_results(doc, ["5 of them"])["mmiu_micro"]["letter"] == "B"


def test_three_averages(task):
    # Spatial: 1 of 4 and 1 of 1; another task: 0 of 5. Means: (1/4 + 1) / 2, (1/4 + 1 + 0) / 3, 2 of 10.
    replies = [("point_tracking", "BAA"), ("point_tracking", " "), ("jigsaw_puzzle_solving", "B"), ("mevis", "AAAAA")]
    outcomes = [
        task.process_results(DOC | {"task": name}, [reply])["mmiu_macro20"]
        for name, letters in replies
        for reply in letters
    ]
    assert {name: count(outcomes) for name, count in task.aggregations.items()} == {
        "mmiu_macro20": 0.625,
        "mmiu_macro": pytest.approx(1.25 / 3),
        "mmiu_micro": 0.2,
        "mmiu_spatial_tasks": 2,
        "mmiu_unreadable": 1,
    }


def test_without_a_spatial_task_there_is_no_mean_of_them(task):
    outcome = task.process_results(DOC | {"task": "mevis"}, ["B"])["mmiu_macro20"]
    assert math.isnan(task.aggregations["mmiu_macro20"]([outcome]))


def test_a_document_s_messages_have_its_pictures_and_then_the_question(images, tmp_path):
    parquet = tmp_path / "mmiu.parquet"
    datasets.Dataset.from_list([DOC]).to_parquet(parquet)
    local = {"task": "mmiu", "dataset_path": "parquet", "dataset_kwargs": {"data_files": {"test": str(parquet)}}}
    manager = TaskManager(include_path=str(tasks_dir() / "mmiu"), include_defaults=False)
    task = manager.load_task_or_group([local], task_type="chat")["mmiu"]
    (message,) = task.doc_to_messages(task.test_docs()[0])
    *pictures, text = message["content"]
    assert [picture["url"].getpixel((0, 0)) for picture in pictures] == [(255, 0, 0), (0, 0, 255)]
    assert text["text"] == (
        "Where is the point?\nSelect from the following choices.\nA: at the left\nB: at the right\n\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert task.doc_to_target(DOC) == "B"


def test_a_missing_picture_says_which_archive_to_extract_where(task, images):
    (images / PATHS[1]).unlink()
    with pytest.raises(MediaError, match=r"no image 2D-spatial/point_tracking/0_1\.jpg in .*2D-spatial\.zip of Fanq"):
        task.doc_to_visual(DOC)


def test_a_missing_folder_says_how_to_set_it(task, monkeypatch, tmp_path):
    monkeypatch.setenv("MMIU_IMAGES", str(tmp_path / "nowhere"))
    with pytest.raises(MediaError, match=r"There is no folder .*nowhere\. Download .* set MMIU_IMAGES to the folder"):
        task.doc_to_visual(DOC)


def test_a_broken_picture_is_named(task, images):
    (images / PATHS[0]).write_bytes(b"half a picture")
    with pytest.raises(MediaError, match=r"0_0\.jpg can't be read as an image"):
        task.doc_to_visual(DOC)


@pytest.mark.parametrize("path", ["../secret.jpg", "/etc/secret.jpg", "2D-spatial/../../secret.jpg"])
def test_a_path_out_of_the_folder_is_refused(task, images, path):
    with pytest.raises(MediaError, match="expected a path inside its image folder"):
        task.doc_to_visual(DOC | {"input_image_path": [path]})
