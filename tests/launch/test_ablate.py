"""The paired comparison of the ablation, against a plain loop."""

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from launch import ablate, record
from launch.ablate import BASE, excess, main, over_seeds, table, together
from trainer.config import load_config, to_tree
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


def test_an_arm_that_holds_out_other_battles_is_refused_before_it_is_trained(tmp_path, capsys):
    """Its decisions were laid beside those of other battles, which numpy refused after hours of training."""
    with pytest.raises(SystemExit):
        main(["--data", "data/sample", "--out", str(tmp_path), "--arm", "mine", "data.split_by=players"])
    assert "--arm mine: data.split_by=players: arms are judged on the same battles" in capsys.readouterr().err


def test_winners_are_told_by_the_largest_discount_wherever_it_stands(tmp_path):
    rows = [{"gamma": 0.99, "auc": 0.6}, {"gamma": 0.999, "auc": 0.8}, {"gamma": 0.9, "auc": 0.5}]
    (tmp_path / "evaluation.json").write_text(json.dumps({"values": rows}))
    assert ablate.winner_told(tmp_path) == 0.8


@pytest.mark.slow
def test_an_arm_that_cannot_be_trained_says_why(tmp_path):
    options = ["--data", "data/sample", "--out", str(tmp_path), "--arm", "mine", "objective.filter=none"]
    with pytest.raises(SystemExit, match=r"mine_0.001_0: training ended with 1: .*objective\.filter"):
        ablate.train(["objective.filter=none"], 1e-3, 0, tmp_path / "mine_0.001_0", ablate.arguments(options))


def test_a_command_that_fails_is_told_by_the_last_of_its_words(tmp_path):
    fails = [sys.executable, "-uc", "import sys; print('on the way'); sys.exit('error: it is so')"]
    with pytest.raises(SystemExit, match=r"^mine: training ended with 1: error: it is so; all of it is in .*/log$"):
        ablate.run_logged(fails, tmp_path / "log", "mine: training")
    assert (tmp_path / "log").read_text() == "on the way\nerror: it is so\n"
    ablate.run_logged([sys.executable, "-c", "print('done')"], tmp_path / "log", "mine: training")


def test_what_an_arm_sets_is_laid_over_what_all_set(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(ablate, "run_logged", lambda command, *_: commands.append(command))
    options = ["--data", "data/sample", "--out", str(tmp_path), "--set", "objective.filter=binary", "objective.tau=0.1"]
    arm = ["objective.filter=exponential", "seed=5"]
    ablate.train(arm, 1e-3, 0, tmp_path / "run", ablate.arguments([*options, "--arm", "mine", *arm]))
    config = load_config(commands[0][commands[0].index("--config") + 1], commands[0][5:])
    assert (config.objective.filter, config.objective.tau, config.seed) == ("exponential", 0.1, 5)
    assert (config.output, config.optim.lr, config.max_steps) == (str(tmp_path / "run"), 1e-3, 600)


def test_an_arm_that_was_trained_by_other_settings_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ablate, "run_logged", lambda *_: None)
    options = ["--data", "data/sample", "--out", str(tmp_path), "--steps"]
    folder = tmp_path / "blocks_0.001_0"
    asked = load_config(
        ablate.RUN_FILE, ablate.settings_of(["seed=0", "optim.lr=0.001"], ablate.arguments([*options, "8"]))
    )
    (folder / "step_00000004").mkdir(parents=True)
    (folder / "step_00000004" / "manifest.json").touch()
    (folder / "step_00000004" / "run.json").write_text(json.dumps({"asked": to_tree(asked)}))
    ablate.train([], 1e-3, 0, folder, ablate.arguments([*options, "8"]))
    with pytest.raises(
        SystemExit, match=r"blocks_0.001_0: was trained by other settings \(max_steps: 8 → 16\): give ano"
    ):
        ablate.train([], 1e-3, 0, folder, ablate.arguments([*options, "16"]))


def test_arms_are_judged_on_the_battles_that_all_take(tmp_path):
    options = ["--data", "data/sample", "--out", str(tmp_path), "--set"]
    chosen = ["data.formats=[gen1ou]", "data.filter=turns < 60", "data.clone=won", "data.illegal_actions=unrecorded"]
    data = ablate.judged_on(ablate.arguments([*options, *chosen, "--arm", "mine", "data.formats=[gen2ou]"]))
    assert (data.formats, data.filter, data.clone) == (["gen1ou"], "turns < 60", "won")
    assert (data.illegal_actions, Path(data.path)) == ("unrecorded", ablate.ROOT / "data" / "sample")


def test_a_comparison_without_a_name_stays_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RECORDS", tmp_path / "records")
    judged = {"nll": np.ones(4), "top1": np.ones(4, bool), "battle": np.array(list("abab")), "parameters": np.array(9)}
    known = {"train": None, "heldout_decisions": judged, "winner_told": 0.5, "speed": 1.0, "win_rates": {}}
    for name, value in known.items():
        monkeypatch.setattr(ablate, name, lambda *_, value=value: value)
    command = ["--data", "data/sample", "--out", str(tmp_path / "out"), "--battles", "0", "--arm", "mine", "seed=1"]
    assert main(command) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ablation.json", "ablation.md"]
    assert main([*command, "--record", "mine"]) == 0
    assert sorted(path.name for path in (tmp_path / "records").iterdir()) == ["mine.json", "mine.md"]
    # The command that a record tells is the one that made it.
    played = ["--battles", "3", "--formats", "gen1ou", "gen9ou", "--set", "data.filter=rating > 1", "seed=2"]
    assert main([*command[:4], *played, *command[6:]]) == 0
    told = shlex.split((tmp_path / "out" / "ablation.md").read_text().split("`")[1])
    options = ablate.arguments(told[3:])
    assert (options.formats, options.battles, options.set) == (["gen1ou", "gen9ou"], 3, [*played[6:]])
    assert options.own == {"mine": ["seed=1"]}


def test_battles_that_cannot_be_played_say_why(tmp_path):
    options = ["--data", "data/sample", "--out", str(tmp_path), "--formats", "gen0ou"]
    with pytest.raises(SystemExit, match=r"battle\.evaluate ended with 1: error: .*; all of it is in .*_play\.log"):
        ablate.win_rates({"mine": [tmp_path / "none"]}, ablate.arguments(options))


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
