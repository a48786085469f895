"""Which family a checkpoint is of, and which are refused on purpose."""

import json
import subprocess
import sys

import pytest

from vico_eval.errors import CheckpointError
from vico_eval.families.registry import REFUSED, SUPPORTED, family_of


def folder_of(tmp_path, **config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("model_type", ["vico_internvl", "internvl_chat", "internvl"])
def test_internvl_by_each_of_its_layouts(tmp_path, model_type):
    assert type(family_of(folder_of(tmp_path, model_type=model_type))).__name__ == "InternVL"


def test_a_built_in_checkpoint():
    assert type(family_of("vico-tiny")).__name__ == "InternVL"


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("qwen2_vl", "Give a Qwen2.5-VL checkpoint"),
        ("qwen3_omni_moe", "it also speaks and hears"),
        ("qwen2_5_omni", "Give a Qwen3-VL checkpoint"),
        ("qwen3_5", "layers without attention"),
    ],
)
def test_near_relatives_are_refused_with_the_reason(tmp_path, model_type, reason):
    with pytest.raises(CheckpointError, match=f"model_type '{model_type}', which is not supported: .*{reason}"):
        family_of(folder_of(tmp_path, model_type=model_type))


def test_others_are_refused_by_name_with_what_is_supported(tmp_path):
    with pytest.raises(CheckpointError, match=r"has model_type 'llava'; expected one of vico_.*qwen3_vl_moe"):
        family_of(folder_of(tmp_path, model_type="llava"))
    with pytest.raises(CheckpointError, match="has model_type None"):
        family_of(folder_of(tmp_path))


def test_no_kind_is_both_supported_and_refused():
    assert not SUPPORTED.keys() & REFUSED.keys()


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it has no config\.json"):
        family_of(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="is not a complete configuration: it contains a list"):
        family_of(tmp_path)


def test_no_other_family_is_imported():
    code = (
        "import sys; from vico_eval.families.registry import family_of; family_of('vico-tiny'); print([*sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "vico_eval.families.internvl.family" in loaded
    assert "families.qwen_vl" not in loaded
