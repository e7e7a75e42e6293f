"""Trackers, through real runs: one wandb run over two processes and over a resume; failing ones stop nothing."""

import contextlib
import csv
import fcntl
import json
import os
import pty
import resource
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
import wandb
from accelerate import PartialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from tests.trainer.conftest import SMALL
from trainer import tracking
from trainer.config import LogConfig, load_config
from trainer.loop import Run
from trainer.metrics import Meter, Profiler
from trainer.tracking import Trackers
from trainer.training_log import CsvLog
from trainer.world import free_port

ROOT = Path(__file__).parents[2]
SHORT = [*SMALL, "eval.every=0", "log.every=1", "log.wandb=true", "log.tensorboard=true"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    PartialState()  # accelerate's trackers log by it; a run makes it, and not every test here has one


def log_records(content):
    """Records of wandb's file: 7 bytes, then LevelDB's log format (blocks of 32 KiB; a record may span several)."""
    at, held = 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)  # checksum, length, 1 whole 2 first 3 middle 4 last
        held += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield held
            held = b""


def wandb_records(output, wait_s=20):
    """Per offline folder under a run's output: (run id, steps logged, the configuration's top keys). wandb's service
    writes on after it has said that it is done: each file's last record is waited for."""
    found, complete = [], True
    for path in sorted((output / "wandb").glob("offline-run-*/run-*.wandb")):
        run_id, steps, keys, ended = None, [], set(), False
        for data in log_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                run_id = record.run.run_id
                keys |= {update.key for update in record.run.config.update}
            keys |= {update.key for update in record.config.update}
            ended |= record.HasField("exit")
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                if name == "step":
                    steps.append(int(json.loads(item.value_json)))
        found.append((run_id, steps, keys))
        complete &= ended
    if complete or wait_s <= 0:
        return found
    time.sleep(0.1)
    return wandb_records(output, wait_s - 0.1)


