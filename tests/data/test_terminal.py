"""What a command prints where its terminal knows few letters, or is not there at all."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.terminal import say, steady_output

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [("latin-1", b"\xb7 ? \xe9 ?\n"), ("ascii", b"? ? ? ?\n"), ("utf-8", "· γ é ".encode() + b"\xff\n")],
)
def test_letters_that_the_encoding_lacks_are_no_error(monkeypatch, encoding, printed):
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    steady_output()
    print("· γ é " + os.fsdecode(b"\xff"), flush=True)
    assert out.getvalue() == printed


def test_a_closed_output_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    steady_output()
    print("unheard", file=sys.stdout, flush=True)
    assert not sys.stderr.isatty()


def test_a_command_with_everything_closed_does_its_work(tmp_path):
    command = f"{sys.executable} -m data.prepare cache --from data/sample --formats gen9ou --out {tmp_path}/made"
    done = subprocess.run(f"exec {command} <&- >&- 2>&-", shell=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0
    assert (tmp_path / "made" / "manifest.json").is_file()


def test_commands_run_without_docstrings():
    for module in ("data.prepare", "trainer.train", "battle.evaluate"):
        command = [sys.executable, "-OO", "-m", module, "--help"]
        assert subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=60).returncode == 0


def test_a_reader_that_went_away_hears_no_last_word(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        say("unheard")
        print("nor at exit", file=pipe, flush=True)


def test_what_standard_output_does_not_take_is_said_on_standard_error():
    words = "from data.terminal import say; say('hours of work'); print('never')"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", words], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    said, error = done.stderr.splitlines()
    assert (done.returncode, said) == (1, "hours of work")
    assert error.startswith("error: standard output: No space left on device")
