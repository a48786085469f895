"""`vico-eval vlmeval run` where VLMEvalKit is not installed, and its arguments. What it does: tests/vlmeval."""

from importlib.util import find_spec

import pytest

from vico_eval.cli import main
from vico_eval.commands.arguments import parse_arguments
from vico_eval.commands.work.vlmeval import default_generation
from vico_eval.engine.requests import GenerationSettings
from vico_eval.errors import ConfigError
from vico_eval.harnesses.lmms_eval.kinds import INTERNVL


@pytest.mark.skipif(find_spec("vlmeval") is not None, reason="VLMEvalKit is installed here")
def test_without_vlmevalkit_the_error_says_how_to_get_it(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["vlmeval", "run", "--data", "POPE", "--pretrained", "vico-tiny", "--method", "vico"])
    assert stop.value.code == 1
    assert "make setup-vlmeval" in capsys.readouterr().err


def test_arguments_have_the_types_that_the_engine_expects():
    text = "device=cpu, absolute_threshold=0.26,max_tiles=12,thinking=True,name=a=b"
    assert parse_arguments(text, "--model-args") == {
        "device": "cpu",
        "absolute_threshold": 0.26,
        "max_tiles": 12,
        "thinking": True,
        "name": "a=b",
    }
    assert parse_arguments("", "--model-args") == {}


@pytest.mark.parametrize("text", ["cpu", "=3", "a=1,a=2"])
def test_arguments_that_cannot_be_read_are_refused(text):
    with pytest.raises(ConfigError, match="--model-args got"):
        parse_arguments(text, "--model-args")


def test_thinking_is_sampled_as_vlmevalkits_own_entries_are():
    thinking = GenerationSettings.from_gen_kwargs({}, **default_generation(INTERNVL, thinks=True))
    assert thinking == GenerationSettings(max_new_tokens=2**16, do_sample=True, temperature=0.6, top_p=0.95)
    given = GenerationSettings.from_gen_kwargs(
        {"temperature": 1, "seed": 3}, **default_generation(INTERNVL, thinks=True)
    )
    assert (given.temperature, given.top_p, given.seed) == (1.0, 0.95, 3)
    assert GenerationSettings.from_gen_kwargs({}, **default_generation(INTERNVL, thinks=False)) == GenerationSettings(
        max_new_tokens=4096
    )
