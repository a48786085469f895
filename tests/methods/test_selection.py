"""The two controls of selection, on tokens few enough to check by hand."""

import pytest
import torch

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.facts import facts_of
from vico_eval.methods import registry
from vico_eval.methods.interface import ModelFacts, VisualTokens
from vico_eval.methods.shared import groups
from vico_eval.methods.shared.budgets import KeepRatio, apportioned, num_keep

from .test_controls import write_run
from .visual import visual_tokens

FACTS = facts_of(VicoInternVLConfig(), "base")


def tokens(scores, tile, key="docvqa/test/7"):
    tile = torch.tensor(tile)
    return VisualTokens(
        key=key,
        tokens=torch.zeros(len(tile), 1),
        image=torch.zeros(len(tile), dtype=torch.int64),
        tile=tile,
        grid_yx=torch.zeros(len(tile), 2),
        scores=None if scores is None else torch.tensor(scores),
    )


def kept(method, arguments, *requests):
    part = registry.build(method, arguments).selection
    return [None if one is None else one.keep.tolist() for one in part.select(requests)]


@pytest.mark.parametrize(
    ("count", "ratio", "expected"),
    [(256, 0.1, 26), (256, 0.25, 64), (64, 0.1, 6), (5, 0.5, 2), (3, 0.5, 2), (16, 0.001, 1), (1, 1.0, 1)],
)
def test_a_budget_is_a_share_to_the_nearest_and_at_least_one(count, ratio, expected):
    assert num_keep(count, ratio) == expected


def test_a_target_is_met_by_the_request_and_not_tile_by_tile():
    assert apportioned([16] * 7, 0.55) == [9, 9, 8, 9, 9, 9, 9]  # 62 of 112 are 55.4%; 9 of 16 would be 56.3%
    assert sum(apportioned([16] * 7, 0.55)) == round(0.55 * 112)
    assert apportioned([256, 64, 1], 0.001) == [1, 1, 1]
    assert apportioned([1] * 100 + [200], 0.5) == [1] * 100 + [50]  # whole small groups count against the large one
    assert apportioned([5, 3], 1.0) == [5, 3]
    budget = KeepRatio(target_ratio=0.55)
    assert budget.num_keep("docvqa/test/0", [16] * 7) == apportioned([16] * 7, 0.55)
    assert KeepRatio(keep_ratio=0.55).num_keep("docvqa/test/0", [16] * 7) == [9] * 7


def test_each_benchmark_keeps_what_an_earlier_run_measured_on_it(tmp_path):
    write_run(tmp_path, docvqa=[(20, 10), (10, 10)], chartqa=[(10, 5)])  # 0.625 and 0.375
    part = registry.build("random_tokens", {"ratio_from": str(tmp_path)}).resolved().selection
    requests = [tokens(None, [0] * 8, key=f"{task}/test/0") for task in ("docvqa", "chartqa")]
    assert [len(one.keep) for one in part.select(requests)] == [5, 3]
    with pytest.raises(ConfigError, match="no visual tokens of 'mme'"):
        part.select([tokens(None, [0] * 8, key="mme/test/0")])


SELECTIONS = ("random_tokens", "top_attention", "divprune", "visionzip", "vispruner", "cdpruner", "holov")


@pytest.mark.parametrize("name", SELECTIONS)
def test_an_earlier_run_is_read_when_a_model_is_loaded_and_its_mean_is_recorded(name, tmp_path):
    with pytest.raises(ConfigError, match=r"has no answers.rank\*.jsonl"):
        registry.build(name, {"ratio_from": str(tmp_path)}).resolved()
    write_run(tmp_path, docvqa=[(20, 10), (10, 10)], chartqa=[(10, 5)])
    resolved = registry.build(name, {"ratio_from": str(tmp_path)}).resolved()
    assert resolved.arguments()["target_ratio"] == pytest.approx(0.5)
    assert resolved.arguments()["ratio_from"] == str(tmp_path)


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("argument", ["keep_ratio", "target_ratio"])
def test_a_budget_below_one_token_a_tile_is_refused(name, argument):
    built = registry.build(name, {argument: 0.003})
    with pytest.raises(
        ConfigError, match=rf"can't keep {argument}=0.003.*a tile of 'base' has 256. Expected 0.0039 to"
    ):
        built.check(FACTS)
    registry.build(name, {argument: 0.004}).check(FACTS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SELECTIONS)
