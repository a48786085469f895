"""Table 4: what stands in which line and column, and the same numbers as tidy lines."""

import io
import math

import pandas as pd
import pytest

from vico_eval.report.speed.ratio import mean_ratio
from vico_eval.report.speed.table4 import Speedup, bound_speedups, paper_speedups, table4_csv, table4_grid


def measured(ratios, prompt=(64, 75), quantity="llm_only", **more):
    return Speedup(source="measured", system="mine", prompt=prompt, quantity=quantity, ratio=mean_ratio(ratios), **more)


def texts(grid):
    """Cells by block and title."""
    return {tuple(cell.text for cell in line.titles): [cell.text for cell in line.cells] for line in grid.lines}


def test_a_mean_ratio_is_geometric_and_has_students_interval():
    found = mean_ratio([2, 8])
    # The geometric mean is 4; the logarithms are off by log 2 each, and t(0.975, 1) is 12.706.
    margin = 12.7062 * math.log(2)
    assert found.value == pytest.approx(4)
    assert math.log(found.high / found.value) == pytest.approx(margin, rel=1e-4)
    assert math.log(found.value / found.low) == pytest.approx(margin, rel=1e-4)
    assert (mean_ratio([3.0]).text(), mean_ratio([]).text(), mean_ratio([1, 1]).text()) == ("3.00", "–", "1.00")
    assert mean_ratio([1.9, 2.1]).text(is_sound=False) == "2.00 [1.06, 3.77]*"


def test_the_papers_models_have_a_line_in_both_blocks_and_none_end_to_end():
    lines = texts(table4_grid(paper_speedups(), []))
    assert list(lines) == [
        (f"10 tiles + {text} text", f"{model} (paper)") for text in (64, 512) for model in ("8B", "30B", "38B", "241B")
    ]
    assert lines["10 tiles + 64 text", "8B (paper)"] == ["1.00", "1.29", "1.97", "3.76", *"––––"]
    assert lines["10 tiles + 512 text", "241B (paper)"][3] == "2.87"


def test_every_number_stands_in_its_cell_and_what_is_not_known_is_a_dash():
    speedups = [
        *bound_speedups({(64, 75): {"llm_only": 3.876, "end_to_end": None}, (512, 25): {"end_to_end": 1.23}}),
        measured([2.0], is_sound=False),
        measured([1.5], prompt=(512, 50), quantity="end_to_end"),
        measured([0.5], prompt=(64, 0), against="other"),
    ]
    grid = table4_grid(speedups, ["Mine."])
    assert texts(grid) == {
        ("10 tiles + 64 text", "bound by operations"): [*"–––", "3.88", *"––––"],
        ("10 tiles + 64 text", "mine"): [*"–––", "2.00*", *"––––"],
        ("10 tiles + 64 text", "mine against other"): ["0.50", *"–––––––"],
        ("10 tiles + 512 text", "bound by operations"): [*"–––––", "1.23", *"––"],
        ("10 tiles + 512 text", "mine"): [*"––––––", "1.50", "–"],
    }
    assert [(column.group, column.title) for column in grid.columns] == [
        (group, f"{share}%") for group in ("LLM only", "End-to-end") for share in (0, 25, 50, 75)
    ]
    notes = " ".join(grid.notes)
    assert all(part in notes for part in ("Bound is", "Lines against another", "* Unreliable: stopped early", "Mine."))
    assert "(paper)" not in notes


def test_a_system_of_any_name_keeps_to_its_own_line():
    odd = Speedup(source="measured", system="8B (paper)", prompt=(64, 0), quantity="llm_only", ratio=mean_ratio([7.0]))
    grid = table4_grid([*paper_speedups(), odd], [])
    assert [line.cells[0].text for line in grid.lines if line.titles[1].text == "8B (paper)"] == [
        "1.00",
        "7.00",
        "1.00",
    ]


def test_the_tidy_lines_are_read_by_pandas_as_they_are():
    speedups = [
        *bound_speedups({(64, 75): {"llm_only": 3.876}}),
        measured([1.9, 2.1]),
        measured([], prompt=(512, 0), quantity="end_to_end", against="other", is_sound=False),
    ]
    frame = pd.read_csv(io.StringIO(table4_csv(speedups)), keep_default_na=True)
    assert list(frame["source"]) == ["bound", "measured", "measured"]
    assert list(frame["system"]) == ["operations", "mine", "mine"]
    bound, own, missing = frame.to_dict("records")
    assert (bound["text_tokens"], bound["compression"], bound["value"]) == (64, 75, 3.876)
    assert math.isnan(bound["low"])
    assert math.isnan(bound["rounds"])
    assert own["value"] == pytest.approx(math.sqrt(1.9 * 2.1))
    assert own["low"] < own["value"] < own["high"]
    assert (own["rounds"], own["is_sound"]) == (2, True)
    assert (missing["quantity"], missing["against"], missing["rounds"]) == ("end_to_end", "other", 0)
    assert math.isnan(missing["value"])
    assert missing["is_sound"] is False
