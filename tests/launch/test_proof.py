"""The proof's tables, and the trees that are its yardstick."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from launch import proof
from launch.yardstick import decisions_of, fit_and_score
from trainer.config import load_config

GAMMAS = (0.9, 0.99, 0.999, 0.9999)


def judged(nll):
    rows = [{"group": group, "top1": [0.5, 0.4, 0.6], "nll": [nll, 0.9, 1.2]} for group in ("all", "format: gen1ou")]
    rows = [{**row, "decisions": 900, "frequent_top1": [0.3, 0.2, 0.4]} for row in rows]
    deciles = [[0.4, 0.3, 450], [0.6, 0.7, 450]]
    values = [{"gamma": g, "auc": 0.6 + 0.01 * i, "brier": 0.2, "deciles": deciles} for i, g in enumerate(GAMMAS)]
    return {"gamma": 0.999, "policy": rows, "values": values}


def test_judging_pools_the_seeds_of_an_arm(tmp_path, monkeypatch):
    trees = {"decisions": 1000, "battles": 40, "top1": [0.4, 0.3, 0.5], "nll": [1.3, 1.2, 1.4]}
    trees["data"] = str(tmp_path)
    (tmp_path / "yardstick.json").write_text(json.dumps(trees))
    for seed, nll in enumerate((1.0, 1.2)):
        folder = proof.folder_of(tmp_path, "binary filter", seed)
        folder.mkdir()
        (folder / "evaluation.json").write_text("{}")
        (folder / "judged.json").write_text(json.dumps(judged(nll) | {"data": str(tmp_path)}))
        (folder / "run_config.json").write_text(json.dumps({"max_steps": 800}))
        (folder / "training_log.csv").write_text("step,policy/nll@0.999,heldout/nll\n1,2.0,\n2,1.5,1.6\n")
    written = {}
    monkeypatch.setattr(proof, "IMAGES", tmp_path)
    monkeypatch.setattr(proof, "write_record", lambda name, *rest: written.update({name: rest}) or tmp_path / "x.json")
    proof.judge(tmp_path, tmp_path, "proof_heldout")
    text = (tmp_path / "x.md").read_text()
    assert "| binary filter | 800 | 2 | 50.0% [50.0%, 50.0%] | 1.100 [1.000, 1.200] | 1.100 | 0.620 |" in text
    assert "| gradient-boosted trees |  | 1 | 40.0% | 1.300 |" in text
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == [f"proof_heldout_{name}.png" for name in ("accuracy", "calibration", "likelihood")]
    assert written["proof_heldout"][1]["binary filter"]["groups"]["all"]["nll"] == [1.0, 1.2]


def test_results_of_other_data_or_settings_are_not_taken_for_these(tmp_path, monkeypatch, capsys):
    asked, again = [], []
    monkeypatch.setattr(proof, "run", lambda *command, log: again.append(command[0]))
    monkeypatch.setattr(proof, "evaluate_folder", lambda folder, data: asked.append(data))
    folder = proof.folder_of(tmp_path, "imitation of all", 0)
    folder.mkdir()
    (folder / "evaluation.json").write_text("{}")
    (folder / "judged.json").write_text(json.dumps(judged(1.0) | {"data": "others"}))
    with pytest.raises(TypeError):  # nothing was really judged
        proof.judge(tmp_path, tmp_path / "these", "x")
    assert asked == [str(tmp_path / "these")]

    train = ["train", "--out", str(tmp_path), "--data", str(tmp_path), "--seeds", "1"]
    assert proof.main([*train, "--steps", "8"]) == 0
    for arm in proof.ARMS:
        done = proof.folder_of(tmp_path, arm, 0)
        if done.exists():
            (done / "evaluation.json").write_text("{}")
    trained = len(again)
    assert proof.main([*train, "--steps", "8"]) == 0
    assert len(again) == trained
    assert proof.main([*train, "--steps", "9"]) == 1
    assert "is finished by other settings" in capsys.readouterr().err


def test_a_stage_that_fails_says_why_in_a_line(tmp_path):
    log = tmp_path / "train.log"
    with pytest.raises(proof.ProofError, match=r"data\.prepare ended with 1; .*train\.log says: error: .*nowhere"):
        proof.run("data.prepare", "verify", str(tmp_path / "nowhere"), log=log)


def test_play_pools_the_seeds_of_an_arm(tmp_path, monkeypatch):
    for seed, wins in enumerate((10, 20)):
        folder = proof.folder_of(tmp_path, "imitation of all", seed)
        folder.mkdir()
        (folder / "evaluation.json").write_text("{}")
        row = {"opponent": "random", "battles": 24, "ties": 2, "void": 0, "refused_choices": 0}
        rows = [{**row, "format": "gen1ou", "wins": wins}, {**row, "format": "gen4ou", "wins": 0}]
        (folder / "play").mkdir()
        (folder / "play" / "random.json").write_text(json.dumps({"results": rows}))
        if seed:  # an opponent that was played by another call, in one format
            rows = [{**row, "format": "gen1ou", "opponent": "boss", "wins": 6}]
            (folder / "play" / "boss.json").write_text(json.dumps({"results": rows}))
    monkeypatch.setattr(proof, "write_record", lambda *rest: tmp_path / "x.json")
    proof.play(tmp_path, ["gen1ou", "gen4ou"], 48, ["random"], 2, "proof_play")
    text = (tmp_path / "x.md").read_text()
    assert "| random | boss |" in text
    assert "battles a cell: 48 against random, 24 against boss" in text
    *_, gen1, gen4, together = text.splitlines()
    assert gen1 == "| imitation of all | gen1ou | 67% [53%, 78%] | 29% [15%, 49%] |"  # 32 of 48
    assert gen4.startswith("| imitation of all | gen4ou | 4% ")  # 2 of 48
    assert gen4.endswith("|  |")
    assert together.startswith("| imitation of all | all | 35% ")  # 34 of 96

    commands = []

    def better(*command, log):
        commands.append(command)
        won = {**row, "opponent": "random", "format": "gen1ou", "battles": 30, "wins": 30, "ties": 0}
        Path(command[-1]).write_text(json.dumps({"results": [won]}))

    # More battles than are held are played again, by each seed; the other format's are kept; then all are there.
    monkeypatch.setattr(proof, "run", better)
    for _ in range(2):
        proof.play(tmp_path, ["gen1ou"], 60, ["random"], 2, "proof_play")
        proof.play(tmp_path, ["gen1ou", "gen4ou"], 48, ["random"], 2, "proof_play")
    assert [command[5:9] for command in commands] == [("--formats", "gen1ou", "--battles", "30")] * 2
    *_, gen1, gen4, _ = (tmp_path / "x.md").read_text().splitlines()
    assert gen1.startswith("| imitation of all | gen1ou | 100% ")
    assert gen4.startswith("| imitation of all | gen4ou | 4% ")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_starter_is_rebuilt_from_nothing_by_one_script(tmp_path):
    small = {"BATTLES": "30", "SEARCHED": "1", "LATER_BATTLES": "40", "EVAL_BATTLES": "2"}
    settings = ["max_steps=2", "compile=false", "data.heldout_share=0.3"]
    command = ["bash", "launch/starter.sh", str(tmp_path / "out"), *settings]
    environment = {**os.environ, **small, "PYTHON": sys.executable, "TARGET": str(tmp_path / "packed")}
    done = subprocess.run(command, cwd=proof.ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {"config.json", "model.safetensors", "vocabulary.json", "README.md"} <= {
        path.name for path in (tmp_path / "packed").iterdir()
    }
    assert "| gen9ou | planner | 2 |" in (tmp_path / "packed" / "README.md").read_text()
    last = json.loads((tmp_path / "out" / "round4" / "run" / "run_config.json").read_text())
    assert last["model"]["init_from"] == str(tmp_path / "out" / "round3" / "run")
    assert len(last["data"]["sources"]) == 2


def test_the_starters_script_knows_its_folder_whatever_its_name(tmp_path):
    """Quotes and what begins a comment in YAML: the second round's training was refused, hours into it."""
    noted, python, out = tmp_path / "noted", tmp_path / "python", tmp_path / "o, it's [mine] #1"
    python.write_text(
        f"#!{sys.executable}\nimport sys, json\nprint(json.dumps(sys.argv[1:]), file=open({str(noted)!r}, 'a'))\n"
    )
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "TARGET": str(tmp_path / "packed")}
    subprocess.run(["bash", "launch/starter.sh", str(out)], cwd=proof.ROOT, env=environment, check=True, timeout=60)
    commands = [json.loads(line) for line in noted.read_text().splitlines()]
    runs = [load_config(words[7], words[8:]) for words in commands if "trainer.train" in words]
    assert runs[0].data.path == f"{out}/cache"
    outputs = [f"{out}/starter", *(f"{out}/round{n}/run" for n in (2, 3, 4))]
    assert [run.output for run in runs] == outputs
    assert [run.model.init_from for run in runs[1:]] == outputs[:-1]
    # The third reads the second's battles too; the fourth, of all formats, only its own.
    for run, rounds in zip(runs[1:], ((2,), (2, 3), (4,)), strict=True):
        assert [source["path"] for source in run.data.sources] == [
            f"{out}/round{n}/{whose}/cache" for n in rounds for whose in ("pool", "own")
        ]


