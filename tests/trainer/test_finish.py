"""Which checkpoint a finished run's agent is taken from."""

import json

import pytest

from tests.trainer.conftest import run_of
from trainer import checkpoint, figures, finish


@pytest.mark.parametrize("fault", ["never written", "damaged"])
def test_a_best_checkpoint_that_cannot_be_taken_gives_way_to_the_newest(cached, tmp_path, monkeypatch, caplog, fault):
    """The first evaluation's checkpoint meets a full disk, or a spoilt one, and no later one is better."""
    real = checkpoint._write_manifest

    def fault_at_3(folder):
        if "step_00000003" in folder.name and fault == "never written":
            raise OSError(28, "No space left on device")
        real(folder)
        if "step_00000003" in folder.name:
            (folder / "targets.safetensors").write_bytes(b"")

    monkeypatch.setattr(checkpoint, "_write_manifest", fault_at_3)
    run = run_of(cached, tmp_path, "max_steps=6", "eval.every=3", "eval.choose=likelihood")
    run.judge = lambda _: {"heldout/nll": run.step_done * 1.0, "heldout/accuracy": 0.0}
    assert run.train() == 0
    assert "the best checkpoint cannot be taken" in caplog.text
    assert (tmp_path / "model" / "config.json").exists()


@pytest.mark.parametrize(
    ("choice", "step", "warmup", "told"),
    [("last", 4, 2, ""), ("likelihood", 2, 2, "no filter has touched"), ("likelihood", 2, 1, ""),
     ("last", 4, 4, "never comes on in 4 steps")],
)  # fmt: skip
def test_the_agent_is_the_chosen_checkpoint(cached, tmp_path, monkeypatch, caplog, choice, step, warmup, told):
    """Held-out likelihood is at its best at step 2, as where a filter turns from the players at step 3; whether one has
    touched the agent is told. The report's pictures are `test_report.py`'s."""
    monkeypatch.setattr(figures, "_png", lambda *_: b"")
    settings = ["max_steps=4", "eval.every=2", f"eval.choose={choice}", f"objective.filter_warmup={warmup}"]
    run = run_of(cached, tmp_path, *settings, "log.report=true")
    run.judge = lambda _: {"heldout/nll": run.step_done * 1.0, "heldout/accuracy": 0.0}
    assert run.train() == 0
    chosen = checkpoint.step_folder(tmp_path, step) / "model" / "model.safetensors"
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == chosen.read_bytes()
    assert json.loads((tmp_path / "evaluation.json").read_text())["step"] == step
    assert f"<th>the agent is of step</th><td>{step}</td>" in (tmp_path / "report.html").read_text()
    for words in ("no filter has touched", "never comes on in 4 steps"):
        assert (words in caplog.text) == (words == told)


@pytest.mark.parametrize(("steps", "told"), [(3, True), (5, False)])
def test_a_run_that_ends_while_it_warms_up_says_so(cached, tmp_path, caplog, steps, told):
    run_of(cached, tmp_path, f"max_steps={steps}", "optim.warmup_steps=5", "optim.lr=1e-3")
    said = f"optim.warmup_steps=5: in {steps} steps the learning rate gets to 0.0006 and not to optim.lr=0.001"
    assert (said in caplog.text) == told


def test_a_run_whose_win_chance_tells_nothing_says_so_at_its_end(cached, tmp_path, monkeypatch, caplog):
    run, real = run_of(cached, tmp_path, "max_steps=1"), finish.calibrate

    def sure_of_every_win(*asked):
        return real(*asked) | {
            "gammas": {str(gamma): {"slope": 0.0, "intercept": 5.0} for gamma in run.config.model.gammas}
        }

    monkeypatch.setattr(finish, "calibrate", sure_of_every_win)
    assert run.train() == 0
    (said,) = [message for message in caplog.messages if "win chance" in message]
    assert said.startswith("win chance at γ = 0.999: its Brier score over ")
    assert (tmp_path / "model" / "calibration.json").exists()


def test_many_held_out_battles_are_not_all_waited_for(cached, tmp_path, caplog):
    """One process judges at the end; what it left out is said. Two battles' decisions are fewer than all."""
    caplog.set_level("INFO")
    counts = {}
    for most in ("null", "2"):
        run = run_of(cached, tmp_path / most, "max_steps=1", f"eval.final_battles={most}")
        assert run.train() == 0
        assert (f"judged on 2 of {len(run.heldout)} held-out battles" in caplog.text) == (most == "2")
        result = json.loads((run.output / "evaluation.json").read_text())
        counts[most] = result["policy"][0]["decisions"]
    assert 0 < counts["2"] < counts["null"]
