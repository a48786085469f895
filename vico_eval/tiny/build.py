"""Write the fixed test and validation splits of the built-in benchmark: `python -m vico_eval.tiny.build tasks/tiny`.

There is one parquet file per task and split, and one mp4 file per video. Every task and split has its own seed, and no
two documents of a task ask the same question about the same image.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from vico_eval.tiny.scenes import TASKS, Question, Scene, make_scene

SPLITS = {"test": 170, "validation": 60}
"""Split -> documents per task."""

SEED = 20260831
"""First number of every split's seed. Training must not draw scenes from seeds that start with it."""

FRAME_REPEATS = 4
"""How often each frame is repeated in a video's file.

Readers sample frames at different points: InternVL's takes interior midpoints, others include both ends. With four
repetitions, all of them get the eight frames in order.
"""

FRAMES_PER_SECOND = 8


@dataclass(frozen=True)
class TinyDocument:
    """A row of a split."""

    id: str
    scene: Scene

    @property
    def question(self) -> Question:
        return self.scene.questions[0]


def fingerprint(scene: Scene, question: Question) -> str:
    """Return a hash of the pixels and the question, equal for documents that ask the same about the same image."""
    digest = hashlib.sha256(question.text.encode())
    for image in scene.images:
        digest.update(f"{image.size}".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()


def documents(split: str, task: str) -> Iterator[TinyDocument]:
    """Return the documents of a task in a split, the same on every call, without repeated images.

    Raises:
        KeyError: the split doesn't exist.
    """
    rng = np.random.default_rng([SEED, list(SPLITS).index(split), TASKS.index(task)])
    seen: set[str] = set()
    while len(seen) < SPLITS[split]:
        scene = make_scene(task, rng)
        mark = fingerprint(scene, scene.questions[0])
        if mark not in seen:
            yield TinyDocument(f"{task}-{split}-{len(seen):03d}", scene)
            seen.add(mark)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write_video(path: Path, frames: tuple[Image.Image, ...]) -> None:
    """Write frames as a lossless H.264 file (RGB, quantiser 0): decoding returns the same pixels."""
    import av
    from av.video.stream import VideoStream

    options = {"crf": "0", "preset": "veryslow", "threads": "1"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=FRAMES_PER_SECOND, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "rgb24"
        for image in frames:
            for _ in range(FRAME_REPEATS):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")))
        container.mux(stream.encode(None))


def write_task(folder: Path, split: str, task: str) -> None:
    """Write `data/<split>-<task>.parquet` and, for videos, `videos/<id>.mp4` into `folder`."""
    from datasets import Dataset, Features, Value, disable_progress_bars
    from datasets import Image as ImageFeature

    disable_progress_bars()
    rows: list[dict[str, Any]] = []
    for document in documents(split, task):
        row: dict[str, Any] = {"id": document.id}
        images = document.scene.images
        if document.scene.is_video:
            row["video"] = f"videos/{document.id}.mp4"
            (folder / "videos").mkdir(parents=True, exist_ok=True)
            write_video(folder / row["video"], images)
        else:
            # lmms-eval leaves plain image columns out of its samples file, lists of images it does not.
            for index, image in enumerate(images, start=1):
                row[f"image_{index}"] = {"bytes": png(image), "path": None}
        row["question"], row["answer"] = document.question.text, document.question.answer
        rows.append(row)
    features = Features({name: ImageFeature() if name.startswith("image") else Value("string") for name in rows[0]})
    (folder / "data").mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=features).to_parquet(folder / "data" / f"{split}-{task}.parquet")


def main(
    out: Annotated[Path, typer.Argument(help="Folder for data/ and videos/, in the repository tasks/tiny.")],
) -> None:
    """Write the fixed splits of the built-in benchmark."""
    for split in SPLITS:
        for task in TASKS:
            write_task(out, split, task)
            typer.echo(f"{split:10} {task:8} {SPLITS[split]} documents", err=True)


if __name__ == "__main__":
    typer.run(main)
