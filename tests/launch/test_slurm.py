"""launch/slurm.sh with the real torchrun; two short commands stand for the scheduler (it was tried on SLURM 22.05)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

OUT = "it's #1"  # settings are YAML, where the half of it is a comment
SCRIPT = Path(__file__).parents[2] / "launch" / "slurm.sh"

# `srun OPTIONS… command…` notes its options and runs the command; `scontrol` names the one machine and notes what it is
# asked to queue again.
SRUN = '#!/usr/bin/env bash\nwhile [[ $1 == --* ]]; do echo "$1" >> "$REQUEUED.srun"; shift; done\nexec "$@"\n'
SCONTROL = '#!/usr/bin/env bash\nif [ "$1" = show ]; then echo localhost; else echo "$@" >> "$REQUEUED"; fi\n'
# Two workers that take two seconds to save themselves when told; the first one writes the checkpoint.
WORKER = """
import os, pathlib, signal, sys, time, yaml
output = pathlib.Path(yaml.safe_load(next(s for s in sys.argv if s.startswith("output=")).removeprefix("output=")))
rank = os.environ["RANK"]
def told(number, frame):
    with open(output / f"told_{rank}", "a") as handle:
        handle.write("told ")
signal.signal(signal.SIGUSR1, told)
signal.signal(signal.SIGTERM, told)
(output / f"up_{rank}").write_text(" ".join(sys.argv[1:]))
if "fail" in sys.argv and rank == "0":
    sys.exit(1)
elif "fail" in sys.argv:  # ended by torchrun: were it the first to fail, that would end the other before it is up
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pause()
for _ in range(600):
    time.sleep(0.05)
    if (output / f"told_{rank}").exists():
        time.sleep(2)
        if rank == "0":
            (output / "step_00000001").mkdir()
            (output / "step_00000001" / "manifest.json").touch()
        (output / f"saved_{rank}").touch()
        time.sleep(1)
        sys.exit(75)
"""


@pytest.fixture
def job(tmp_path):
    """Starts the script in a folder whose `trainer.train` is the worker above."""
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "train.py").write_text(WORKER)
    (tmp_path / OUT).mkdir()
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": "",
        "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "here",
        "REQUEUED": str(tmp_path / "requeued"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    started = []

    def start(*arguments, **more):
        process = subprocess.Popen(
            ["bash", str(SCRIPT), OUT, *arguments], cwd=tmp_path, env=environment | more, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("number", "everyone"),
    [(signal.SIGUSR1, True)]
    + [pytest.param(one, False, marks=pytest.mark.slow) for one in (signal.SIGUSR1, signal.SIGTERM)],
)
def test_all_workers_save_themselves_and_the_job_is_queued_again(job, tmp_path, number, everyone):
    """By the scheduler's plugin the signal comes to the step's shell alone, or to each of its processes as well."""
    process, out = job("--config", "x.yaml"), tmp_path / OUT
    until = time.monotonic() + 60
    while not all((out / f"up_{rank}").exists() for rank in (0, 1)):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    (shell,) = children(process.pid)
    (torchrun,) = children(shell)
    for pid in [shell, torchrun, *children(torchrun)] if everyone else [shell]:
        os.kill(pid, number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 75, text
    assert (out / "saved_0").exists()
    assert (out / "saved_1").exists()
    # Each by the shell, and by the scheduler; torchrun's own SIGTERM follows where one worker ends before the other.
    assert len((out / "told_0").read_text().split()) <= 3
    assert (tmp_path / "requeued").read_text().split() == ["requeue", str(os.getpid())]


def test_a_run_that_fails_without_progress_is_not_queued_again(job, tmp_path):
    process = job("fail", SLURM_CPUS_PER_TASK="96")
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1, text
    assert (tmp_path / OUT / "up_0").exists()
    assert "--cpus-per-task=96" in (tmp_path / "requeued.srun").read_text().split()  # or all would share one core
    assert not (tmp_path / "requeued").exists()


@pytest.mark.slow
def test_queued_again_it_goes_on_from_its_own_checkpoint(job, tmp_path):
    """With another `resume` it would begin anew each time; before its first checkpoint it has to."""
    arguments, up = ("fail", "resume=never"), tmp_path / OUT / "up_0"
    for restarts, goes_on in (("0", False), ("1", False), ("2", True)):
        if restarts == "2":
            (tmp_path / OUT / "step_00000001").mkdir()
            (tmp_path / OUT / "step_00000001" / "manifest.json").touch()
        job(*arguments, SLURM_RESTART_COUNT=restarts).communicate(timeout=60)
        assert up.read_text().endswith(" resume=auto") == goes_on


def children(pid):
    """The processes that one has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
