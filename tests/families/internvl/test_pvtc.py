"""PVTC beyond its reference numbers: sizes, windows, training, and the name of a checkpoint's projector."""

import json

import pytest
import torch

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl import pvtc
from vico_eval.families.internvl.config import VicoInternVLConfig, from_checkpoint_config
from vico_eval.families.internvl.facts import facts_of
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.pvtc import PvtcConnector, windows
from vico_eval.methods import registry


@pytest.fixture
def connector():
    """[tiles, 1 + 4 * 4, 8] -> [tiles, 2 * 2, 16], in evaluation mode."""
    torch.manual_seed(0)
    return PvtcConnector(8, 16, vit_grid=4, block=2).eval()


@pytest.fixture
def vit_tokens():
    return torch.randn(3, 17, 8, generator=torch.Generator().manual_seed(1))


def test_windows_are_squares_row_by_row():
    # A 4 x 4 grid of the numbers 0..15: the first square holds 0, 1, 4, 5.
    tokens = torch.arange(16.0).reshape(1, 16, 1)
    found = windows(torch.cat([tokens, tokens + 16]), 2)[..., 0].tolist()
    assert found[:4] == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert found[4] == [16, 17, 20, 21]


def test_a_visual_token_reads_its_own_window_and_the_class_token(connector, vit_tokens):
    vit_tokens.requires_grad_()
    connector(vit_tokens)[1, 3].sum().backward()  # the last window of the second tile
    read = vit_tokens.grad.abs().sum(dim=-1)
    assert read[1].nonzero()[:, 0].tolist() == [0, 1 + 10, 1 + 11, 1 + 14, 1 + 15]
    assert not read[0].any()
    assert not read[2].any()


def test_every_weight_is_trained(connector, vit_tokens):
    connector.train()(vit_tokens).square().sum().backward()
    for name, parameter in connector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_training_leaves_branches_of_single_windows_out(connector):
    torch.manual_seed(2)
    block = connector.local_block
    query, keys = torch.randn(4000, 1, 16), torch.randn(4000, 4, 16)
    branch = torch.ones(4000, 1, 16)
    assert block._drop(branch) is branch
    assert torch.equal(block(query, keys), block(query, keys))
    block.train()
    kept = block._drop(branch)[:, 0]
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.9])  # sorted
    assert torch.equal(kept.amin(dim=1), kept.amax(dim=1))  # a window's branch goes as a whole
    assert (kept[:, 0] == 0).float().mean() == pytest.approx(0.1, abs=0.02)


def test_many_tiles_go_through_in_parts(connector, vit_tokens, monkeypatch):
    with torch.inference_mode():
        whole = connector(vit_tokens)
        monkeypatch.setattr(pvtc, "MAX_WINDOWS", 9)  # two tiles of 2 x 2 windows
        torch.testing.assert_close(connector(vit_tokens), whole)
        monkeypatch.setattr(pvtc, "MAX_WINDOWS", 1)
        torch.testing.assert_close(connector(vit_tokens), whole)


def test_the_number_of_parameters_is_the_papers():
    # 2B: C 1024, D 2048, 32 x 32 vision tokens in windows of 2 x 2
    with torch.device("meta"):
        connector = PvtcConnector(1024, 2048, vit_grid=32, block=2)
    assert sum(parameter.numel() for parameter in connector.parameters()) == 147_343_360


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        (12, 3, r"windows of 3 x 3 vision tokens .* grid of 12 x 12; expected a power of two"),
        (6, 4, r"windows of 4 x 4 vision tokens .* grid of 6 x 6; .*divides the grid"),
        (4, 0, "windows of 0 x 0"),
    ],
)
def test_a_grid_that_makes_no_windows(grid, block, message):
    with pytest.raises(CheckpointError, match=message):
        PvtcConnector(8, 16, vit_grid=grid, block=block)


def test_a_width_that_makes_no_heads():
    with pytest.raises(CheckpointError, match="decoder of width 40; expected a multiple of its 16 attention heads"):
        PvtcConnector(8, 40, vit_grid=4)


def config(**changed):
    return VicoInternVLConfig(
        vision_config={
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "intermediate_size": 8,
            "image_size": [56, 56],
            "patch_size": [14, 14],
        },
        text_config={
            "model_type": "qwen3",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "intermediate_size": 8,
            "vocab_size": 9,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "head_dim": 16,
        },
        parts={"pvtc": {}},
        **changed,
    )


def test_the_configuration_names_the_projector(tmp_path):
    model = VicoInternVL(config())
    assert isinstance(model.connector_high, PvtcConnector)
    assert model.num_high_tokens == 4
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert from_checkpoint_config(values, frozenset()).parts == {"pvtc": {}}
    with pytest.raises(CheckpointError, match="connector 'resampler'; supported is 'mlp' or 'pvtc'"):
        from_checkpoint_config(values | {"connector": "resampler"}, frozenset())
    with pytest.raises(CheckpointError, match="windows of 3 x 3"):
        VicoInternVL(config(downsample_ratio=1 / 3))


def test_the_method_says_what_the_checkpoint_has_instead():
    part = registry.build("pvtc").connector
    part.check(facts_of(config(), "x"))
    with pytest.raises(CheckpointError, match=r"'base' has no PVTC.*has another connector.*or run `vanilla`"):
        part.check(facts_of(VicoInternVLConfig(), "base"))
