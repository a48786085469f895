"""Single answers, texts of exact length, and the arithmetic behind the table, on numbers that a reader can check."""

import math

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from vico_eval.bench.serve.answer import AnswerStream, Outcome
from vico_eval.bench.serve.runner import LoadCell, Turn
from vico_eval.bench.serve.summary import ratio, summarize
from vico_eval.bench.serve.table import Measured, images_csv, images_grid, table4_speedups
from vico_eval.bench.serve.tokens import TextMaker
from vico_eval.bench.serve.workload import TABLE_4, Setting

USAGE = 'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}'


def read(*lines):
    stream = AnswerStream()
    for place, line in enumerate(lines):
        stream.feed(line, float(place))
    return stream


def test_a_chats_first_token_is_its_first_text_not_its_role():
    stream = read(
        ": keep-alive",
        'data: {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": null}]}',
        'data: {"choices": [{"delta": {"reasoning_content": "hm"}}]}',
        "",
        'data: {"choices": [{"delta": {"content": "yes"}, "finish_reason": "stop"}]}',
        USAGE,
        "data: [DONE]",
    )
    assert (stream.first_at, stream.last_at) == (2, 4)
    assert stream.problem(max_tokens=3, prompt_tokens=7) == ("", "")


def test_a_token_without_text_came_when_the_answer_ended():
    stream = read('data: {"choices": [{"text": "", "finish_reason": "length"}]}', USAGE)
    assert stream.first_at == 0
    assert stream.problem(max_tokens=3, prompt_tokens=None) == ("", "")


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["data: {broken"], "error in the stream"),
        (['data: {"choices": 3}'], "error in the stream"),
        (['data: {"error": "no"}', USAGE, "data: [DONE]"], "error in the stream"),
        ([USAGE], "cut stream"),
        (["data: [DONE]"], "no usage report"),
        (['data: {"usage": {"prompt_tokens": null, "completion_tokens": 3}}', "data: [DONE]"], "no usage report"),
    ],
)
def test_a_broken_stream_is_named(lines, kind):
    assert read(*lines).problem(max_tokens=3, prompt_tokens=7)[0] == kind


@pytest.fixture(scope="module")
def words_tokenizer():
    """Byte-level BPE of many words, with a BOS, as most checkpoints have."""
    syllables = [a + b for a in "bcdfghjklmnp" for b in "aeiou"]
    text = [" " + first + second for first in syllables for second in syllables]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(text * 2, trainers.BpeTrainer(vocab_size=8000, special_tokens=["<s>"]))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


@pytest.mark.parametrize("num_tokens", [16, 64, 704, 3072])
def test_texts_have_exactly_the_tokens_asked_for(words_tokenizer, num_tokens):
    maker = TextMaker(words_tokenizer)
    texts = [maker.text(num_tokens, seed) for seed in ("a", "b", "a")]
    assert {len(words_tokenizer(text).input_ids) for text in texts} == {num_tokens}
    assert texts[0] == texts[2] != texts[1]
    assert num_tokens < 64 or " " in texts[0]  # words, not letters


def outcome(sent, first, failure="", tokens=1, last=None):
    return Outcome(
        sent_s=sent,
        latency_s=first,
        first_token_s=first,
        last_token_s=last or first,
        prompt_tokens=100,
        output_tokens=tokens,
        failure=failure,
    )


SETTING = Setting(compression=0, text_tokens=64)


def turns(server, *spans):
    """A turn of two requests a round, that takes so many seconds."""
    cell = LoadCell(server, SETTING)
    return [Turn(cell, n, [outcome(10, 0.5), outcome(10, span)], True) for n, span in enumerate(spans)]


