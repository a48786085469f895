"""What a row costs beside what it scores."""

import csv
import math

import pandas as pd
import pytest

from vico_eval.errors import ConfigError
from vico_eval.report import write_report
from vico_eval.report.costs.axis import check_axis, cost_axis
from vico_eval.report.costs.frame import check_asked, cost_columns, document_costs, slow_sentences
from vico_eval.report.stats.times import ALL

from .conftest import write_tiny_run
from .test_times import with_times

COSTS = {"encoder": 5, "router": 1, "high": 3, "low": 2, "token": 10, "pair": 1, "head": 100, "cached": 4}


@pytest.fixture(scope="module")
def costed(tmp_path_factory):
    """ViCO compresses two of four tiles: 40 of 64 tokens, each with 20 of text, in two layers."""
    folder = tmp_path_factory.mktemp("costed")
    runs = [
        write_tiny_run(folder, "vico", 3, 2, title="ViCO", costs=COSTS),
        write_tiny_run(folder, "vanilla", 4, 0, title="Vanilla", costs=COSTS),
        write_tiny_run(folder, "old", 3, 4, title="Old"),
    ]
    named = [(None, run) for run in runs]
    return write_report(named, table="tiny", out=folder / "report", columns_of_cost=["operations", "cache"])


def test_costs_of_a_document_are_those_of_its_tokens(costed):
    with costed.costs.open(newline="") as file:
        found = {(line["row"], line["benchmark"]): line for line in csv.DictReader(file)}
    # Vanilla: 4 tiles through encoder and high connector, 84 tokens in two layers: 10 x 168 + 2 x 84^2 + 100.
    vanilla, vico = (found[row, ALL] for row in ("Vanilla", "ViCO"))
    assert float(vanilla["encoder_tflop"]) == pytest.approx(4 * 5 / 1e12)
    assert float(vanilla["connector_tflop"]) == pytest.approx(4 * 3 / 1e12)
    assert float(vanilla["decoder_tflop"]) == pytest.approx((1680 + 2 * 84**2 + 100) / 1e12)
    # Cache: two numbers a token and layer, of two bytes each; two tokens of an answer.
    assert float(vanilla["cache_mib"]) == pytest.approx(2 * 4 * (168 + 4) / 2**20)
    assert float(vico["connector_tflop"]) == pytest.approx((2 * 3 + 2 * 2) / 1e12)
    base, own = 20 + 12 + 1680 + 2 * 84**2 + 100, 20 + 10 + 1200 + 2 * 60**2 + 100
    assert float(vico["prefill_tflop_relative"]) == pytest.approx(100 * own / base)
    assert float(found["ViCO", "Read"]["prefill_tflop"]) == pytest.approx(own / 1e12)
    assert vico["on_front_of_prefill_tflop"] == "True"
    # Records of older versions don't say the selection.
    assert vanilla["selection_tflop"] == vico["selection_tflop"] == ""
    assert ("Old", ALL) not in found  # its record has no costs, and it has no times


def test_the_selection_is_part_of_prefill_where_runs_say_it_and_the_note_names_those_that_do_not(tmp_path):
    # Each of four tiles is looked at, in prompts with 20 tokens of text.
    choices = [{"once": 7, "text": 2}]
    runs = [
        (None, write_tiny_run(tmp_path, "vanilla", 4, 0, title="Vanilla", costs=COSTS | {"choices": []})),
        (None, write_tiny_run(tmp_path, "vico", 3, 2, title="ViCO", costs=COSTS)),
        (None, write_tiny_run(tmp_path, "fastv", 4, 0, title="FastV", costs=COSTS | {"choices": choices})),
    ]
    written = write_report(runs, table="tiny", out=tmp_path / "report", columns_of_cost=["operations"])
    with written.costs.open(newline="") as file:
        found = {line["row"]: line for line in csv.DictReader(file) if line["benchmark"] == ALL}
    assert float(found["Vanilla"]["selection_tflop"]) == 0
    assert float(found["FastV"]["selection_tflop"]) == pytest.approx(4 * (7 + 2 * 20) / 1e12)
    difference = float(found["FastV"]["prefill_tflop"]) - float(found["Vanilla"]["prefill_tflop"])
    assert difference == pytest.approx(4 * (7 + 2 * 20) / 1e12)
    text = written.markdown.read_text()
    assert (
        "by formula (encoder, connectors, selection, decoder; without the selection in ViCO, whose runs don't" in text
    )


def test_columns_that_are_asked_for_stand_in_the_table(costed):
    header, _, *lines = [line for line in costed.markdown.read_text().splitlines() if line.startswith("|")]
    assert header.endswith("| Visual tokens | Prefill TFLOP | KV MiB |")
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[-3:-1]] for line in lines}
    assert rows["Old"] == ["–", "–"]
    assert rows["ViCO"][1] == f"{2 * 4 * (120 + 4) / 2**20:.6f}"
    assert "KV MiB: key/value cache" in costed.latex.read_text()
    assert "KV MiB: key/value cache of prompt and answer, mean over the row's documents." in costed.markdown.read_text()


def test_a_column_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="unknown column 'minutes' in --columns"):
        check_asked(["minutes"])


def test_an_axis_has_the_shares_of_all_documents_and_the_slow_rows():
    costs = document_costs(*frames(1.2, 120.0), "Base")
    assert cost_axis(costs, "tokens") is None
    assert cost_axis(costs, "operations").shares == {"Base": 100, "Own": 75}
    axis = cost_axis(costs, "seconds")
    assert (axis.label, axis.shares["Own"], axis.slower) == ("Seconds", pytest.approx(120), {"Own"})
    assert cost_axis(None, "memory").shares == {}
    with pytest.raises(ConfigError, match="unknown cost 'time' in --pareto"):
        check_axis("time")


