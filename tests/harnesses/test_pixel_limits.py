"""The table of pixel limits says what lmms-eval's own adapters of Qwen-VL do; tests/vlmeval looks at VLMEvalKit's."""

import inspect

import pytest
from qwen_vl_utils import vision_process

from vico_eval.harnesses.pixel_limits import default_num_frames, pixel_limits
from vico_eval.runs.schema import LMMS_EVAL, VLMEVALKIT


def test_qwen2_5_vl_has_the_defaults_of_lmms_evals_own_model():
    from lmms_eval.models.simple.qwen2_5_vl import Qwen2_5_VL

    defaults = inspect.signature(Qwen2_5_VL.__init__).parameters
    expected = tuple(defaults[name].default for name in ("min_pixels", "max_pixels"))
    assert pixel_limits(LMMS_EVAL, "qwen2_5_vl", "docvqa_val") == expected == (256 * 28 * 28, 2048 * 28 * 28)
    assert default_num_frames(LMMS_EVAL, "qwen2_5_vl") == defaults["max_num_frames"].default


def test_qwen3_vl_has_the_limits_of_qwen_vl_utils_since_lmms_eval_gives_images_none():
    from lmms_eval.models.simple.qwen3_vl import Qwen3_VL

    defaults = inspect.signature(Qwen3_VL.__init__).parameters
    assert default_num_frames(LMMS_EVAL, "qwen3_vl") == defaults["max_num_frames"].default
    tokens = vision_process.IMAGE_MIN_TOKEN_NUM, vision_process.IMAGE_MAX_TOKEN_NUM
    assert pixel_limits(LMMS_EVAL, "qwen3_vl", "docvqa_val") == tuple(count * 32 * 32 for count in tokens)


def test_a_data_set_may_have_limits_of_its_own():
    assert pixel_limits(VLMEVALKIT, "qwen2_5_vl", "OCRBench") == (100 * 28 * 28, 16384 * 28 * 28)
    assert pixel_limits(VLMEVALKIT, "qwen2_5_vl", "OCRBench_MINI") == (1280 * 28 * 28, 16384 * 28 * 28)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_pixels": 100_000}, (100_000, 100_000)),  # below the toolkit's own least
        ({"min_pixels": 2_000_000}, (2_000_000, 2_000_000)),
        ({"min_pixels": 5, "max_pixels": 7}, (5, 7)),
        ({"max_pixels": 300_000}, (256 * 28 * 28, 300_000)),
    ],
)
def test_the_users_own_limits_win(given, expected):
    assert pixel_limits(LMMS_EVAL, "qwen2_5_vl", "docvqa", **given) == expected


def test_internvl_has_tiles_and_no_pixels():
    assert pixel_limits(LMMS_EVAL, "internvl", "docvqa") == (None, None)
    assert default_num_frames(LMMS_EVAL, "internvl") is None
