"""Planted faults in one process: batches of NaN, spikes, a killed loader worker, a full disk, signals, old files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tests.trainer.conftest import SMALL
from tests.trainer.planted import plant
from tests.trainer.test_run import rows_of
from trainer import checkpoint, course, guard, loop, losses
from trainer.config import ConfigError, load_config
from trainer.guard import GuardConfig, SkipLedger, SpikeGuard, TooManySkipsError
from trainer.loop import Run
from trainer.state import gather
from trainer.stop import STOPPED, StopRequest
from trainer.train import main as train_main

ROOT = Path(__file__).parents[2]


def run_of(battles, output, *settings):
    common = [*SMALL, f"data.path={battles}", f"output={output}", "eval.every=0", "log.every=1"]
    return Run(load_config(None, [*common, *settings]))


def plant_in(monkeypatch, is_bad, name="numbers", value=torch.nan):
    monkeypatch.setattr(course, "make_loader", plant(course.make_loader, is_bad, name, value))


def test_batches_of_nan_are_skipped_counted_and_written_down(battles, tmp_path, monkeypatch, caplog):
    plant_in(monkeypatch, lambda place: place in (2, 3, 6))
    run = run_of(battles, tmp_path, "max_steps=9", "checkpoint.every=3")
    before = None
    step = run.step

    def watched(number, packs, **options):
        nonlocal before
        parameters = [p.detach().clone() for p in run.objective.network.parameters()]
        metrics = step(number, packs, **options)
        same = all(torch.equal(a, b) for a, b in zip(parameters, run.objective.network.parameters(), strict=True))
        assert same == (number in (2, 3, 6))
        return metrics

    run.step = watched
    assert run.train() == 0
    rows = {int(row["step"]): float(row["optim/skipped"]) for row in rows_of(tmp_path)}
    assert [step for step, skipped in rows.items() if skipped] == [3, 4, 7]
    noted = [json.loads(line) for line in (tmp_path / "skipped_batches.jsonl").read_text().splitlines()]
    assert [line["step"] for line in noted] == [3, 4, 7]
    assert "does not tell actions apart" not in caplog.text
    assert all(Path(battle["file"]).exists() for line in noted for battle in line["battles"])
    state, _ = checkpoint.read(checkpoint.step_folder(tmp_path, 9))
    assert state.updates == 6
    assert all(value.isfinite().all() for value in state.network.values())


def test_a_step_without_a_recorded_action_leaves_the_critics_scale_as_it_is(battles, tmp_path, monkeypatch):
    """It has no target; the mean of none was taken for one of 0."""
    plant_in(monkeypatch, lambda place: place == 1, "action_known", False)
    run = run_of(battles, tmp_path, "max_steps=3", "model.value_head=scalar", "objective.popart_rate=0.5")
    step, popart, moved = run.step, run.objective.network.popart, []

    def watched(number, packs, **options):
        before = popart.second.clone()
        metrics = step(number, packs, **options)
        moved.append(not torch.equal(before, popart.second))
        return metrics

    run.step = watched
    assert run.train() == 0
    assert moved == [True, False, True]


def test_a_note_of_skipped_battles_that_finds_no_room_costs_no_run(tmp_path, caplog):
    (tmp_path / guard.LOG).mkdir()  # cannot be written, as on a full disk
    ledger = SkipLedger(tmp_path, GuardConfig(), 0, lambda row: f"battle {row}")
    ledger.note(3, torch.tensor(1.0), [{"windows": torch.tensor([[0, 0, 5]])}])
    assert ledger.take() == [3]
    assert "a row could not be written" in caplog.text


def test_too_many_in_a_row_go_back_once_and_on_with_other_data(battles, tmp_path, monkeypatch):
    plant_in(monkeypatch, lambda place: 6 <= place < 26)
    run = run_of(battles, tmp_path, "max_steps=30", "checkpoint.every=4")
    assert run.train() == 0
    # Twenty bad ones from position 6 on, found at 26; back to step 4.
    assert run.course.drawn(30)[0].packs == 30 + 26 - 4
    assert [int(row["step"]) for row in rows_of(tmp_path)] == list(range(1, 31))
    assert not any(float(row["optim/skipped"]) for row in rows_of(tmp_path))
    _, saved = checkpoint.read(checkpoint.step_folder(tmp_path, 30))
    assert [packs for packs, *_ in saved["drawn"]] == [52]


def test_too_many_again_stop_the_run_with_a_word(battles, tmp_path, monkeypatch, capsys):
    plant_in(monkeypatch, lambda place: place >= 6)
    settings = [*SMALL, f"data.path={battles}", f"output={tmp_path}", "eval.every=0", "log.every=1", "max_steps=60"]
    assert train_main([*settings, "checkpoint.every=4"]) == 1
    error = capsys.readouterr().err
    assert "skipped_batches.jsonl" in error
    assert "once more" in error
    assert checkpoint.newest_valid(tmp_path) is not None


def test_without_a_checkpoint_to_go_back_to_it_stops(battles, tmp_path, monkeypatch):
    plant_in(monkeypatch, lambda place: True)
    run = run_of(battles, tmp_path, "max_steps=60", "checkpoint.every=50", "guard.skips_in_a_row=5")
    with pytest.raises(TooManySkipsError, match="no checkpoint"):
        run.train()


def stopped_in_a_stretch(battles, output, *settings):
    """A run that is told to stop at step 10, four skipped updates behind it, and the same run started again."""
    run = run_of(battles, output, "max_steps=40", "checkpoint.every=4", *settings)
    step = run.step

    def stopping(number, packs, **options):
        run.stop.asked = number == 9
        return step(number, packs, **options)

    run.step = stopping
    assert run.train() == STOPPED
    run.lock.close()
    return run_of(battles, output, "max_steps=40", "checkpoint.every=4", *settings)


def test_a_stop_in_a_stretch_of_skips_leaves_the_way_back(battles, tmp_path, monkeypatch):
    """With one checkpoint kept: that of the stop takes the place of none, and is no newest one after going back."""
    plant_in(monkeypatch, lambda place: 6 <= place < 26)
    assert stopped_in_a_stretch(battles, tmp_path, "checkpoint.keep=1").train() == 0
    assert [int(row["step"]) for row in rows_of(tmp_path)] == list(range(1, 41))
    assert [folder.name for folder in checkpoint.list_checkpoints(tmp_path)] == ["step_00000040"]
    assert (tmp_path / "before_1" / "step_00000010").exists()


def test_time_left_is_told_after_going_back_behind_the_start(battles, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    plant_in(monkeypatch, lambda place: 6 <= place < 26)
    assert stopped_in_a_stretch(battles, tmp_path, "log.progress=true").train() == 0
    told = [record.getMessage() for record in caplog.records if " left" in record.getMessage()]
    assert any(text.startswith("step 10/40 loss ") for text in told)
    assert not [text for text in told if ", -" in text]


def test_going_back_needs_no_newer_checkpoint_that_failed(battles, tmp_path, monkeypatch):
    plant_in(monkeypatch, lambda place: 9 <= place < 29)
    write = checkpoint.write

    def full(output, step, *rest):
        if step == 8:
            raise OSError(28, "No space left on device")
        return write(output, step, *rest)

    monkeypatch.setattr(checkpoint, "write", full)
    run = run_of(battles, tmp_path, "max_steps=30", "checkpoint.every=4")
    assert run.train() == 0
    assert run.course.drawn(30)[0].packs == 30 + 29 - 4


def test_spike_guard_against_a_plain_loop():
    """Mean and variance of logarithms, each with its own count; a spike is left out of both."""
    config = GuardConfig(spike=4.0, spike_memory=20)
    guard = SpikeGuard(config, torch.device("cpu"))
    rng = np.random.default_rng(0)
    mean = variance = count = 0.0
    found = 0
    for i in range(200):
        value = float(np.exp(rng.normal(0, 0.1) + (3.0 if i in (50, 120) else 0.0)))
        spike = count >= 20 and np.log(value) > mean + 4.0 * max(np.sqrt(variance), 1e-3)
        assert guard.is_spike(torch.tensor(value), 0).item() == spike, i
        found += spike
        if not spike:
            rate = 1.0 / min(count + 1, 20)
            delta = np.log(np.float64(np.float32(value))) - mean
            mean, variance, count = mean + rate * delta, (1 - rate) * (variance + rate * delta**2), count + 1
        assert guard.state[0, 0].item() == pytest.approx(mean, abs=1e-6)
    assert found >= 2
    assert guard.is_spike(torch.tensor(torch.nan), 0) == 0  # the finite check's business
    assert guard.state.isfinite().all()


def test_a_spiking_batch_is_skipped(battles, tmp_path, monkeypatch):
    plant_in(monkeypatch, lambda place: place == 12, "reward", 1e5)
    settings = ["max_steps=14", "guard.spike=8", "guard.spike_memory=8", "model.value_head=scalar"]
    run = run_of(battles, tmp_path, *settings)
    assert run.train() == 0
    assert [int(row["step"]) for row in rows_of(tmp_path) if float(row["optim/skipped"])] == [13]
    _, saved = checkpoint.read(checkpoint.step_folder(tmp_path, 14))
    assert np.asarray(saved["spikes"])[2].tolist() == [13, 13]


def test_a_filter_that_comes_on_and_another_objective_are_no_spikes(battles, tmp_path, monkeypatch):
    """Each makes the loss several times what it was, for good: no step of it is measured by those before."""
    monkeypatch.setattr(losses, "filter_weight", lambda kind, advantage, *_: torch.full_like(advantage, 9.0))
    settings = ["guard.spike=6", "guard.spike_memory=4", "objective.filter_warmup=6"]
    assert run_of(battles, tmp_path, *settings, "max_steps=10").train() == 0
    other = run_of(battles, tmp_path, *settings, "max_steps=11", "objective.critic_weight=100")
    assert other.train() == 0
    rows = rows_of(tmp_path)
    assert other.spikes.state[2].tolist() == [1, 1]
    other._load(checkpoint.step_folder(tmp_path, 10))  # as where it goes back
    assert not other.spikes.state.any()
    assert [float(row["optim/skipped"]) for row in rows] == [0.0] * 11
    assert float(rows[6]["loss/policy"]) > 4 * float(rows[5]["loss/policy"])


def test_a_loss_is_judged_by_its_positive_terms(battles, tmp_path, monkeypatch):
    """MaxQ takes values off the loss: below 0 it has no logarithm, and the first loss above 0 were a spike."""
    judged, real = [], SpikeGuard.is_spike

    def noted(guard, value, which):
        if which == 0:
            judged.append(value.item())
        return real(guard, value, which)

    monkeypatch.setattr(SpikeGuard, "is_spike", noted)
    maxq = ["objective.maxq_weight=1.0e6", "objective.filter_warmup=0", "objective.critic_weight=0.5"]
    assert run_of(battles, tmp_path, "max_steps=4", "guard.spike=6", *maxq).train() == 0
    rows = rows_of(tmp_path)
    parts = [float(row["loss/policy"]) + 0.5 * float(row["loss/critic"]) for row in rows]
    assert judged == pytest.approx(parts)
    assert max(abs(float(row["loss/total"]) - part) for row, part in zip(rows, parts, strict=True)) > 0.1


@pytest.mark.parametrize("settings", [["guard.spike=-1"], ["guard.skips_in_a_row=0"], ["guard.spikes=3"]])
def test_bad_guards_are_refused(settings):
    with pytest.raises(ValueError, match="guard"):
        load_config(None, settings)


def test_a_killed_worker_costs_no_run(battles, tmp_path, monkeypatch, caplog):
    run = run_of(battles, tmp_path / "killed", "max_steps=8", "data.workers=2", "data.prefetch=1")
    step = run.step

    def kill_once(number, packs, **options):
        if number == 3:
            worker = next(p for p in psutil.Process().children() if "python" in p.name() or "pt_data" in p.name())
            os.kill(worker.pid, signal.SIGKILL)
        return step(number, packs, **options)

    run.step = kill_once
    assert run.train() == 0
    assert "starts again at this step" in caplog.text
    twin = run_of(battles, tmp_path / "whole", "max_steps=8")
    assert twin.train() == 0
    orders = [[row["data/order_crc32"] for row in rows_of(tmp_path / name)] for name in ("killed", "whole")]
    assert orders[0] == orders[1]


@pytest.mark.parametrize("broken", [ConnectionResetError(104, "Connection reset by peer"), EOFError("planted")])
def test_a_worker_that_dies_as_its_pack_is_fetched_costs_no_run(battles, tmp_path, caplog, broken):
    """Its pack is asked for while it dies: the line to it breaks before torch calls it dead."""
    run = run_of(battles, tmp_path, "max_steps=4")
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


def test_a_full_disk_is_named_and_training_goes_on(battles, tmp_path, monkeypatch, caplog):
    """The second save meets a full disk, the third does not: the run ends well."""
    real, calls = checkpoint._write_manifest, []

    def full_once(folder):
        calls.append(folder)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(folder)

    monkeypatch.setattr(checkpoint, "_write_manifest", full_once)
    assert run_of(battles, tmp_path, "max_steps=9", "checkpoint.every=3", "checkpoint.keep=9").train() == 0
    assert "No space left" in caplog.text
    assert (tmp_path / "model" / "config.json").exists()
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == ["step_00000003", "step_00000009"]
    assert not list(tmp_path.glob(".step_*"))


def test_a_disk_that_stays_full_ends_the_run_with_a_word(battles, tmp_path, monkeypatch, capsys):
    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write_manifest", full)
    settings = [*SMALL, f"data.path={battles}", f"output={tmp_path}", "eval.every=0", "max_steps=2"]
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
    ],
)  # fmt: skip
def test_a_signal_at_any_time_ends_with_its_own_code(battles, tmp_path, number, moment):
    """At start-up, as soon as the trainer's own code runs, and in mid-training: exit code 75, and a checkpoint where
    there is something to save. All processes hear it, as they do from a terminal and from some schedulers: the loader's
    go on to the step's end."""
    settings = [*SMALL, f"data.path={battles}", f"output={tmp_path}", "eval.every=0", "data.workers=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trainer.train", *settings, "max_steps=4000", "checkpoint.every=3000"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        start_new_session=True,
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


def test_command_line_of_checkpoints(trained, tmp_path, capsys):
    assert checkpoint.main(["verify", str(trained)]) == 0
    assert checkpoint.main(["inspect", str(trained)]) == 0
    text = capsys.readouterr().out
    assert "step 120" in text
    assert f"schema {checkpoint.SCHEMA}" in text
    assert checkpoint.main(["export", str(trained), "--to", str(tmp_path / "out" / "agent")]) == 0
    checkpoint.load_network(tmp_path / "out" / "agent")
    # The run's own agent, which need not be its newest checkpoint's, with all that it needs.
    ours = {path.name: path.read_bytes() for path in (trained / "model").iterdir() if path.is_file()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "agent").iterdir() if path.is_file()} == ours
    assert "calibration.json" in ours
    modes = {path.stat().st_mode for path in (trained / "model").iterdir() if path.is_file()}
    assert len(modes) == 1
    starter = str(ROOT / "battle" / "starter")
    assert checkpoint.main(["export", starter, "--to", str(tmp_path / "starter")]) == 0
    assert {"agents.py", "modeling_turnwise.py", "model.safetensors"} <= {
        p.name for p in (tmp_path / "starter").iterdir()
    }
    # Nothing but an agent gives way to one.
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    shutil.copytree(trained, tmp_path / "run")
    capsys.readouterr()
    for place, words in (("full", "thesis.txt"), ("run", ".lock"), ("full/thesis.txt", "is a file")):
        assert checkpoint.main(["export", str(trained), "--to", str(tmp_path / place)]) == 1
        assert words in capsys.readouterr().err
    assert (tmp_path / "full" / "thesis.txt").exists()
    assert len(checkpoint.list_checkpoints(tmp_path / "run")) == 2
    assert checkpoint.main(["export", str(trained), "--to", str(tmp_path / "starter")]) == 0
    victim = checkpoint.list_checkpoints(tmp_path / "run")[0] / "targets.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1])
    assert checkpoint.main(["verify", str(tmp_path / "run")]) == 1
    assert "targets.safetensors" in capsys.readouterr().out
    assert checkpoint.main(["inspect", str(tmp_path)]) == 1
    assert "no checkpoint here" in capsys.readouterr().err


