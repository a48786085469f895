"""Methods that answer in lockstep give the answers and accounts that each gives alone, and share what comes before."""

import shutil
import time
from functools import partial

import pytest
import torch

import vico_eval
from vico_eval.engine import films as films_of_engine
from vico_eval.engine import preprocess
from vico_eval.engine.engine import Engine
from vico_eval.engine.loading import find_engine, open_engine, open_rows
from vico_eval.engine.requests import GenerationSettings, ImageInput, Text, VideoInput
from vico_eval.errors import CheckpointError, ConfigError, DocumentError
from vico_eval.methods.interface import ImageSize, ResolutionPart, SelectionPart, TileLimits
from vico_eval.methods.registry import Method

from .systems import ON_TILES, SYSTEMS, picture, request

SAMPLED = GenerationSettings(max_new_tokens=4, do_sample=True, temperature=2.0)


@pytest.fixture(scope="module")
def requests(tmp_path_factory, write_video):
    film = write_video(tmp_path_factory.mktemp("video") / "clip.mp4", 8)
    return [
        request(0, Text("No picture at all, but quite a long question to answer.")),
        request(1, picture(1, 1, 1), Text("Which?")),
        request(2, picture(3, 2, 2), Text("What is the number in the third row?"), settings=SAMPLED),
        request(3, picture(1, 1, 3), Text("This, or rather"), picture(2, 1, 4), Text("that one?")),
        request(4, VideoInput(film), Text("What happens?")),
        request(5, VideoInput(film), Text("And what happened before it?")),
        request(6, picture(2, 2, 5), Text("Where?"), settings=SAMPLED),
    ]


RUN = tuple(name for name, (method, _) in SYSTEMS.items() if "+" in method or method in ON_TILES)


def arguments_of(name: str, checkpoint_for) -> dict:
    method, own = SYSTEMS[name]
    return {**checkpoint_for(method), "method": method, "device": "cpu", "batch_size": 2, **own}


@pytest.fixture(scope="module")
def alone(checkpoint_for, requests):
    """By system, what it answers in an engine of its own."""
    return {
        name: open_engine(arguments_of(name, checkpoint_for), show_progress=False).engine.answer(requests)
        for name in RUN
    }


@pytest.fixture(scope="module")
def weights(checkpoint_for):
    """The systems by the weights that they share; those that borrow ViCO's parts stand beside the plain ones."""
    names: dict[str, list[str]] = {}
    for name in RUN:
        names.setdefault(arguments_of(name, checkpoint_for)["pretrained"], []).append(name)
    return names


def open_pass(names, checkpoint_for) -> Engine:
    return open_rows([find_engine(arguments_of(name, checkpoint_for)) for name in names], show_progress=False)


def outcomes_of(engine: Engine, requests, known=None):
    found = [{} for _ in engine.rows]
    for row, number, outcome in engine.row_outcomes(requests, known or [()] * len(engine.rows)):
        assert number not in found[row], "an answer came twice"
        found[row][number] = outcome
    return found


def test_every_method_answers_in_a_pass_as_it_does_alone(weights, alone, requests, checkpoint_for):
    assert max(map(len, weights.values())) > 30
    for names in weights.values():
        found = outcomes_of(open_pass(names, checkpoint_for), requests)
        for name, answers in zip(names, found, strict=True):
            assert [answers[number] for number in range(len(requests))] == alone[name], name


def test_plain_rows_are_not_changed_by_one_that_borrows_vicos_parts(untrained, requests):
    plain = {"pretrained": str(untrained / "base"), "device": "cpu", "batch_size": 2}
    borrowing = {**plain, "method": "vanilla_vir", "flash_from": str(untrained / "vico"), "absolute_threshold": 0.4}
    given = [{**plain, "method": "vanilla"}, borrowing, {**plain, "method": "divprune"}]
    expected = [open_engine(one, show_progress=False).engine.answer(requests) for one in given]
    found = outcomes_of(open_rows([find_engine(one) for one in given], show_progress=False), requests)
    assert [[answers[number] for number in range(len(requests))] for answers in found] == expected


ROWS = ["vanilla", "vico", "fastv", "visionzip", "top_attention of all rows", "downsample", "vico+dart"]


@pytest.fixture(scope="module")
def engine(checkpoint_for) -> Engine:
    return open_pass(ROWS, checkpoint_for)


def test_what_some_rows_know_is_left_out_for_these_alone(engine, alone, requests):
    known = [range(7), (), {1, 4}, {0}, (), {2, 3}, range(7)]
    found = outcomes_of(engine, requests, known)
    for name, answers, left_out in zip(ROWS, found, known, strict=True):
        assert answers == {number: alone[name][number] for number in set(range(7)) - set(left_out)}


