"""Speed tables: what stands where, from records made by hand."""

import csv
import io

import pytest

from vico_eval.report.speed.stages import csvs, grids
from vico_eval.report.tables.latex_table import grid_to_latex

CONDITIONS = {
    "model": "random weights of shape 8b",
    "dtype": "bfloat16",
    "attention": "sdpa",
    "processor": "A GPU",
    "threads": 1,
}


def speedup(measured, bound):
    return {"measured": measured, "bound": bound}


@pytest.fixture
def table4():
    cells = [
        {
            "text_tokens": text,
            "compression": share,
            "visual_tokens": 2560 * (100 - share) // 100,
            "prefill_s": [seconds, 2 * seconds, 3 * seconds],
            "llm": speedup([1.0, 1.1, 1.2], 1.5),
            "end_to_end": speedup([1.0, 1.05, 1.1], 1.25),
        }
        for text in (64, 512)
        for share, seconds in ((0, 0.4), (25, 0.3), (50, 0.2), (75, 0.1))
    ]
    return {**CONDITIONS, "rounds": 3, "encoder_s": [0.1, 0.1, 0.1], "cells": cells}


@pytest.fixture
def methods():
    def entry(stages, flops, bound):
        return {
            "per_request": {
                "tiles": 10,
                "compressed_tiles": 2.5,
                "text_tokens": 40,
                "visual_tokens_per_layer": [100, 60],
            },
            "batch_size": 2,
            "stage_s": stages,
            "other_s": [0.001],
            "whole_s": [0.1],
            "first_token_s": [0.08],
            "peak_memory_gib": None,
            "flops": flops,
            "per_s": {"requests": [20.0], "visual_tokens": [1234.0], "generated_tokens": None},
            "speedups": {"llm": speedup([2.0], bound), "end_to_end": speedup([1.5], None)},
        }

    flops = {
        "prefill": {"counted": 4_000_000_000, "formula": 3, "comparable": 3_960_000_000},
        "method": {"counted": 5, "formula": None, "comparable": None},
    }
    return {
        **CONDITIONS,
        "rounds": 1,
        "batch_size": 2,
        "stages": ["tiling", "router", "method", "prefill"],
        "methods": {
            "vanilla": entry({"prefill": [0.05]}, flops, 1.0),
            "fastv": entry({"method": [0.002], "prefill": [0.0253]}, flops, 1.75),
        },
    }


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def lines(grid):
    return {tuple(cell.text for cell in line.titles): [cell.text for cell in line.cells] for line in grid.lines}


def test_table_4_has_both_speedups_beneath_the_papers_and_their_bounds(table4):
    found = lines(grids(table4)[""])
    block = "10 tiles + 512 text"
    assert [title for prompt, title in found if prompt == block] == [
        *("8B (paper)", "30B (paper)", "38B (paper)", "241B (paper)", "bound by operations", table4["model"])
    ]
    assert found[block, "8B (paper)"] == ["1.00", "1.30", "1.76", "2.77", *"––––"]
    assert found[block, "bound by operations"] == ["1.50"] * 4 + ["1.25"] * 4
    # 1.0, 1.1 and 1.2: 1.097, and a standard error of the logarithms of 0.0527, times t(0.975, 2) of 4.303.
    assert found[block, table4["model"]] == ["1.10 [0.87, 1.38]"] * 4 + ["1.05 [0.93, 1.18]"] * 4
    notes = " ".join(grids(table4)[""].notes)
    assert "prefill 0.8 s with 64 and 0.8 s with 512 text tokens, vision encoder 0.1 s" in notes
    assert "Not comparable" not in notes


def test_other_tiles_than_the_papers_are_not_compared_with_it(table4):
    table4["cells"][0]["visual_tokens"] = 160
    grid = grids(table4)[""]
    assert {title for _, title in lines(grid)} == {"bound by operations", table4["model"]}
    assert "Not comparable with the paper: 10 tiles are 160 visual tokens here and 2,560 there." in grid.notes


def test_a_decoder_without_a_formula_has_no_line_of_bounds(table4):
    for cell in table4["cells"]:
        cell["llm"]["bound"] = cell["end_to_end"]["bound"] = None
    assert "bound by operations" not in {title for _, title in lines(grids(table4)[""])}


def test_table_4_as_csv_has_a_line_a_number(table4):
    found = rows(csvs(table4)[""])
    assert [row["source"] for row in found] == ["paper"] * 32 + ["bound"] * 16 + ["measured"] * 16
    last = found[-1]
    assert (last["system"], last["text_tokens"], last["compression"]) == (table4["model"], "512", "75")
    assert (last["quantity"], last["rounds"]) == ("end_to_end", "3")
    assert float(last["value"]) == pytest.approx((1.0 * 1.05 * 1.1) ** (1 / 3))


def test_table_4_in_latex_groups_its_columns_and_parts_the_lengths_of_text(table4):
    latex = grid_to_latex(grids(table4)[""], "tab:speed")
    assert r"\multicolumn{4}{c}{LLM only}" in latex
    assert r"\multicolumn{4}{c}{End-to-end}" in latex
    # Groups too wide for one tabular stand beneath each other, each with a rule between the lengths.
    assert latex.count(r"\midrule") == 2 * latex.count(r"\begin{tabular}") == 4


def test_stages_that_no_method_has_are_no_columns_and_those_of_some_have_dashes(methods):
    vanilla, fastv = rows(csvs(methods)["-stages"])
    assert not {"Tiling, ms", "Router, ms"} & set(vanilla)
    assert (vanilla["Method, ms"], fastv["Method, ms"]) == ("–", "2.0 (2.0 to 2.0)")
    assert fastv["Prefill, ms"] == "25.3 (25.3 to 25.3)"
    assert (fastv["Generated tokens/s"], fastv["Peak memory"]) == ("–", "–")


def test_a_method_stands_beside_its_bounds_and_its_operations(methods):
    fastv = rows(csvs(methods)["-speedups"])[1]
    assert fastv == {
        "Method": "fastv",
        "Compressed tiles": "2.5 of 10",
        "Visual tokens": "80",
        "LLM only Speed-up": "2.00 (2.00 to 2.00)",
        "LLM only Bound": "1.75",
        "End-to-end Speed-up": "1.50 (1.50 to 1.50)",
        "End-to-end Bound": "–",
        "GFLOP": "2",
        "By formula": "99.0%",
    }