def test_a_resumed_run_keeps_its_id_and_goes_on_in_steps(cached, tmp_path):
    output = tmp_path / "run"
    settings = [*SHORT, f"data.path={cached}", f"output={output}", "cost.dollars_per_hour=3600"]
    assert Run(load_config(None, [*settings, "max_steps=4"])).train() == 0
    assert Run(load_config(None, [*settings, "max_steps=7"])).train() == 0
    (first, steps, keys), (second, more, _) = wandb_records(output)
    assert first == second == json.loads((output / "wandb_run.json").read_text())["id"]
    assert (steps, more) == ([1, 2, 3, 4], [5, 6, 7])
    assert {"config", "commit", "data", "system", "versions"} <= keys
    events = EventAccumulator(str(output / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss/total")] == list(range(1, 8))
    with open(output / "training_log.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    hours = [float(row["time/hours"]) for row in rows]
    assert hours == sorted(hours)
    assert hours[4] > hours[3] > 0
    assert [float(row["cost/dollars"]) for row in rows] == pytest.approx([3600 * h for h in hours])
    about = json.loads((output / "about.json").read_text())
    assert sum(about["data"]["formats"].values()) == about["data"]["battles"] > 50
    assert about["system"]["processes"] == 1


def test_a_run_from_the_start_gets_an_id_of_its_own(cached, tmp_path):
    settings = [*SHORT, f"data.path={cached}", f"output={tmp_path}", "max_steps=1", "resume=never"]
    for _ in range(2):
        assert Run(load_config(None, settings)).train() == 0
    assert len({run_id for run_id, _, _ in wandb_records(tmp_path)}) == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_are_one_run_with_each_step_once(cached, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    command = [sys.executable, *launcher, "-m", "trainer.train"]
    settings = [*SHORT, f"data.path={cached}", f"output={tmp_path}", "max_steps=3", "processes=2"]
    done = subprocess.run(
        [*command, *settings], cwd=ROOT, capture_output=True, text=True, timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    ((_, steps, _),) = wandb_records(tmp_path)
    assert steps == [1, 2, 3]


@pytest.mark.slow
def test_a_server_that_is_not_there_turns_wandb_offline(cached, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(tracking, "WANDB_SECONDS", 3)
    wandb.teardown()  # it reads its environment once
    settings = [*SHORT, f"data.path={cached}", f"output={tmp_path}", "max_steps=2"]
    assert Run(load_config(None, settings)).train() == 0
    assert "goes on offline" in caplog.text
    ((_, steps, _),) = wandb_records(tmp_path)
    assert steps == [1, 2]


def test_a_netrc_for_other_hosts_is_no_sign_in(tmp_path, monkeypatch, caplog):
    """Taken for one, it had wandb ask on a terminal who is there, and the run wait for an answer."""
    (tmp_path / ".netrc").write_text("machine example.com login me password none\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    wandb.teardown()  # it reads its environment once
    trackers = Trackers(LogConfig(wandb=True), tmp_path, 0, {})
    assert list(trackers.active) == ["wandb"]
    assert "not reached" not in caplog.text
    trackers.finish()
    wandb.teardown()


@pytest.mark.slow
def test_who_has_a_key_starts_online_however_slowly_its_server_proves_it(tmp_path, monkeypatch):
    """Signing in is given ten seconds by wandb, its start a minute by us."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free_port()}")
    started = []
    monkeypatch.setattr(tracking, "WandBTracker", lambda *_, mode, **__: started.append(mode) or MagicMock())
    wandb.teardown()  # it reads its environment once
    Trackers(LogConfig(wandb=True), tmp_path, 0, {})
    wandb.teardown()
    assert started == ["online"]


def test_a_tracker_that_cannot_start_is_left_out(cached, tmp_path, caplog):
    (tmp_path / "tensorboard").write_text("a file where its folder should be")
    settings = [*SHORT, f"data.path={cached}", f"output={tmp_path}", "max_steps=2"]
    assert Run(load_config(None, settings)).train() == 0
    assert "tensorboard failed to start" in caplog.text
    assert len(wandb_records(tmp_path)[0][1]) == 2
    assert len((tmp_path / "training_log.csv").read_text().splitlines()) == 3


def test_a_tracker_that_fails_midway_is_left_out(tmp_path, caplog):
    trackers = Trackers(LogConfig(wandb=True, tensorboard=True), tmp_path, 0, {"commit": "abc"})
    trackers.log({"loss/total": 1.0}, 1)
    wandb.finish()  # as a crash of its service would: the run does not take rows any more
    for step in (2, 3):
        trackers.log({"loss/total": 0.5}, step)
    assert caplog.text.count("wandb failed to log") == 1
    assert list(trackers.active) == ["tensorboard"]
    trackers.finish()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss/total")] == [1, 2, 3]


def test_rows_written_again_after_going_back_are_kept(tmp_path):
    trackers = Trackers(LogConfig(wandb=True), tmp_path, 0, {"commit": "abc"})
    steps = [1, 2, 3, 2, 3, 4]
    for step in steps:
        trackers.log({"step": step, "loss/total": 1.0}, step)
    trackers.finish()
    ((_, logged, _),) = wandb_records(tmp_path)
    assert logged == steps


def test_hours_before_a_resume_count_and_those_of_a_new_run_do_not(tmp_path):
    path = tmp_path / "training_log.csv"
    path.write_text("step,time/hours\n10,1.5\n20,2.5\n")
    assert CsvLog(path, 10).hours == 2.5  # the ten steps that are done again were paid for
    assert path.read_text().splitlines() == ["step,time/hours", "10,1.5"]
    path.write_text("step,time/hours\n10,1.5\n")
    assert CsvLog(path, 0).hours == 0.0
    row = Meter(2.5, 4.0).row()
    assert row["cost/dollars"] == pytest.approx(4 * row["time/hours"])
    assert row["time/hours"] == pytest.approx(2.5, abs=0.01)


@contextlib.contextmanager
def room_for(size):
    """As on a disk that is full: a file can grow to `size` bytes and no further."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_rows_and_neither_the_run_nor_the_log(tmp_path, caplog):
    path = tmp_path / "training_log.csv"
    log = CsvLog(path, 0)
    log.write({"step": 10, "time/hours": 1.5})
    whole = path.read_bytes()
    with room_for(len(whole) + 3):  # half a row
        log.write({"step": 20, "time/hours": 2.5})
        log.write({"step": 30, "time/hours": 3.5, "heldout/nll": 2.25})  # a column that the file lacks
    assert path.read_bytes() == whole
    assert caplog.text.count(f"{path}: a row could not be written") == 2
    log.write({"step": 40, "time/hours": 4.5, "heldout/nll": 1.25})
    log.write({"step": 50, "time/hours": 5.5})
    assert path.read_text().splitlines() == ["step,time/hours,heldout/nll", "10,1.5,", "40,4.5,1.25", "50,5.5,"]


def test_a_row_cut_by_a_kill_is_dropped_and_hours_stay(tmp_path):
    path = tmp_path / "training_log.csv"
    path.write_text("step,time/hours\r\n10,10.0\r\n10,1")
    log = CsvLog(path, 10)
    assert log.hours == 10.0
    log.write({"step": 20, "time/hours": 11.0})
    assert path.read_text().splitlines() == ["step,time/hours", "10,10.0", "20,11.0"]


def test_a_resume_writes_no_row_again(tmp_path):
    """Rows are cut off at the end, so that a kill or a full disk finds the rows before them as they were."""
    path = tmp_path / "training_log.csv"
    path.write_text("step,time/hours\r\n" + "".join(f"{step},{step}.5\r\n" for step in range(1, 11)))
    with room_for(0):
        CsvLog(path, 9)
    assert [row.split(",")[0] for row in path.read_text().splitlines()[1:]] == [str(step) for step in range(1, 10)]


@pytest.mark.parametrize(("asked", "additions"), [(2, 2), (9, 4)])
def test_the_steps_after_the_first_are_profiled(tmp_path, asked, additions):
    """As many as were asked for, or as there are."""
    profiler = Profiler(asked, tmp_path)
    for index in range(5):
        profiler.step_begins(index)
        torch.add(torch.ones(2), 1)
    profiler.close()
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event["name"] == "aten::add" for event in events) == additions
    assert "aten::add" in (tmp_path / "table.txt").read_text()


@pytest.mark.slow
def test_a_terminal_shows_one_bar_that_log_lines_pass_above(cached, tmp_path):
    quiet = [setting for setting in SMALL if setting != "log.progress=false"]
    settings = [
        *quiet, f"data.path={cached}", f"output={tmp_path}", "max_steps=5", "log.every=1", "eval.every=2",
        "cost.dollars_per_hour=2.5",
    ]  # fmt: skip
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer.train", *settings],
        cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 65536):
            text += chunk
    except OSError:  # how a terminal tells that its other side is closed
        pass
    assert process.wait(60) == 0, text
    written = text.decode()
    bars = [part for part in written.replace("\n", "\r").split("\r") if "step/s" in part or "s/step" in part]
    assert "5/5" in bars[-1]
    assert "spent=$0.0" in bars[-1]
    # As a terminal shows it: a carriage return goes back to the line's start, and what follows is written over it.
    shown = []
    for line in written.replace("\r\n", "\n").replace("\x1b[A", "").split("\n"):
        held = ""
        for part in line.split("\r"):
            held = part + held[len(part) :]
        shown.append(held.rstrip())
    assert sum("step/s" in line or "s/step" in line for line in shown) == 1, shown
    assert sum(line.startswith("step ") and "held-out NLL" in line for line in shown) == 3, shown
