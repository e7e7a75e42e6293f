"""How many steps a run has, where it goes on in its data, and what an earlier run's files are to it."""

import json
import math
import shutil
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
from tests.trainer.test_run import rows_of
from trainer import card, checkpoint, loop, setup
from trainer.changes import changed, other_files, other_heldout, refuse_a_finished_run, refuse_differing
from trainer.config import load_config, scale_to_world
from trainer.course import Course
from trainer.earlier import make_way
from trainer.errors import ConfigError
from trainer.loop import Run
from trainer.setup import open_battles
from trainer.stop import STOPPED
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


def test_a_run_that_begins_anew_is_not_taken_for_the_one_before(cached, tmp_path):
    """`resume=never` in a folder with a longer run's checkpoints: its agent and tables are its own, the others kept."""
    settings = [
        *SMALL,
        f"data.path={cached}",
        f"output={tmp_path}",
        "eval.every=0",
        "checkpoint.keep=1",
        "log.every=1",
    ]
    assert train_main([*settings, "max_steps=6"]) == 0
    (tmp_path / "play.json").write_text("{}")
    (tmp_path / "step_by_step.txt").write_text("somebody's own")
    theirs = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert train_main([*settings, "max_steps=4", "checkpoint.every=2", "resume=never", "seed=7"]) == 0
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == ["step_00000004"]
    ours = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert ours == (tmp_path / "step_00000004" / "model" / "model.safetensors").read_bytes() != theirs
    assert [row["step"] for row in rows_of(tmp_path)] == list("1234")
    before = tmp_path / "before_1"
    assert (before / "model" / "model.safetensors").read_bytes() == theirs
    assert {"step_00000006", "training_log.csv", "evaluation.json", "play.json"} <= {p.name for p in before.iterdir()}
    assert not (tmp_path / "play.json").exists()
    assert (tmp_path / "step_by_step.txt").exists()
    # The same again: there is nothing beyond its end.
    assert train_main([*settings, "max_steps=4", "checkpoint.every=2", "seed=7"]) == 0
    assert not (tmp_path / "before_2").exists()


def test_only_what_lies_beyond_the_start_makes_way(tmp_path):
    def lie(*names):
        for name in names:
            (tmp_path / name).mkdir()

    lie("before_1", "step_00000002", "step_00000004", "model", "step_by_step")
    (tmp_path / "training_log.csv").write_text("")
    assert make_way(tmp_path, 4, 4) is None
    assert make_way(tmp_path, 3, 3) == tmp_path / "before_2"
    assert {path.name for path in (tmp_path / "before_2").iterdir()} == {"step_00000004", "training_log.csv"}
    assert {"step_00000002", "model", "training_log.csv"} <= {path.name for path in tmp_path.iterdir()}
    # A run that begins anew shares nothing with one that left an agent, or that was killed before it had one.
    assert make_way(tmp_path, 0, 3) == tmp_path / "before_3"
    lie("step_00000002")
    (tmp_path / "training_log.csv").write_text("")
    assert make_way(tmp_path, 0, 3) == tmp_path / "before_4"
    assert {path.name for path in (tmp_path / "before_4").iterdir()} == {"step_00000002", "training_log.csv"}
    lie("model")
    assert make_way(tmp_path, 0, 3) == tmp_path / "before_5"
    (tmp_path / "training_log.csv").write_text("")  # rows alone are a run's that is about to write its first checkpoint
    assert make_way(tmp_path, 0, 3) is None
    assert {path.name for path in tmp_path.glob("[!b]*")} == {"step_by_step", "training_log.csv"}


def test_settings_that_shape_no_number_may_change():
    before = {
        "seed": 1, "precision": "bf16", "max_steps": 5, "log": {"every": 1}, "batch": {"turns": 64},
        "data": {"workers": 1, "path": "a", "formats": ["x"]}, "model": {"act_gamma": 0.9, "attention": "sdpa"},
    }  # fmt: skip
    now = {
        "seed": 2, "precision": "fp32", "max_steps": 6, "log": {"every": 2}, "batch": {"turns": 32},
        "data": {"workers": 2, "path": "b", "formats": ("y",), "new": 1},
        "model": {"act_gamma": 0.99, "attention": "eager"},
    }  # fmt: skip
    shaping = {
        "seed", "precision", "max_steps", "batch.turns", "data.path", "data.formats", "model.act_gamma",
    }  # fmt: skip
    found = changed(before, now)
    assert found.keys() == shaping
    assert found["seed"] == "1 → 2"
    assert changed({"formats": ["x"]}, {"formats": ("x",)}) == {}  # a checkpoint's, read from JSON
    judged = {key for key in shaping if other_heldout({key: "…"})}
    assert judged == {"data.path", "data.formats", "model.act_gamma"}


