"""The benchmark runs as its help says and records what it must; times themselves are no test."""

import json
from functools import partial

import pytest

from vico_eval.bench.flops import prefill_flops
from vico_eval.bench.measurements.break_even import first_that_pay, sizes
from vico_eval.bench.measurements.prefill import measure, reachable
from vico_eval.bench.measurements.prefill_table import readme
from vico_eval.bench.prefill_runs import Settings

SMALL = Settings(size="small", visual_tokens=64, text_tokens=12, device="cpu", dtype="float32", attention="sdpa")
METHODS = ("keep_everything", "top_attention", "divprune", "fastv", "sparsevlm")


@pytest.fixture
def run(benchmark):
    return partial(benchmark, "prefill.py")


@pytest.fixture(scope="module")
def record():
    return measure(SMALL, rounds=2, titles=METHODS)


def test_a_record_and_a_table_come_out(run, tmp_path):
    options = ("--size", "small", "--visual-tokens", "16", "--text-tokens", "12", "--rounds", "2", "--threads", "1")
    status, err = run(*options, "--methods", "holov,fastv", "--out", str(tmp_path), "--name", "try")
    assert status == 0, err
    record = json.loads((tmp_path / "try.json").read_text())
    assert record["command"].startswith("python benchmarks/prefill.py --size small")
    assert {"torch", "transformers"} < set(record["versions"])
    assert (record["threads"], record["dtype"], record["attention"]) == (1, "float32", "sdpa")
    assert list(record["systems"]) == ["holov", "fastv"]
    table = (tmp_path / "README.md").read_text()
    assert "| holov | 50.0% |" in table
    assert "[try](try.json)" in table


def test_bounds_are_those_of_the_tokens_that_layers_worked_on(record):
    systems = record["systems"]
    assert tuple(systems) == METHODS
    assert systems["keep_everything"]["bound"] == 1
    assert [title for title, system in systems.items() if "break_even" not in system] == ["keep_everything"]
    # Half of 64 on average: before the decoder, or, of 8 layers of which 2 work on all, a third in the other 6.
    assert systems["top_attention"]["visual_tokens_per_layer"] == [32] * 8
    fastv = systems["fastv"]
    assert fastv["visual_tokens_per_layer"] == [64] * 2 + [21] * 6
    shape = type("Shape", (), record["shape"])
    tokens = [count + 12 for count in fastv["visual_tokens_per_layer"]]
    assert fastv["bound"] == pytest.approx(prefill_flops(shape, [76] * 8).total / prefill_flops(shape, tokens).total)
    assert systems["sparsevlm"]["mean_visual_share"] == pytest.approx(0.5, abs=0.01)


def test_a_system_stands_beside_the_plain_runs_around_it(record):
    # In a round, six plain runs stand around the five methods; FastV is the fourth of them.
    fastv = record["systems"]["fastv"]
    beside = [(plain[3] + plain[4]) / 2 for plain in record["plain"]["seconds"]]
    expected = [plain / own for plain, own in zip(beside, fastv["seconds"], strict=True)]
    assert fastv["speedups"] == pytest.approx(expected)
    assert fastv["speedup"] == pytest.approx(sum(expected) / 2)
    shares = [own / plain for own, plain in zip(fastv["own_seconds"], beside, strict=True)]
    assert fastv["own_share"] == pytest.approx(sum(shares) / 2)


def test_what_methods_take_themselves_is_part_of_their_time(record):
    systems = record["systems"]
    for title, system in systems.items():
        assert len(system["own_seconds"]) == len(system["seconds"]) == 2, title
        assert all(0 < own < whole for own, whole in zip(system["own_seconds"], system["seconds"], strict=True)), title
    # Products of all pairs take DivPrune far more than sorting takes top attention; nothing is chosen at ratio 1.
    assert systems["divprune"]["own_tflop"] > 100 * systems["top_attention"]["own_tflop"] > 0
    assert systems["divprune"]["own_tflop"] > 2 * 64**2 * 256 / 1e12


def test_half_of_the_tokens_take_less_memory_than_all(record):
    plain = record["plain"]["peak_bytes"]
    # 8 layers' keys and values of 76 tokens in 4 heads of 32 numbers alone.
    assert plain > 8 * 2 * 76 * 4 * 32 * 4
    assert record["systems"]["top_attention"]["peak_bytes"] < 0.8 * plain


def test_scores_over_all_rows_cost_more_than_the_class_tokens(record):
    scores = record["encoder_scores"]
    assert scores["mean"]["tflop"] > 100 * scores["cls"]["tflop"] > 0
    assert all(len(entry["seconds"]) == 2 and entry["share"] > 0 for entry in scores.values())


def test_a_share_that_a_decoder_can_not_have_is_said():
    methods, unreachable = reachable({"low": ("fastv", {"target_ratio": 0.1}), "half": ("fastv", {})}, "small")
    assert list(methods) == ["half"]
    assert "fastv can't reach target_ratio=0.1: 2 of 8 layers" in unreachable["low"]


def test_the_table_has_the_reason_and_the_end_of_the_search_where_there_is_no_number(record):
    systems = {"holov": record["systems"]["fastv"] | {"break_even": None}}
    table = readme({"one": record | {"systems": systems, "unreachable": {"fastv": "too shallow"}}})
    rows = [line.split("|") for line in table.splitlines() if line.startswith(("| holov", "| fastv", "| plain"))]
    assert [len(row) for row in rows] == [12] * 3  # ten columns
    assert rows[1][10] == " none up to 64 "
    assert "too shallow" in rows[2][4]


def test_break_even_is_the_first_number_at_which_the_lower_quartile_is_faster():
    measured = {64: {"a": 1.1, "b": 0.9, "c": 0.5}, 256: {"b": 1.0, "c": 0.9}, 512: {"b": 1.2, "c": 1.0}}
    asked = {}

    def lower_quartiles(number, titles):
        asked[number] = list(titles)
        return measured[number]

    assert first_that_pay(["a", "b", "c"], [64, 256, 512], lower_quartiles) == {"a": 64, "b": 512, "c": None}
    assert asked == {64: ["a", "b", "c"], 256: ["b", "c"], 512: ["b", "c"]}


def test_break_even_tries_sizes_that_an_image_can_have():
    assert sizes(below=3328) == [16, 64, 144, 256, 512, 1024, 2048]
    assert sizes(below=512) == [16, 64, 144, 256]
    assert sizes(below=64) == [16]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", "7b"), "'7b' is not one of small, 0.6b, 8b"),
        (("--methods", "fastv,nothing"), "'nothing' is not one of keep_everything"),
        (("--visual-tokens", "300"), "got 300 visual tokens"),
    ],
)
def test_wrong_options_are_wrong_usage(run, options, message):
    status, err = run(*options)
    assert status == 2
    assert message in err
