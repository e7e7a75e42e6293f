"""The bench of the data room, small: from a folder named from here, as a user names it."""

import json

import pytest

from launch import bench_data


@pytest.mark.slow
def test_an_index_is_benched_in_a_folder_named_from_here(battles, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "indexes"))  # put back afterwards
    monkeypatch.setattr(bench_data, "REPEATS", 1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    settings = ["--battles", str(battles), "--files", "20000", "--scratch", "here"]
    assert bench_data.main([*settings, "--only", "index"]) == 0
    _, told = capsys.readouterr().out.split("index …\n")
    figures = json.loads(told)
    assert figures["files"] == 20_000
    assert figures["warm_rows"] == pytest.approx(0.98 * 80_000, rel=0.005)  # the training side of four links to each
    assert figures["scan_us_per_file"] > 0
    assert not any((tmp_path / "here").iterdir())