@pytest.mark.parametrize(
    ("step", "keys", "left", "refused"),
    [
        (4, "seed", True, False), (5, "", True, False), (5, "max_steps", True, False), (5, "seed", True, True),
        (6, "", True, True), (5, "data.files.gen1ou", True, True), (5, "data.files.gen1ou", False, False),
        (5, "data.filter", False, True),
    ],
)  # fmt: skip
def test_a_run_with_nothing_left_to_train_is_refused_by_other_settings(tmp_path, step, keys, left, refused):
    """Battles that came after a run was killed as it was to leave its model are no reason to leave it without."""
    changes = {keys: "1 → 2"} if keys else {}
    if left:
        (tmp_path / "evaluation.json").touch()
    with pytest.raises(ConfigError, match=rf"{step} steps are done of 5.*resume=never") if refused else nullcontext():
        refuse_a_finished_run(step, 5, changes, tmp_path)


def test_processes_of_other_settings_do_not_start(monkeypatch):
    """Each trained a network of its own, or ended in SIGABRT without a word. Where things lie may differ."""
    mine = {"optim": {"lr": 1e-3}, "data": {"path": "/a", "formats": ("gen1ou",)}, "eval": {"every": 5}}
    others = [
        {"optim": {"lr": 1e-3}, "data": {"path": "/b", "formats": ["gen1ou"]}, "eval": {"every": 5}},
        {"optim": {"lr": 1e-2}, "data": {"path": "/b", "formats": ["gen1ou"]}, "eval": {"every": 6}},
    ]
    monkeypatch.setattr("trainer.changes.gather_object", lambda asked: [*asked, *told])
    accelerator = SimpleNamespace(num_processes=3)
    told = others[:1] * 2
    refuse_differing(mine, accelerator)
    told = others
    with pytest.raises(
        ConfigError, match=r"process 2 .* process 0 \(eval\.every: 5 and 6; optim\.lr: 0\.001 and 0\.01\): "
    ):
        refuse_differing(mine, accelerator)
    refuse_differing(mine, SimpleNamespace(num_processes=1))


def test_damaged_checkpoints_beyond_the_start_do_not_push_out_new_ones(cached, tmp_path):
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}", "eval.every=0", "checkpoint.every=2"]
    assert train_main([*settings, "max_steps=6", "checkpoint.keep=3"]) == 0
    victim = checkpoint.step_folder(tmp_path, 6) / "targets.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1])
    assert train_main([*settings, "max_steps=5", "checkpoint.keep=1"]) == 0
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == ["step_00000005"]
    assert (tmp_path / "before_1" / "step_00000006" / "manifest.json").exists()


def test_a_checkpoint_of_another_folder_is_the_whole_start_of_a_new_run(cached, tmp_path):
    """Its best is not this run's best; at its last step the new folder still gets a checkpoint and an agent, and a row
    of its evaluation, without which there was no report either."""
    settings = [*SMALL, f"data.path={cached}", "eval.every=2", "eval.choose=likelihood", "max_steps=4"]
    assert train_main([*settings, f"output={tmp_path / 'a'}"]) == 0
    start = f"resume={checkpoint.step_folder(tmp_path / 'a', 4)}"
    assert train_main([*settings, f"output={tmp_path / 'b'}", start, "log.report=true"]) == 0
    run = json.loads((checkpoint.step_folder(tmp_path / "b", 4) / "run.json").read_text())
    assert run["best"]["step"] == 4
    assert (tmp_path / "b" / "model" / "calibration.json").exists()
    assert [(row["step"], float(row["heldout/nll"])) for row in rows_of(tmp_path / "b")] == [("4", run["best"]["nll"])]
    assert "battles/s" not in (tmp_path / "b" / "report.html").read_text()


@pytest.mark.slow
def test_what_lies_where_another_folders_checkpoint_goes_on_makes_way(cached, tmp_path):
    """A shorter run's checkpoints and rows, none beyond the step that is gone on from, are not the new run's either."""
    settings = [*SMALL, f"data.path={cached}", "eval.every=0", "log.every=1", "checkpoint.keep=0", "log.wandb=true"]
    assert train_main([*settings, f"output={tmp_path / 'a'}", "max_steps=4", "log.wandb=false"]) == 0
    b = tmp_path / "b"
    assert train_main([*settings, f"output={b}", "max_steps=2", "seed=7"]) == 0
    theirs = (b / "wandb_run.json").read_text()
    start = f"resume={checkpoint.step_folder(tmp_path / 'a', 4)}"
    assert train_main([*settings, f"output={b}", "max_steps=6", start]) == 0
    assert [row["step"] for row in rows_of(b)] == ["5", "6"]
    assert [path.name for path in checkpoint.list_checkpoints(b)] == ["step_00000006"]
    assert (b / "before_1" / "wandb_run.json").read_text() == theirs != (b / "wandb_run.json").read_text()


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


