"""Vanilla + ViR: every tile is decided on as ViCO decides, whatever the base model's own encoder makes of it."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vico_eval.engine.loading import open_engine
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text
from vico_eval.errors import ConfigError, DocumentError
from vico_eval.families.internvl.tile_encoder import TileEncoder
from vico_eval.harnesses.run_record import run_record
from vico_eval.methods import registry
from vico_eval.runs.write import RunFolder

# The random router's scores lie around 0.4: thresholds that let some tiles through and hold some back.
ROUTING = {"absolute_threshold": 0.4, "relative_threshold": 0.3}
SIZES = [(1, 1), (4, 3), (2, 1), (3, 3)]


# Of lmms-eval, when all documents have ended.
RESULTS = {"n-samples": {"mixed": {"original": 4, "effective": 4}}, "config": {}}


def ask(number, columns, rows, seed=None):
    rng = np.random.default_rng(number if seed is None else seed)
    pixels = rng.integers(0, 255, (56 * rows, 56 * columns, 3), dtype=np.uint8)
    message = Message("user", (ImageInput(Image.fromarray(pixels)), Text("Which?")))
    return Request(f"mixed/test/{number}", (message,), generation=GenerationSettings(max_new_tokens=4))


REQUESTS = [ask(number, *size) for number, size in enumerate(SIZES)]


def accounts(engine, requests=REQUESTS):
    return [answer.account for answer in engine.answer(requests)]


@pytest.fixture(scope="module")
def base(untrained, tmp_path_factory):
    """Base weights whose vision encoder is another one than ViCO's, as after training."""
    folder = shutil.copytree(untrained / "base", tmp_path_factory.mktemp("trained") / "base")
    torch.manual_seed(1)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.startswith("vision_tower.encoder."):
            tensors[name] = tensor + 0.5 * tensor.std() * torch.randn_like(tensor) if tensor.numel() > 1 else tensor
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def make(base, untrained):
    def make(method="vanilla_vir", batch_size=4, **arguments):
        weights = {"pretrained": str(base), "flash_from": str(untrained / "vico")}
        if method != "vanilla_vir":
            weights = {"pretrained": str(untrained / "vico") if method == "vico" else str(base)}
        given = {**weights, "method": method, "device": "cpu", "batch_size": batch_size, **arguments}
        return open_engine(given, show_progress=False)

    return make


@pytest.fixture(scope="module")
def vico(make):
    """ViCO's own engine and accounts."""
    opened = make("vico", **ROUTING)
    return opened, accounts(opened.engine)


@pytest.fixture(scope="module")
def vico_run(vico, tmp_path_factory):
    """The folder of ViCO's run, with two answers to one document, as when it was asked twice."""
    opened, found = vico
    folder = tmp_path_factory.mktemp("runs")
    run = RunFolder(folder, run_record(opened, title="ViCO", harness="lmms-eval", num_processes=1))
    run.write_record()
    for number, account in [*enumerate(found), (0, found[0])]:
        run.add((f"mixed/test/{number}", 0, "so"), "an answer", account)
    (folder / "1_results.json").write_text(json.dumps(RESULTS))
    return folder


@pytest.fixture
def other_run(vico_run, tmp_path):
    """Writes that run with another record, or other lines."""

    def write(change_record=lambda record: record, change_lines=lambda lines: lines, failed=()):
        folder = tmp_path / "other"
        folder.mkdir()
        record = json.loads((vico_run / "record.json").read_text())
        (folder / "record.json").write_text(json.dumps(change_record(record)))
        lines = (vico_run / "answers.rank0.jsonl").read_text().splitlines()
        (folder / "answers.rank0.jsonl").write_text("\n".join(change_lines(lines)))
        shutil.copy(vico_run / "1_results.json", folder)
        for line in failed:
            (folder / "failures.rank0.jsonl").write_text(json.dumps(line))
        return str(folder)

    return write