def test_pictures_are_read_and_encoded_once_for_all_rows(checkpoint_for, requests, monkeypatch):
    opened, films, tiles = [], [], []
    for module, name, calls in ((preprocess, "load_image", opened), (films_of_engine, "read_clip", films)):
        read = getattr(module, name)
        monkeypatch.setattr(module, name, partial(_noting, read, calls))

    def encoded(engine: Engine) -> int:
        tiles.clear()
        hook = engine.model.vision_tower.register_forward_pre_hook(
            lambda _, __, given: tiles.append(len(given["pixel_values"])), with_kwargs=True
        )
        outcomes_of(engine, requests)
        hook.remove()
        return sum(tiles)

    once = encoded(open_pass(["vanilla"], checkpoint_for))
    downsampled = encoded(open_pass(["downsample"], checkpoint_for))
    assert (len(opened), len(films)) == (2 * 5, 2)
    opened.clear()
    films.clear()
    together = encoded(open_pass(ROWS, checkpoint_for))
    assert (len(opened), len(films)) == (5, 1)  # two questions are about the film
    # Another tiling encodes what is its own; the films, cut alike, are shared with it.
    assert once < together < once + downsampled
    assert encoded(open_pass([name for name in ROWS if name != "downsample"], checkpoint_for)) == once


def _noting(function, calls, *given, **named):
    calls.append(given)
    return function(*given, **named)


class Fails(SelectionPart):
    """Can't do one document, or runs out of memory with more than one."""

    needs = frozenset()

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.sizes: list[int] = []

    def select(self, requests):
        self.sizes.append(len(requests))
        if self.fault == "memory" and len(requests) > 1:
            raise torch.OutOfMemoryError("no room for so many")
        if self.fault == "document" and any(visual.key == "mixed/test/3" for visual in requests):
            raise ValueError("not this one")
        return [None] * len(requests)


def with_faults(engine: Engine, fault: str) -> tuple[Engine, Fails]:
    part = Fails(fault)
    methods = [Method("vanilla"), Method("own", selection=part), engine.rows[1].method]
    return Engine(engine.model, engine.tokenizer, engine.preprocessor, methods, batch_size=2, show_progress=False), part


def test_a_method_that_fails_on_a_document_fails_only_its_own(engine, alone, requests):
    found = outcomes_of(with_faults(engine, "document")[0], requests)
    assert [found[0][number] for number in range(7)] == alone["vanilla"]
    assert [found[2][number] for number in range(7)] == alone["vico"]
    failed = found[1].pop(3)
    assert isinstance(failed, DocumentError)
    assert "mixed/test/3 failed twice" in str(failed)
    assert not any(isinstance(outcome, DocumentError) for outcome in found[1].values())


def test_where_one_row_runs_out_of_memory_its_batch_alone_is_halved(engine, alone, requests):
    crowded, part = with_faults(engine, "memory")
    sizes = []

    def note(_, __, given):
        if given.get("inputs_embeds") is not None and given["inputs_embeds"].shape[1] > 1:
            sizes.append(len(given["inputs_embeds"]))

    hook = crowded.model.language_model.register_forward_pre_hook(note, with_kwargs=True)
    found = outcomes_of(crowded, requests)
    hook.remove()
    assert [found[0][number] for number in range(7)] == alone["vanilla"]
    assert [found[2][number] for number in range(7)] == alone["vico"]
    assert [found[1][number].text for number in range(7)] == [answer.text for answer in alone["vanilla"]]
    assert 2 in part.sizes
    assert "2112" in "".join(map(str, sizes))


class CannotCut(ResolutionPart):
    def limits(self, image: ImageSize) -> TileLimits:
        if image.width > 100:
            raise ValueError("too wide for me")
        return image.limits


def test_where_one_tiling_fails_the_others_go_on(engine, alone, requests):
    methods = [Method("vanilla"), Method("own", resolution=CannotCut(None))]
    pair = Engine(engine.model, engine.tokenizer, engine.preprocessor, methods, batch_size=2, show_progress=False)
    found = outcomes_of(pair, requests)
    assert [found[0][number] for number in range(7)] == alone["vanilla"]
    failed = {number: str(outcome) for number, outcome in found[1].items() if isinstance(outcome, DocumentError)}
    assert failed.keys() == {2, 3, 6}
    assert all("too wide for me" in reason for reason in failed.values())


def test_a_picture_that_cannot_be_read_fails_for_all_rows(engine, requests, tmp_path):
    broken = request(9, ImageInput(tmp_path / "missing.png"), Text("?"))
    for row in outcomes_of(engine, [requests[1], broken]):
        assert "missing.png does not exist" in str(row[1])
        assert not isinstance(row[0], DocumentError)


def test_a_row_that_is_given_up_answers_no_more(engine, requests):
    given_up: set[int] = set()
    answered: dict[int, int] = {}
    for row, _, _ in engine.row_outcomes(requests, [()] * len(ROWS), given_up):
        answered[row] = answered.get(row, 0) + 1
        given_up.add(1)
    assert answered.pop(1, 0) <= 2
    assert set(answered.values()) == {len(requests)}


def test_answers_say_what_they_took_and_for_how_many_rows(engine, requests):
    for row in outcomes_of(engine, requests):
        for answer in row.values():
            assert answer.seconds.own > 0
            assert answer.seconds.reading > 0
            assert min(answer.seconds.prefill, answer.seconds.decode) > 0
            assert answer.seconds.prefill + answer.seconds.decode < answer.seconds.own
            assert answer.seconds.peak_bytes is None  # on a CPU
        assert sum(answer.seconds.encoding for answer in row.values()) > 0
    plain = outcomes_of(engine, requests)[0]
    assert {answer.seconds.rows for answer in plain.values()} == {len(ROWS) - 1}


