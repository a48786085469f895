"""Model arguments as lmms-eval delivers them: text that it reads as a number, a truth value or not at all."""

import json

import pytest
from lmms_eval.models import MODEL_REGISTRY_V2

from vico_eval.errors import ConfigError


def open_model(arguments, model="vico_internvl"):
    return MODEL_REGISTRY_V2.get_model_class(model).create_from_arg_string(arguments)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("record_dir=20240101", r"record_dir is 20240101; expected a folder\. .*pass \./20240101"),
        ("record_dir=1e5", "record_dir is 100000.0; expected a folder"),
        ("record_dir=true", "record_dir is True; expected a folder"),
        ("record_dir=", "record_dir is ''; expected a folder"),
        ("previews=20240101", "previews is 20240101; expected true, false or a folder"),
        ("previews=None", "previews is 'None'; expected true, false or a folder"),
        ("system_prompt=5", "argument system_prompt is 5; expected str or None"),
        ("system_prompt=true", "argument system_prompt is True; expected str or None"),
        ("dtype=32", "argument dtype is 32; expected str"),
        ("flash_from=7", r"argument flash_from is 7; expected str or None.*write \./7"),
        ("resume=None", "resume is 'None'; expected true or false"),
    ],
)
def test_text_that_was_read_as_something_else_is_refused_before_a_checkpoint_is_looked_for(argument, message):
    with pytest.raises(ConfigError, match=message):
        open_model(f"pretrained=/no/such/checkpoint,{argument}")


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("vico_internvl", "pretrained=20240101"),
        ("internvl_x", "pretrained=20240101,variant=rvtc"),
        ("random_internvl", "pretrained=/no/such,ratio_from=20240101"),
    ],
)
def test_a_folder_whose_name_is_a_number_has_another_way_to_write_it(model, arguments):
    with pytest.raises(ConfigError, match=r"is 20240101; expected str.* For a folder of that name, write \./20240101"):
        open_model(arguments, model)


def test_none_is_nothing_and_a_path_is_a_folder(untrained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = untrained / "vico"
    model = open_model(f"pretrained={folder},device=cpu,record_dir=None,system_prompt=None,absolute_threshold=None")
    assert model._settings.system_prompt is None
    assert model._run.folder.parts[0] == "runs"
    model_class = MODEL_REGISTRY_V2.get_model_class("vanilla_vir_internvl")
    model_class(
        pretrained=untrained / "base",
        flash_from=folder,
        device="cpu",
        record_dir=tmp_path / "run",
        previews=tmp_path / "pictures",
    )
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert (record["previews"], record["donor"]["name"]) == ("../pictures", str(folder))
