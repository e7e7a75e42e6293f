"""Two models beside each other on the same decisions."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.evaluate import main as evaluate_main
from trainer.paired import common, paired


def table(rows, turns, seed):
    rng = np.random.default_rng(seed)
    n = len(rows)
    return {
        "row": np.array(rows), "turn": np.array(turns), "nll": rng.exponential(1.0, n), "rank": rng.integers(0, 3, n),
        "legal": np.ones((n, 4), bool), "cloned": np.ones(n, bool),
    }  # fmt: skip


def test_decisions_are_matched_by_battle_and_turn_whatever_their_order():
    mine = table([0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 0], seed=1)
    its = table([1, 1, 0, 0, 0, 3], [0, 1, 2, 0, 1, 0], seed=2)
    here, there = common(mine, its)
    assert here.tolist() == [0, 1, 2, 3, 4]
    assert there.tolist() == [3, 4, 2, 0, 1]
    mine["legal"][1, 1:] = False  # one choice: no decision
    mine["cloned"][3] = False
    battles = np.array([0, 0, 0, 1, 1, 2])
    groups = {"all": np.ones(6, bool), "of one": battles == 1, "of none": battles == 2}
    result = paired(mine, its, groups, battles)
    assert result["alone"] == 2
    everything, one = result["rows"]
    assert (everything["decisions"], everything["battles"], one["decisions"], one["group"]) == (3, 2, 1, "of one")
    for measure, values in (("nll", lambda t: t["nll"]), ("top1", lambda t: t["rank"] == 0)):
        a, b = values(mine)[[0, 2, 4]], values(its)[[3, 2, 1]]
        assert everything[measure] == pytest.approx([a.mean(), b.mean()])
        assert everything[f"{measure}_apart"][0] == pytest.approx(a.mean() - b.mean())
        low, high = everything[f"{measure}_apart"][1:]
        assert low <= everything[f"{measure}_apart"][0] <= high


def test_what_is_common_to_both_is_not_in_the_interval():
    """Battles that are hard for both make either's own score unsure, and not what lies between them."""
    rows = np.repeat(np.arange(60), 5)
    mine = table(rows, np.tile(np.arange(5), 60), seed=3)
    mine["nll"] = np.repeat(np.random.default_rng(4).exponential(1.0, 60), 5)
    its = {**mine, "nll": mine["nll"] + 0.1}
    (row,) = paired(mine, its, {"all": np.ones(300, bool)}, rows)["rows"]
    assert row["nll_apart"] == pytest.approx([-0.1] * 3)


@pytest.fixture
def other(trained, tmp_path):
    """The trained model with a policy that was shaken, and windows of half the length."""
    folder = tmp_path / "shaken"
    shutil.copytree(trained / "model", folder)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, weight in weights.items():
        if name.startswith("actor") and weight.dim() > 1:
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_turns": 16}))
    return folder


def test_two_models_are_held_against_each_other_by_command(trained, other, cached, tmp_path, capsys):
    out = tmp_path / "e.json"
    command = ["--data", str(cached), "--out", str(out)]
    assert evaluate_main(["--checkpoint", str(trained), "--against", str(other), *command]) == 0
    text = capsys.readouterr().out
    beside = json.loads(out.read_text())["against"]
    assert evaluate_main(["--checkpoint", str(other), "--against", str(trained), *command]) == 0
    turned = json.loads(out.read_text())
    own = turned["policy"]
    assert beside["alone"] == turned["against"]["alone"] == 0
    for row, back, single in zip(beside["rows"], turned["against"]["rows"], own, strict=False):
        assert row["group"] == back["group"] == single["group"]
        assert row["decisions"] == single["decisions"]
        assert row["nll"] == pytest.approx(back["nll"][::-1])
        assert row["nll"][1] == pytest.approx(single["nll"][0])
        assert row["top1"][1] == pytest.approx(single["top1"][0])
        mean, low, high = row["nll_apart"]
        assert mean == pytest.approx(row["nll"][0] - row["nll"][1]) == pytest.approx(-back["nll_apart"][0])
        assert low <= mean <= high
    assert beside["rows"][0]["nll_apart"][2] < 0  # the shaken one is worse, beyond chance
    assert f"beside {other}" in text
    line = next(line for line in text.split("beside ")[1].splitlines() if line.startswith("all"))
    assert re.search(r"\[[+-]\d+\.\d, [+-]\d+\.\d\] .*\[-\d\.\d{3}, -\d\.\d{3}\]$", line), line


def test_one_that_may_have_seen_the_battles_is_told_of(trained, other, cached, caplog):
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"heldout_share": 0.3}))
    command = ["--checkpoint", str(trained), "--against", str(other), "--data", str(cached)]
    assert evaluate_main(command) == 0
    assert f"{other}: it held out 0.3 of the battles by battle, and is judged on 0.15 by battle" in caplog.text
    caplog.clear()
    assert evaluate_main([*command, "--all"]) == 0
    assert "it held out" not in caplog.text


def test_the_one_that_lacks_a_discount_is_named(trained, other, cached, capsys):
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"gammas": [0.8, *config["gammas"][1:]]}))
    command = ["--checkpoint", str(trained), "--against", str(other), "--data", str(cached), "--gamma"]
    for gamma, named in (("0.9", other), ("0.8", trained)):
        assert evaluate_main([*command, gamma]) == 1
        assert f"error: {named}: γ = {gamma} was not trained: choose one of" in capsys.readouterr().err
