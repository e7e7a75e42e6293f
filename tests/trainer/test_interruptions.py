"""A run meets a killed loader worker, a full disk, signals, a second run in its folder."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from launch.bench_engines import environment
from tests.trainer.conftest import SMALL, rows_of, run_of
from trainer import checkpoint
from trainer.errors import ConfigError
from trainer.lock import lock_output
from trainer.stop import STOPPED, StopRequest
from trainer.train import main as train_main
from trainer.world import free_port

ROOT = Path(__file__).parents[2]


def test_a_killed_worker_costs_no_run(cached, tmp_path, monkeypatch, caplog):
    run = run_of(cached, tmp_path / "killed", "max_steps=8", "data.workers=2", "data.prefetch=1")
    step = run.step

    def kill_once(number, packs, **options):
        if number == 3:
            worker = next(p for p in psutil.Process().children() if "python" in p.name() or "pt_data" in p.name())
            os.kill(worker.pid, signal.SIGKILL)
        return step(number, packs, **options)

    run.step = kill_once
    assert run.train() == 0
    assert "starts again at this step" in caplog.text
    twin = run_of(cached, tmp_path / "whole", "max_steps=8")
    assert twin.train() == 0
    orders = [[row["data/order_crc32"] for row in rows_of(tmp_path / name)] for name in ("killed", "whole")]
    assert orders[0] == orders[1]


@pytest.mark.parametrize(
    "broken",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        EOFError("planted"),
        RuntimeError("DataLoader timed out after 600 seconds"),
    ],
)
def test_a_worker_that_dies_as_its_pack_is_fetched_costs_no_run(cached, tmp_path, caplog, broken):
    """Its pack is asked for while it dies: the line to it breaks before torch calls it dead."""
    run = run_of(cached, tmp_path, "max_steps=4")
    micro, failed = run.course.micro, []

    def breaks():
        failed.append(True)
        raise broken
        yield

    def micro_of(step):
        if step == 2 and not failed:
            run.course.packs = breaks()
        return micro(step)

    run.course.micro = micro_of
    assert run.train() == 0
    assert failed
    assert "step 2: a worker is lost" in caplog.text


def test_a_full_disk_is_named_and_training_goes_on(cached, tmp_path, monkeypatch, caplog):
    """The second save meets a full disk, the third does not: the run ends well."""
    real, calls = checkpoint._write_manifest, []

    def full_once(folder):
        calls.append(folder)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(folder)

    monkeypatch.setattr(checkpoint, "_write_manifest", full_once)
    assert run_of(cached, tmp_path, "max_steps=9", "checkpoint.every=3", "checkpoint.keep=9").train() == 0
    assert "No space left" in caplog.text
    assert (tmp_path / "model" / "config.json").exists()
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == ["step_00000003", "step_00000009"]
    assert not list(tmp_path.glob(".step_*"))


def test_a_disk_that_stays_full_ends_the_run_with_a_word(cached, tmp_path, monkeypatch, capsys):
    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write_manifest", full)
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}", "eval.every=0", "max_steps=2"]
    assert train_main(settings) == 1
    error = capsys.readouterr().err
    assert "No space left" in error
    assert "start again" in error


def listens(pid, number):
    """Whether a process has a handler for a signal, by the kernel's word."""
    (line,) = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigCgt:")]
    return int(line.split()[1], 16) >> (number - 1) & 1


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("training", signal.SIGTERM),
        pytest.param("start-up", signal.SIGUSR1, marks=pytest.mark.slow),
        pytest.param("training", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("start-up", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("training", signal.SIGUSR1, marks=pytest.mark.slow),
        pytest.param("training", signal.SIGHUP, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_signal_at_any_time_ends_with_its_own_code(cached, tmp_path, number, moment):
    """At start-up, as soon as the trainer's own code runs, and in mid-training: exit code 75, and a checkpoint where
    there is something to save. All processes hear it, as they do from a terminal and from some schedulers: the loader's
    go on to the step's end."""
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}", "eval.every=0", "data.workers=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trainer.train", *settings, "max_steps=4000", "checkpoint.every=3000"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        start_new_session=True, preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    try:
        log = tmp_path / "training_log.csv"
        until = time.monotonic() + 100
        while not (log.exists() if moment == "training" else listens(process.pid, number)):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        # SIGTERM is meant to end a child that hears it.
        (process.send_signal if number == signal.SIGTERM else partial(os.killpg, process.pid))(number)
        text, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == STOPPED, text
    if moment == "training":
        (saved,) = checkpoint.list_checkpoints(tmp_path)
        checkpoint.verify(saved)
        assert "start again with the same command" in text
        assert "DataLoader worker" not in text


def test_a_second_interrupt_does_not_wait():
    with StopRequest().listen() as stop:
        stop.training = True
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("before", "heard"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_terminal_that_goes_is_heard_unless_nohup_made_the_run_deaf(before, heard):
    """A shell whose connection is lost sends it to every process of its job: the run ended with nothing saved."""
    ours = signal.signal(signal.SIGHUP, before)
    try:
        with StopRequest().listen() as stop:
            stop.training = True
            if listens(os.getpid(), signal.SIGHUP) or not heard:  # else it would end the tests
                signal.raise_signal(signal.SIGHUP)
            assert stop.asked == heard
        assert signal.getsignal(signal.SIGHUP) == before
    finally:
        signal.signal(signal.SIGHUP, ours)


def test_children_are_deaf_while_the_run_listens_and_not_after():
    """In a notebook whose training is over, a pool's workers heard no Ctrl-C."""
    script = (
        "import os, signal\n"
        "from trainer.stop import StopRequest\n"
        "def deaf():\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os._exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)\n"
        "    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "with StopRequest().listen():\n"
        "    during = deaf()\n"
        "print(during, deaf())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "1 0\n", done.stderr


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_has_died(cached, tmp_path):
    """Killed outright, the first one leaves no lock behind, though its loader's workers may outlive it."""
    command = [
        sys.executable, "-m", "trainer.train", *SMALL, f"data.path={cached}", f"output={tmp_path}", "data.workers=1",
        "max_steps=100000", "log.every=1",
    ]  # fmt: skip
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (tmp_path / "training_log.csv").exists():
            assert first.poll() is None
            time.sleep(0.2)
        with pytest.raises(ConfigError, match=rf"another run trains there \(process {first.pid} on"):
            run_of(cached, tmp_path, "max_steps=1").train()
    finally:
        first.kill()
        first.wait()
    assert run_of(cached, tmp_path, "max_steps=1", "resume=never").train() == 0


@pytest.mark.parametrize("apart", [False, True])
def test_a_folder_that_another_machine_does_not_see_is_refused(tmp_path, monkeypatch, apart):
    """A relative output, each machine with a checkout of its own: it trained on until, after half an hour, the first
    process took the others for lost."""
    monkeypatch.setattr("trainer.lock.broadcast_object_list", lambda told: told)
    monkeypatch.setattr("trainer.lock.gather_object", lambda mine: [*mine, "machine-2" if apart else None])
    two = SimpleNamespace(is_main_process=True, num_processes=2)
    with pytest.raises(ConfigError, match="on machine-2 it is another folder") if apart else nullcontext():
        assert lock_output(tmp_path, two).name == str(tmp_path / ".lock")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.slow
def test_two_machines_with_a_folder_each_are_refused_by_both(cached, tmp_path):
    settings = [*SMALL, f"data.path={cached}", "output=run", "timeout_minutes=1"]
    world = environment() | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = []
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "trainer.train", *settings],
                cwd=tmp_path / rank,
                stderr=subprocess.PIPE,
                text=True,
                env=world | {"RANK": rank, "LOCAL_RANK": "0", "PYTHONPATH": str(ROOT)},
            )
        )
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "it is another folder than the first process's" in errors
