"""Likelihood over time: both modes learn and are scored alike; the ways to each other's likelihood are told right."""

import json
import math

import pytest
import torch

from data.tokenizer import Tokenizer
from launch import bench_likelihood, bench_train
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
        return {"course": looks, "steps": 3, "turns_per_cpu_s": 5.0, "lr": 1e-3}

    modes = {"prior": way(2.0, 1.9, 1.8), "default": way(1.75, 1.6, 1.5)}
    ways = compared(modes)
    assert ways["default to prior's"] == {"nll": 1.8, "prior_s": 30.0, "default_s": 10.0, "times_faster": 3.0}
    assert ways["prior to default's"]["prior_s"] is None
    assert time_to(modes["default"]["course"], 1.6)["seconds"] == 20.0
    about = {"command": "c", "commit": "0", "date": "d", "hardware": "h"}
    arms = {mode: [arm] for mode, arm in modes.items()}
    text = table({**about, "results": {"arms": arms, "best_lr": {"prior": 1e-3}, "time_to_likelihood": ways}})
    assert "3.0× faster" in text
    assert "not reached" in text


def test_each_mode_is_judged_at_its_best_rate(tmp_path, monkeypatch):
    """prior ends best at 1e-2 (1.6), default at 1e-3 (1.5): there after 20 s of 20 and 10 s of 20."""
    last = {("prior", 1e-3): 1.9, ("prior", 1e-2): 1.6, ("default", 1e-3): 1.5, ("default", 1e-2): 1.7}

    def child(arguments):
        options = parse(arguments)
        (lr,) = options.lr
        nll = last[options.mode, lr]
        assert f"optim.lr={lr}" in bench_train.parse(train_arguments(options)).set
        looks = [{"nll": nll + 0.1, "seconds": 10.0}, {"nll": nll, "seconds": 20.0}]
        looks[-1] |= {"decisions": 9, "uniform_nll": 1.8, "slot_nll": 1.7}
        return {"course": looks, "steps": 3, "turns_per_cpu_s": 5.0}

    def kept(name, command, results, versions):
        path = tmp_path / f"{name}.json"
        path.write_text(
            json.dumps({"command": command, "commit": "0", "date": "d", "hardware": "h", "results": results})
        )
        return path

    monkeypatch.setattr(bench_likelihood, "run_child", child)
    monkeypatch.setattr(bench_likelihood, "write_record", kept)
    assert bench_likelihood.main(["--lr", "1e-3", "1e-2"]) == 0
    results = json.loads((tmp_path / "time_to_likelihood.json").read_text())["results"]
    assert results["best_lr"] == {"prior": 1e-2, "default": 1e-3}
    assert results["time_to_likelihood"]["default to prior's"]["times_faster"] == 2.0
    assert "prior, lr 0.001" in (tmp_path / "time_to_likelihood.md").read_text()


@pytest.mark.parametrize("case", OURS)
def test_our_sizes_are_within_three_percent_of_the_references(case):
    preset, *settings = OURS[case]
    config = load_config(None, [f"model.preset={preset}", *settings])
    sizes = network_config(config.model, config.data, Tokenizer.load(config.data.vocabulary), 10.0)
    with torch.device("meta"):
        total = TurnwiseForOfflineRL(sizes).count_parameters()["total"]
    assert total == pytest.approx(REFERENCE[case]["parameters"], rel=0.03)