def test_a_run_that_goes_on_past_its_end_leaves_its_agent_behind(cached, tmp_path):
    """Whoever asked for the run's model took the one of before, and with it the new run's hours and settings."""
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}", "eval.every=0"]
    assert train_main([*settings, "max_steps=2"]) == 0
    (tmp_path / "play.json").write_text('{"results": []}')
    assert train_main([*settings, "max_steps=2"]) == 0  # nothing is left to train: it is the agent still
    assert {"model", "evaluation.json", "play.json"} <= {path.name for path in tmp_path.iterdir()}
    run = Run(load_config(None, [*settings, "max_steps=4", "checkpoint.every=1"]))
    begun, step = run.step, []

    def stopping(*arguments, **options):
        step.append(arguments[0])
        run.stop.asked = True
        return begun(*arguments, **options)

    run.step = stopping
    assert run.train() == STOPPED
    assert step == [2]
    assert checkpoint.model_folder(tmp_path) == checkpoint.step_folder(tmp_path, 3) / "model"
    before = {path.name for path in (tmp_path / "before_1").iterdir()}
    assert before == {"model", "evaluation.json", "play.json", "run_config.json", "about.json", "training_log.csv"}
    assert card.run_of(tmp_path / "before_1" / "model") == tmp_path / "before_1"
    assert [int(row["step"]) for row in rows_of(tmp_path / "before_1")] == [1, 2]
    assert json.loads((tmp_path / "before_1" / "run_config.json").read_text())["max_steps"] == 2


def test_weights_keep_the_licence_of_what_they_were_trained_on(cached, tmp_path):
    """A run that went on with other data gave its model, once trained on CC-BY-NC battles, away as MIT."""
    theirs = tmp_path / "theirs"
    write_battles(theirs, 40, seed=3, formats=("gen1ou",), style=Style(max_turns=10))
    origin = {"repo": "a/b", "revision": "1", "licence": "CC-BY-NC-4.0"}
    (theirs / "downloads.json").write_text(json.dumps([origin]))
    settings = [*SMALL, f"output={tmp_path / 'run'}", "eval.every=0"]
    assert train_main([*settings, f"data.path={theirs}", "max_steps=1"]) == 0
    assert train_main([*settings, f"data.path={cached}", "max_steps=2"]) == 0
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["licence"] == "cc-by-nc-4.0"
    assert json.loads((tmp_path / "run" / "about.json").read_text())["data"]["origins"] == [origin]
    elsewhere = [f"output={tmp_path / 'other'}", f"resume={checkpoint.step_folder(tmp_path / 'run', 2)}"]
    assert train_main([*settings, f"data.path={cached}", "max_steps=3", *elsewhere]) == 0
    assert json.loads((tmp_path / "other" / "model" / "config.json").read_text())["licence"] == "cc-by-nc-4.0"


def test_win_rates_of_the_agent_before_are_put_aside(cached, tmp_path, monkeypatch):
    """Where the same steps leave another agent: the best of them instead of the last."""
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}", "eval.every=1", "max_steps=2"]
    scores = iter([{"heldout/nll": 1.0, "heldout/accuracy": 0.0}, {"heldout/nll": 2.0, "heldout/accuracy": 0.0}])
    monkeypatch.setattr(loop, "quick_score", lambda *_: next(scores))
    assert train_main([*settings, "checkpoint.every=1", "eval.choose=last"]) == 0
    (tmp_path / "play.json").write_text('{"results": []}')
    assert train_main([*settings, "eval.choose=likelihood"]) == 0
    assert not (tmp_path / "play.json").exists()
    assert (tmp_path / "play_before.json").exists()


def test_a_finetuned_run_goes_on_without_the_model_that_it_began_with(trained, cached, tmp_path):
    shutil.copytree(trained / "model", tmp_path / "first")
    settings = [
        *SMALL, f"data.path={cached}", f"output={tmp_path / 'run'}", "eval.every=0",
        f"model.init_from={tmp_path / 'first'}",
    ]  # fmt: skip
    assert train_main([*settings, "max_steps=1"]) == 0
    shutil.rmtree(tmp_path / "first")
    assert train_main([*settings, "max_steps=2"]) == 0
    assert len(rows_of(tmp_path / "run")) == 2


def test_what_makes_likelihoods_incomparable_is_told(battles, tmp_path, caplog):
    for key, before, now in (
        ("eval", {"battles": 5}, {"battles": None}), ("optim", {"ema": 0.0}, {"ema": 0.9}),
        ("data", {"illegal_actions": "reject"}, {"illegal_actions": "unrecorded"}),
    ):  # fmt: skip
        changes = changed({key: before}, {key: now})
        assert changes
        assert other_heldout(changes)
    assert not other_heldout(changed({"optim": {"lr": 1}}, {"optim": {"lr": 2}}))
    assert other_files(None, {"gen1ou": 3}) == other_files({"gen1ou": 3}, {"gen1ou": 3}) == {}
    assert other_heldout(other_files({"gen1ou": 3}, {"gen1ou": 4}))
    data = tmp_path / "data"
    shutil.copytree(battles, data)
    settings = [*SMALL, f"data.path={data}", f"output={tmp_path / 'run'}", "eval.every=0"]
    assert train_main([*settings, "max_steps=1"]) == 0
    write_battles(data, 30, seed=77)
    assert train_main([*settings, "max_steps=2"]) == 0
    assert "data.files.gen1ou: " in caplog.text


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