def test_an_earlier_schema_is_read(battles, tmp_path):
    """Schema 1 kept the optimizer's numbered state in optimizer.pt, and under DeepSpeed its shards."""
    run = run_of(battles, tmp_path / "run", "max_steps=4", "checkpoint.every=2")
    assert run.train() == 0
    folder = checkpoint.step_folder(tmp_path / "run", 4)
    expected = gather(run.accelerator, run.module, run.objective, run.optimizer)
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    (old / "optimizer.safetensors").unlink()
    torch.save(run.optimizer.state_dict(), old / "optimizer.pt")
    settings = json.loads((old / "run.json").read_text()) | {"schema": 1, "best": 1.25}
    (old / "run.json").write_text(json.dumps(settings))
    (old / "manifest.json").unlink()
    checkpoint._write_manifest(old)
    state, _ = checkpoint.read(old)
    assert state.updates == expected.updates == 4
    assert state.moments.keys() == expected.moments.keys()
    assert all(torch.equal(state.moments[name], expected.moments[name]) for name in expected.moments)
    (old / "deepspeed").mkdir()
    with pytest.raises(checkpoint.CheckpointError, match="init_from"):
        checkpoint.read(old)
    (folder / "run.json").write_text(json.dumps(settings | {"schema": 99}))
    (folder / "manifest.json").unlink()
    checkpoint._write_manifest(folder)
    with pytest.raises(checkpoint.CheckpointError, match="later version"):
        checkpoint.read(folder)


