"""The benchmark of optimizers trains each arm for the time given, and says so."""

import pytest

from launch import bench_optim, record
from launch.bench_optim import measure, parse, settings
from tests.battle_files import Style, write_battles


@pytest.mark.slow
def test_an_arm_is_trained_for_the_time_given(tmp_path, monkeypatch):
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "cache"))
    write_battles(tmp_path / "battles", 40, seed=3, style=Style(max_turns=30))
    arguments = [
        "--data", str(tmp_path / "battles"), "--seconds", "0.6", "--battles", "4", "--looks", "2", "--heldout", "4",
        "--arms", "muon:2e-3:0.5", "--set", "data.heldout_share=0.2",
    ]  # fmt: skip
    options = parse(arguments)
    assert {"optim.name=muon", "optim.lr=2e-3", "optim.muon_scale=0.5"} <= set(settings(options, "muon:2e-3:0.5", 5))
    arm = measure(options, options.arms[0], str(tmp_path / "out"))
    assert 0.2 < arm["seconds"] < 2
    assert arm["seconds_a_step"] == pytest.approx(arm["seconds"] / arm["steps"])
    assert [look["step"] for look in arm["course"]] == [round(arm["steps"] / 2), arm["steps"]]
    assert arm["heldout_nll"] == arm["course"][-1]["heldout_nll"]
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    monkeypatch.setattr(bench_optim, "RECORDS", tmp_path)
    assert "muon:2e-3:0.5" in bench_optim.write("c", options, [arm])
    assert bench_optim.kept_arms(options) == []
    more = [*arguments, "--keep", "--arms", "adamw:1e-3"]
    assert bench_optim.kept_arms(parse(more)) == [arm]
    assert bench_optim.kept_arms(parse([*more, "--battles", "5"])) == []
