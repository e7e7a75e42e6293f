"""How many steps a run has, and where it goes on in its data."""

import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data.dataset import BattleDataset, DataConfig
from data.tokenizer import Tokenizer
from tests.battle_files import Style, write_battles
from tests.trainer.conftest import SMALL, run_of
from tests.trainer.planted import plant_in
from trainer import checkpoint, setup
from trainer.config import load_config, scale_to_world
from trainer.course import Course
from trainer.errors import ConfigError
from trainer.setup import open_battles
from trainer.train import main as train_main


def course_of(data, world, *settings):
    config = load_config(None, [*SMALL, f"data.path={data}", "batch.battles=8", *settings])
    dataset = BattleDataset(config.data, Tokenizer.load(config.data.vocabulary), "train")
    return [Course(dataset, scale_to_world(config, world), rank, world) for rank in range(world)]


def test_epochs_are_of_what_the_rates_let_in(cached, tmp_path):
    """A second source at a twentieth of the weight adds a twentieth of its battles to an epoch."""
    write_battles(tmp_path / "more", 120, seed=1, style=Style(noise=0.05, missing=0.03, max_turns=30))
    for plan in ("packed", "battles"):
        (alone,) = course_of(cached, 1, "epochs=1", f"batch.plan={plan}", "batch.turns=384")
        mixed = [{"path": str(cached), "weight": 20}, {"path": str(tmp_path / "more"), "weight": 1}]
        both = course_of(
            "''", 1, "epochs=1", f"batch.plan={plan}", "batch.turns=384", f"data.sources={json.dumps(mixed)}"
        )
        assert alone.total > 5
        assert alone.total <= both[0].total <= alone.total + 1
        members = both[0].open(0) or both[0].loader.plan.members(0)
        assert len(members) < 1.1 * len(alone.dataset)


@pytest.mark.parametrize("plan", ["packed", "battles"])
def test_rows_and_steps_of_the_epochs_by_hand(cached, plan):
    """Of turns: a battle's decisions and one more for each of its windows; of files, where packs aren't planned."""
    settings = (
        f"batch.plan={plan}", "batch.accumulate=3", "batch_scaling=multiply", "data.max_turns=5", "batch.turns=96",
    )  # fmt: skip
    course, other = course_of(cached, 2, "epochs=20", *settings)
    rows = 0
    for n in course.dataset.lengths.tolist():
        decisions = n - 1
        rows += decisions + math.ceil(decisions / 4) if plan == "packed" else 1
    each = 96 if plan == "packed" else 8
    assert (course.epoch_rows, course.step_rows) == (rows, each * 3 * 2)
    assert course.total == other.total == math.ceil(20 * rows / (each * 6)) > 10
    assert course_of(cached, 2, "epochs=20", "max_steps=5", *settings)[0].total == 5
    assert course_of(cached, 2, "epochs=20", "max_steps=5000", *settings)[0].total == course.total
    # One that went on at step 4, behind fewer rows than its own steps would have taken.
    course.restore({"step": 4, "rows": 100, "drawn": [[9, 96, 40, 8]], "planned": course.planned})
    assert course.record(4)["rows"] == 100
    assert course.record(6)["rows"] == 100 + 2 * each * 6
    assert course.total == 4 + math.ceil((20 * rows - 100) / (each * 6))
    assert [d.packs for d in course.drawn(6)] == [9, 2 * 6]
    # Three whole steps are left, but for the rounding of sums: not a fourth.
    course.restore({"step": 4, "rows": 20 * rows - 3 * each * 6 - 1e-5, "drawn": [[9, 96, 40, 8]]})
    assert course.total == 7
    assert len(course.loader) == 3 * 3  # and no pack is read ahead that no step takes
    course.restore({"step": 4, "rows": 100})  # of an earlier version, that said nothing of what was drawn
    assert [d.packs for d in course.drawn(4)] == [4 * 6]


def breaking(packs, error):
    """The first pack, then the error."""
    yield next(packs)
    raise error


LOST = RuntimeError("DataLoader worker (pid 7) is killed")