def test_another_network_is_refused_by_name(battles, tmp_path, capsys):
    assert run_of(battles, tmp_path, "max_steps=2").train() == 0
    settings = [*SMALL, f"data.path={battles}", f"output={tmp_path}", "max_steps=4", "model.num_layers=1"]
    assert train_main(settings) == 1
    assert "model" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["never written", "damaged"])
def test_a_best_checkpoint_that_cannot_be_taken_gives_way_to_the_newest(battles, tmp_path, monkeypatch, caplog, fault):
    """The first evaluation's checkpoint meets a full disk, or a spoilt one, and no later one is better."""
    real = checkpoint._write_manifest

    def fault_at_3(folder):
        if "step_00000003" in folder.name and fault == "never written":
            raise OSError(28, "No space left on device")
        real(folder)
        if "step_00000003" in folder.name:
            (folder / "targets.safetensors").write_bytes(b"")

    monkeypatch.setattr(checkpoint, "_write_manifest", fault_at_3)
    run = run_of(battles, tmp_path, "max_steps=6", "eval.every=3", "eval.choose=likelihood")
    monkeypatch.setattr(loop, "quick_score", lambda *_: {"heldout/nll": run.step_done * 1.0, "heldout/accuracy": 0.0})
    assert run.train() == 0
    assert "the best checkpoint cannot be taken" in caplog.text
    assert (tmp_path / "model" / "config.json").exists()


