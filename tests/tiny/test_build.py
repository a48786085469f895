"""The fixed splits that ship: complete, disjoint, and still what the generator draws."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vico_eval.engine.media import read_frames
from vico_eval.paths import tasks_dir
from vico_eval.tiny.build import SPLITS, documents, fingerprint, write_task
from vico_eval.tiny.scenes import NUM_FRAMES, TASKS, Question, Scene

SHIPPED = tasks_dir() / "tiny"


def shipped(split: str, task: str) -> pd.DataFrame:
    return pd.read_parquet(SHIPPED / "data" / f"{split}-{task}.parquet")


def pictures(row: pd.Series) -> list[Image.Image]:
    if "video" in row:
        return read_frames(SHIPPED / row["video"], NUM_FRAMES)
    return [Image.open(io.BytesIO(row[name]["bytes"])).convert("RGB") for name in row.index if name.startswith("image")]


def test_there_are_enough_documents():
    assert sum(len(shipped("test", task)) for task in TASKS) >= 1530
    assert {len(shipped("validation", task)) for task in TASKS} == {60}


def test_no_picture_is_in_both_splits_with_the_same_question():
    marks = set()
    for split in SPLITS:
        for task in TASKS:
            for _, row in shipped(split, task).iterrows():
                scene = Scene(task, tuple(pictures(row)), False, (), (), ())
                marks.add(fingerprint(scene, Question(row["question"], row["answer"])))
    assert len(marks) == len(TASKS) * sum(SPLITS.values())


@pytest.mark.parametrize("task", TASKS)
def test_the_generator_still_draws_the_shipped_documents(task):
    rows = shipped("test", task)
    for (_, row), document in zip(rows.head(5).iterrows(), documents("test", task), strict=False):
        assert (row["id"], row["question"], row["answer"]) == (
            document.id,
            document.question.text,
            document.question.answer,
        )
        drawn = document.scene.images
        assert [np.array_equal(a, b) for a, b in zip(pictures(row), drawn, strict=True)] == [True] * len(drawn)


def test_writing_twice_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setitem(SPLITS, "validation", 3)
    for name in ("first", "second"):
        for task in ("compare", "video"):
            write_task(tmp_path / name, "validation", task)
    first = sorted(path for path in (tmp_path / "first").rglob("*") if path.is_file())
    assert len(first) == 5
    for path in first:
        assert path.read_bytes() == (tmp_path / "second" / path.relative_to(tmp_path / "first")).read_bytes()


def test_the_data_stays_small():
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 6e6
