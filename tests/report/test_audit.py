"""The audit of the papers' numbers, on the numbers and on copies with a changed digit."""

import shutil

import pytest

from vico_eval.cli import main
from vico_eval.errors import ConfigError, ReportError
from vico_eval.report.papers.audit import EXCEPTIONS, audit_published
from vico_eval.report.papers.layout import published_dir


@pytest.fixture
def tampered(tmp_path):
    """Copies the numbers, with `old` of a file replaced by `new` once."""

    def copy(place, old, new):
        folder = tmp_path / "published"
        shutil.copytree(published_dir(), folder)
        text = (folder / place).read_text()
        assert old in text
        (folder / place).write_text(text.replace(old, new, 1))
        return folder

    return copy


def run(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["papers", "audit"])
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


def test_exactly_the_known_exceptions_are_found():
    found = audit_published(published_dir())
    assert (found.unknown, found.missing) == ((), ())
    # ViCO prints 59 averages, InternVL-X 9 + 7 in tables 1 and 3 and 26 in tables 2, 4 and 5; for 17 of these there are
    # no scores anywhere, nor for the 10 of TOPS.
    assert (found.num_averages, found.without_scores) == (84, 27)
    assert sum("printed" in finding.values for finding, _ in found.findings) == 11
    between = {finding.what: dict(finding.values) for finding, _ in found.findings if "printed" not in finding.values}
    assert between == {
        "InternVL2-2B, Base, VizWiz": {"table 1": 47.55, "table 3": 46.55},
        "InternVL2-2B, + LVTC, no flash attention, Avg. of TextVQA, DocVQA, GQA, VizWiz, MMVet, POPE": {
            "table 2": 50.26,
            "table 4": 50.23,
        },
        "InternVL2-2B, + RVTC, training time": {"table 2": 8.6, "table 5": 7.9},
    }


def test_the_audit_prints_each_with_its_definition_and_reason(capsys):
    status, out, err = run(capsys)
    assert status == 0
    blocks = out.split("\nViCO, ")[0].splitlines()
    assert blocks[0] == "ViCO, table 1, InternVL3.5-241B-MoE, ViCO, Avg."
    assert blocks[1].startswith("  printed 99.6, recomputed 99.5487407045")
    assert blocks[1].endswith("difference -0.051259")
    assert blocks[2] == "  100 × mean score / mean score of baseline (MME divided by 28)"
    assert blocks[3].startswith("  known: ")
    assert out.count("  known: ") == 14
    assert "read 5 statements of the text. 14 do not agree" in err


def test_the_text_tells_which_of_two_printed_numbers_is_meant(capsys):
    # 7.9 / 13.5 = 58.5185%, 8.6 / 13.5 = 63.7037%; 50.23 - 47.91 = 2.32, 50.26 - 47.91 = 2.35;
    # GQA, VQAv2 and VizWiz gain 0.52, 0.66 and 51.83 - 46.55 = 5.28, or 4.28 from 47.55: 2.1533 or 1.82 on average.
    found = {read.statement.says: read for _, read in audit_published(published_dir()).statements}
    for says, fitting, made, other in [
        ("58.51% of the time", 7.9, 58.5185, 63.7037),
        ("total gain 2.32", 50.23, 2.32, 2.35),
        ("2.15%", 46.55, 2.1533, 1.82),
    ]:
        (reading,) = found[says].fitting
        assert list(reading.chosen.values()) == [fitting]
        assert reading.made == pytest.approx(made, abs=1e-4)
        assert sorted(one.made for one in found[says].readings) == pytest.approx(sorted([made, other]), abs=1e-4)
    _, out, _ = run(capsys)
    assert "  fits InternVL2-2B, + RVTC, training time, table 5 7.9: 58.5185" in out
    assert "  not InternVL2-2B, + RVTC, training time, table 2 8.6: 63.7037" in out


def test_a_statement_that_no_printed_number_fits_is_found():
    (finding,) = [found for found, _ in audit_published(published_dir()).findings if "text, " in found.what]
    # 64.47 - 61.38; over InternVL2-HD, 64.47 - 62.13 = 2.34.
    assert finding.what == "text, “exceed LLaVA-NeXT by 2.34%”"
    assert dict(finding.values) == {"printed": 2.34, "recomputed": pytest.approx(3.09)}