def test_answers_to_a_picture_that_is_encoded_already_took_no_encoding(checkpoint_for):
    asked = [request(number, picture(1, 1, 1), Text(f"Question {number}?")) for number in range(4)]
    for names in (["vanilla"], ["vanilla", "fastv", "visionzip"]):
        engine = open_pass(names, checkpoint_for)
        engine.batch_size = 1
        for row in outcomes_of(engine, asked):
            taken = [row[number].seconds.encoding for number in range(4)]
            assert taken[0] > 0
            assert taken[1:] == [0, 0, 0]


def test_what_a_row_takes_over_counts_as_its_own(engine, requests, monkeypatch):
    """Connectors and routers are asked once; each row says what it would have taken alone."""
    connect, slow_s = engine.model.connect, 0.2

    def slowly(*given):
        time.sleep(slow_s)
        return connect(*given)

    monkeypatch.setattr(engine.model, "connect", slowly)
    for name, row in zip(ROWS, outcomes_of(engine, requests[1:3]), strict=True):
        assert sum(answer.seconds.own for answer in row.values()) > 0.9 * slow_s, name


def test_a_borrowed_routers_encoder_sees_a_batch_once(untrained, requests):
    given = {"pretrained": str(untrained / "base"), "flash_from": str(untrained / "vico"), "device": "cpu"}
    found = find_engine({**given, "method": "vanilla_vir", "batch_size": 4})
    engine = open_rows([found], show_progress=False)
    own = engine.model.vision_tower
    engine.model.router_vision = type(own)(own.config).eval()  # other weights
    engine = Engine(
        engine.model, engine.tokenizer, engine.preprocessor, [found.method], batch_size=4, show_progress=False
    )
    calls = []
    engine.model.router_vision.register_forward_pre_hook(lambda *_: calls.append(1))
    engine.answer([requests[1], requests[3]])  # two pictures
    assert len(calls) == 1


def test_an_engine_of_several_methods_answers_by_the_first_where_one_is_asked_for(engine, alone, requests):
    assert engine.answer(requests) == alone["vanilla"]


def test_parts_of_another_checkpoint_do_not_take_the_place_of_the_models_own(untrained, tmp_path):
    other = tmp_path / "vico"
    shutil.copytree(untrained / "vico", other)
    borrowing = {"method": "vanilla_vir", "flash_from": str(other)}
    with pytest.raises(ConfigError, match=r"'vico' and 'vanilla_vir' can't answer in one pass.*flash_from"):
        vico_eval.compare(untrained / "vico", ["vico", borrowing], [], device="cpu")
    lent = {"method": "vanilla_vir", "flash_from": str(untrained / "vico")}
    assert vico_eval.compare(untrained / "vico", ["vico", lent], [], device="cpu") == [[], []]


def test_a_decoder_that_cannot_take_a_part_fails_that_row_alone(engine, alone, requests, monkeypatch):
    use = engine.model.use_decoder_part

    def refuse(part):
        if part is not None:
            raise CheckpointError("its layers slide")
        use(part)

    monkeypatch.setattr(engine.model, "use_decoder_part", refuse)
    found = outcomes_of(engine, requests)
    assert [found[0][number] for number in range(7)] == alone["vanilla"]
    assert all("its layers slide" in str(outcome) for outcome in found[2].values())


def test_compare_gives_each_methods_answers(untrained, requests):
    methods = ["vanilla", {"method": "divprune", "keep_ratio": 0.3}, "vico"]
    checkpoint = untrained / "vico"
    found = vico_eval.compare(checkpoint, methods, requests, device="cpu", batch_size=2)
    for method, answers in zip(methods, found, strict=True):
        own = {"method": method} if isinstance(method, str) else method
        given = {"pretrained": str(checkpoint), "device": "cpu", "batch_size": 2, **own}
        assert answers == open_engine(given, show_progress=False).engine.answer(requests)
    page = vico_eval.request("Which?", images=requests[1].messages[0].content[0].source, key="page", max_new_tokens=4)
    ((answer,),) = vico_eval.compare(checkpoint, ["vanilla"], [page], device="cpu")
    assert (answer.key, answer.text) == ("page", found[0][1].text)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([], "expected a list with at least one"),
        ("vanilla", "expected a list with at least one"),
        (["vanilla", "vanilo"], "unknown method 'vanilo'"),
        (["vanilla", {"method": "fastv", "max_tiles": 3}], "can't answer in one pass: they differ in max_tiles"),
        (["vanilla", {"method": "fastv", "keep": 3}], "unknown argument 'keep'"),
    ],
)
def test_methods_that_cannot_be_compared_together_are_refused(untrained, methods, message):
    with pytest.raises(ConfigError, match=message):
        vico_eval.compare(untrained / "vico", methods, [], device="cpu")
