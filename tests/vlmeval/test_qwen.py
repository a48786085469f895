"""Qwen-VL in VLMEvalKit: its own words, its own limits on pixels, and a run from end to end."""

import json

import pandas as pd
import pytest
from PIL import Image
from transformers import AutoProcessor

from vico_eval.cli import main
from vico_eval.commands.work.vlmeval import default_generation
from vico_eval.engine.requests import VideoInput
from vico_eval.harnesses.lmms_eval.kinds import QWEN2_5_VL, QWEN3_VL
from vico_eval.harnesses.pixel_limits import pixel_limits
from vico_eval.runs.schema import VLMEVALKIT

from .test_runs import answers

KINDS = ("qwen2_5_vl", "qwen3_vl")
LIMITS = {"min_pixels": 4096, "max_pixels": 50000}


def entries(prefix):
    """VLMEvalKit's entries of models whose names begin so, by name: what they are made with."""
    from vlmeval.config import supported_VLM

    found = {name: entry.keywords for name, entry in supported_VLM.items() if name.startswith(prefix)}
    assert len(found) > 3
    return found


def test_qwen2_5_vl_has_the_limits_of_vlmevalkits_entries():
    for name, keywords in entries("Qwen2.5-VL").items():
        if "-ForVideo" not in name and "min_pixels" in keywords:
            expected = (keywords["min_pixels"], keywords["max_pixels"])
            assert pixel_limits(VLMEVALKIT, "qwen2_5_vl", "POPE") == expected, name


def test_qwen3_vl_has_no_limits_but_those_of_qwen_vl_utils():
    from qwen_vl_utils import vision_process

    tokens = vision_process.IMAGE_MIN_TOKEN_NUM, vision_process.IMAGE_MAX_TOKEN_NUM
    assert pixel_limits(VLMEVALKIT, "qwen3_vl", "POPE") == tuple(count * 32 * 32 for count in tokens)
    assert not any({"min_pixels", "max_pixels"} & set(keywords) for keywords in entries("Qwen3-VL-8B-").values())


@pytest.mark.parametrize(("kind", "size"), [("qwen2_5_vl", 28), ("qwen3_vl", 32)])
def test_ocrbench_has_the_least_pixels_of_vlmevalkits_own_adapter(kind, size, tmp_path):
    from vlmeval.vlm import Qwen2VLChat, Qwen3VLChat

    chat = {"qwen2_5_vl": Qwen2VLChat, "qwen3_vl": Qwen3VLChat}[kind]
    adapter = chat.__new__(chat)  # its own __init__ wants a GPU
    adapter.min_pixels = adapter.max_pixels = adapter.total_pixels = None
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (item,) = adapter._prepare_content([{"type": "image", "value": str(tmp_path / "a.png")}], dataset="OCRBench")
    assert pixel_limits(VLMEVALKIT, kind, "OCRBench").min_pixels == item["min_pixels"] == 100 * size**2


def test_answers_are_generated_as_by_vlmevalkits_entries():
    for name, keywords in entries("Qwen3-VL-8B-").items():
        if "max_new_tokens" in keywords:
            found = default_generation(QWEN3_VL, thinks=name.endswith("Thinking"))
            assert {key: keywords[key] for key in found if key != "do_sample"} == {
                key: value for key, value in found.items() if key != "do_sample"
            }
    assert default_generation(QWEN2_5_VL, thinks=False) == {"max_new_tokens": 2048}


@pytest.mark.parametrize("kind", KINDS)
def test_the_words_are_those_of_vlmevalkits_mixin_in_the_checkpoints_template(kind, qwen, data, open_model):
    from vlmeval.dataset import build_dataset
    from vlmeval.vlm.qwen2_vl.prompt import Qwen2VLPromptMixin
    from vlmeval.vlm.qwen3_vl.prompt import Qwen3VLPromptMixin

    processor = AutoProcessor.from_pretrained(qwen(kind))
    for task, words in (("POPE", "Please answer yes or no."), ("ChartQA_TEST", "short words or phrases")):
        dataset = build_dataset(task)
        mixin = {"qwen2_5_vl": Qwen2VLPromptMixin, "qwen3_vl": Qwen3VLPromptMixin}[kind]()
        mixin.set_dump_image(dataset.dump_image)
        model = open_model(task, dataset, pretrained=str(qwen(kind)), method="vanilla", **LIMITS)
        for _, row in dataset.data.iterrows():
            content = [{"type": part["type"], "text": part["value"]} for part in mixin.build_prompt(row, dataset=task)]
            expected = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            request = model._request(model.build_prompt(row, dataset=task), task)
            assert model._engine.preprocessor(request).text == expected
            assert words in expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_film_is_given_as_a_file_with_the_frames_that_the_data_set_asks_for(
    kind, qwen, open_model, tmp_path, write_video
):
    film = write_video(tmp_path / "film.mp4", 12, fps=4, size=96)

    class Films:
        nframe = 8

        def build_prompt(self, line, video_llm):
            assert video_llm
            return [{"type": "video", "value": str(film)}, {"type": "text", "value": line["question"]}]

    model = open_model("Video-MME_8frame", None, pretrained=str(qwen(kind)), method="vanilla")
    message = model.build_prompt(pd.Series({"index": 3, "question": "What?"}), dataset=Films())
    request = model._request(message, "Video-MME")
    assert request.load().messages[0].content[0] == VideoInput(str(film), num_frames=8)
    assert model._engine.preprocessor(request).frames_of == (4,)  # two frames share a temporal patch


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_is_evaluated_by_vlmevalkit(kind, qwen, data, tmp_path, monkeypatch):
    for name in ("PRED_FORMAT", "EVAL_FORMAT", "USE_COT"):
        monkeypatch.setenv(name, "")
    arguments = ",".join(f"{name}={value}" for name, value in {"device": "cpu", "keep_ratio": 0.5, **LIMITS}.items())
    command = ["vlmeval", "run", "--data", "POPE", "--pretrained", str(qwen(kind)), "--method", "divprune"]
    command += ["--model-args", arguments, "--gen-kwargs", "max_new_tokens=4", "--work-dir", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert not stop.value.code
    accounts = [line["account"] for line in answers(tmp_path)]
    kept = sum(account["visual_tokens"] for account in accounts)
    assert kept / sum(account["visual_tokens_uncompressed"] for account in accounts) == pytest.approx(0.5, abs=0.03)
    record = json.loads((tmp_path / "record.json").read_text())
    assert (record["method"], record["harness"]) == ("divprune", "VLMEvalKit")
