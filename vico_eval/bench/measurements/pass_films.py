"""A load that decodes videos: two questions about each, 64 frames shown, and six methods on the built-in model."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from vico_eval.bench.measurements.engine_rows import EngineRows
from vico_eval.bench.measurements.two_ways import Answered, compare
from vico_eval.engine.loading import find_engine, open_rows
from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.preprocess_settings import PreprocessSettings
from vico_eval.engine.requests import GenerationSettings, Message, Request, Text, VideoInput
from vico_eval.families.family import Picture
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings

CHECKPOINT = "vico-tiny-base"

METHODS: dict[str, dict[str, Any]] = {
    "vanilla": {"method": "vanilla"},
    "divprune 0.1": {"method": "divprune", "keep_ratio": 0.1},
    "visionzip 0.1": {"method": "visionzip", "keep_ratio": 0.1},
    "holov 0.1": {"method": "holov", "keep_ratio": 0.1},
    "fastv 0.1": {"method": "fastv", "keep_ratio": 0.1, "layer": 1},
    "dart 0.1": {"method": "dart", "keep_ratio": 0.1, "layer": 1},
}
"""The engine's arguments by row name."""

QUESTIONS = ("What number is shown first?", "Which colour is the largest shape?")
"""The questions about each video, in consecutive documents as in Video-MME."""

BATCH_SIZE = 2
NEW_TOKENS = 4


CODEC = "libx264"
OPTIONS = {"preset": "veryfast", "crf": "23"}
"""The video encoder's options."""


@dataclass(frozen=True, kw_only=True)
class Films:
    """The videos made for the measurement, and the number of frames shown of each."""

    number: int
    width: int = 1280
    height: int = 720
    fps: int = 24
    seconds: int = 30
    shown: int = 64


class CountingPrompting(InternVLPrompting):
    """Counts the frames that are tiled, which are a video's frames once for each time it is decoded."""

    def __init__(self, settings: InternVLSettings) -> None:
        super().__init__(settings)
        self.num_frames_cut = 0
        self._lock = threading.Lock()  # videos are read in threads

    def cut_frame(self, frame: Image.Image) -> Picture:
        """Count a frame and tile it as InternVL does."""
        with self._lock:
            self.num_frames_cut += 1
        return super().cut_frame(frame)


def measure(films: Films, rounds: int, device: str) -> dict[str, Any]:
    """Measure the load and return a part of the record."""
    with tempfile.TemporaryDirectory() as place:
        paths = [Path(place) / f"{number}.mp4" for number in range(films.number)]
        for number, path in enumerate(paths):
            write_film(path, number, films)
        rows, prompting = _rows(films, paths, device)
        rows.warm_up()

        def counted(way: Callable[[], Answered]) -> Answered:
            before = prompting.num_frames_cut
            answered = way()
            return replace(answered, facts={"films_decoded": (prompting.num_frames_cut - before) / films.shown})

        compared = compare(partial(counted, rows.separate), partial(counted, rows.shared), rounds)
        num_bytes = sum(path.stat().st_size for path in paths)
    return {
        "checkpoint": CHECKPOINT,
        "films": vars(films) | {"codec": CODEC, "options": OPTIONS, "bytes": num_bytes},
        "batch_size": BATCH_SIZE,
        "new_tokens": NEW_TOKENS,
        **compared,
    }


def _rows(films: Films, paths: Sequence[Path], device: str) -> tuple[EngineRows, CountingPrompting]:
    """Set up all methods on one model, with the prompting that counts their frames."""
    common = {"pretrained": CHECKPOINT, "device": device}
    found = {row: find_engine(common | arguments) for row, arguments in METHODS.items()}
    engine = open_rows(list(found.values()), show_progress=False)
    prompting = CountingPrompting(InternVLSettings.of(engine.model.config))
    rows = EngineRows(
        model=engine.model,
        tokenizer=engine.tokenizer,
        preprocessor=partial(Preprocessor, engine.tokenizer, prompting, PreprocessSettings(num_frames=films.shown)),
        methods={row: one.method for row, one in found.items()},
        requests=[
            _request(f"films/test/{len(QUESTIONS) * number + place}", path, question)
            for number, path in enumerate(paths)
            for place, question in enumerate(QUESTIONS)
        ],
        batch_size=BATCH_SIZE,
    )
    return rows, prompting


def _request(key: str, film: Path, question: str) -> Request:
    content = (VideoInput(film), Text(question))
    return Request(key, (Message("user", content),), GenerationSettings(max_new_tokens=NEW_TOKENS))


def write_film(path: Path, seed: int, films: Films) -> None:
    """Write an H.264 video in which the camera moves over a landscape and three shapes move through the frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODEC, rate=films.fps, options=OPTIONS)
        assert isinstance(stream, av.VideoStream), "a video codec makes a video stream"
        stream.width, stream.height, stream.pix_fmt = films.width, films.height, "yuv420p"
        for pixels in _frames(np.random.default_rng(seed), films):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _frames(random: np.random.Generator, films: Films) -> Iterator[np.ndarray]:
    """Yield the frames, [H, W, 3] uint8."""
    height, width = films.height, films.width
    coarse = random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    landscape = np.asarray(Image.fromarray(coarse).resize((2 * width, 2 * height), Image.Resampling.BICUBIC))
    colours = random.integers(0, 256, (3, 3), dtype=np.uint8)
    phases = random.uniform(0, 2 * np.pi, (4, 2))
    side = height // 4
    for number in range(films.fps * films.seconds):
        # The period is eight seconds; each shape and the camera have a different phase.
        places = (1 + np.sin(phases + 2 * np.pi * number / (8 * films.fps))) / 2
        left, top = (places[3] * (width, height)).astype(int)
        pixels = landscape[top : top + height, left : left + width].copy()
        for colour, place in zip(colours, places[:3], strict=True):
            left, top = (place * (width - side, height - side)).astype(int)
            pixels[top : top + side, left : left + side] = colour
        yield pixels
