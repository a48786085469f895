"""What a configuration of the data may say."""

import pytest
import yaml

from vico_eval.errors import ConfigError
from vico_eval.training.config_files import read_config
from vico_eval.training.data.config import DataConfig, DatasetSource, JsonlSource, MetaSource


def read(tmp_path, **content):
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump(content))
    return read_config(path, DataConfig, "data.yaml")


def test_every_kind_of_source(tmp_path):
    sources = [{"meta": "m.json"}, {"jsonl": "a.jsonl", "root": "/a", "repeat": 2}, {"dataset": "org/name"}]
    config = read(tmp_path, sources=sources)
    assert [type(source) for source in config.sources] == [MetaSource, JsonlSource, DatasetSource]
    assert config.max_skipped_share == 0.01


STREAM = {"dataset": "org/name", "streaming": True}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sources": []}, "sources: List should have at least 1"),
        ({"sources": [{"jsonl": "a", "roots": "b"}]}, r"sources\.0\.jsonl\.roots: Extra inputs"),
        ({"sources": [{"root": "b"}]}, "exactly one of"),
        ({"sources": ["a.jsonl"]}, "exactly one of"),
        ({"sources": [{"jsonl": "a", "meta": "b"}]}, "exactly one of"),
        ({"sources": [{"meta": "a", "repeat": 2}]}, r"meta\.repeat: Extra inputs"),
        ({"sources": [{"jsonl": "a", "repeat": 0}]}, "greater than 0"),
        ({"sources": [STREAM, {"jsonl": "a"}]}, "only source"),
        ({"sources": [{**STREAM, "repeat": 2}]}, "only source"),
        ({"sources": [STREAM], "held_out_share": 0.1}, "only source"),
        ({"sources": [{"jsonl": "a"}], "held_out": [STREAM]}, "can't be streaming"),
        ({"sources": [{"jsonl": "a"}], "held_out": [{"jsonl": "b"}], "held_out_share": 0.1}, "mutually exclusive"),
        ({"sources": [{"jsonl": "a"}], "max_skipped_share": 2}, "less than or equal to 1"),
    ],
)
def test_mistakes_are_named(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, **content)
