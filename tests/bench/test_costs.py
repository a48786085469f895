"""What a record says of its model's costs: a report's counts from it are those of the formulas."""

import pytest

from vico_eval.bench.costs import model_costs
from vico_eval.bench.flops import connector_flops, key_width, prefill_flops, router_flops, vision_flops
from vico_eval.engine.loading import find_engine
from vico_eval.harnesses.run_record import run_record
from vico_eval.report.costs.counts import count_costs
from vico_eval.runs.results import Document
from vico_eval.runs.schema import TokenAccount

ACCOUNT = {
    "tiles": 4,
    "compressed_tiles": 1,
    "visual_tokens": 52,
    "visual_tokens_uncompressed": 64,
    "visual_tokens_per_layer": (52, 52, 26, 26),
    "text_tokens": 30,
    "generated_tokens": 2,
}


def costs_of(**arguments):
    return model_costs(find_engine({"device": "cpu", **arguments}))


def test_a_report_counts_what_the_formulas_do():
    found = find_engine({"pretrained": "vico-tiny", "method": "vico", "device": "cpu"})
    config = found.checkpoint.config
    record = run_record(found, title="ViCO", harness="lmms-eval", num_processes=1)
    account = TokenAccount(**ACCOUNT, p_compress=(0.1, 0.2, 0.3, 0.9))
    counted = count_costs(record, [Document(doc_id=0, fields={}, account=(account,))])
    assert counted["encoder_operations"] == 4 * (vision_flops(config) + router_flops(config))
    assert counted["connector_operations"] == connector_flops(config, num_high=3, num_low=1)
    tokens = [82, 82, 56, 56]
    assert counted["decoder_operations"] == prefill_flops(config.text_config, tokens).total
    # Two tokens of an answer in four layers; keys and values of four bytes a number.
    assert counted["cache_bytes"] == 4 * 2 * key_width(config.text_config) * (sum(tokens) + 2 * 4)


def test_without_a_formula_or_an_account_nothing_is_counted():
    found = find_engine({"pretrained": "vico-tiny-base", "device": "cpu"})
    known = run_record(found, title="Vanilla", harness="lmms-eval", num_processes=1)
    one = Document(doc_id=0, fields={}, account=(TokenAccount(**ACCOUNT),))
    assert all(value != value for value in count_costs(known.model_copy(update={"costs": None}), [one]).values())
    assert all(value == value for value in count_costs(known, [one]).values())
    assert all(value != value for value in count_costs(known, [one, one._replace(account=None)]).values())


def test_a_second_checkpoint_sees_and_decides_and_averaging_comes_behind_the_high_connector():
    plain = costs_of(pretrained="vico-tiny-base")
    borrowed = costs_of(pretrained="vico-tiny-base", method="vanilla_vir", flash_from="vico-tiny")
    assert borrowed.router == plain.router + plain.encoder
    assert borrowed.low == costs_of(pretrained="vico-tiny", method="vico").low > plain.high
    pooled = costs_of(pretrained="vico-tiny-base", method="pool", ratio=0.5)
    assert pooled.low == pooled.high == plain.high


@pytest.mark.parametrize(("name", "method"), [("internvl-x-tiny-pvtc", "pvtc"), ("internvl-x-tiny-lvtc", "lvtc")])
def test_parts_without_a_formula_have_no_costs(name, method):
    assert costs_of(pretrained=name, method=method) is None