def test_scores_and_decisions_are_vicos_tile_by_tile(make, vico):
    _, expected = vico
    engine = make(**ROUTING).engine
    found = accounts(engine)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.p_compress == pytest.approx(theirs.p_compress, abs=1e-5)
        assert ours.compressed == theirs.compressed
    assert 0 < sum(account.compressed_tiles for account in found) < sum(account.tiles for account in found)
    # Asked about the base encoder's tokens, the same router says something else.
    prepared = [engine.preprocessor(request) for request in REQUESTS]
    with torch.inference_mode():
        of_base = engine.model.router.p_compress(TileEncoder(engine.model.vision_tower)(prepared).vit_tokens).tolist()
    assert of_base != pytest.approx([score for account in expected for score in account.p_compress], abs=1e-2)


def test_alone_and_together_the_decisions_are_the_same(make, vico):
    engine = make(batch_size=1, **ROUTING).engine
    assert [account.compressed for account in accounts(engine)] == [account.compressed for account in vico[1]]


def test_what_is_kept_is_the_base_models_own(make):
    nothing = make(absolute_threshold=1.0).engine.answer(REQUESTS)
    assert [answer.text for answer in nothing] == [answer.text for answer in make("vanilla").engine.answer(REQUESTS)]


def test_a_run_of_vico_decides_as_its_encoder_and_router_do(make, vico, vico_run):
    routed = make(**ROUTING).engine.answer(REQUESTS)
    engine = make(decisions_from=str(vico_run)).engine
    assert (engine.model.router, engine.model.router_vision) == (None, None)
    found = engine.answer(REQUESTS)
    assert [answer.text for answer in found] == [answer.text for answer in routed]
    assert [answer.account.compressed for answer in found] == [account.compressed for account in vico[1]]


def test_a_document_that_the_run_could_not_answer_is_an_error_and_the_others_are_answered(make, other_run):
    failed = {"task": "mixed", "split": "test", "doc_id": 1, "reason": "broken"}
    folder = other_run(change_lines=lambda lines: [lines[0], *lines[2:]], failed=[failed])
    outcomes = dict(make(decisions_from=folder).engine.outcomes(REQUESTS))
    assert [isinstance(outcomes[number], DocumentError) for number in range(4)] == [False, True, False, False]
    assert "document mixed/test/1 failed" in str(outcomes[1])
    assert f"the run in decisions_from={folder} has no answer to it" in str(outcomes[1])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (ask(2, 2, 1, seed=99), "saw other tiles"),
        (ask(2, 4, 2), "saw 3 tiles, and it has 9 here"),
        (ask(2, 1, 2), "saw other tiles"),
    ],
)
def test_decisions_about_other_pictures_are_refused(make, vico_run, asked, message):
    with pytest.raises(DocumentError, match=rf"document mixed/test/2 failed.*{message}"):
        make(decisions_from=str(vico_run)).engine.answer([asked])


def test_runs_of_something_else_are_refused_before_anything_is_answered(make, other_run, tmp_path, vico_run):
    def refused(message, folder):
        with pytest.raises(ConfigError, match=message):
            make(decisions_from=folder)
        shutil.rmtree(tmp_path / "other", ignore_errors=True)

    refused("has no readable record.json", str(tmp_path))
    refused(
        "is a run of method 'vanilla'; expected a run of vico", other_run(lambda record: record | {"method": "vanilla"})
    )
    other = {"checkpoint": {"name": "x", "path": "x", "sha256": "0" * 64}}
    refused("used other weights than flash_from", other_run(lambda record: record | other))
    refused("has no answers yet", other_run(change_lines=lambda _: []))
    stopped = other_run(change_lines=lambda lines: [*lines[2:], lines[1][:40]])  # a line was being written
    refused(r"decisions_from=.* is not finished.*mixed \(answers to 3 of 4 documents\)", stopped)

    def without_places(lines):
        entry = json.loads(lines[-1])
        del entry["account"]["compressed"]
        return [*lines[:-1], json.dumps(entry)]

    refused("does not record which tiles of mixed/test/0 were", other_run(change_lines=without_places))


@pytest.mark.parametrize("threshold", [{"absolute_threshold": 0.5}, {"absolute_only": True}])
def test_thresholds_have_no_place_beside_decisions(threshold):
    with pytest.raises(ConfigError, match=f"got decisions_from and {next(iter(threshold))}"):
        registry.build("vanilla_vir", {"decisions_from": "runs/vico", **threshold})
