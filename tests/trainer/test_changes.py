"""What other settings, data and processes are to a run that goes on: none, a word, or a refusal."""

import json
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from tests.battle_files import Style, write_battles
from tests.trainer.conftest import SMALL
from trainer import checkpoint
from trainer.card import RunFacts, model_card, run_of
from trainer.changes import changed, other_files, other_heldout, other_names, refuse_a_finished_run, refuse_differing
from trainer.errors import ConfigError
from trainer.report import write_report
from trainer.train import main as train_main
from trainer.versions import git_commit, versions


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
        (5, "data.filter", False, True), (5, "data.files.names", True, True),
        (5, "data.files.names", False, False),
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
    code = {"commit": git_commit(), "versions": versions()}
    monkeypatch.setattr("trainer.changes.gather_object", lambda asked: [*asked, *({**code, **one} for one in told)])
    accelerator = SimpleNamespace(num_processes=3)
    told = others[:1] * 2
    refuse_differing(mine, accelerator)
    told = others
    with pytest.raises(
        ConfigError, match=r"process 2 .* process 0 \(eval\.every: 5 and 6; optim\.lr: 0\.001 and 0\.01\): "
    ):
        refuse_differing(mine, accelerator)
    told = [others[0], {**others[0], "commit": "0123", "versions": {**versions(), "torch": "0.0.1"}}]
    with pytest.raises(ConfigError, match=r"process 2 .*\(commit: \S+ and 0123; versions\.torch: \S+ and 0\.0\.1\)"):
        refuse_differing(mine, accelerator)
    told = [{**others[0], "commit": None}] * 2
    refuse_differing(mine, accelerator)
    refuse_differing(mine, SimpleNamespace(num_processes=1))


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
    assert other_names(None, [1, 2]) == other_names([1, 2], [1, 2]) == {}
    assert other_heldout(other_names([1, 2], [1, 3]))
    data = tmp_path / "data"
    shutil.copytree(battles, data)
    settings = [*SMALL, f"data.path={data}", f"output={tmp_path / 'run'}", "eval.every=0"]
    assert train_main([*settings, "max_steps=1"]) == 0
    write_battles(data, 30, seed=77)
    assert train_main([*settings, "max_steps=2"]) == 0
    assert "data.files.gen1ou: " in caplog.text
    caplog.clear()
    assert train_main([*settings, "max_steps=3"]) == 0
    assert "data.files" not in caplog.text
    # As many others: the plan of those before is not gone on with, and likelihoods are of other battles.
    for file in sorted(data.rglob("*_Red*.json.lz4"))[:20]:
        file.rename(file.with_name(f"other{file.name}"))
    assert train_main([*settings, "max_steps=4"]) == 0
    assert "data.files.names: some battles → others" in caplog.text


def test_what_was_changed_on_the_way_stays_with_the_run(cached, tmp_path, monkeypatch):
    """Nobody could repeat it by its last settings. What came after a checkpoint is not of whoever goes on from it."""
    settings = [*SMALL, f"data.path={cached}", "eval.every=0", "checkpoint.every=1"]
    run = [*settings, f"output={tmp_path / 'run'}"]
    for commit, more in (
        ("abc", ["max_steps=2"]), ("abc", ["max_steps=3", "optim.lr=0.5"]), ("def+", ["max_steps=4", "optim.lr=0.5"]),
    ):  # fmt: skip
        monkeypatch.setattr("trainer.loop.git_commit", lambda commit=commit: commit)
        assert train_main([*run, *more]) == 0
    first = {"step": 2, "settings": {"max_steps": "2 → 3", "optim.lr": "0.0003 → 0.5"}}
    second = {"step": 3, "settings": {"max_steps": "3 → 4", "commit": "abc → def+"}}
    assert json.loads((tmp_path / "run" / "about.json").read_text())["changes"] == [first, second]
    assert json.loads((tmp_path / "run" / "step_00000004" / "run.json").read_text())["commit"] == "def+"
    said = "- from step 2 on by other settings: `max_steps` 2 → 3; `optim.lr` 0.0003 → 0.5\n- from step 3 on"
    model = tmp_path / "run" / "model"
    assert said in str(model_card(model, "me/agent", None, RunFacts.of(run_of(model), model)))
    assert "<tr><th>changed at step 3</th><td>max_steps: 3 → 4; commit: abc → def+</td></tr>" in write_report(
        [tmp_path / "run"], tmp_path
    ).read_text(encoding="utf-8")
    again = [*settings, f"output={tmp_path / 'again'}", f"resume={tmp_path / 'run' / 'step_00000003'}", "max_steps=4"]
    assert train_main(again) == 0
    (one, other) = json.loads((tmp_path / "again" / "about.json").read_text())["changes"]
    assert (one, other["settings"]["optim.lr"]) == (first, "0.5 → 0.0003")
