"""A run that is told to stop: when, what it leaves, and how it goes on."""

from types import SimpleNamespace

import pytest
import torch

from tests.trainer.conftest import SMALL, rows_of
from trainer import checkpoint
from trainer.agreement import Agreement
from trainer.config import load_config
from trainer.loop import Run
from trainer.stop import STOPPED
from trainer.to_host import ToHost


def test_a_stopped_run_saves_itself_and_goes_on(cached, tmp_path, caplog):
    """Between two logged rows, too: what it trained on is told as of a run that was never stopped."""
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}", "max_steps=4", "eval.every=0", "log.every=4"]
    run = Run(load_config(None, [*settings, "resume=never"]))
    run.stop.asked = True
    assert run.train() == STOPPED
    assert "the same command and resume=auto to go on" in caplog.text
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == ["step_00000001"]
    again = Run(load_config(None, settings))
    again.step = stop_at(again, 3)
    assert again.train() == STOPPED
    assert Run(load_config(None, settings)).train() == 0
    assert (tmp_path / "model" / "config.json").exists()
    assert Run(load_config(None, [*settings, f"output={tmp_path / 'whole'}"])).train() == 0
    orders = [rows_of(folder)[-1]["data/order_crc32"] for folder in (tmp_path, tmp_path / "whole")]
    assert orders[0] == orders[1]


def stop_at(run, done):
    """run's step, at which it is told to stop while it takes step `done`."""
    step = run.step

    def told(number, packs, **options):
        run.stop.asked |= number == done - 1
        return step(number, packs, **options)

    return told


@pytest.mark.parametrize(
    ("a_step", "late", "heard"),
    [
        (0.01, False, 23), (0.5, False, 15), (1.4, False, 15), (6.0, False, 14),
        (0.01, True, 25), (0.5, True, 17), (1.4, True, 15), (6.0, True, 14),
    ],
)  # fmt: skip
def test_several_processes_agree_to_stop_within_ten_steps_or_some_seconds(monkeypatch, a_step, late, heard):
    """Whichever was told: this one was not, and hears of it from the others' sum. By steps alone a launcher that kills
    30 s after its word came first. Read a step late, where the device is at the next one, unless steps are long."""
    told_at, now = 14, [1000.0]
    monkeypatch.setattr("trainer.agreement.time.monotonic", lambda: now[0])
    other = torch.tensor([0.0, a_step])  # of the other process

    def reduce(mine, reduction):
        other[0] = done >= told_at
        return mine + other

    agreement = Agreement(SimpleNamespace(num_processes=2, device="cpu", reduce=reduce), late)
    now[0] += 60  # until the first step is done: the compiler's minute
    for done in range(1, 31):
        if agreement.stops(done, False):
            break
        now[0] += a_step
    assert done == heard


@pytest.mark.parametrize("told_at", range(70, 90))
def test_a_host_ahead_of_its_device_does_not_take_its_own_pace_for_a_steps(monkeypatch, told_at):
    """It hands a step over in 0.1 s, at most one ahead, and the device takes 3 s: by the host's pace ten steps would
    lie between two readings, and a launcher's 30 s be over."""
    now, ends = [0.0], [0.0]  # where the host stands; when the device is done with each step
    monkeypatch.setattr("trainer.agreement.time.monotonic", lambda: now[0])

    class Sent(ToHost):
        def __init__(self, values):
            super().__init__(values)
            self.at = ends[-1]

        def read(self):
            now[0] = max(now[0], self.at)
            return super().read()

    def reduce(mine, reduction):
        return 2 * torch.tensor([now[0] >= told_at, mine[1]])

    monkeypatch.setattr("trainer.agreement.ToHost", Sent)
    agreement = Agreement(SimpleNamespace(num_processes=2, device="cpu", reduce=reduce), late=True)
    now[0] += 60
    for done in range(1, 31):
        now[0] = max(now[0] + 0.1, ends[max(0, done - 2)])
        ends.append(max(now[0], ends[-1]) + 3.0)
        if agreement.stops(done, False):
            break
    assert 0 <= ends[-1] - told_at <= 7


def test_a_stop_while_the_last_step_is_judged_leaves_the_agent_to_the_next_start(cached, tmp_path):
    """To make it may take longer than a scheduler waits, whose word was passed over."""
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}", "max_steps=2"]
    run = Run(load_config(None, settings))
    judge = run.judge

    def told(network):
        run.stop.asked = True
        return judge(network)

    run.judge = told
    assert run.train() == STOPPED
    assert not (tmp_path / "model").exists()
    assert Run(load_config(None, settings)).train() == 0
    assert (tmp_path / "model" / "config.json").exists()
    assert [row["step"] for row in rows_of(tmp_path) if row["heldout/nll"]] == ["2"]


def test_an_evaluation_that_a_stop_left_out_has_its_row(cached, tmp_path):
    settings = [*SMALL, f"data.path={cached}", "max_steps=3", "eval.every=1", "log.every=5"]
    whole, parts = Run(load_config(None, [*settings, f"output={tmp_path / 'whole'}"])), f"output={tmp_path / 'parts'}"
    assert whole.train() == 0
    stopped = Run(load_config(None, [*settings, parts]))
    stopped.agreement.stops = lambda done, asked: done == 2
    assert stopped.train() == STOPPED
    assert Run(load_config(None, [*settings, parts])).train() == 0
    scores = [
        [(row["step"], row["heldout/nll"]) for row in rows_of(tmp_path / name) if row["heldout/nll"]]
        for name in ("whole", "parts")
    ]
    assert scores[0] == scores[1]
    assert [step for step, _ in scores[0]] == ["1", "2", "3"]
