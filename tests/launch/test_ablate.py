"""The paired comparison of the ablation, against a plain loop."""

import numpy as np
import pytest

from launch import ablate, record
from launch.ablate import BASE, excess, main, over_seeds, table, together
from trainer.scores import RESAMPLES


def test_excess_against_a_plain_loop():
    rng = np.random.default_rng(3)
    battles = np.array([f"b{i}" for i in rng.integers(0, 12, 200)])
    base = rng.gamma(2.0, 1.0, 200)
    arm = base * 1.01 + rng.normal(0, 0.02, 200)
    names = sorted(set(battles))
    draws = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    ratios = []
    for draw in draws:
        apart = whole = 0.0
        for unit in draw:
            inside = battles == names[unit]
            apart += (arm[inside] - base[inside]).sum()
            whole += base[inside].sum()
        ratios.append(apart / whole)
    found = excess(arm, base, battles)
    assert found["mean"] == pytest.approx(arm.mean() / base.mean() - 1)
    assert found["low"] == pytest.approx(np.percentile(ratios, 2.5))
    assert found["high"] == pytest.approx(np.percentile(ratios, 97.5))
    assert found["low"] < found["mean"] < found["high"]


def test_the_table_has_a_line_per_arm():
    row = {
        "parameters": 1_220_000, "decisions": 27_000, "battles": 500, "nll": 1.64, "top1": 0.36, "turns_per_s": 1000.0,
        "auc": 0.7, "lr": 1e-3, "nll_by_lr": {"0.0003": 1.7, "0.001": 1.64}, "nll_by_seed": [1.63, 1.65],
        "excess_nll": {"mean": 0.01, "low": -0.002, "high": 0.022},
        "play": [{"opponent": "random", "win_rate": 0.9, "interval95": [0.8, 0.95]}],
    }  # fmt: skip
    text = table("command", {BASE: row, "transformer": row})
    rates = "0.001 (0.0003: 1.7000, 0.001: 1.6400)"
    told = "1.6400 (1.6300, 1.6500) | +1.00% [-0.20%, +2.20%] | 36.0% | 0.700 | 1000 | 90% [80%, 95%] |  |  |"
    assert f"| transformer | 1.22M | {rates} | {told}" in text


def test_seeds_are_taken_together_decision_by_decision():
    ours = {"nll": np.array([1.0, 2.0]), "top1": np.array([True, False]), "battle": np.array(["a", "b"])}
    other = {"nll": np.array([3.0, 0.0]), "top1": np.array([True, True]), "battle": np.array(["a", "b"])}
    both = over_seeds([ours, other])
    assert both["nll"].tolist() == [2.0, 1.0]
    assert both["top1"].tolist() == [1.0, 0.5]
    assert both["nll_by_seed"].tolist() == [1.5, 1.5]
    assert both["battle"].tolist() == ["a", "b"]


def test_battles_of_all_seeds_count_once_each():
    rows = [{"battles": 10, "wins": 6, "ties": 2}, {"battles": 30, "wins": 12, "ties": 0}]
    row = together("random", rows)
    assert row["battles"] == 40
    assert row["win_rate"] == pytest.approx(19 / 40)
    low, high = row["interval95"]
    share, z = 19 / 40, 1.959964
    assert (low + high) / 2 == pytest.approx((share + z * z / 80) / (1 + z * z / 40))
    assert low < share < high


@pytest.mark.parametrize("arm", [["mine"], ["a/b", "seed=1"], ["a_b", "seed=1"], ["transformer", "seed=1"]])
def test_an_arm_of_ones_own_has_a_name_and_settings(tmp_path, capsys, arm):
    with pytest.raises(SystemExit):
        main(["--data", "data/sample", "--out", str(tmp_path), "--arm", *arm])
    assert f"--arm {arm[0]}: give a name of its own" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--data", "data/sample", "--out", str(tmp_path), "--arm", "x", "seed=1", "--arm", "x", "seed=2"])
    assert "two have one name" in capsys.readouterr().err


def test_an_arm_that_cannot_be_trained_says_why(tmp_path):
    options = ["--data", "data/sample", "--out", str(tmp_path), "--arm", "mine", "objective.filter=none"]
    with pytest.raises(SystemExit, match=r"mine_0.001_0: training ended with 1: .*objective\.filter"):
        ablate.train(["objective.filter=none"], 1e-3, 0, tmp_path / "mine_0.001_0", ablate.arguments(options))


@pytest.mark.slow
def test_settings_of_ones_own_are_held_against_the_default(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    command = ["--data", "data/sample", "--out", str(tmp_path / "runs"), "--steps", "2", "--battles", "0"]
    arm = ["--arm", "more decay", "optim.weight_decay=0.2", "objective.filter=binary"]
    assert main([*command, "--record", "own", *arm]) == 0
    text = (tmp_path / "own.md").read_text()
    assert "--arms 'blocks' --arm 'more decay' optim.weight_decay=0.2 objective.filter=binary --steps 2" in text
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")][2:] == [
        "| blocks", "| more decay",
    ]  # fmt: skip
    assert '"weight_decay": 0.2' in (tmp_path / "runs" / "more_decay_0.001_0" / "run_config.json").read_text()