def test_choices_are_made_in_float32_whatever_the_models_type(name, dtype):
    torch.manual_seed(0)
    given = {"scores": torch.rand(128), "keys": torch.randn(128, 8)}
    exact, words = torch.randn(128, 48).to(dtype), torch.randn(3, 48).to(dtype)
    arguments = {"merge_at": "decoder"} if name == "visionzip" else {}
    part = registry.build(name, {**arguments, "keep_ratio": 0.3}).selection
    chosen = [
        part.select([visual_tokens(as_type(exact), tile=[0] * 128, question_embeddings=as_type(words), **given)])[0]
        for as_type in (lambda values: values, lambda values: values.float())
    ]
    assert torch.equal(chosen[0].keep, chosen[1].keep)


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_tile_is_chosen_from_as_if_alone(name):
    torch.manual_seed(0)
    values = {"scores": torch.rand(13, 64), "keys": torch.randn(13, 64, 8)}
    images, words = torch.randn(13, 64, 48), torch.randn(3, 48)
    arguments = {"visionzip": {"merge_at": "decoder"}, "cdpruner": {"relevance": "none"}, "divprune": {"group": "tile"}}
    part = registry.build(name, {**arguments.get(name, {}), "keep_ratio": 0.3}).selection

    def request(tiles, key):
        taken = {field: value[tiles].flatten(0, 1) for field, value in values.items()}
        tile = torch.arange(len(tiles)).repeat_interleave(64).tolist()
        return visual_tokens(images[tiles].flatten(0, 1), tile=tile, key=key, question_embeddings=words, **taken)

    # One key for all, so that a draw is the same; the first tile of a request has the first numbers drawn.
    together = part.select([request([0, 1, 2], "a/test/0"), request(list(range(13)), "a/test/1")])
    alone = part.select([request([0], "a/test/0")])[0].keep
    assert torch.equal(together[0].keep[: len(alone)], alone)
    if name != "random_tokens":
        assert torch.equal(together[1].keep[: 3 * len(alone)], together[0].keep)


@pytest.mark.parametrize("name", ["divprune", "cdpruner", "holov"])
def test_a_choice_on_the_host_is_the_same_however_little_fits_in_memory(name, monkeypatch):
    torch.manual_seed(0)
    sizes = [16, 4, 16, 64, 16]
    tile = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).tolist()
    given = {"scores": torch.rand(len(tile)), "question_embeddings": torch.randn(3, 48), "image": tile}
    one = visual_tokens(torch.randn(len(tile), 48), tile=tile, **given)
    arguments = {"keep_ratio": 0.4}
    expected = kept(name, arguments, one, one)
    for numbers in (1, 1000, 5000):
        monkeypatch.setattr(groups, "MAX_NUMBERS", numbers)
        assert kept(name, arguments, one, one) == expected


def test_every_tile_keeps_its_own_highest_scores_in_order():
    # Half of a tile of 4 is 2, half of one of 2 is 1; the second tile's scores do not compete with the first's.
    one = tokens([0.1, 0.9, 0.5, 0.3, 0.01, 0.02], [0, 0, 0, 0, 1, 1])
    assert kept("top_attention", {}, one) == [[1, 2, 5]]


def test_of_equal_scores_the_earlier_token_stays():
    assert kept("top_attention", {}, tokens([0.5, 0.5, 0.5, 0.5], [0] * 4)) == [[0, 1]]


def test_without_tiles_an_image_is_a_group():
    one = tokens([0.1, 0.9, 0.5, 0.3], [-1] * 4)
    assert kept("top_attention", {"keep_ratio": 0.25}, one) == [[1]]


def test_random_tokens_depend_on_the_document_and_the_seed_alone():
    first, other = tokens(None, [0] * 16), tokens(None, [0] * 16, key="docvqa/test/8")
    together = kept("random_tokens", {}, first, other)
    assert kept("random_tokens", {}, other) == together[1:]
    assert together[0] != together[1]
    assert kept("random_tokens", {"seed": 1}, first) != together[:1]
    assert [len(one) for one in together] == [8, 8]


