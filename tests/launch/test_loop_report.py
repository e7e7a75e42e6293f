"""The loop's script, its commands noted and not run; its report: pooled rates, gains with their intervals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch import loop_report
from trainer.config import load_config

LAUNCH = Path(__file__).parents[2] / "launch"


def test_the_loop_goes_round_in_any_folder_from_any_folder(tmp_path):
    """Blanks, commas, brackets and quotes in OUT; relative to where it is called."""
    noted = tmp_path / "noted"
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport sys, json\nprint(json.dumps(sys.argv[1:]), file=open({str(noted)!r}, 'a'))\n"
    )
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "LATER": "optim.lr=1e-4 optim.warmup_steps=7"}
    out = "o, it's [mine] #1"
    command = ["bash", str(LAUNCH / "loop.sh"), out, "2", "max_steps=5"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)
    commands = [json.loads(line) for line in noted.read_text().splitlines()]
    assert [words[1] for words in commands] == [
        *["battle.selfplay", "trainer.train", "battle.evaluate"] * 2, "launch.loop_report"
    ]  # fmt: skip
    (_, first, _, record, second, evaluate, _) = commands
    assert f"round1={out}/round1/run:temperature=0.5,weight=4" in record
    assert record[record.index("--out") + 1] == f"{out}/round2/battles"
    assert f"round2={out}/round2/run" in evaluate
    configs = [load_config(words[3], words[4:]) for words in (first, second)]
    assert [source["path"] for source in configs[1].data.sources] == [f"{out}/round{n}/battles" for n in (1, 2)]
    assert [config.output for config in configs] == [f"{out}/round{n}/run" for n in (1, 2)]
    assert [config.model.init_from for config in configs] == [None, f"{out}/round1/run"]
    # Further rounds go on; other settings would be told of an older result.
    subprocess.run([*command[:3], "3", command[4]], cwd=tmp_path, env=environment, check=True, timeout=60)
    for changed in ([*command[:4], "max_steps=6"], command):
        other = environment if changed is not command else {**environment, "BATTLES": "7"}
        done = subprocess.run(changed, cwd=tmp_path, env=other, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert "was made by other settings" in done.stderr
    assert [config.max_steps for config in configs] == [5, 5]
    assert (configs[1].optim.lr, configs[1].optim.warmup_steps) == (1e-4, 7)


def test_paths_of_the_gpu_check_are_those_of_the_caller(tmp_path):
    """Its first look finds a package missing, and it ends: what it looked at and where it wrote is seen by then."""
    python = tmp_path / "python"
    python.write_text("#!/usr/bin/env bash\npwd\nexit 3\n")
    python.chmod(0o755)
    command = ["bash", os.path.relpath(LAUNCH / "gpu_check.sh", tmp_path), "--cpu", "--out", "found here"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHON": str(python)}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert str(LAUNCH.parent) in done.stdout
    assert (tmp_path / "found here" / "summary.md").exists()
    done = subprocess.run([*command, "--unknown"], cwd=tmp_path, capture_output=True, text=True)
    assert "--data DIR" in done.stdout


def rows(wins):
    return [
        {"format": f, "player": "round", "opponent": o, "battles": 50, "wins": wins, "losses": 48 - wins, "ties": 2}
        for f in ("gen1ou", "gen9ou")
        for o in ("random", "boss")
    ]


def test_rounds_stand_beside_each_other(tmp_path, capsys):
    for name, wins in (("round1", 20), ("round2", 30), ("round10", 20)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "play.json").write_text(json.dumps({"results": rows(wins)}))
    assert loop_report.main([str(tmp_path)]) == 0
    found = json.loads((tmp_path / "loop.json").read_text())
    assert list(found) == ["round1", "round2", "round10"]
    assert found["round1"]["pool"]["win_rate"] == pytest.approx(84 / 200)
    assert found["round2"]["against_random"]["gen9ou"]["battles"] == 50
    assert found["round2"]["by_opponent"]["boss"]["battles"] == 100
    step = found["round2"]["gain_on_the_first"]
    assert step["gain"] == pytest.approx(0.2)
    # By hand, of the Wilson intervals 55.1–68.4% and 35.4–48.9%: 0.2 − √(0.069² + 0.069²), 0.2 + √(0.064² + 0.066²).
    assert step["interval95"] == pytest.approx([0.102, 0.292], abs=1.5e-3)
    assert found["round10"]["gain_on_the_first"]["interval95"][0] < 0
    assert "round2: 62.0%" in capsys.readouterr().out


def test_a_round_whose_battles_are_all_void_has_no_rate(tmp_path, capsys):
    for name, void in (("round1", False), ("round2", True)):
        (tmp_path / name).mkdir()
        found = [row | {"battles": 0, "wins": 0, "losses": 0, "ties": 0} if void else row for row in rows(20)]
        (tmp_path / name / "play.json").write_text(json.dumps({"results": found}))
    assert loop_report.main([str(tmp_path)]) == 0
    second = json.loads((tmp_path / "loop.json").read_text())["round2"]
    assert second["pool"] == {"battles": 0, "win_rate": None, "interval95": [0.0, 1.0]}
    assert "gain_on_the_first" not in second
    assert "round2: – [0.0%, 100.0%] of 0 against the pool\n  random: gen1ou –" in capsys.readouterr().out


def test_an_empty_folder_is_said(tmp_path, capsys):
    assert loop_report.main([str(tmp_path)]) == 1
    assert "no round with a play.json" in capsys.readouterr().err