def test_nothing_trained_is_said(tmp_path):
    with pytest.raises(SystemExit, match=r"launch\.proof train"):
        proof.trained(tmp_path)


def test_trees_learn_a_rule_and_keep_to_the_legal():
    """The action is told by one word and one number; an illegal one is never likely."""
    rng = np.random.default_rng(0)

    def some(n):
        words, numbers = rng.integers(0, 300, (n, 4)).astype(np.int32), rng.normal(size=(n, 3)).astype(np.float32)
        action = np.where(words[:, 1] % 2 == 1, 2, np.where(numbers[:, 0] > 0, 0, 1))
        legal = rng.random((n, 5)) < 0.7
        legal[np.arange(n), action] = True
        return {"words": words, "numbers": numbers, "legal": legal, "action": action, "row": np.arange(n)}

    train, heldout = some(4000), some(500)
    result = fit_and_score(train, heldout, heldout["row"] // 5)
    assert result["top1"][0] > 0.9
    assert result["nll"][0] < 0.3
    assert result["battles"] == 100


def test_decisions_are_those_with_a_choice(tmp_path):
    from data.dataset import BattleDataset, DataConfig
    from data.tokenizer import Tokenizer
    from tests.battle_files import Style, write_battles
    from trainer.heldout import all_packs

    write_battles(tmp_path, 6, seed=2, style=Style(missing=0.2, max_turns=30))
    dataset = BattleDataset(DataConfig(path=str(tmp_path), heldout_share=0.0, workers=0), Tokenizer.load(), "train")
    found = decisions_of(all_packs(dataset))
    assert (found["legal"].sum(1) >= 2).all()
    assert found["legal"][np.arange(len(found["action"])), found["action"]].all()
    expected = 0
    for i in range(len(dataset)):
        battle = dataset[i]
        expected += int(((battle.legal.sum(1) >= 2) & (battle.action >= 0)).sum())
    assert len(found["action"]) == expected
