"""Likelihood over time: both modes learn and are scored alike; the ways to each other's likelihood are told right."""

import math

import pytest
import torch

from data.tokenizer import Tokenizer
from launch import bench_train
from launch.bench_likelihood import compared, course, parse, table, time_to, train_arguments
from launch.bench_reference import OURS, REFERENCE
from launch.bench_train import Bench
from model.modeling_turnwise import TurnwiseForOfflineRL
from tests.battle_files import Style, write_battles
from trainer.config import load_config
from trainer.setup import network_config


@pytest.mark.parametrize("mode", ["prior", "default"])
def test_a_course_is_scored_on_the_held_out_battles(mode, tmp_path, monkeypatch):
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "cache"))
    write_battles(tmp_path / "battles", 30, seed=3, style=Style(max_turns=12))
    options = parse(
        ["--data", str(tmp_path / "battles"), "--mode", mode, "--battles", "2", "--set", "data.heldout_share=0.3"]
    )
    found = course(Bench(bench_train.parse(train_arguments(options))), seconds=0.4, looks=2, heldout=4)
    first, last = found["course"]
    assert 0 < first["seconds"] <= last["seconds"] == pytest.approx(found["seconds"], abs=0.01)
    assert last["step"] == found["steps"]
    assert 0 < last["nll"] < 2 * math.log(13)
    assert 0 < last["slot_nll"] <= last["uniform_nll"] + 0.5 < math.log(13) + 0.5


def test_each_modes_likelihood_is_looked_for_in_the_others_course():
    def way(*nlls):
        looks = [{"nll": nll, "seconds": 10.0 * (i + 1)} for i, nll in enumerate(nlls)]
        looks[-1] |= {"decisions": 9, "uniform_nll": 1.8, "slot_nll": 1.7}
        return {"course": looks, "steps": 3, "turns_per_cpu_s": 5.0}

    modes = {"prior": way(2.0, 1.9, 1.8), "default": way(1.75, 1.6, 1.5)}
    ways = compared(modes)
    assert ways["default to prior's"] == {"nll": 1.8, "prior_s": 30.0, "default_s": 10.0, "times_faster": 3.0}
    assert ways["prior to default's"]["prior_s"] is None
    assert time_to(modes["default"]["course"], 1.6)["seconds"] == 20.0
    about = {"command": "c", "commit": "0", "date": "d", "hardware": "h"}
    text = table({**about, "results": {"modes": modes, "time_to_likelihood": ways}})
    assert "3.0× faster" in text
    assert "not reached" in text


@pytest.mark.parametrize("case", OURS)
def test_our_sizes_are_within_three_percent_of_the_references(case):
    preset, *settings = OURS[case]
    config = load_config(None, [f"model.preset={preset}", *settings])
    sizes = network_config(config.model, config.data, Tokenizer.load(config.data.vocabulary), 10.0)
    with torch.device("meta"):
        total = TurnwiseForOfflineRL(sizes).count_parameters()["total"]
    assert total == pytest.approx(REFERENCE[case]["parameters"], rel=0.03)