def test_a_statement_about_a_number_that_no_table_prints_is_named(tampered):
    folder = tampered("internvl_x/prose.yaml", "quantities: [training time]", "quantities: [trainig time]")
    with pytest.raises(ReportError, match=r"prose.yaml: no table prints InternVL2-2B, \+ RVTC, trainig time; "):
        audit_published(folder)


@pytest.mark.parametrize(
    ("place", "old", "new", "found"),
    [
        # 84.0 -> 94.0: +10 / 9 over a mean of 79, so the average of the row is 1.5 off, and table 3 has 84.0.
        (
            "vico/table1.csv",
            "InternVL3.5-8B,baseline,OCRBench,,score,84.0",
            "InternVL3.5-8B,baseline,OCRBench,,score,94.0",
            ["table 1, InternVL3.5-8B, ViCO, Avg.", "InternVL3.5-8B, baseline, OCRBench"],
        ),
        (
            "vico/table6.csv",
            "ViCO,MMIU,,compressed_ratio,56",
            "ViCO,MMIU,,compressed_ratio,57",
            ["table 6, InternVL3.5-1B, ViCO, Avg. of its ratios"],
        ),
        (
            "internvl_x/table3.csv",
            "learnable CLS scale",
            "Learnable CLS scale",
            None,  # the row of that note is told by it: two rows become one, with every number twice
        ),
        (
            "internvl_x/table5.csv",
            "Base-ratio,training time,max tiles 6,train_time,13.5",
            "Base-ratio,training time,max tiles 6,train_time,13.6",
            ["InternVL2-2B, Base-HD, training time"],  # the text's share still fits table 2's 13.5
        ),
        (
            "internvl_x/table2.csv",
            '+ PVTC + LVTC,Avg,"TextVQA, DocVQA, GQA, VizWiz, MMVet, POPE",average_score,50.90',
            '+ PVTC + LVTC,Avg,"TextVQA, DocVQA, GQA, VizWiz, MMVet, POPE",average_score,50.80',
            ["table 2, InternVL2-2B, + PVTC + LVTC, no flash attention, Avg."],
        ),
    ],
)
def test_a_changed_digit_is_found_by_name_and_ends_with_1(capsys, monkeypatch, tampered, place, old, new, found):
    folder = tampered(place, old, new)
    monkeypatch.setattr("vico_eval.commands.work.papers.published_dir", lambda: folder)
    status, _, err = run(capsys)
    assert status == 1
    if found is None:
        assert "twice" in err
    else:
        assert err.count("New disagreement: ") == len(found)
        assert all(f"New disagreement: {what} (" in err for what in found)


def test_a_mended_number_leaves_an_exception_that_is_not_found(capsys, monkeypatch, tampered):
    folder = tampered("internvl_x/table5.csv", "train_time,7.9", "train_time,8.6")
    monkeypatch.setattr("vico_eval.commands.work.papers.published_dir", lambda: folder)
    status, _, err = run(capsys)
    assert status == 1
    assert (
        "Known exception that was not found with these values: InternVL2-2B, + RVTC, training time (internvl-x)." in err
    )
    # 8.6 h of 13.5 are 63.7%.
    assert err.count("New disagreement") == err.count("New disagreement: text, “58.51% of the time”") == 1


def test_a_known_exception_with_another_value_is_unknown(tampered):
    found = audit_published(tampered("internvl_x/table5.csv", "train_time,7.9", "train_time,7.8"))
    assert [finding.what for finding in found.unknown] == [
        "InternVL2-2B, + RVTC, training time",
        "text, “58.51% of the time”",
    ]
    assert [entry.what for entry in found.missing] == ["InternVL2-2B, + RVTC, training time"]


def test_exceptions_are_a_closed_schema(tampered):
    folder = tampered(EXCEPTIONS, "reason:", "because:")
    with pytest.raises(ConfigError, match=r"exceptions.yaml does not fit: 0.reason"):
        audit_published(folder)
