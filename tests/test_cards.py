import pytest

from vico_eval import paths
from vico_eval.cards import find_checkpoints, load_cards, load_checkpoints, select_cards
from vico_eval.errors import ConfigError
from vico_eval.harnesses.lmms_eval.kinds import split_model
from vico_eval.harnesses.run_record import title_of
from vico_eval.methods import registry
from vico_eval.methods.interface import ModelFacts, ScoreSource
from vico_eval.suites import load_suite

CARD = "name: slow\ntitle: Slow\norder: 1\ndescription: d\nlmms_model: slow_internvl\nweights: base\n"


def models(tmp_path, **files):
    (tmp_path / "systems").mkdir(exist_ok=True)
    for name, text in files.items():
        (tmp_path / "systems" / f"{name}.yaml").write_text(text)
    return tmp_path


def test_the_shipped_cards_are_the_rows_of_table_3_in_its_order_with_controls_and_baselines_among_them():
    assert list(load_cards(paths.models_dir())) == [
        *("vanilla", "vanilla_vir", "single_tile", "downsample", "max_pixels", "random_tokens", "top_attention"),
        *("fastv", "divprune", "cdpruner", "cdpruner_alike", "visionzip", "vispruner", "holov"),
        *("sparsevlm", "pyramiddrop", "dart", "fitprune"),
        *("pool", "all_compress", "random", "image_vir", "vico"),
    ]


def test_every_card_of_a_method_can_be_built_and_says_what_it_is():
    for card in load_cards(paths.models_dir()).values():
        named = split_model(card.lmms_model)
        method = card.lmms_model if named is None else named[0]
        assert set(card.model_args) <= set(registry.parameters(method))
        if card.lmms_model != "internvl_x":
            needed = {"ratio": 0.5} if "ratio" in registry.parameters(method) else {}
            assert title_of(registry.build(method, {**needed, **card.model_args})) == card.title


@pytest.mark.parametrize(
    ("method", "arguments", "title"),
    [
        ("fitprune", {"recipe": "llava_next"}, "FitPrune (LLaVA-NeXT's recipe, scaled)"),
        ("fitprune", {"recipe": "own.json"}, "FitPrune"),
        ("vico+fitprune", {"recipe": "llava"}, "vico+fitprune (LLaVA's recipe, scaled)"),
        ("visionzip", {"score_source": "mean", "score_layer": -1}, "VisionZip (mean of rows, layer -1)"),
        ("cdpruner", {}, "CDPruner"),
        ("random", {"ratio": 0.5}, "ViCO (Random Compress)"),
    ],
)
def test_a_row_of_other_arguments_than_a_cards_says_so(method, arguments, title):
    assert title_of(registry.build(method, arguments)) == title


def test_the_shipped_cards_take_the_weights_of_the_method_description():
    weights = {card.name: card.weights for card in load_cards(paths.models_dir()).values()}
    assert {name for name, value in weights.items() if value == "vico"} == {
        "all_compress",
        "random",
        "image_vir",
        "vico",
    }


def test_the_tiny_checkpoints_are_a_size_among_others():
    checkpoints = load_checkpoints(paths.models_dir())
    assert (checkpoints["tiny"].base, checkpoints["tiny"].vico) == ("vico-tiny-base", "vico-tiny")
    assert checkpoints["3.5-8B"].of("vico") == "OpenGVLab/InternVL3_5-8B-Flash"


SIZES = ("1B", "2B", "4B", "8B", "14B", "30B-A3B", "38B", "241B-A28B")


def test_every_released_size_has_its_two_checkpoints():
    known = load_checkpoints(paths.models_dir())
    assert [name for name in known if name.startswith("3.5-")] == [f"3.5-{size}" for size in SIZES]
    suite = load_suite("vico-table3")
    for size in SIZES:
        for given in (f"3.5-{size}", size, size.partition("-")[0]):
            found = find_checkpoints(given, suite)
            assert (found.base, found.vico) == (
                f"OpenGVLab/InternVL3_5-{size}",
                f"OpenGVLab/InternVL3_5-{size}-Flash",
            )
    with pytest.raises(ConfigError, match="unknown checkpoint 'A28B'"):
        find_checkpoints("A28B", suite)


def test_a_misspelt_key_is_an_error_that_names_file_and_key(tmp_path):
    with pytest.raises(ConfigError, match=r"slow\.yaml.*wieghts"):
        load_cards(models(tmp_path, slow=CARD + "wieghts: vico\n"))


def test_a_card_is_called_like_its_file(tmp_path):
    with pytest.raises(ConfigError, match="expected the file's name, `fast`"):
        load_cards(models(tmp_path, fast=CARD))


def test_a_ratio_comes_from_a_system_that_exists(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown system 'vico' in ratio_from of slow\.yaml"):
        load_cards(models(tmp_path, slow=CARD + "ratio_from: vico\n"))


def test_a_card_is_a_row_of_one_family(tmp_path):
    folder = models(tmp_path, slow=CARD, fast=CARD.replace("slow", "fast") + "family: internvl-x\n")
    assert list(load_cards(folder)) == ["slow"]
    assert list(load_cards(folder, "internvl-x")) == ["fast"]
    with pytest.raises(ConfigError, match=r"unknown family 'internvlx' \(did you mean 'internvl-x'\?\)"):
        load_cards(folder, "internvlx")


def test_a_missing_checkpoint_table_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"Can't read .*checkpoints\.yaml"):
        load_checkpoints(tmp_path)


def test_cards_are_chosen_in_table_order_whatever_order_was_typed():
    cards = load_cards(paths.models_dir())
    assert [card.name for card in select_cards(cards, ["vico", "vanilla"])] == ["vanilla", "vico"]


QWEN_SIZES = {"Qwen2.5-VL": ("3B", "7B", "32B", "72B"), "Qwen3-VL": ("2B", "4B", "8B", "32B", "30B-A3B", "235B-A22B")}


def test_every_released_checkpoint_of_qwen_vl_is_known_by_its_name():
    suite = load_suite("qwen-vl")
    for family, sizes in QWEN_SIZES.items():
        for size in sizes:
            found = find_checkpoints(f"{family}-{size}", suite)
            assert (found.base, found.vico) == (f"Qwen/{family}-{size}-Instruct", None)
            assert found.kind == {"Qwen2.5-VL": "qwen2_5_vl", "Qwen3-VL": "qwen3_vl"}[family]
    for size in QWEN_SIZES["Qwen3-VL"]:
        assert find_checkpoints(f"Qwen3-VL-{size}-Thinking", suite).base == f"Qwen/Qwen3-VL-{size}-Thinking"
    # An end alone is a size of InternVL3.5.
    assert find_checkpoints("8B", suite).kind == "internvl"


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_a_cards_title_on_qwen_vl_says_whose_attention_it_is(kind):
    released = {"qwen2_5_vl": ScoreSource("mean", -1), "qwen3_vl": ScoreSource("mean", -2)}  # by their configurations
    facts = ModelFacts(checkpoint="a", family="qwen_vl", num_layers=4, num_heads=2, default_scores=released[kind])
    for card in load_cards(paths.models_dir()).values():
        if card.titles:
            built = registry.build(card.name, card.model_args).suited(facts)
            assert title_of(built) == card.titles[kind]