@pytest.mark.parametrize(
    ("errors", "lives"),
    [([LOST] * 3, True), ([LOST] * 4, False), ([LOST, RuntimeError("of another kind")], False), ([OSError(5)], False)],
)
def test_a_step_whose_packs_are_lost_is_begun_anew_up_to_three_times(cached, monkeypatch, errors, lives):
    (whole,) = course_of(cached, 1, "max_steps=9", "batch.accumulate=2")
    whole.open(0)
    steps = [[pack["windows"].tolist() for pack in whole.micro(step)] for step in range(3)]
    (course,) = course_of(cached, 1, "max_steps=9", "batch.accumulate=2")
    course.open(0)
    course.micro(0)
    left, opened, really = list(errors), [], course.open
    course.packs = breaking(course.packs, left.pop(0))

    def again(step, past):
        opened.append(step)
        really(step, past)
        if left:
            course.packs = breaking(course.packs, left.pop(0))

    monkeypatch.setattr(course, "open", again)
    with nullcontext() if lives else pytest.raises(type(errors[-1]), match=str(errors[-1])[:4] or None):
        assert [pack["windows"].tolist() for pack in course.micro(1)] == steps[1]
        assert [pack["windows"].tolist() for pack in course.micro(2)] == steps[2]
    assert opened == [1] * min(len(errors) - (not lives), 3)


@pytest.mark.parametrize(("dropped", "told"), [(40, False), (41, True)])
def test_one_window_in_twenty_may_find_no_room(cached, caplog, dropped, told):
    (course,) = course_of(cached, 1, "max_steps=9", "batch.plan=battles")
    course.loader = SimpleNamespace(dropped_windows=dropped, packs=100)  # of eight windows each
    for _ in range(2):
        course.say_what_is_dropped()
    assert caplog.text.count(f"{dropped} of 800 windows did not fit") == told


def test_a_run_that_goes_on_with_larger_packs_has_its_schedule_over_the_steps_that_come(cached, tmp_path):
    first = run_of(cached, tmp_path, "epochs=3", "batch.turns=96", "checkpoint.background=false")
    first.course.open(0)
    first._save(2, owes_evaluation=False)
    second = run_of(cached, tmp_path, "epochs=3", "batch.turns=192")
    fresh = second.course.total
    assert second._resume() == 2
    assert second.step.total_steps == second.course.total == fresh + 1


def test_another_number_of_processes_goes_on_in_the_middle_of_the_epochs(cached):
    """Two thirds on one process, the rest on two whose packs are more than half as large: the epochs end where they
    end, and no window is taken twice or left out."""
    cut = "epochs=2", "batch.battles=12"
    (one,) = course_of(cached, 1, *cut)
    assert one.total == pytest.approx(2 * one.epoch_rows / one.step_rows, abs=1)
    done = 2 * one.total // 3
    one.open(0)
    seen = [tuple(row) for step in range(done) for pack in one.micro(step) for row in pack["windows"].tolist()]
    noted = json.loads(json.dumps({"step": done, **one.record(done)}))
    two = course_of(cached, 2, *cut)
    assert two[0].step_rows != one.step_rows
    for course in two:
        course.restore(noted)
        assert course.total == done + np.ceil((2 * one.epoch_rows - done * one.step_rows) / course.step_rows)
        for step in range(done, course.total):
            seen += [tuple(row) for pack in course.micro(step) for row in pack["windows"].tolist()]
    plan = two[0].loader.plan
    epoch = set(zip(*(part.tolist() for part in plan.epoch_windows(0)), strict=True))
    assert epoch <= set(seen)
    # In the second epoch some battles are cut elsewhere, and some windows still lie in the pool.
    taken = [window for window in seen if window[0] >= 0]
    assert max(np.bincount([battle for battle, start, _ in taken if start == 0])) <= 3
    again = course_of(cached, 1, *cut)[0]
    again.restore(json.loads(json.dumps({"step": two[0].total, **two[0].record(two[0].total)})))
    assert again.total == two[0].total


@pytest.mark.parametrize(("first", "then"), [("packed", "battles"), ("battles", "packed")])
def test_packs_of_the_other_plan_go_on_in_the_middle_of_the_epochs(cached, first, then):
    """Planned packs count turns, the others files: one for the other, a run ended at once, or far too late."""
    (before,) = course_of(cached, 1, "epochs=2", f"batch.plan={first}")
    before.open(0)
    half = before.total // 2
    (after,) = course_of(cached, 1, "epochs=2", f"batch.plan={then}")
    whole = after.total
    after.restore(json.loads(json.dumps({"step": half, **before.record(half)})))
    assert after.total - half == pytest.approx(whole - whole * half / before.total, abs=1.01)


