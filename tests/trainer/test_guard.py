"""Batches of NaN, spikes, steps without an action: skipped, counted, and gone back from."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from tests.trainer.conftest import SMALL, rows_of, run_of
from tests.trainer.planted import plant_in
from trainer import checkpoint, guard, losses
from trainer.config import load_config
from trainer.guard import GuardConfig, SkipLedger, SpikeGuard, TooManySkipsError
from trainer.stop import STOPPED
from trainer.train import main as train_main


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


def test_a_step_without_a_recorded_action_leaves_the_critics_scale_as_it_is(cached, tmp_path, monkeypatch):
    """It has no target; the mean of none was taken for one of 0."""
    plant_in(monkeypatch, lambda place: place == 1, "action_known", False)
    run = run_of(cached, tmp_path, "max_steps=3", "model.value_head=scalar", "objective.popart_rate=0.5")
    step, popart, moved = run.step, run.objective.network.popart, []

    def watched(number, packs, **options):
        before = popart.second.clone()
        metrics = step(number, packs, **options)
        moved.append(not torch.equal(before, popart.second))
        return metrics

    run.step = watched
    assert run.train() == 0
    assert moved == [True, False, True]


def test_skips_in_a_row_are_counted_anew_after_an_update(tmp_path):
    """And their battles written down, the first of the data set among them, what is no window not."""
    ledger = SkipLedger(tmp_path, GuardConfig(skips_in_a_row=2), Accelerator(), "battle {}".format)
    packs = [{"windows": torch.tensor([[0, 4, 9], [7, 0, 5], [-1, -1, -1]])}]
    for step, skipped in enumerate((1.0, 0.0, 1.0), 1):
        ledger.note(step, torch.tensor(skipped), packs)
    assert ledger.take() == [1, 3]
    assert (ledger.in_a_row, ledger.too_many) == (1, False)
    ledger.note(4, torch.tensor(0.5), packs * 2)  # of one process of two, say
    assert ledger.take() == [4]
    assert ledger.too_many
    ledger.note(5, torch.tensor(0.0), packs)
    assert ledger.take() == []
    assert ledger.in_a_row == 0
    noted = [json.loads(line) for line in (tmp_path / guard.LOG).read_text().splitlines()]
    mine = [{"file": "battle 0", "start": 4, "turns": 9}, {"file": "battle 7", "start": 0, "turns": 5}]
    assert [(one["step"], one["process"], one["battles"]) for one in noted] == [
        (1, 0, mine),
        (3, 0, mine),
        (4, 0, mine * 2),
    ]


def test_a_note_does_not_keep_its_pack_in_memory(tmp_path):
    """Whose tensors are views of one buffer, in shared or page-locked memory: one a step stayed there until a row was
    logged."""
    ledger = SkipLedger(tmp_path, GuardConfig(), Accelerator(), "battle {}".format)
    buffer = torch.zeros(100_000, dtype=torch.int64)
    ledger.note(1, torch.tensor(0.0), [{"windows": buffer[:9].view(3, 3)}])
    [(_, _, [kept])] = ledger.pending
    assert kept.untyped_storage().nbytes() == 9 * 8


def test_a_note_of_skipped_battles_that_finds_no_room_costs_no_run(tmp_path, caplog):
    (tmp_path / guard.LOG).mkdir()  # cannot be written, as on a full disk
    ledger = SkipLedger(tmp_path, GuardConfig(), Accelerator(), lambda row: f"battle {row}")
    ledger.note(3, torch.tensor(1.0), [{"windows": torch.tensor([[0, 0, 5]])}])
    assert ledger.take() == [3]
    assert "a row could not be written" in caplog.text


@pytest.mark.parametrize("late", [False, True])
def test_too_many_in_a_row_go_back_once_and_on_with_other_data(cached, tmp_path, monkeypatch, late):
    plant_in(monkeypatch, lambda place: 6 <= place < 26 + late)
    run = run_of(cached, tmp_path, "max_steps=30", "checkpoint.every=4")
    run.rows.late = late
    assert run.train() == 0
    # Bad ones from position 6 on, of which twenty are found at 26, or where rows are read late at 27; back to step 4.
    assert run.course.drawn(30)[0].packs == 30 + 26 + late - 4
    assert [int(row["step"]) for row in rows_of(tmp_path)] == list(range(1, 31))
    assert not any(float(row["optim/skipped"]) for row in rows_of(tmp_path))
    _, saved = checkpoint.read(checkpoint.step_folder(tmp_path, 30))
    assert [packs for packs, *_ in saved["drawn"]] == [52 + late]
    noted = [json.loads(line)["step"] for line in (tmp_path / guard.LOG).read_text().splitlines()]
    assert noted == list(range(7, 27 + late))


def test_too_many_again_stop_the_run_with_a_word(cached, tmp_path, monkeypatch, capsys):
    plant_in(monkeypatch, lambda place: place >= 6)
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}", "eval.every=0", "log.every=1", "max_steps=60"]
    assert train_main([*settings, "checkpoint.every=4"]) == 1
    error = capsys.readouterr().err
    assert "skipped_batches.jsonl" in error
    assert "once more" in error
    assert checkpoint.newest_valid(tmp_path) is not None


def test_without_a_checkpoint_to_go_back_to_it_stops(cached, tmp_path, monkeypatch):
    plant_in(monkeypatch, lambda place: True)
    run = run_of(cached, tmp_path, "max_steps=60", "checkpoint.every=50", "guard.skips_in_a_row=5")
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


def test_a_stop_in_a_stretch_of_skips_leaves_the_way_back(cached, tmp_path, monkeypatch, caplog):
    """With one checkpoint kept: that of the stop takes the place of none, and is no newest one after going back."""
    caplog.set_level("INFO")
    plant_in(monkeypatch, lambda place: 6 <= place < 26)
    assert stopped_in_a_stretch(cached, tmp_path, "checkpoint.keep=1", "log.progress=true").train() == 0
    assert [int(row["step"]) for row in rows_of(tmp_path)] == list(range(1, 41))
    assert [folder.name for folder in checkpoint.list_checkpoints(tmp_path)] == ["step_00000040"]
    assert (tmp_path / "before_1" / "step_00000010").exists()
    # The run began behind where it went back to: the time left is told all the same.
    told = [record.getMessage() for record in caplog.records if " left" in record.getMessage()]
    assert any(text.startswith("step 10/40 loss ") for text in told)
    assert not [text for text in told if ", -" in text]


@pytest.mark.slow
def test_going_back_needs_no_newer_checkpoint_that_failed(cached, tmp_path, monkeypatch):
    plant_in(monkeypatch, lambda place: 9 <= place < 29)
    write = checkpoint.write

    def full(output, step, *rest):
        if step == 8:
            raise OSError(28, "No space left on device")
        return write(output, step, *rest)

    monkeypatch.setattr(checkpoint, "write", full)
    run = run_of(cached, tmp_path, "max_steps=30", "checkpoint.every=4")
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
        value = float(np.exp(rng.normal(0, 0.1) + (3.0 if i in (20, 50, 120) else 0.0)))
        spike = count >= 20 and np.log(value) > mean + 4.0 * max(np.sqrt(variance), 1e-3)
        assert guard.is_spike(torch.tensor(value), 0).item() == spike, i
        found += spike
        if not spike:
            rate = 1.0 / min(count + 1, 20)
            delta = np.log(np.float64(np.float32(value))) - mean
            mean, variance, count = mean + rate * delta, (1 - rate) * (variance + rate * delta**2), count + 1
        assert guard.state[0, 0].item() == pytest.approx(mean, abs=1e-6)
    assert found >= 3
    assert guard.is_spike(torch.tensor(torch.nan), 0) == 0  # the finite check's business
    assert guard.state.isfinite().all()


def test_a_spiking_batch_is_skipped(cached, tmp_path, monkeypatch):
    plant_in(monkeypatch, lambda place: place == 12, "reward", 1e5)
    settings = ["max_steps=14", "guard.spike=8", "guard.spike_memory=8", "model.value_head=scalar"]
    run = run_of(cached, tmp_path, *settings)
    assert run.train() == 0
    assert [int(row["step"]) for row in rows_of(tmp_path) if float(row["optim/skipped"])] == [13]
    _, saved = checkpoint.read(checkpoint.step_folder(tmp_path, 14))
    assert np.asarray(saved["spikes"])[2].tolist() == [13, 13]


@pytest.mark.parametrize("which", [0, 1], ids=["loss", "gradient norm"])
def test_a_spike_of_either_alone_skips_the_update(cached, tmp_path, monkeypatch, which):
    monkeypatch.setattr(SpikeGuard, "is_spike", lambda guard, value, of: torch.tensor(float(of == which)))
    run = run_of(cached, tmp_path, "max_steps=2", "guard.spike=6", "batch.accumulate=2")
    run.course.open(0)
    before = [p.clone() for p in run.objective.network.parameters()]
    assert run.step(0, run.course.micro(0))["optim/skipped"] == 1
    assert all(torch.equal(p, b) for p, b in zip(run.objective.network.parameters(), before, strict=True))


def test_a_filter_that_comes_on_and_another_objective_are_no_spikes(cached, tmp_path, monkeypatch):
    """Each makes the loss several times what it was, for good: no step of it is measured by those before."""
    monkeypatch.setattr(losses, "filter_weight", lambda kind, advantage, *_: torch.full_like(advantage, 9.0))
    settings = ["guard.spike=6", "guard.spike_memory=4", "objective.filter_warmup=6"]
    assert run_of(cached, tmp_path, *settings, "max_steps=10").train() == 0
    other = run_of(cached, tmp_path, *settings, "max_steps=11", "objective.critic_weight=100")
    assert other.train() == 0
    rows = rows_of(tmp_path)
    assert other.spikes.state[2].tolist() == [1, 1]
    other._load(checkpoint.step_folder(tmp_path, 10))  # as where it goes back
    assert not other.spikes.state.any()
    assert [float(row["optim/skipped"]) for row in rows] == [0.0] * 11
    assert float(rows[6]["loss/policy"]) > 4 * float(rows[5]["loss/policy"])


def test_a_loss_is_judged_by_its_positive_terms(cached, tmp_path, monkeypatch):
    """MaxQ takes values off the loss: below 0 it has no logarithm, and the first loss above 0 were a spike."""
    judged, real = [], SpikeGuard.is_spike

    def noted(guard, value, which):
        if which == 0:
            judged.append(value.item())
        return real(guard, value, which)

    monkeypatch.setattr(SpikeGuard, "is_spike", noted)
    maxq = [
        "objective.maxq_weight=1.0e6", "objective.filter_warmup=0", "objective.critic_weight=0.5",
        "objective.policy_weight=2",
    ]  # fmt: skip
    # Of all micro-batches: one alone is no measure of the step.
    assert run_of(cached, tmp_path, "max_steps=4", "guard.spike=6", "batch.accumulate=2", *maxq).train() == 0
    rows = rows_of(tmp_path)
    parts = [2 * float(row["loss/policy"]) + 0.5 * float(row["loss/critic"]) for row in rows]
    assert judged == pytest.approx(parts)
    assert max(abs(float(row["loss/total"]) - part) for row, part in zip(rows, parts, strict=True)) > 0.1


@pytest.mark.parametrize("settings", [["guard.spike=-1"], ["guard.skips_in_a_row=0"], ["guard.spikes=3"]])
def test_bad_guards_are_refused(settings):
    with pytest.raises(ValueError, match="guard"):
        load_config(None, settings)
