"""Starting again by itself, the fault campaign's own arithmetic, and one real round of it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch.bench_faults import STARTED, Round, _lost

ROOT = Path(__file__).parents[2]
RESTART = ROOT / "launch" / "restart.sh"

# A run that saves a checkpoint at every start, ends badly until its third, and with 0 then.
GOES_ON = """
import sys, pathlib
output = pathlib.Path(sys.argv[1])
count = len(list(output.glob("step_*"))) + 1
folder = output / f"step_{count:08d}"
folder.mkdir(parents=True)
(folder / "manifest.json").write_text("{}")
sys.exit(0 if count == 3 else 9)
"""
# A run that saves itself when told, as ours do.
SAVES = """
import signal, sys, time
def told(number, frame):
    print("told", number, flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, told)
signal.signal(signal.SIGUSR1, told)
print("running", flush=True)
for _ in range(300):
    time.sleep(0.1)  # one that comes just before a sleep begins is heard when it is over
"""


def heard():
    """A shell can trap no signal that it was told to ignore at its start, as under nohup."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def restart(output, *command, **environment):
    return subprocess.Popen(
        ["bash", str(RESTART), str(output), *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "RESTART_DELAY_S": "0", **environment}, preexec_fn=heard,
    )  # fmt: skip


def test_a_run_that_makes_progress_is_started_until_it_is_done(tmp_path):
    process = restart(tmp_path, sys.executable, "-c", GOES_ON, str(tmp_path))
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert errors.count("starting again") == 2


def test_without_a_command_nothing_passes_for_done(tmp_path):
    process = restart(tmp_path)
    assert "give the command" in process.communicate(timeout=30)[1]
    assert process.returncode != 0


def test_what_began_anew_goes_on_from_its_own_checkpoint(tmp_path):
    """An older run's checkpoint lies there: `resume` of the command is its own until one of this run's is there."""
    (tmp_path / "step_00000000").mkdir()
    (tmp_path / "step_00000000" / "manifest.json").write_text("{}")
    os.utime(tmp_path / "step_00000000" / "manifest.json", (0, 0))
    told = "print(sys.argv[2:], flush=True)\n"
    process = restart(tmp_path, sys.executable, "-c", f"import sys\n{told}{GOES_ON}", str(tmp_path), "resume=never")
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.splitlines() == ["['resume=never']", "['resume=never', 'resume=auto']"]


def test_a_run_without_progress_is_given_up_with_its_code(tmp_path):
    process = restart(tmp_path, sys.executable, "-c", "import sys; sys.exit(9)")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 9
    assert "three ends in a row" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_handed_on_as_one_that_launchers_know_and_nothing_started_after(tmp_path, number):
    """Ctrl-C too, which a job in the background does not hear: the run went on with nobody to watch over it. So did the
    processes of torchrun, which dies of SIGUSR1."""
    process = restart(tmp_path, sys.executable, "-c", SAVES)
    assert process.stdout.readline() == "running\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert out == f"told {int(signal.SIGTERM)}\n"
    assert process.returncode == 75


def test_a_signal_between_two_starts_is_the_last_word(tmp_path):
    process = restart(tmp_path, sys.executable, "-c", "print('running', flush=True); exit(9)", RESTART_DELAY_S="1")
    assert process.stdout.readline() == "running\n"
    assert "starting again" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == ("", 9)


def test_lost_steps_are_counted_from_what_was_told(tmp_path):
    log = tmp_path / "log.txt"
    started = f"{STARTED}\n"
    log.write_text(started + "step 2/18 x\n" + started + "step 2/18 x\n")
    assert _lost(log) == 2  # before any checkpoint: from the start again
    log.write_text(f"{started}step 8/18 x\n{started}resumed from run/step_00000006 at step 6\nstep 8/18 x\n")
    assert _lost(log) == 2
    log.write_text(f"{started}step 6/18 x\n{started}{started}resumed from run/step_00000006 at step 6\nstep 8/18 x\n")
    assert _lost(log) == 0


@pytest.mark.slow
def test_rounds_of_the_campaign_are_sound(tmp_path):
    """Three rounds in a process of its own: the campaign forks, and must not fork this one."""
    script = (
        "import json, os, sys, pathlib, msgspec; from launch import bench_faults as b;"
        "os.environ.update(b.environment(), TURNWISE_CACHE=sys.argv[1] + '/cache');"
        "c = b.Campaign(pathlib.Path(sys.argv[1]));"
        "print(json.dumps([msgspec.to_builtins(c.play(n, ('kill', 'term', 'flip'))) for n in range(3)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]

    rounds = [Round(**fields) for fields in json.loads(done.stdout.splitlines()[-1])]
    assert [played.problem for played in rounds] == ["", "", ""]
    assert all(played.starts >= 2 for played in rounds if played.struck)
