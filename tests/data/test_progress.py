"""Bars: as it goes on a terminal, a word a minute in a file."""

import errno
import io
import sys

import pytest

from data.progress import progress_bar


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "fewest", "most"), [(Screen(), 4, 50), (io.StringIO(), 2, 2)])
def test_a_file_is_spared_the_bars_every_move(monkeypatch, stream, fewest, most):
    monkeypatch.setattr(sys, "stderr", stream)
    clock = iter(range(1, 1000))  # seconds, of which tqdm asks for one at every look
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
    with progress_bar(20, done=3, desc="play") as bar:
        for _ in range(17):
            bar.update()
    words = stream.getvalue().split("\r")[1:]
    assert fewest <= len(words) <= most
    assert "play" in words[0]
    assert "20/20" in words[-1]


def test_a_log_on_a_full_disk_ends_no_work(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stderr.write", full)
    with progress_bar(2) as bar:
        bar.update(2)
    assert bar.n == 2