@pytest.mark.parametrize(("choice", "step"), [("last", 4), ("likelihood", 2)])
def test_the_agent_is_the_chosen_checkpoint(battles, tmp_path, monkeypatch, choice, step):
    """Held-out likelihood is at its best at step 2, as where a filter turns from the players at step 3."""
    run = run_of(battles, tmp_path, "max_steps=4", "eval.every=2", f"eval.choose={choice}")
    monkeypatch.setattr(loop, "quick_score", lambda *_: {"heldout/nll": run.step_done * 1.0, "heldout/accuracy": 0.0})
    assert run.train() == 0
    chosen = checkpoint.step_folder(tmp_path, step) / "model" / "model.safetensors"
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == chosen.read_bytes()


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_has_died(battles, tmp_path):
    """Killed outright, the first one leaves no lock behind, though its loader's workers may outlive it."""
    command = [
        sys.executable, "-m", "trainer.train", *SMALL, f"data.path={battles}", f"output={tmp_path}", "data.workers=1",
        "max_steps=100000", "log.every=1",
    ]  # fmt: skip
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (tmp_path / "training_log.csv").exists():
            assert first.poll() is None
            time.sleep(0.2)
        with pytest.raises(ConfigError, match=rf"another run trains there \(process {first.pid} on"):
            run_of(battles, tmp_path, "max_steps=1").train()
    finally:
        first.kill()
        first.wait()
    assert run_of(battles, tmp_path, "max_steps=1", "resume=never").train() == 0
