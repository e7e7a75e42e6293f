"""A launcher that dies leaves nobody training: the processes below it notice, save themselves and end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from launch.bench_engines import Row, command_of, environment
from tests.trainer.conftest import SMALL
from trainer import checkpoint

ROOT = Path(__file__).parents[2]
STARTS = "import subprocess, sys\nsubprocess.run(sys.argv[1:])\n"
TELLS = (
    "import sys, time\n"
    "from trainer.launcher import Launcher\n"
    "above = Launcher()\n"
    "print(len(above.line), above.gone(), flush=True)\n"
    "for _ in range(200):\n"
    "    if above.gone():\n"
    "        break\n"
    "    time.sleep(0.05)\n"
    "print(above.gone(), flush=True)\n"
)


@pytest.mark.parametrize(
    ("line", "killed", "known"),
    [
        (["torchrun"], 0, 1),
        (["deepspeed", "deepspeed"], 0, 2),  # a runner and, below it, what launches
        (["deepspeed", "deepspeed"], 1, 2),
        (["wrapper.py"], 0, 0),  # of a script of one's own nothing is known: it may have detached the run
        (["wrapper.py", "accelerate-launch"], 1, 1),
        (["wrapper.py", "accelerate"], 0, 1),
    ],
)
def test_its_death_is_noticed_and_no_other_parents(tmp_path, line, killed, known):
    command = []
    for place, name in enumerate(line):
        script = tmp_path / str(place) / name
        script.parent.mkdir()
        script.write_text(STARTS)
        command += [sys.executable, str(script)]
    first = subprocess.Popen(
        [*command, sys.executable, "-c", TELLS], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert first.stdout.readline() == f"{known} False\n"
        pids = [first.pid, *(p.pid for p in psutil.Process(first.pid).children(recursive=True))]
        os.kill(pids[killed], signal.SIGKILL)
        noticed = killed >= len(line) - known
        if not noticed:
            time.sleep(0.3)  # in which it would have told
            os.killpg(first.pid, signal.SIGTERM)  # it would look on for ten seconds
        assert first.stdout.readline() == ("True\n" if noticed else "")
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()


def of_this_run(output):
    """Processes whose command names the run's folder, launchers among them."""
    return [p for p in psutil.process_iter(["cmdline"]) if f"output={output}" in (p.info["cmdline"] or [])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "number"),
    [
        (Row("torchrun", 2, "plain"), signal.SIGKILL),
        (Row("torchrun", 2, "zero1"), signal.SIGUSR1),
        (Row("accelerate", 2, "zero1"), signal.SIGKILL),
        (Row("accelerate", 1, "plain"), signal.SIGTERM),
        (Row("deepspeed", 2, "zero1"), signal.SIGTERM),
    ],
    ids=str,
)
def test_a_run_whose_launcher_dies_saves_itself(cached, tmp_path, row, number):
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}", "eval.every=0", "max_steps=4000"]
    with open(tmp_path / "said.txt", "w") as said:
        launcher = subprocess.Popen(
            [*command_of(row), *settings, "checkpoint.every=3000"], cwd=ROOT, stdout=said, stderr=said,
            env=environment(), start_new_session=True,
        )  # fmt: skip
    try:
        until = time.monotonic() + 150
        while not (tmp_path / "training_log.csv").exists():
            assert launcher.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        launcher.send_signal(number)
        launcher.wait(timeout=30)
        until = time.monotonic() + 60
        while of_this_run(tmp_path):
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        for one in of_this_run(tmp_path):
            one.kill()
    text = (tmp_path / "said.txt").read_text()
    assert "the launcher is gone: saving step" in text
    (saved,) = checkpoint.list_checkpoints(tmp_path)
    checkpoint.verify(saved)
