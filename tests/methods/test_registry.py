import subprocess
import sys
from dataclasses import dataclass

import pytest

from vico_eval.engine.loading import EngineSettings
from vico_eval.errors import ConfigError
from vico_eval.methods import arguments, registry
from vico_eval.methods.interface import ConnectorPart

TABLE_3 = {"vanilla", "vico", "image_vir", "random", "all_compress", "vanilla_vir", "single_tile"}


def test_every_row_of_table_3_is_a_method():
    assert set(registry.method_names()) >= TABLE_3


def test_listing_and_describing_imports_no_torch():
    code = (
        "import sys; from vico_eval.methods.registry import describe, method_names; "
        "texts = [describe(name) for name in method_names()]; assert all('Place:' in text for text in texts); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown method 'vicoo' \(did you mean 'vico'\?\); known are .*vanilla_vir"):
        registry.build("vicoo")


def test_an_argument_of_another_method_is_refused():
    with pytest.raises(ConfigError, match="method 'vico' has no argument 'ratio'; it takes absolute_only"):
        registry.build("vico", {"ratio": 0.5})


def test_an_argument_of_two_parts_says_whose_it_is():
    with pytest.raises(
        ConfigError, match=r"has keep_ratio in divprune and in fastv; specify.*divprune.keep_ratio= or fastv.keep"
    ):
        registry.build("divprune+fastv", {"keep_ratio": 0.5})
    given = {"divprune.keep_ratio": 0.25, "fastv.keep_ratio": 0.5, "layer": 3}
    built = registry.build("divprune+fastv", given)
    assert (built.selection.config.keep_ratio, built.decoder.config.keep_ratio) == (0.25, 0.5)
    assert built.decoder.config.layer == 3
    assert given.items() <= built.arguments().items()
    again = registry.build("divprune+fastv", built.arguments())
    assert again.arguments() == built.arguments()
    assert set(registry.parameters("divprune+fastv")) == set(built.arguments())
    assert registry.build("fastv", {"fastv.keep_ratio": 0.25}).decoder.config.keep_ratio == 0.25
    with pytest.raises(ConfigError, match=r"got keep_ratio of fastv twice; give it once"):
        registry.build("fastv", {"keep_ratio": 0.5, "fastv.keep_ratio": 0.25})
    with pytest.raises(ConfigError, match=r"has no argument 'random\.seed'"):
        registry.build("divprune+fastv", {"random.seed": 1})


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("vico", {"absolute_threshold": 1.2}, r"absolute_threshold is 1.2; expected a probability in \[0, 1\]"),
        ("vico", {"relative_threshold": -0.1}, "relative_threshold is -0.1"),
        ("vico", {"absolute_threshold": "high"}, "absolute_threshold is 'high'; expected float or None"),
        ("image_vir", {"absolute_threshold": 2}, "absolute_threshold is 2.0"),
        ("random", {}, "exactly one of ratio"),
        ("random", {"ratio": 0.5, "ratio_from": "runs/vico"}, "ratio and ratio_from; give one"),
        ("random", {"ratio": 1.5}, r"ratio=1.5; expected a share of tiles in \[0, 1\]"),
    ],
)
def test_a_value_outside_its_range_is_named(method, arguments, message):
    with pytest.raises(ConfigError, match=message):
        registry.build(method, arguments)


def test_paths_and_the_word_none_are_taken_as_they_are_meant(tmp_path):
    typed = arguments.typed(EngineSettings, {"pretrained": tmp_path, "flash_from": tmp_path, "system_prompt": "None"})
    assert (typed.pretrained, typed.flash_from, typed.system_prompt) == (str(tmp_path), str(tmp_path), None)
    assert registry.build("vico", {"absolute_threshold": "None"}).arguments()["absolute_threshold"] is None


@pytest.mark.parametrize("name", ["pretrained", "flash_from", "dtype", "system_prompt", "device"])
@pytest.mark.parametrize("value", [20240101, 1e5])
def test_text_that_was_read_as_a_number_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=rf"argument {name} is {value}; expected str.*write \./{value}"):
        arguments.typed(EngineSettings, {"pretrained": "vico-tiny", name: value})


def test_parts_in_two_places_combine_and_in_one_place_do_not():
    method = registry.build("single_tile+vico", {"absolute_threshold": 0.25})
    assert (method.resolution.place, method.connector.place) == ("resolution", "connector")
    assert method.arguments() == {"relative_threshold": None, "absolute_threshold": 0.25, "absolute_only": False}
    with pytest.raises(ConfigError, match="two parts in the connector"):
        registry.build("vico+random", {"ratio": 0.5})


def test_a_method_of_another_package_needs_only_the_decorator():
    @dataclass(frozen=True, kw_only=True)
    class Config:
        every: int = 2

    @registry.register("every_other_tile")
    class EveryOther(ConnectorPart):
        Config: type

        def route(self, tiles, facts):
            raise AssertionError

    EveryOther.Config = Config
    assert "every_other_tile" in registry.method_names()
    assert registry.build("every_other_tile", {"every": 3}).arguments() == {"every": 3}
    with pytest.raises(ConfigError, match="two methods are named 'every_other_tile'"):
        registry.register("every_other_tile")(type("Impostor", (ConnectorPart,), {}))
    registry._registered.pop("every_other_tile")
