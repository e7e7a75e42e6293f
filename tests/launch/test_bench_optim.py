"""The benchmark of optimizers trains each arm for the time given, and says so."""

import pytest

from launch.bench_optim import measure, parse, settings, table
from tests.battle_files import Style, write_battles


def test_an_arm_is_trained_for_the_time_given(tmp_path, monkeypatch):
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "cache"))
    write_battles(tmp_path / "battles", 40, seed=3, style=Style(max_turns=30))
    options = parse(
        ["--data", str(tmp_path / "battles"), "--seconds", "0.6", "--battles", "4", "--looks", "2", "--heldout", "4",
         "--arms", "muon:2e-3:0.5", "--set", "data.heldout_share=0.2"]
    )  # fmt: skip
    assert {"optim.name=muon", "optim.lr=2e-3", "optim.muon_scale=0.5"} <= set(settings(options, "muon:2e-3:0.5", 5))
    arm = measure(options, options.arms[0], str(tmp_path / "out"))
    assert 0.2 < arm["seconds"] < 2
    assert arm["seconds_a_step"] == pytest.approx(arm["seconds"] / arm["steps"])
    assert [look["step"] for look in arm["course"]] == [round(arm["steps"] / 2), arm["steps"]]
    assert arm["heldout_nll"] == arm["course"][-1]["heldout_nll"]
    about = {"command": "c", "commit": "0", "date": "d", "hardware": "h", "results": {"seconds": 0.6, "arms": [arm]}}
    assert "muon:2e-3:0.5" in table(about)
