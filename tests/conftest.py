"""Settings of the whole suite. They are set before any test imports a library that reads them."""

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
# Tests are many small tensors: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

LONGEST = (
    "training/test_fsdp2.py",
    "training/test_two_processes.py",
    "commands/test_run_shards.py",
    "commands/test_run_killed.py",
    "harnesses/test_passes.py",
    "fixtures/test_run.py",
    "report/test_report.py",
    "training/test_stages.py",
    "harnesses/test_lmms.py",
    "bench/measurements/test_evaluation.py",
    "bench/measurements/test_internvl_x.py",
    "bench/serve/test_transformers_serve.py",
)
"""Files of tests that take longest, most for the processes that they start. They run first: one that began when all
others are done would have one core work and the rest wait."""


def pytest_configure(config: pytest.Config) -> None:
    """Have pytest-xdist keep the order below; by its own the files with the most tests would come first."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of `LONGEST` in front, the others behind them in their order."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """Keep what is imported by now out of the search for garbage, which libraries often ask for."""
    gc.freeze()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str, str]]:
    """Runs a command of vico-eval in this process: exit status, stdout and stderr."""
    from vico_eval.cli import main

    def command(*arguments: object) -> tuple[Any, str, str]:
        status: Any = 0
        try:
            main([*map(str, arguments)])
        except SystemExit as stop:
            status = stop.code or 0
        return status, *capsys.readouterr()

    return command


@pytest.fixture(scope="session")
def start_loaded() -> Callable[..., list[Any]]:
    """`start` of tests/loaded.py, whose server begins to load at once."""
    from .loaded import load, start

    load()
    return start


@pytest.fixture
def unsaved_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports draw their pictures as ever, but files have their words alone: whole ones take longer than all else."""
    from matplotlib.text import Text

    def write(figure: Any, out: Path, stem: str = "retention") -> tuple[Path, Path]:
        files = (out / f"{stem}.pdf", out / f"{stem}.png")
        for file in files:
            file.write_text("\n".join(text.get_text() for text in figure.findobj(Text)), encoding="utf-8")
        return files

    monkeypatch.setattr("vico_eval.report.figures.files.write_figure", write)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with checkpoints of the small model's shape and seeded random weights: `base`, `vico`, `lvtc`, `pvtc`
    and `lvtc+pvtc`.

    Random weights answer with noise, which is what properties of the machinery need: any difference shows.
    """
    from vico_eval.families.internvl.config import VicoInternVLConfig
    from vico_eval.methods.lvtc import LVTCSettings
    from vico_eval.tiny.tokenizer import build_tokenizer
    from vico_eval.training.small.architecture import build_config, build_model
    from vico_eval.training.small.export import save_base, save_vico
    from vico_eval.training.small.recipe import ModelRecipe

    folder = tmp_path_factory.mktemp("untrained")
    tokenizer = build_tokenizer()
    config = build_config(ModelRecipe(), tokenizer)
    lvtc = vars(LVTCSettings(expand_before=2, first_insertion=1, insertion_interval=1, num_low_resolution=2))
    own = {"lvtc": {"lvtc": lvtc}, "pvtc": {"pvtc": {}}}
    own["lvtc+pvtc"] = own["lvtc"] | own["pvtc"]
    settings = {"vico": config.parts} | {name: config.parts | parts for name, parts in own.items()}
    # The head is tied to these: tokens that are no printable ASCII are not chosen, so that answers can be told apart.
    unprintable = [*range(32), *range(127, 256)]
    for name, parts in settings.items():
        model = build_model(VicoInternVLConfig(**(config.to_dict() | {"parts": parts})), seed=0)
        model.get_input_embeddings().weight.data[unprintable] = 0
        if name == "vico":
            save_vico(model, tokenizer, folder / name)
            name = "base"
        save_base(model, tokenizer, folder / name)
    return folder


@pytest.fixture(scope="session")
def checkpoint_for(untrained: Path) -> Callable[[str], dict[str, str]]:
    """Which of them a method runs on, as arguments of the engine. Read off its parts, so a new one needs no word."""
    from vico_eval.methods import registry

    def arguments(method: str) -> dict[str, str]:
        parts = [registry.load(name) for name in method.split("+")]
        if any(part.needs_donor for part in parts):
            return {"pretrained": str(untrained / "base"), "flash_from": str(untrained / "vico")}
        own = "+".join(sorted(set().union(*(part.runs for part in parts))))
        return {"pretrained": str(untrained / (own or "vico"))}

    return arguments


@pytest.fixture(scope="session")
def toy_engine() -> Callable[[str, dict[str, Any]], Any]:
    """Makes an engine of the toy family with a method and its arguments."""
    from .toy_family import toy_engine

    return toy_engine


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a small random checkpoint of Qwen-VL, by its `model_type`; `thinking` is Qwen3-VL's such variant."""
    folder, built = tmp_path_factory.mktemp("qwen"), {}

    def get(kind: str) -> Path:
        from .qwen import build_qwen

        if kind not in built:
            is_thinking = kind == "thinking"
            built[kind] = build_qwen(folder / kind, "qwen3_vl" if is_thinking else kind, thinking=is_thinking)
        return built[kind]

    return get


@pytest.fixture(scope="session")
def same_answers() -> Callable[[Sequence[Any], Sequence[Any]], bool]:
    """Whether answers and accounts are equal; the last digit of a router's score may move with the shape of a batch."""

    def compare(found: Sequence[Any], expected: Sequence[Any]) -> bool:
        def without_scores(answer: Any) -> Any:
            return replace(answer, account=answer.account.model_copy(update={"p_compress": None}))

        scores = [[answer.account.p_compress or () for answer in answers] for answers in (found, expected)]
        close = all(a == pytest.approx(b, abs=1e-5) for a, b in zip(*scores, strict=True))
        return close and list(map(without_scores, found)) == list(map(without_scores, expected))

    return compare


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Writes a video whose frame i is of one grey, 8 * i."""
    import av
    import numpy as np

    def write(path: Path, num_frames: int, *, fps: int = 10, size: int = 32) -> Path:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=fps)
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
            for index in range(num_frames):
                pixels = np.full((size, size, 3), 8 * index, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write
