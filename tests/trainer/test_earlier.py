"""What an earlier run left in the folder makes way for the one that begins or goes on there, and is kept."""

import json
import shutil

import pytest

from tests.trainer.conftest import SMALL, rows_of
from trainer import card, checkpoint, loop
from trainer.config import load_config
from trainer.earlier import make_way
from trainer.loop import Run
from trainer.stop import STOPPED
from trainer.train import main as train_main


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
    of its evaluation, without which there was no report either. Its hours, and where its battles came from, are."""
    settings = [*SMALL, f"data.path={cached}", "eval.every=2", "eval.choose=likelihood", "max_steps=4"]
    assert train_main([*settings, f"output={tmp_path / 'a'}"]) == 0
    about, logged = tmp_path / "a" / "about.json", tmp_path / "a" / "training_log.csv"
    told, origin = json.loads(about.read_text()), {"repo": "some/data", "revision": "v4", "licence": "cc-by-nc-4.0"}
    about.write_text(json.dumps(told | {"data": told["data"] | {"origins": [origin]}}))
    logged.write_text("step,time/hours\n2,1.5\n4,2.5\n6,9.5\n")  # 6: of what it went on to
    start = f"resume={checkpoint.step_folder(tmp_path / 'a', 4)}"
    assert train_main([*settings, f"output={tmp_path / 'b'}", start, "log.report=true"]) == 0
    run = json.loads((checkpoint.step_folder(tmp_path / "b", 4) / "run.json").read_text())
    assert run["best"]["step"] == 4
    assert (tmp_path / "b" / "model" / "calibration.json").exists()
    assert [(row["step"], float(row["heldout/nll"])) for row in rows_of(tmp_path / "b")] == [("4", run["best"]["nll"])]
    assert 2.5 < float(rows_of(tmp_path / "b")[0]["time/hours"]) < 2.6
    assert json.loads((tmp_path / "b" / "about.json").read_text())["data"]["origins"] == [origin]
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
    before.discard("code.diff")  # where this checkout was edited
    assert before == {"model", "evaluation.json", "play.json", "run_config.json", "about.json", "training_log.csv"}
    assert card.run_of(tmp_path / "before_1" / "model") == tmp_path / "before_1"
    assert [int(row["step"]) for row in rows_of(tmp_path / "before_1")] == [1, 2]
    assert json.loads((tmp_path / "before_1" / "run_config.json").read_text())["max_steps"] == 2


def test_win_rates_of_the_agent_before_are_put_aside(cached, tmp_path, monkeypatch):
    """Where the same steps leave another agent: the best of them instead of the last."""
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}", "eval.every=1", "max_steps=2"]
    scores = iter([{"heldout/nll": 1.0, "heldout/accuracy": 0.0}, {"heldout/nll": 2.0, "heldout/accuracy": 0.0}])
    monkeypatch.setattr(loop, "QuickScore", lambda *_: lambda network: next(scores))
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
