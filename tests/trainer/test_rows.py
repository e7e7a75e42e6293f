"""What a logged row is made of, and that its figures are the same where it is read a step late, as on a GPU."""

import json
import time
from types import SimpleNamespace

import pytest
import torch

from tests.trainer.conftest import rows_of, run_of
from tests.trainer.planted import plant_in
from trainer import loop, rows
from trainer.rows import OVER_POLICY, Clock, Rows, of_the_policy
from trainer.to_host import Moment, ToHost

CPU = torch.device("cpu")
OF_TIME = ("speed/", "time/", "data/wait_share", "checkpoint/")


def two_processes():
    """One of two that have the same to say."""
    return SimpleNamespace(num_processes=2, device=CPU, reduce=lambda x, reduction: 2 * x)


def test_a_rows_counts_and_shares_by_hand():
    """Two packs of one process of two. Battle 0 of the data set is a battle; padding is no unknown word."""
    packs = []
    for battles, turns in (((0, 7), 8), ((3,), 6)):
        windows = torch.full((4, 3), -1)
        windows[: len(battles), 0] = torch.tensor(battles)
        words = torch.full((12, 5), 9)
        words[0], words[turns:] = 1, 0
        packs.append({"windows": windows, "valid": torch.arange(12) < turns, "words": words})
    clock = Clock(1, CPU)
    told = Rows(two_processes(), [0.9, 0.999], clock)
    assert told.read() is None
    clock.count(packs)
    clock.waited = 1.0
    clock.started.time -= 4.0
    told.send({"step": 5}, {"policy/nll": torch.tensor([1.0, 2.0]), "_cloned": torch.tensor(3.0)})
    assert (clock.battles, clock.turns, clock.rows, clock.unknown, clock.waited) == (0, 0, 0, 0, 0.0)
    row = told.read()
    exact = {"step": 5, "data/padding": 10 / 24, "data/unknown_words": 10 / 70}
    exact |= {"policy/nll@0.9": 2.0, "policy/nll@0.999": 4.0}
    assert {name: row.pop(name) for name in exact} == pytest.approx(exact)
    timed = {"data/wait_share": 0.25, "speed/battles_per_s": 6 / 4, "speed/turns_per_s": 28 / 4}
    assert row == pytest.approx(timed, rel=0.05)
    assert told.read() is None
    began, ended = clock.take_span()
    assert ended.seconds_since(began) < 1


@pytest.mark.parametrize(
    ("value", "form"), [(0.5, "float"), (torch.zeros(3), r"\[3\]"), (torch.zeros(2, 2), r"\[2, 2\]")]
)
def test_a_metric_of_another_form_is_named(value, form):
    told = Rows(two_processes(), [0.9, 0.999], Clock(1, CPU))
    with pytest.raises(ValueError, match=rf"metric 'mine/x' is of {form}: give .*, \[2\]"):
        told.send({"step": 5}, {"policy/nll": torch.zeros(2), "mine/x": value})


@pytest.mark.parametrize(("host", "device"), [(0.2, 2.0), (2.0, 0.2)])
@pytest.mark.parametrize("every", [1, 4])
def test_speeds_and_waits_of_a_row_are_of_its_own_steps(monkeypatch, every, host, device):
    """Whichever is slower, the host, for it waits for data, or the device; whether a row is read with the next step
    under way, or at once, as at an evaluation and at the end, one step after the row before was read late."""
    now, done = [0.0], [0.0]  # where the host stands; when the device is done with what it was given

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = done[0] = max(done[0], now[0])

        def synchronize(self):
            now[0] = max(now[0], self.at)

        def elapsed_time(self, end):
            return 1e3 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(rows.time, "monotonic", lambda: now[0])
    clock = Clock(1, torch.device("cuda"))
    told, pack = Rows(two_processes(), [0.9], clock), {"windows": torch.zeros(1, 3), "words": torch.zeros(1, 1)}
    pack["valid"], found = torch.tensor([True]), []

    def read():
        if (row := told.read()) is not None:
            found.append((row["speed/turns_per_s"], row["data/wait_share"]))

    for step in range(1, 13):
        with clock.waiting():
            now[0] += host
        done[0] = max(done[0], now[0]) + device
        read()
        clock.count([pack])
        if step % every == 0:
            told.send({}, {"_cloned": torch.tensor(1.0)})
        if step % 8 == 0 or step == 12:
            read()
            now[0] = 10 + max(now[0], done[0])  # an evaluation
            clock.restart()
    assert len(found) == 12 // every
    for turns, waited in found:  # two turns in 2 s, or in 2.2 for the first step after an evaluation
        assert 0.9 < turns < 1.001
        assert waited == pytest.approx(turns * host / 2)