def test_a_report_draws_over_the_cost_that_is_asked_for(tmp_path):
    runs = [
        (None, write_tiny_run(tmp_path, "vanilla", 4, 0, title="Vanilla", costs=COSTS)),
        (None, write_tiny_run(tmp_path, "vico", 3, 2, title="ViCO", costs=COSTS)),
    ]
    by_tokens, by_cache, by_seconds = (
        write_report(runs, table="tiny", out=tmp_path / cost, pareto=cost) for cost in ("tokens", "cache", "seconds")
    )
    pictures = [(tmp_path / cost / "retention.png").read_bytes() for cost in ("tokens", "cache")]
    assert pictures[0] != pictures[1]
    assert by_tokens.markdown.read_text() == by_cache.markdown.read_text()
    assert not (tmp_path / "seconds" / "retention.png").exists()  # the runs have no times
    assert "No figure: no row has both a retention and seconds" in by_seconds.markdown.read_text()


def frames(seconds, relative):
    """Two rows of one benchmark; the second one with 3/4 of the operations."""
    counts = {
        "connector_operations": [0.0, 0.0],
        "selection_operations": 0.0,
        "decoder_operations": [0.0, 0.0],
        "cache_bytes": [8.0, 4.0],
    }
    cells = pd.DataFrame(
        {"row": ["Base", "Own"], "benchmark": "A", "documents": 2, "encoder_operations": [8.0, 6.0], **counts}
    )
    summary = pd.DataFrame({"retention": [100.0, 98.0], "token_share": [100.0, 50.0]}, index=["Base", "Own"])
    lines = [(row, name) for row in summary.index for name in ("A", ALL)]
    times = pd.DataFrame(lines, columns=["row", "benchmark"])
    times["alone_seconds"] = [1.0, 1.0, seconds, seconds]
    times["alone_relative"] = [100.0, 100.0, relative, relative]
    times["prefill_seconds"] = [0.5, 0.5, 0.2, 0.2]
    times["decode_seconds"] = [0.25, 0.25, 0.5, 0.5]
    times["peak_mib"] = [400.0, 400.0, 300.0, 300.0]
    return cells, summary, times


def test_a_row_slower_than_what_it_saves_is_said_to_be_and_is_on_no_front_of_time():
    costs = document_costs(*frames(1.2, 120.0), "Base")
    own = costs[(costs["row"] == "Own") & (costs["benchmark"] == ALL)].iloc[0]
    assert (own["seconds"], own["slower"]) == (1.2, True)
    assert (own["on_front_of_seconds"], own["on_front_of_tokens"], own["on_front_of_cache_mib"]) == (False, True, True)
    assert slow_sentences(costs, "Base") == (
        "Slower than Base despite fewer prefill operations, by the runs' own times: Own (120% for 75%).",
    )
    assert (own["prefill_seconds"], own["decode_seconds_relative"], own["peak_mib_relative"]) == (0.2, 200.0, 75.0)
    assert (own["on_front_of_prefill_seconds"], own["on_front_of_decode_seconds"]) == (True, False)
    for seconds, relative in ((0.9, 90.0), (1.2, math.nan)):  # faster, or not comparable
        assert slow_sentences(document_costs(*frames(seconds, relative), "Base"), "Base") == ()
    whole, prefill, memory = cost_columns(costs, ["seconds", "prefill_seconds", "memory"])
    assert whole.values == {"Base": 1.0, "Own": 1.2}
    assert prefill.values == {"Base": 0.5, "Own": 0.2}
    assert memory.values == {"Base": 400.0, "Own": 300.0}
    assert prefill.meaning.endswith(", mean over the row's documents")
    assert "mean" not in memory.meaning


def test_times_that_can_not_be_compared_have_no_share_whatever_part_of_the_time_they_are():
    costs = document_costs(*frames(1.2, math.nan), "Base").set_index(["row", "benchmark"])
    own = costs.loc[("Own", ALL)]
    assert (own["prefill_seconds"], own["peak_mib"]) == (0.2, 300.0)
    parts = ("seconds", "prefill_seconds", "decode_seconds", "peak_mib")
    assert all(math.isnan(own[f"{part}_relative"]) and not own[f"on_front_of_{part}"] for part in parts)


def test_a_row_without_a_benchmark_has_no_share_of_the_whole():
    cells, summary, _ = frames(1.0, 100.0)
    more = cells[:1].assign(benchmark="B")
    costs = document_costs(pd.concat([cells, more]), summary, None, "Base").set_index(["row", "benchmark"])
    assert costs.loc[("Own", "A"), "prefill_tflop_relative"] == 75
    assert math.isnan(costs.loc[("Own", ALL), "prefill_tflop_relative"])


def test_times_are_in_a_table_only_where_they_are_asked_for(tmp_path):
    took = {"reading": 0.0, "encoding": 1.0, "own": 1.0}
    runs = [
        (None, write_tiny_run(tmp_path, "vanilla", 4, 0, title="Vanilla", costs=COSTS)),
        (None, write_tiny_run(tmp_path, "vico", 3, 2, title="ViCO", costs=COSTS)),
    ]
    texts = []
    for own in (1.0, 9.0):  # ViCO's; slower with 9
        for (_, run), seconds in zip(runs, (1.0, own), strict=True):
            with_times(run, took | {"own": seconds})
        plain = write_report(runs, table="tiny", out=tmp_path / "out")
        texts.append(plain.markdown.read_text() + plain.latex.read_text())
    assert texts[0] == texts[1]
    asked = write_report(runs, table="tiny", out=tmp_path / "out", columns_of_cost=["seconds"])
    assert (
        "Slower than Vanilla despite fewer prefill operations, by the runs' own times: ViCO"
        in asked.markdown.read_text()
    )
