"""Signs of life between real processes: one that is lost is named, and nobody waits for it for ever."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.bench_engines import environment
from trainer.errors import ConfigError
from trainer.watchdog import Watchdog
from trainer.world import free_port

ROOT = Path(__file__).parents[2]
# Waits for ever, as a collective without a timeout does.
WAITS = (
    "import logging, sys, time; from pathlib import Path; from trainer.watchdog import Watchdog;"
    "logging.basicConfig(level=logging.INFO);"
    "w = Watchdog(Path(sys.argv[1]), 5.0); w.start(); print('up', flush=True);"
    "time.sleep(float(sys.argv[2])); w.stop(); print('stopped', flush=True)"
)


def process(folder, rank, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", WAITS, str(folder), str(seconds)], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"},
    )  # fmt: skip


def test_a_lost_process_is_named_by_the_one_that_waits(tmp_path):
    lost, waiting = process(tmp_path, 0, 300), process(tmp_path, 1, 300)
    try:
        assert lost.stdout.readline() == waiting.stdout.readline() == "up\n"
        time.sleep(6)  # longer than the timeout: both live, so nobody ends
        assert lost.poll() is waiting.poll() is None
        os.kill(lost.pid, signal.SIGKILL)
        _, errors = waiting.communicate(timeout=30)
    finally:
        lost.kill()
        waiting.kill()
    assert waiting.returncode == 1
    assert f"process 0 of 2 (pid {lost.pid} on" in errors


def test_processes_that_are_done_may_end_apart(tmp_path):
    first, second = process(tmp_path, 0, 3), process(tmp_path, 1, 4)
    outs = [p.communicate(timeout=60)[0] for p in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert all("stopped" in out for out in outs)


def test_an_output_that_cannot_be_is_refused_as_by_one_process(monkeypatch):
    """The watchdog is the first of several processes to write there: each ended in a traceback."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="/dev/null/run: nothing can be written there"):
        Watchdog(Path("/dev/null/run"), 5.0).start()


@pytest.mark.slow
def test_a_process_that_never_came_is_not_waited_for(tmp_path):
    """Killed before the processes first met: DeepSpeed's first meeting has no timeout of its own."""
    settings = ["deepspeed=ds_configs/zero1.json", "precision=fp32", "timeout_minutes=0.1", "data.path=data/sample"]
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-m", "trainer.train", *settings, f"output={tmp_path}"], cwd=ROOT, capture_output=True,
        text=True, timeout=120, env={**environment(), **alone, "MASTER_PORT": str(free_port())},
    )  # fmt: skip
    assert done.returncode == 1
    assert "process 1 of 2 (never seen) has given no sign of life" in done.stderr