def test_a_step_without_a_cloned_decision_tells_no_means_of_them():
    row = {f"{name}x@0.9": 1.0 for name in OVER_POLICY} | {"loss/policy": 0.0, "value/target@0.9": 3.0}
    assert of_the_policy(row, 5.0) == row
    assert of_the_policy(row, 0.0) == {"loss/policy": 0.0, "value/target@0.9": 3.0}


def test_waits_for_data_add_up(monkeypatch):
    clock, now = Clock(1, CPU), iter([10.0, 11.0, 20.0, 22.5])
    monkeypatch.setattr(rows.time, "monotonic", lambda: next(now))
    for _ in range(2):
        with clock.waiting():
            pass
    assert clock.waited == 3.5


@pytest.mark.parametrize("every", [1, 3])
def test_rows_that_are_read_late_are_the_same(cached, tmp_path, monkeypatch, every):
    """Evaluations, checkpoints and the last step read theirs at once, in both."""
    told, tell, steps, seen = {}, loop.Telling.tell, [], []

    def noted(self, row, done):
        if row is not None:
            seen.append((row["step"], len(steps)))
        tell(self, row, done)

    monkeypatch.setattr(loop.Telling, "tell", noted)
    for late in (False, True):
        steps.clear()
        seen.clear()
        run = run_of(cached, tmp_path / str(late), "max_steps=7", "eval.every=4", f"log.every={every}")
        run.rows.late, step = late, run.step
        run.step = lambda *a, step=step, **k: steps.append(a) or step(*a, **k)
        assert run.train() == 0
        told[late] = [{k: v for k, v in row.items() if not k.startswith(OF_TIME)} for row in rows_of(run.output)]
        logged = sorted({1, 4, 7, *range(every, 8, every)})
        at_once = (4, 7) if late else logged
        assert seen == [(step, step if step in at_once else step + 1) for step in logged]
    assert told[False] == told[True]


@pytest.mark.gpu
def test_the_host_gets_values_before_the_device_is_done_with_what_follows():
    values = torch.arange(3.0, device="cuda")
    torch.cuda.synchronize()
    sent = ToHost(2 * values)
    torch.cuda._sleep(4_000_000_000)  # cycles: two seconds
    began = time.monotonic()
    assert sent.read() == [0.0, 2.0, 4.0]
    assert time.monotonic() - began < 1
    torch.cuda.synchronize()
    assert time.monotonic() - began > 1


@pytest.mark.gpu
def test_a_moment_is_when_the_device_is_done():
    device, began = torch.device("cuda"), time.monotonic()
    first = Moment(device)
    torch.cuda._sleep(4_000_000_000)
    second = Moment(device)
    assert time.monotonic() - began < 1
    assert second.seconds_since(first) > 1


def test_a_run_that_fails_tells_the_row_on_its_way(cached, tmp_path, monkeypatch):
    run = run_of(cached, tmp_path, "max_steps=5")
    run.rows.late, micro = True, run.course.micro

    def fails(step):
        if step == 3:
            raise OSError("the disk is gone")
        return micro(step)

    monkeypatch.setattr(run.course, "micro", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        run.train()
    assert [row["step"] for row in rows_of(tmp_path)] == ["1", "2", "3"]


def test_a_process_that_fails_does_not_wait_for_the_others_battles(cached, tmp_path, monkeypatch):
    """Of the skipped updates in its last row it writes down its own: the others, at another place by now, would have
    been waited for until `timeout_minutes` were over, and why the run failed been told then."""
    plant_in(monkeypatch, lambda place: place == 2)
    run = run_of(cached, tmp_path, "max_steps=5", "log.every=3")
    run.rows.late, micro = True, run.course.micro
    run.skips.accelerator = SimpleNamespace(num_processes=2, process_index=0, is_main_process=True)

    def waits(rows):
        raise AssertionError("waits for the others")

    def fails(step):
        if step == 3:
            raise OSError("the disk is gone")
        return micro(step)

    monkeypatch.setattr("trainer.guard.gather_object", waits)
    monkeypatch.setattr(run.course, "micro", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        run.train()
    assert [(row["step"], row["optim/skipped"]) for row in rows_of(tmp_path)] == [("1", "0"), ("3", "1")]
    (noted,) = (tmp_path / "skipped_batches.jsonl").read_text().splitlines()
    assert json.loads(noted)["step"] == 3
