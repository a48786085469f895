"""A few small tasks in a folder of their own, as lmms-eval loads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

BASE = {
    "dataset_path": "parquet",
    "dataset_kwargs": {"data_files": {"test": "data.parquet"}},
    "test_split": "test",
    "doc_to_text": "question",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
"""What the tasks share. Without `doc_to_visual` lmms-eval asks about no picture."""

PICTURES = "!function pictures.pictures"
_CODE = "def pictures(doc):\n    return [doc[name] for name in ('image_1', 'image_2', 'film') if name in doc]\n"


@pytest.fixture
def write_tasks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a YAML file a task (`name=settings`) and their documents.

    Each has as many pictures of one colour as `num_pictures` says, or those of `shown`: images, or the path of a film.
    """
    import datasets
    from PIL import Image

    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))

    def write(
        questions: list[str] | None = None,
        num_pictures: int = 0,
        shown: list[list[Any]] | None = None,
        **tasks: dict[str, Any],
    ) -> Path:
        folder = tmp_path_factory.mktemp("tasks")
        questions = questions or ["What?", "Which?"]
        plain = [Image.new("RGB", (56, 56), (60 * number, 0, 0)) for number in range(num_pictures)]
        rows = [
            {"question": question, "answer": "yes"}
            | {
                f"image_{number + 1}" if isinstance(picture, Image.Image) else "film": picture
                for number, picture in enumerate(pictures)
            }
            for question, pictures in zip(questions, shown or [plain] * len(questions), strict=True)
        ]
        datasets.Dataset.from_list(rows).to_parquet(folder / "data.parquet")
        (folder / "pictures.py").write_text(_CODE)
        shared = BASE | ({"doc_to_visual": PICTURES} if num_pictures or shown else {})
        for name, settings in tasks.items():
            text = yaml.safe_dump(shared | {"task": name} | settings, sort_keys=False)
            (folder / f"{name}.yaml").write_text(text.replace(f"'{PICTURES}'", PICTURES))
        return folder

    return write
