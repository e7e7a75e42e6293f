"""The loop's report: pooled rates, gains with their intervals, and what it says of an empty folder."""

import json

import pytest

from launch import loop_report


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


def test_an_empty_folder_is_said(tmp_path, capsys):
    assert loop_report.main([str(tmp_path)]) == 1
    assert "no round with a play.json" in capsys.readouterr().err