def test_random_tokens_are_drawn_evenly():
    draws = [kept("random_tokens", {"keep_ratio": 0.25}, tokens(None, [0] * 8, key=str(n)))[0] for n in range(2000)]
    share = torch.bincount(torch.tensor(draws).flatten(), minlength=8) / len(draws)
    # standard error of each: sqrt(.25 * .75 / 2000) = 0.0097
    assert share.tolist() == pytest.approx([0.25] * 8, abs=0.04)


def test_keeping_all_hands_the_tokens_on():
    assert kept("top_attention", {"keep_ratio": 1.0}, tokens([0.1, 0.2], [0, 0])) == [None]


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("random_tokens", {"keep_ratio": 0.0}, r"keep_ratio=0.0; expected the share that stays, in \(0, 1\]"),
        ("top_attention", {"keep_ratio": 1.5}, "keep_ratio=1.5"),
        ("divprune", {"keep_ratio": 0.5, "target_ratio": 0.5}, "keep_ratio and target_ratio or ratio_from; give one"),
        ("holov", {"target_ratio": 0.0}, r"target_ratio=0.0; expected a share of visual tokens in \(0, 1\]"),
        ("top_attention", {"score_source": "all"}, "score_source='all'; expected cls or mean"),
        ("top_attention+random_tokens", {}, "two parts in the selection"),
        ("random_tokens+lvtc", {}, "needs every tile with all its visual tokens, and its selection part"),
    ],
)
def test_what_makes_no_sense_is_refused(method, arguments, message):
    with pytest.raises(ConfigError, match=message):
        registry.build(method, arguments)


def test_a_layer_that_the_encoder_lacks_is_named_before_weights_are_read():
    built = registry.build("top_attention", {"score_layer": 24})
    with pytest.raises(ConfigError, match="score_layer=24, and the vision encoder of 'base' has 24 layers; expected"):
        built.check(FACTS)
    registry.build("top_attention", {"score_layer": -24}).check(FACTS)


def test_a_family_that_lacks_what_a_method_needs_says_so():
    facts = ModelFacts(checkpoint="siglip", family="other", num_layers=4, num_heads=4)
    with pytest.raises(CheckpointError, match=r"'top_attention' needs encoder_attention, which other \('siglip'\)"):
        registry.build("top_attention").check(facts)
    registry.build("random_tokens").check(facts)


def test_what_a_connector_takes_in_can_be_mixed_only_where_there_is_such_a_thing():
    pvtc = facts_of(VicoInternVLConfig(parts={"pvtc": {}}), "x")
    with pytest.raises(CheckpointError, match=r"needs connector_inputs, which internvl \('x'\).*or merge_at=decoder"):
        registry.build("pvtc+visionzip").check(pvtc)
    registry.build("pvtc+visionzip", {"merge_at": "decoder"}).check(pvtc)
    with pytest.raises(ConfigError, match=r"reduces the connector's outputs.*merge_at=decoder"):
        registry.build("pool+visionzip").check(FACTS)
    registry.build("pool+visionzip", {"merge_at": "decoder"}).check(FACTS)


@pytest.mark.parametrize("method", ["visionzip", "vispruner", "holov", "top_attention"])
def test_an_encoder_without_a_class_token_gives_scores_by_the_mean(method):
    offers = frozenset({"encoder_attention", "encoder_keys", "connector_inputs"})
    sizes = {"num_layers": 4, "num_heads": 4, "num_vision_layers": 8}
    facts = ModelFacts(checkpoint="siglip", family="other", offers=offers, score_sources=frozenset({"mean"}), **sizes)
    with pytest.raises(ConfigError, match=r"score_source='cls', but.*has no such rows.*Pass score_source=mean"):
        registry.build(method).check(facts)
    registry.build(method, {"score_source": "mean"}).check(facts)


@pytest.mark.parametrize("method", ["downsample", "pool", "all_compress", "single_tile+random_tokens"])
def test_a_family_without_tiles_has_none_to_cut_or_route(method):
    facts = ModelFacts(checkpoint="whole", family="other", num_layers=4, num_heads=4)
    with pytest.raises(CheckpointError, match=r"acts on tiles, and checkpoint 'whole' \(other\) does not cut images"):
        registry.build(method).check(facts)
