"""Training data of the small model's ViCO stages: scenes in the parquet files that `vico-eval train` reads.

There is one file per task, so that a configuration can weight the tasks. A scene depends only on the recipe's seed, its
task and its index, and has one question.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value, disable_progress_bars
from datasets import Image as ImageFeature

from vico_eval.tiny.build import png, write_video
from vico_eval.tiny.scenes import TASKS, Scene, make_scene
from vico_eval.training.loop.phase import Training
from vico_eval.training.saving.files import whole_file
from vico_eval.training.small.data.drawing import step_rng
from vico_eval.training.small.loop import own_parts

FOLDER = "corpus"
SAY_EVERY = 1000

_PART = {"type": Value("string"), "text": Value("string"), "path": Value("string")}
FEATURES = Features(
    {
        "id": Value("string"),
        "messages": List({"role": Value("string"), "content": List(_PART)}),
        "images": List(ImageFeature()),
    }
)


def write_corpus(training: Training, samples_per_task: int) -> None:
    """Write `corpus/<task>.parquet` and the videos beside it; each process writes some of the tasks."""
    disable_progress_bars()
    folder = training.out / FOLDER
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    for number in own_parts(training.accelerator, len(TASKS)):
        task = TASKS[number]
        rows = []
        for index in range(samples_per_task):
            name = f"{task}-{index:06d}"
            rows.append(_row(name, make_scene(task, step_rng(training.seed, f"{FOLDER}/{task}", index)), folder))
            if (index + 1) % SAY_EVERY == 0:
                training.watch.say(f"corpus: {index + 1}/{samples_per_task} of {task}")
        with whole_file(folder / f"{task}.parquet") as unfinished:
            Dataset.from_list(rows, features=FEATURES).to_parquet(unfinished)


def _row(name: str, scene: Scene, folder: Path) -> dict[str, Any]:
    """Return a scene and its first question as messages; images as PNG bytes, a video as a path below `folder`."""
    question = scene.questions[0]
    images: list[dict[str, Any]] = []
    if scene.is_video:
        path = f"videos/{name}.mp4"
        write_video(folder / path, scene.images)
        seen = [_part("video", path=path)]
    else:
        images = [{"bytes": png(image), "path": None} for image in scene.images]
        seen = [_part("image") for _ in images]
    messages = [
        {"role": "user", "content": [*seen, _part("text", text=question.text)]},
        {"role": "assistant", "content": [_part("text", text=question.answer)]},
    ]
    return {"id": name, "messages": messages, "images": images}


def _part(kind: str, text: str | None = None, path: str | None = None) -> dict[str, str | None]:
    return {"type": kind, "text": text, "path": path}
