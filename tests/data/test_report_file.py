"""A report that cannot be written costs nothing of what was found."""

import pytest

from data.prepare import main as prepare
from data.report_file import write_report


@pytest.mark.parametrize("kind", ["json", "png"])
def test_statistics_are_shown_where_they_cannot_be_written(battles, kind, tmp_path, capsys):
    full = tmp_path / f"stats.{kind}"
    full.symlink_to("/dev/full")  # takes nothing, as a disk without room
    assert prepare(["stats", str(battles), f"--{kind}", str(full), "--cache-dir", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert f"error: {full}: No space left on device: " in err
    assert "unknown words" in out


def test_a_report_is_written_or_its_reason_said(tmp_path, capsys):
    assert write_report(tmp_path / "report.json", "{}")
    assert (tmp_path / "report.json").read_text() == "{}"
    assert not write_report(tmp_path / "gone" / "report.json", "{}")
    assert "report.json: No such file or directory: free some space or choose another file" in capsys.readouterr().err
