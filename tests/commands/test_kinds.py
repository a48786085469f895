"""Which rows of a table the kind of its checkpoint can fill."""

import pytest

from vico_eval.cards import Checkpoints, load_cards
from vico_eval.commands.output import message_console
from vico_eval.commands.work.kinds import kind_of_checkpoints, with_methods
from vico_eval.commands.work.options import RunOptions
from vico_eval.commands.work.table import plan_table
from vico_eval.errors import ConfigError
from vico_eval.families.registry import SUPPORTED
from vico_eval.harnesses.lmms_eval.kinds import INTERNVL, KINDS, QWEN2_5_VL, QWEN3_VL
from vico_eval.methods import registry
from vico_eval.methods.divprune import DivPrune
from vico_eval.paths import models_dir

BUDGETS = {"budgets": (0.5,), "device": "cpu", "benchmarks": ["docvqa"]}


def planned(suite, **options):
    return {run.name: run for run in plan_table(suite, RunOptions(**{**BUDGETS, **options}), message_console()).runs}


def test_a_hub_id_of_qwen_vl_is_run_by_its_models_without_network():
    runs = planned("qwen-vl", checkpoint="Qwen/Qwen3-VL-8B-Instruct", rows=["divprune", "max_pixels", "top_attention"])
    assert {name: run.model for name, run in runs.items()} == {
        "vanilla": "vanilla_qwen3_vl",
        "max_pixels.pixel_keep_ratio-0.5": "max_pixels_qwen3_vl",
        "top_attention.target_ratio-0.5": "top_attention_qwen3_vl",
        "divprune.target_ratio-0.5": "divprune_qwen3_vl",
    }
    assert runs["top_attention.target_ratio-0.5"].title == "Top attention (mean of rows)"
    assert all(run.model_args["pretrained"] == "Qwen/Qwen3-VL-8B-Instruct" for run in runs.values())
    known = planned("qwen-vl", checkpoint="Qwen2.5-VL-7B", rows=["top_attention"])
    assert known["top_attention.target_ratio-0.5"].model == "top_attention_qwen2_5_vl"
    assert known["top_attention.target_ratio-0.5"].title == "Top attention (mean of rows, layer -1)"


def test_rows_that_need_vicos_parts_are_left_out_or_refused_by_name(capsys):
    names = planned("vico-table3", checkpoint="Qwen3-VL-8B")
    assert list(names) == ["vanilla", "fastv.target_ratio-0.5", "sparsevlm.target_ratio-0.5"]
    told = " ".join(capsys.readouterr().err.split())
    assert "Left out: vanilla_vir, single_tile, downsample, pool, all_compress, random, image_vir, vico, which" in told
    with pytest.raises(ConfigError, match="vico, downsample can't be run on Qwen3-VL checkpoints"):
        planned("vico-table3", checkpoint="Qwen3-VL-8B", rows=["vico", "fastv", "downsample"])
    with pytest.raises(ConfigError, match=r"fastv saves as many tokens as row vico, .* with --budgets"):
        planned("vico-table3", checkpoint="Qwen3-VL-8B", budgets=())
    with pytest.raises(ConfigError, match="max_pixels can't be run on InternVL checkpoints"):
        planned("vico-table3", checkpoint="8B", rows=["max_pixels"])
    assert "max_pixels" not in "".join(planned("vico-baselines", checkpoint="8B", rows=["all"]))


@pytest.mark.parametrize(
    ("kind", "expected"), [("qwen2_5_vl", QWEN2_5_VL), ("qwen3_vl", QWEN3_VL), ("qwen3_vl_moe", QWEN3_VL)]
)
def test_a_folders_kind_is_in_its_configuration(kind, expected, qwen):
    assert kind_of_checkpoints(Checkpoints(base=str(qwen(kind)))) is expected
    assert kind_of_checkpoints(Checkpoints(base="vico-tiny")) is INTERNVL


def test_a_kind_lacks_those_methods_that_its_checkpoints_refuse(untrained, qwen):
    from vico_eval.errors import CheckpointError
    from vico_eval.families.registry import family_of

    folders = {"internvl": untrained / "vico", "qwen2_5_vl": qwen("qwen2_5_vl"), "qwen3_vl": qwen("qwen3_vl")}
    facts = {name: family_of(str(path)).find(str(path), allow_pickle=False).facts for name, path in folders.items()}

    def is_refused(method, kind):
        required = {"ratio": 0.5, "recipe": "llava"}
        needed = {name: value for name, value in required.items() if name in registry.parameters(method)}
        try:
            registry.build(method, needed).suited(facts[kind]).check(facts[kind], facts[kind])
        except CheckpointError:
            return True
        return False

    of_a_checkpoint = {"internvl": {"lvtc", "pvtc"}}  # which other InternVL checkpoints have
    for kind in KINDS:
        refused = {method for method in registry.method_names() if is_refused(method, kind.name)}
        assert refused - of_a_checkpoint.get(kind.name, set()) == kind.lacks


def test_a_method_without_a_card_is_a_row_by_its_name():
    cards = load_cards(models_dir())
    assert "rvtc_edge" not in cards
    found = with_methods(cards, ["vanilla", "rvtc_edge", "nonsense"])
    assert [*found] == [*cards, "rvtc_edge"]
    card = found["rvtc_edge"]
    assert (card.title, card.lmms_model, card.weights) == ("rvtc_edge", "rvtc_edge_internvl", "base")
    runs = planned("tiny", rows=["rvtc_edge"], budgets=(), benchmarks=())
    assert [run.model for run in runs.values()] == ["vanilla_internvl", "rvtc_edge_internvl"]


def test_a_method_of_this_process_alone_is_no_row(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {"of_this_process": DivPrune})
    with pytest.raises(ConfigError, match=r"registered in this process only.*entry point"):
        with_methods(load_cards(models_dir()), ["of_this_process"])


def test_each_supported_checkpoint_is_of_one_kind():
    assert sorted(known for kind in KINDS for known in kind.model_types) == sorted(SUPPORTED)