def test_throughput_counts_first_tokens_over_the_time_of_each_round():
    both = turns("a", 1, 3)
    both[1].outcomes.append(outcome(10, 9, failure="timeout"))
    one = summarize(LoadCell("a", SETTING), both, num_requests=5)
    assert one.requests_per_s == 4 / (1 + 3)
    assert one.prompt_tokens_per_s == 400 / 4
    assert (one.num_requests, one.num_ok, one.is_complete, one.is_sound) == (5, 4, True, False)
    assert one.rounds == {0: 2 / 1, 1: 2 / 3}
    assert one.first_token_ms["p50"] == 750  # of 500, 500, 1000, 3000
    assert one.inter_token_ms == {}


def test_time_between_tokens_goes_by_the_servers_count():
    assert outcome(0, 1, tokens=5, last=3).inter_token_s == (3 - 1) / 4


def test_ratios_pair_rounds():
    own, base = (summarize(LoadCell(name, SETTING), made, 4) for name, made in AB.items())
    found = ratio(own, base)
    # Twice and eight times as fast.
    assert found.value == pytest.approx(4)
    assert found.num_rounds == 2


AB = {"a": turns("a", 1, 1), "b": turns("b", 2, 8)}


def test_a_round_that_was_cut_off_is_in_no_ratio():
    cut = turns("a", 1, 1)
    cut[1].is_complete = False
    own, base = (summarize(LoadCell(name, SETTING), made, 4) for name, made in (AB | {"a": cut}).items())
    assert (ratio(own, base).value, ratio(own, base).num_rounds) == (pytest.approx(2), 1)
    assert math.isnan(ratio(own, base).low)


def test_a_cell_with_many_failures_is_marked_in_the_table():
    cells = {}
    for setting in TABLE_4:
        cell = LoadCell("a", setting)
        made = [Turn(cell, 0, [outcome(0, 1), outcome(0, 2, failure="timeout" if setting is TABLE_4[2] else "")], True)]
        cells[cell] = summarize(cell, made, 2)
    speedups = table4_speedups(Measured(cells, ("a",), {}))
    own = {one.prompt: one.ratio.text(is_sound=one.is_sound) for one in speedups if one.source == "measured"}
    assert own == {(one.text_tokens, one.compression): "1.00*" if one is TABLE_4[2] else "1.00" for one in TABLE_4}


def test_servers_are_compared_at_the_same_prompt():
    cells = {}
    for setting in TABLE_4:
        for server, spans in (("a", (4, 4)), ("b", (2, 2) if setting.compression else (4, 4))):
            cell = LoadCell(server, setting)
            made = [Turn(cell, n, [outcome(10, span)], True) for n, span in enumerate(spans)]
            cells[cell] = summarize(cell, made, 2)
    speedups = table4_speedups(Measured(cells, ("a", "b"), {}))
    lines = {}
    for one in speedups:
        lines.setdefault(one.title, []).append(one.ratio.value)
    assert list(lines)[-3:] == ["a", "b", "b against a"]
    assert lines["a"] == [1] * 8
    assert lines["b"] == lines["b against a"] == pytest.approx([1, 2, 2, 2] * 2)
    assert {one.quantity for one in speedups} == {"llm_only"}


def test_images_compare_servers_and_are_no_table_4():
    cells = {}
    for server, spans in (("a", (4, 4)), ("b", (2, 2))):
        cell = LoadCell(server, Setting())
        cells[cell] = summarize(cell, [Turn(cell, n, [outcome(10, span)], True) for n, span in enumerate(spans)], 2)
    measured = Measured(cells, ("a", "b"), {})
    grid = images_grid(measured)
    assert [column.title for column in grid.columns] == ["first tokens/s", "against a"]
    assert [[cell.text for cell in line.cells] for line in grid.lines] == [["0.25", "1.00"], ["0.5", "2.00"]]
    assert images_csv(measured).splitlines() == [
        "server,first_tokens_per_s,against,value,low,high,rounds,is_sound",
        "a,0.25,a,1.0,1.0,1.0,2,True",
        "b,0.5,a,2.0,2.0,2.0,2,True",
    ]
