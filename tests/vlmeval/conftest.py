"""VLMEvalKit offline: small data sets with pictures and questions of the built-in benchmark, in VLMEvalKit's format."""

import base64
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vico_eval.paths import tasks_dir

SHORT = "\nAnswer the question using a single word or phrase."
ARGUMENTS = "device=cpu,max_tiles=12,absolute_threshold=0.26"
GENERATION = "max_new_tokens=8"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lmms-python", help="Python of an environment with lmms-eval, to compare answers with.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if find_spec("vlmeval") is None:
        missing = pytest.mark.skip(reason="VLMEvalKit is not installed here; run: make test-vlmeval")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(missing)


@pytest.fixture(autouse=True)
def default_sigterm() -> Iterator[None]:
    """VLMEvalKit ends its pools with SIGTERM. Of copies that inherit the command line's handler, which an earlier test
    leaves in this process, one that holds a lock would wait for ever, and its pool for it."""
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, handler)


@dataclass(frozen=True)
class AskedDocument:
    """A document and the words that the model should read after its pictures."""

    task: str
    index: int
    images: list[bytes]
    question: str
    asked: str
    answer: str


def rows_of(task: str, count: int) -> list[dict[str, Any]]:
    return pd.read_parquet(tasks_dir() / "tiny" / "data" / f"test-{task}.parquet").head(count).to_dict("records")


def documents() -> list[AskedDocument]:
    """POPE with one picture and with two, and ChartQA."""

    def document(task: str, index: int, row: dict[str, Any], ending: str = "") -> AskedDocument:
        images = [row[name]["bytes"] for name in ("image_1", "image_2") if name in row]
        return AskedDocument(task, index, images, row["question"], row["question"] + ending, row["answer"])

    few = [row for row in rows_of("count", 170) if row["answer"] in ("1", "2")]
    pairs = [row for row in rows_of("compare", 20) if row["answer"] in ("yes", "no")]
    yes_no = [*rows_of("presence", 8), *pairs[:4]]
    return [document("POPE", index, row) for index, row in enumerate(yes_no)] + [
        document("ChartQA_TEST", 100 + index, row, SHORT) for index, row in enumerate(few[:6])
    ]


def encoded(images: list[bytes]) -> str:
    texts = [base64.b64encode(image).decode() for image in images]
    return texts[0] if len(texts) == 1 else str(texts)


@pytest.fixture(scope="session")
def asked() -> list[AskedDocument]:
    return documents()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, asked: list[AskedDocument]) -> Iterator[Path]:
    """VLMEvalKit's folder of data: POPE (yes or no), ChartQA_TEST (short answers) and a multiple choice of our own."""
    from vlmeval.dataset import ImageVQADataset, ImageYORNDataset

    folder = tmp_path_factory.mktemp("LMUData")
    for task in ("POPE", "ChartQA_TEST"):
        rows = [
            {
                "index": document.index,
                "question": document.question,
                "answer": document.answer.capitalize() if task == "POPE" else document.answer,
                "category": "popular",
                "image": encoded(document.images),
            }
            for document in asked
            if document.task == task
        ]
        pd.DataFrame(rows).to_csv(folder / f"{task}.tsv", sep="\t", index=False)
    # The small model knows no letters; what it says instead is among the options, so that some are right.
    options = {"A": "right", "B": "left", "C": "1", "D": "yes"}
    choices = [
        {
            "index": number,
            "question": row["question"],
            "answer": "CACB"[number],
            "image": encoded([row["image_1"]["bytes"]]),
        }
        | options
        for number, row in enumerate(rows_of("colour", 4))
    ]
    pd.DataFrame(choices).to_csv(folder / "tiny_choice.tsv", sep="\t", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMUData", str(folder))
        # Our files are not the ones that VLMEvalKit would fetch.
        patch.setitem(ImageYORNDataset.DATASET_MD5, "POPE", None)
        patch.setitem(ImageVQADataset.DATASET_MD5, "ChartQA_TEST", None)
        yield folder


@pytest.fixture(scope="session")
def evaluate(data: Path) -> Callable[..., int]:
    """Runs the command; its exit status."""
    from vico_eval.cli import main

    def run(work_dir: Path, *options: str, names: str = "POPE,ChartQA_TEST,tiny_choice", method: str = "vico") -> int:
        checkpoint = "vico-tiny" if method == "vico" else "vico-tiny-base"
        arguments = ARGUMENTS if method == "vico" else "device=cpu,max_tiles=12"
        command = ["vlmeval", "run", "--data", names, "--pretrained", checkpoint, "--method", method]
        command += ["--model-args", arguments, "--gen-kwargs", GENERATION, "--work-dir", str(work_dir), *options]
        with pytest.MonkeyPatch.context() as patch:
            # The command sets VLMEvalKit's settings in the environment.
            for name in ("PRED_FORMAT", "EVAL_FORMAT", "USE_COT"):
                patch.setenv(name, "")
            try:
                main(command)
            except SystemExit as stop:
                return int(stop.code or 0)
        return 0

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, evaluate: Callable[..., int]) -> Path:
    """A run of ViCO on all three data sets."""
    folder = tmp_path_factory.mktemp("runs") / "vico"
    assert evaluate(folder) == 0
    return folder


@pytest.fixture
def open_model(tmp_path: Path) -> Callable[..., Any]:
    """A model that is about to be asked the documents of a data set."""
    from vico_eval.engine.loading import open_engine
    from vico_eval.engine.requests import GenerationSettings
    from vico_eval.harnesses.lmms_eval.kinds import kind_of
    from vico_eval.harnesses.run_record import run_record
    from vico_eval.harnesses.vlmevalkit import models
    from vico_eval.runs.write import RunFolder

    arguments = {"pretrained": "vico-tiny", "method": "vico", "device": "cpu", "label_images": False}

    def start(task: str, dataset: Any, **further: Any) -> Any:
        opened = open_engine({**arguments, **further})
        record = run_record(opened, title="ViCO", harness="VLMEvalKit", num_processes=1)
        run = RunFolder(tmp_path / "run", record, resume=True)
        kind = kind_of(opened.checkpoint.config.model_type)
        model = models.open_model(kind, opened.engine, opened.settings, run, GenerationSettings())
        model.start(task, kept=tmp_path / "run" / "vico")
        if dataset is not None:
            model.set_dump_image(dataset.dump_image)
        return model

    return start
