"""The paper's settings load, pass every check, and build networks of the stated sizes."""

from pathlib import Path

import pytest
import torch

from data.tokenizer import Tokenizer
from model.modeling_turnwise import TurnwiseForOfflineRL
from trainer.config import load_config
from trainer.objective import OfflineRL
from trainer.setup import network_config

PAPER = Path(__file__).parents[2] / "launch" / "runs" / "paper"
# Parameters in millions; the paper's own totals: 15, 50, 200, 200.
SIZES = {"small": (12, 16), "medium": (42, 52), "large": (180, 205), "synthetic": (185, 210)}
TABLE_3 = {
    "synthetic": ["model.critics=4", "objective.reward_scale=1", "model.value_min=-110", "model.value_max=110"],
    **{name: ["objective.beta=0.5", "objective.clip=50"] for name in ("small", "medium", "large")},
}


def test_there_is_a_file_for_each():
    assert {path.stem for path in PAPER.glob("*.yaml")} == set(SIZES)


@pytest.mark.parametrize("follows", ["released", "table 3"])
@pytest.mark.parametrize("name", SIZES)
def test_settings_build_the_stated_size(name, follows):
    changes = [] if follows == "released" else ["optim.lr=1.0e-4", *TABLE_3[name]]
    config = load_config(PAPER / f"{name}.yaml", changes)
    sizes = network_config(
        config.model, config.data, Tokenizer.load(config.data.vocabulary), config.objective.reward_scale
    )
    with torch.device("meta"):
        network = TurnwiseForOfflineRL(sizes)
        OfflineRL(network, config.objective)
    low, high = SIZES[name]
    assert low <= network.count_parameters()["total"] / 1e6 <= high
    assert sizes.turn_encoder == "transformer"
    assert config.optim.lr == (1.5e-4 if follows == "released" else 1e-4)
    if name != "synthetic":
        assert (config.objective.beta, config.objective.clip) == ((1, 100) if follows == "released" else (0.5, 50))


def test_the_discounts_that_the_files_do_not_follow_are_an_override_away():
    override = "model.gammas=[0.1,0.9,0.95,0.97,0.99,0.995,0.999]"
    assert override in (PAPER / "small.yaml").read_text(encoding="utf-8")
    config = load_config(PAPER / "large.yaml", [override])
    sizes = network_config(config.model, config.data, Tokenizer.load(config.data.vocabulary), 10)
    with torch.device("meta"):
        assert TurnwiseForOfflineRL(sizes).popart.mean.shape == (7,)


def test_the_encoders_head_count_must_divide_its_width():
    config = load_config(PAPER / "small.yaml", ["model.encoder_heads=3"])
    sizes = network_config(config.model, config.data, Tokenizer.load(config.data.vocabulary), 10)
    with pytest.raises(ValueError, match="encoder_heads=3"), torch.device("meta"):
        TurnwiseForOfflineRL(sizes)
