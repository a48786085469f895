"""Qwen-VL behind lmms-eval: the same answers as its own adapters, its limits on pixels, and refusals by name."""

from functools import partial

import numpy as np
import pytest
import torch
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models import MODEL_REGISTRY_V2
from lmms_eval.tasks import TaskManager
from PIL import Image
from safetensors.torch import load_file, save_file

from vico_eval.engine.requests import QWEN3_THINKING_GENERATION, Message, Request, Text, VideoInput
from vico_eval.errors import CheckpointError, ConfigError

SHORT = {"max_new_tokens": 12, "until": ["@@"]}
SIDE = {"qwen2_5_vl": 28, "qwen3_vl": 32}
"""Pixels along a visual token."""


def picture(columns, rows, side, seed):
    """An image of whole visual tokens, which no limit has resized."""
    pixels = np.random.default_rng(seed).integers(0, 255, (rows * side, columns * side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def own_model(kind, checkpoint, **limits):
    """lmms-eval's adapter, in float32 on the CPU."""
    pytest.importorskip("decord", reason="lmms-eval's own adapters of Qwen-VL import decord")
    model = MODEL_REGISTRY_V2.get_model_class(kind)(str(checkpoint), device="cpu", device_map="cpu", **limits)
    model._model.float()
    return model


@pytest.fixture(scope="module")
def rounded(qwen, tmp_path_factory):
    """A checkpoint whose weights bfloat16 holds, which lmms-eval's adapters load; they then compute in float32."""

    def get(kind):
        folder = tmp_path_factory.mktemp("rounded") / kind
        folder.mkdir()
        for file in qwen(kind).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        weights = load_file(folder / "model.safetensors")
        weights = {name: tensor.bfloat16().float() for name, tensor in weights.items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return get


def answers(model, folder):
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    samples = simple_evaluate(model=model, tasks=["asked"], task_manager=manager, log_samples=True)["samples"]["asked"]
    # Ours ends and begins with a word; lmms-eval's adapters of Qwen-VL leave spaces, which scorers take off.
    return [sample["filtered_resps"][0].strip() for sample in sorted(samples, key=lambda sample: sample["doc_id"])]


def our_model(name, checkpoint, run, **arguments):
    given = {"pretrained": str(checkpoint), "device": "cpu", "record_dir": str(run), "previews": False, **arguments}
    return MODEL_REGISTRY_V2.get_model_class(name)(**given)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_vanilla_says_what_lmms_evals_own_adapter_says(kind, batch_size, rounded, write_tasks, tmp_path):
    checkpoint, draw = rounded(kind), partial(picture, side=SIDE[kind])
    shown = [
        [draw(3, 4, seed=0)],
        [draw(6, 2, seed=1), draw(2, 5, seed=2)],
        [draw(9, 9, seed=3)],  # Qwen2.5-VL's limit makes it smaller; lmms-eval gives Qwen3-VL's images none
    ]
    questions = ["What is it?", "Which of <image> and the other is larger?", "How many?"]
    folder = write_tasks(questions, shown=shown, asked={"generation_kwargs": SHORT})
    limits = {"min_pixels": 4 * SIDE[kind] ** 2, "max_pixels": (64 if kind == "qwen2_5_vl" else 128) * SIDE[kind] ** 2}
    theirs = answers(own_model(kind, checkpoint, batch_size=batch_size, **limits), folder)
    # lmms-eval's Qwen3-VL says so; Qwen2.5-VL's template does without being told.
    said = {"system_prompt": "You are a helpful assistant."}
    ours = our_model(f"vanilla_{kind}", checkpoint, tmp_path, batch_size=batch_size, **limits, **said)
    assert answers(ours, folder) == theirs
    assert len(set(theirs)) == len(theirs)
    with torch.inference_mode():
        unlike = our_model(f"divprune_{kind}", checkpoint, tmp_path / "pruned", keep_ratio=0.25, **limits, **said)
    assert answers(unlike, folder) != theirs


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_a_film_is_answered_as_by_lmms_evals_own_adapter(kind, rounded, write_tasks, write_video, tmp_path):
    checkpoint = rounded(kind)
    film = write_video(tmp_path / "film.mp4", 8, fps=4, size=4 * SIDE[kind])
    folder = write_tasks(["What happens?"], shown=[[str(film)]], asked={"generation_kwargs": SHORT})
    limits = {"min_pixels": 4 * SIDE[kind] ** 2, "max_pixels": 64 * SIDE[kind] ** 2}
    theirs = answers(own_model(kind, checkpoint, max_num_frames=8, **limits), folder)
    said = {"system_prompt": "You are a helpful assistant."}
    assert answers(our_model(f"vanilla_{kind}", checkpoint, tmp_path / "run", **said), folder) == theirs


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        (
            "fastv_qwen2_5_vl",
            "qwen3_vl",
            "is for Qwen2.5-VL, and checkpoint .* is Qwen3-VL. Take --model fastv_qwen3_vl",
        ),
        ("compressed_qwen3_vl", "qwen2_5_vl", "is Qwen2.5-VL. Take --model compressed_qwen2_5_vl"),
        ("vico_internvl", "qwen3_vl_moe", "is Qwen3-VL. Take --model compressed_qwen3_vl"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused_by_name(model, kind, message, qwen, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        our_model(model, qwen(kind), tmp_path)


def test_a_thinking_checkpoint_is_asked_as_vlmevalkit_asks_it(qwen, tmp_path):
    assert our_model("vanilla_qwen3_vl", qwen("thinking"), tmp_path / "a")._thinking == QWEN3_THINKING_GENERATION
    assert our_model("vanilla_qwen3_vl", qwen("qwen3_vl"), tmp_path / "b")._thinking is None
    with pytest.raises(ConfigError, match="these checkpoints have no thinking mode"):
        our_model("vanilla_qwen3_vl", qwen("qwen3_vl"), tmp_path / "c", thinking=True)


def test_marks_are_words_and_images_stay_where_the_task_has_them_as_in_lmms_evals_own_adapter(
    qwen, write_tasks, tmp_path
):
    model = our_model("vanilla_qwen3_vl", qwen("qwen3_vl"), tmp_path)
    folder = write_tasks(["A <image> B"], 1, asked={"generation_kwargs": SHORT})
    asked = []
    outcomes = model._engine.row_outcomes
    model._engine.row_outcomes = lambda requests, *rest: asked.extend(requests) or outcomes(requests, *rest)
    answers(model, folder)
    request = asked[0].load()
    assert [type(part).__name__ for part in request.messages[0].content] == ["ImageInput", "Text"]
    assert (request.min_pixels, request.max_pixels) == (4 * 32 * 32, 16384 * 32 * 32)
    text = model._engine.preprocessor(request).text
    assert "<|vision_start|><|image_pad|><|vision_end|>A <image> B<|im_end|>" in text


@pytest.mark.parametrize(("asked", "patches"), [({}, 12), ({"fps": 4}, 6), ({"fps": 2}, 3), ({"num_frames": 8}, 4)])
def test_a_films_frames_are_lmms_evals_or_as_asked(asked, patches, qwen, write_video, tmp_path):
    film = write_video(tmp_path / "film.mp4", 24, fps=8, size=96)  # of three seconds; two frames make a patch
    model = our_model("vanilla_qwen3_vl", qwen("qwen3_vl"), tmp_path / "run", **asked)
    request = Request("a/b/0", (Message("user", (VideoInput(film), Text("What?"))),))
    assert model._engine.preprocessor(request).frames_of == (patches,)


def test_frames_a_second_are_qwen_vls_and_exclude_a_number_of_frames(untrained, qwen, tmp_path):
    with pytest.raises(ConfigError, match=r"Got fps=2\.0 and num_frames=8; .* not both"):
        our_model("vanilla_qwen3_vl", qwen("qwen3_vl"), tmp_path, fps=2.0, num_frames=8)
    with pytest.raises(CheckpointError, match=r"got fps, and checkpoint .* nor shows videos by the second"):
        our_model("vanilla_internvl", untrained / "base", tmp_path, fps=2.0)


def test_an_internvl_checkpoint_is_none_of_qwen_vls(untrained, tmp_path):
    with pytest.raises(CheckpointError, match=r"is InternVL\. Take --model vanilla_internvl"):
        our_model("vanilla_qwen3_vl", untrained / "base", tmp_path)


@pytest.mark.parametrize("method", ["vico", "all_compress", "single_tile", "vico+divprune"])
def test_methods_that_need_tiles_or_connectors_are_refused_by_name(method, qwen, tmp_path):
    with pytest.raises(CheckpointError, match=f"method '{method.partition('+')[0]}"):
        our_model("compressed_qwen3_vl", qwen("qwen3_vl"), tmp_path, method=method)


@pytest.mark.parametrize("engine", [{}, {"server": "http://127.0.0.1:1"}])
def test_vllm_is_refused_since_it_has_no_positions_on_three_axes(engine, qwen, tmp_path):
    with pytest.raises(CheckpointError, match=r"_init_mrope_positions in vllm/v1/worker/gpu_model_runner\.py"):
        our_model("vanilla_qwen3_vl", qwen("qwen3_vl"), tmp_path, engine="vllm", **engine)
