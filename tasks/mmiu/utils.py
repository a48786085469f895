"""lmms-eval's functions for MMIU: images from the extracted archives, the prompt, parsing of letters, three averages.

Source:  InternVL's evaluation script for MMIU (prompt, parsing of replies, mean over 20 tasks).
Differs: the script crashes on a blank reply and answers A if memory runs out; here a blank reply is wrong, and a
         failure is an error. An option without text never matches. The lines `Image-1: ...` that the script puts before
         several images are added by the model (`label_images`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from statistics import fmean
from typing import Any

from huggingface_hub.constants import HF_HOME
from PIL import Image

from vico_eval.engine.media import load_image
from vico_eval.errors import MediaError

FOLDER = "MMIU_IMAGES"
"""Environment variable for the folder of the extracted archives."""

SPATIAL_TASKS = frozenset(
    {
        "Egocentric_Video_QuestionAnswering",
        "Homography_estimation",
        "Icon_Question_Answering_with_Spatial_Context",
        "Image_Captioning_with_Spatial_Context",
        "Image_Spatial_Transformation_Estimation",
        "Image_text_retrieval_with_Spatial_Context",
        "Multiview_Action_Recognition",
        "Multiview_reasoning",
        "jigsaw_puzzle_solving",
        "point_tracking",
        "ravens_progressive_matrices",
        "single_object_tracking",
        "threeD_Depth_Estimation",
        "threeD_Object_Detection",
        "threeD_Object_Tracking",
        "threeD_Pose_Estimation",
        "threeD_Scene_Reconstruction",
        "threeD_question_answering",
        "threed_cad_recognition",
        "threed_indoor_recognition",
    }
)
"""The tasks in the archives 2D-spatial and 3D-spatial, over which InternVL's script averages."""

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_METRICS = ("mmiu_macro20", "mmiu_macro", "mmiu_micro", "mmiu_spatial_tasks", "mmiu_unreadable")
_POST_PROMPT = "\nAnswer with the option's letter from the given choices directly."


def doc_to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """Return the document's images in order, RGB.

    Raises:
        MediaError: the folder or an image is missing, or an image can't be read; the message names the expected path.
    """
    return [_picture(path) for path in doc["input_image_path"]]


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the question, its context (which repeats the options) and the request for a letter."""
    return f"{doc['question']}\n{doc['context']}{_POST_PROMPT}"


def process_results(doc: Mapping[str, Any], results: list[str]) -> dict[str, dict[str, Any]]:
    """Return one document's outcome under each metric: task, whether it is spatial, parsed letter, score 0 or 1.

    The letter is None if the reply is unreadable.
    """
    letter = read_letter(results[0], options(doc["options"]))
    outcome = {
        "task": doc["task"],
        "spatial": doc["task"] in SPATIAL_TASKS,
        "letter": letter,
        "score": float(letter == doc["output"].strip()),
    }
    return dict.fromkeys(_METRICS, outcome)


def options(text: str) -> dict[str, str]:
    """Return options by letter, from the lines of `text` in order, without the letter and colon at their start."""
    lines = [line.strip() for line in text.split("\n")]
    return {letter: line.removeprefix(f"{letter}:").strip() for letter, line in zip(_ALPHABET, lines, strict=False)}


def read_letter(reply: str, choices: Mapping[str, str]) -> str | None:
    """Return the letter of the option that a reply names, or None.

    This is the reply's first character if it is an option's letter, otherwise the first option whose text occurs in a
    reply of more than one character.
    """
    reply = reply.strip()
    if reply[:1] in choices:
        return reply[0]
    if len(reply) == 1:
        return None
    return next((letter for letter, text in choices.items() if text and text in reply), None)


def spatial_mean(outcomes: Iterable[Mapping[str, Any]]) -> float:
    """Return the plain mean of the spatial tasks' accuracies, 0-1; NaN if the run has no spatial tasks.

    A limited run may lack some of the 20 tasks; `mmiu_spatial_tasks` is their number.
    """
    return _mean_of_tasks({task: scores for task, scores in _by_task(outcomes).items() if task in SPATIAL_TASKS})


def task_mean(outcomes: Iterable[Mapping[str, Any]]) -> float:
    """Return the plain mean of all tasks' accuracies, 0-1."""
    return _mean_of_tasks(_by_task(outcomes))


def question_mean(outcomes: Iterable[Mapping[str, Any]]) -> float:
    """Return the accuracy over all questions, 0-1."""
    return fmean(outcome["score"] for outcome in outcomes)


def count_spatial_tasks(outcomes: Iterable[Mapping[str, Any]]) -> int:
    """Return how many of the 20 spatial tasks the run has."""
    return len(SPATIAL_TASKS & _by_task(outcomes).keys())


def count_unreadable(outcomes: Iterable[Mapping[str, Any]]) -> int:
    """Return the number of replies that name no option; they count as wrong."""
    return sum(outcome["letter"] is None for outcome in outcomes)


def _by_task(outcomes: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for outcome in outcomes:
        scores.setdefault(outcome["task"], []).append(outcome["score"])
    return scores


def _mean_of_tasks(scores: Mapping[str, list[float]]) -> float:
    return fmean(map(fmean, scores.values())) if scores else float("nan")


def _picture(path: str) -> Image.Image:
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts:
        raise MediaError(f"MMIU names the image {path!r}; expected a path inside its image folder.")
    root = Path(os.environ.get(FOLDER) or Path(HF_HOME) / "mmiu")
    file = root / relative
    if not file.is_file():
        archive = relative.parts[0]
        what = f"no folder {root}" if not root.is_dir() else f"no image {relative} in {root}"
        raise MediaError(
            f"There is {what}. Download {archive}.zip of FanqingM/MMIU-Benchmark and extract it into {root / archive}, "
            f"or set {FOLDER} to the folder that contains {archive}."
        )
    try:
        return load_image(file)
    except MediaError as error:
        raise MediaError(f"{file} can't be read as an image: {error} Extract its archive again.") from error
