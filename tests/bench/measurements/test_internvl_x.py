"""The cost benchmark runs as its help says and records what it must; times themselves are no test."""

import json
from functools import partial

import pytest

from vico_eval.bench.flops import prefill_flops


@pytest.fixture
def run(benchmark):
    return partial(benchmark, "internvl_x.py")


def test_a_record_and_a_table_come_out(run, tmp_path):
    # 600 x 400 px are covered by 2 x 1 tiles; InternVL's own rule would take 3 x 2 of at most 6.
    sizes = ("--size", "small", "--picture", "600x400", "--rounds", "1", "--threads", "1")
    status, err = run(*sizes, "--out", str(tmp_path), "--name", "try")
    assert status == 0, err
    rows = json.loads((tmp_path / "try.json").read_text())["rows"]
    assert {title: row["tiles"] for title, row in rows.items()} == {
        **dict.fromkeys(("Base", "Base*", "+PVTC", "+LVTC", "+PVTC+LVTC"), 1),
        "Base-HD": 7,
        "+RVTC": 3,
        "Full": 3,
    }
    assert rows["Base*"]["visual_tokens_per_layer"] == [1024] * 8
    # 3/4 of 8 layers, less one.
    assert rows["+LVTC"]["visual_tokens_per_layer"] == [256] * 5 + [1024] * 3
    assert rows["Full"]["visual_tokens_per_layer"] == [768] * 5 + [3072] * 3
    record = json.loads((tmp_path / "try.json").read_text())
    shape = type("Shape", (), record["shape"])
    text = rows["Base"]["text_tokens"]
    flops = {
        title: prefill_flops(shape, [tokens + text for tokens in rows[title]["visual_tokens_per_layer"]]).total
        for title in ("Base", "Base*", "+LVTC")
    }
    assert rows["+LVTC"]["flops_to_base"] == pytest.approx(flops["+LVTC"] / flops["Base"])
    assert rows["+LVTC"]["flops_to_base_star"] == pytest.approx(flops["+LVTC"] / flops["Base*"])
    # One round: the ratio to Base* is that of the ratios to Base.
    relative = {title: row["time_to_base"][1] for title, row in rows.items()}
    assert rows["Full"]["time_to_base_star"][1] == pytest.approx(relative["Full"] / relative["Base*"])
    table = (tmp_path / "README.md").read_text()
    assert all(f"| {title} |" in table for title in rows)
    assert "[try](try.json)" in table


@pytest.mark.parametrize(("option", "value"), [("--size", "8b"), ("--picture", "800")])
def test_what_cannot_be_measured_is_wrong_usage(run, option, value):
    status, err = run(option, value)
    assert status == 2
    assert f"'{value}' is" in err