def test_processes_open_the_same_battles_or_do_not_start(tmp_path, monkeypatch):
    write_battles(tmp_path / "b", 12, seed=5, style=Style(max_turns=20))
    config = DataConfig(path=str(tmp_path / "b"), cache_dir=str(tmp_path / "i"), heldout_share=0.25)
    tokenizer = Tokenizer.load(config.vocabulary)
    another = SimpleNamespace(main_process_first=nullcontext, is_main_process=False, num_processes=2)
    mine, _ = open_battles(config, tokenizer, another)
    write_battles(tmp_path / "b", 12, seed=6, style=Style(max_turns=20))
    # What was recorded since the first process looked is not looked for,
    assert open_battles(config, tokenizer, another)[0].fingerprint() == mine.fingerprint()
    # but where that one found more than this machine's index knows, it is.
    fresh = BattleDataset(replace(config, cache_dir=str(tmp_path / "j")), tokenizer, "train")
    monkeypatch.setattr(setup, "broadcast_object_list", lambda _: [fresh.fingerprint()])
    theirs = open_battles(config, tokenizer, another)
    assert theirs[0].fingerprint() == fresh.fingerprint() != mine.fingerprint()
    monkeypatch.setattr(setup, "gather_object", lambda found: [*found, [mine.fingerprint(), mine.fingerprint()]])
    both = sum(map(len, theirs))
    with pytest.raises(ConfigError, match=rf"other battles than each other \({both}, {2 * len(mine)}\): files came"):
        open_battles(config, tokenizer, another)


def test_an_earlier_versions_checkpoint_goes_on_by_its_steps(cached):
    (course,) = course_of(cached, 1, "max_steps=40")
    course.restore({"step": 6, "data_offset": 2})
    assert [drawn.packs for drawn in course.drawn(6)] == [8]
    assert course.total == 40


def test_windows_that_find_no_room_are_told_once(cached, tmp_path, caplog):
    settings = [
        *SMALL,
        f"data.path={cached}",
        "eval.every=0",
        "log.every=1",
        "max_steps=4",
        "batch.turns=128",
        "batch.battles=8",
    ]
    assert train_main([*settings, f"output={tmp_path / 'planned'}"]) == 0
    assert "did not fit" not in caplog.text
    assert train_main([*settings, f"output={tmp_path / 'not'}", "batch.plan=battles"]) == 0
    assert caplog.text.count("windows did not fit their packs of 128 turns") == 1


@pytest.mark.parametrize(("first", "then"), [("heads", "network"), ("network", "heads")])
def test_a_run_goes_on_with_other_targets(cached, tmp_path, first, then):
    """Targets of the trunk that the checkpoint lacks start at its weights; those that are too many are left."""
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}", "eval.every=0", "objective.tau=0.5"]
    assert train_main([*settings, "max_steps=1", f"objective.target={first}"]) == 0
    assert train_main([*settings, "max_steps=2", f"objective.target={then}"]) == 0
    names = {name.split(".")[0] for name in checkpoint.read(checkpoint.step_folder(tmp_path, 2))[0].targets}
    assert names == {"actor", "critics", *(["model"] if then == "network" else [])}


def test_going_back_leads_out_of_the_stretch_of_skipped_updates(cached, tmp_path, monkeypatch):
    """Checkpoints and evaluations that fall due within it, between the steps that are logged."""
    plant_in(monkeypatch, lambda place: 4 <= place < 14)
    run = run_of(
        cached, tmp_path, "max_steps=20", "log.every=10", "checkpoint.every=3", "eval.every=7",
        "guard.skips_in_a_row=8", "checkpoint.keep=9",
    )  # fmt: skip
    assert run.train() == 0
    # Found at step 12, the first one due after eight in a row; back to step 3, behind the ten bad packs but two.
    assert run.course.drawn(20)[0].packs == 20 + 12 - 3
    state, saved = checkpoint.read(checkpoint.step_folder(tmp_path, 20))
    assert saved["skipping"] == 0
    assert state.updates == 18
    assert Path(tmp_path / "model" / "config.json").exists()
