"""A whole run: it learns, it resumes bit by bit, its model reloads and acts, and it notices when it is fed nothing."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data.dataset import BattleDataset, DataConfig
from data.loader import heldout_packs
from data.sampler import BatchConfig
from data.tokenizer import Tokenizer
from model.modeling_turnwise import TurnwiseForOfflineRL
from tests.battle_files import Style, make_battle, write_battles
from tests.trainer.conftest import SIZES, SMALL, rows_of
from trainer import checkpoint
from trainer.config import load_config
from trainer.export import code_copies
from trainer.loop import Run
from trainer.scores import collect
from trainer.train import main as train_main

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "assets" / "losses" / "golden_50_steps.json"


def in_new_process(*settings, timeout=180):
    return subprocess.run(
        [sys.executable, "-m", "trainer.train", *settings], cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )


def heldout_nll(folder, battles, change=None):
    """Mean NLL over decisions with a choice; `change(pack)` tampers with the observations."""
    network = TurnwiseForOfflineRL.from_pretrained(folder / "model")
    source = DataConfig(path=str(battles), heldout_share=0.15, max_turns=64, workers=0)
    dataset = BattleDataset(source, Tokenizer.load(folder / "model" / "vocabulary.json"), "heldout")
    packs = list(heldout_packs(dataset, BatchConfig(battles=8)))
    for pack in packs:
        if change is not None:
            change(pack)
    decisions = collect(network, packs)
    choice = decisions["legal"].sum(1) >= 2
    return decisions["nll"][choice].mean()


def test_a_run_learns_and_leaves_a_complete_folder(trained):
    rows = rows_of(trained)
    nll = {int(row["step"]): float(row["policy/nll@0.999"]) for row in rows}
    # Until the filter comes on at step 80; from then on the policy leaves some of the recorded actions behind.
    assert nll[80] < 0.75 * nll[1]
    assert float(rows[-1]["loss/critic"]) < 0.75 * float(rows[0]["loss/critic"])
    assert [int(row["step"]) for row in rows] == sorted({1, *range(10, 121, 10)})
    for name in ("loss/policy", "loss/critic", "optim/grad_norm_actor", "optim/grad_norm_critics", "data/padding"):
        assert float(rows[-1][name]) >= 0
    for gamma in (0.9, 0.99, 0.999, 0.9999):
        assert 0 <= float(rows[-1][f"filter/share_kept@{gamma}"]) <= 1
        assert np.isfinite(float(rows[-1][f"value/policy_minus_data@{gamma}"]))
        assert np.isfinite(float(rows[-1][f"value/target_drift@{gamma}"]))
    result = json.loads((trained / "evaluation.json").read_text())
    everything = result["policy"][0]
    assert everything["top1"][1] > everything["frequent_top1"][2]
    assert everything["nll"][2] < everything["uniform_nll"][1]
    assert (trained / "model" / "calibration.json").exists()


def test_a_model_fed_nothing_is_noticed(trained, cached):
    """The canary: blank or shuffled observations must cost a trained model at least 0.15 nats a decision."""
    seen = heldout_nll(trained, cached)

    def blank(pack):
        pack["words"][:] = pack["words"][0]
        pack["numbers"][:] = 0

    def shuffle(pack):
        order = torch.randperm(len(pack["words"]), generator=torch.Generator().manual_seed(0))
        pack["words"], pack["numbers"] = pack["words"][order], pack["numbers"][order]

    assert heldout_nll(trained, cached, blank) > seen + 0.15
    assert heldout_nll(trained, cached, shuffle) > seen + 0.15


@pytest.mark.slow  # quick: the same by its name on the Hub, tests/trainer/test_hub.py
def test_the_saved_folder_acts_without_the_repository(trained, tmp_path):
    battle = make_battle(77, "gen9ou")
    shutil.copytree(trained / "model", tmp_path / "model")
    (tmp_path / "states.json").write_text(json.dumps({"states": battle.states[:5]}))
    script = (
        "import json, importlib.util as u; assert u.find_spec('trainer') is None and u.find_spec('data') is None;"
        "from transformers.dynamic_module_utils import get_class_from_dynamic_module as load;"
        "agent = load('agents.TurnwiseAgent', 'model').from_pretrained('model');"
        "d = agent.decide(json.load(open('states.json'))['states']);"
        "print(json.dumps([d.action, d.words, d.probabilities, d.values, d.win_chance]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={"PATH": "/usr/bin:/bin", "HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    from battle.agents import TurnwiseAgent

    expected = TurnwiseAgent.from_pretrained(trained / "model").decide(battle.states[:5])
    action, words, probabilities, values, chance = json.loads(done.stdout.splitlines()[-1])
    assert (action, words) == (expected.action, expected.words)
    assert chance == pytest.approx(expected.win_chance, abs=1e-5)
    assert probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert values == pytest.approx({str(gamma): value for gamma, value in expected.values.items()}, abs=1e-4)


def test_code_copies_are_the_code(trained):
    for name, text in code_copies().items():
        assert (trained / "model" / name).read_text() == text, name
        room = next(room for room in ("model", "data", "battle") if (ROOT / room / name).exists())
        if room != "battle":
            assert text == (ROOT / room / name).read_text()
        assert not re.search(r"^\s*from (data|model|battle)\.", text, re.M)
        assert "import torch" not in text or not (ROOT / "data" / name).exists()


def test_ten_steps_equal_five_and_a_new_process_and_five(cached, tmp_path):
    settings = [
        *SMALL, f"data.path={cached}", "max_steps=10", "checkpoint.every=5", "checkpoint.keep=9", "eval.every=0",
        "log.every=1", "model.dropout=0.1", "objective.filter_warmup=2",
    ]  # fmt: skip
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert Run(load_config(None, [*settings, f"output={whole}"])).train() == 0
    resumed.mkdir()
    shutil.copytree(checkpoint.step_folder(whole, 5), checkpoint.step_folder(resumed, 5))
    shutil.copy(whole / "training_log.csv", resumed)
    done = in_new_process(*settings, f"output={resumed}")
    assert done.returncode == 0, done.stderr
    assert "at step 5" in done.stderr
    timing = ("speed/", "time/", "data/wait_share", "checkpoint/")
    for a, b in zip(rows_of(whole), rows_of(resumed), strict=True):
        assert {k: v for k, v in a.items() if not k.startswith(timing)} == {
            k: v for k, v in b.items() if not k.startswith(timing)
        }
    a, b = checkpoint.step_folder(whole, 10), checkpoint.step_folder(resumed, 10)
    for name in ("model/model.safetensors", "targets.safetensors", "optimizer.safetensors"):
        ours, theirs = load_file(a / name), load_file(b / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


def test_a_finished_run_is_not_relabelled_with_other_settings(cached, tmp_path, capsys, caplog):
    """The same command finishes again; other settings are refused, or listed where there is something left to train."""
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path / 'run'}", "max_steps=2"]
    records = [tmp_path / "run" / name for name in ("run_config.json", "about.json", "evaluation.json")]
    caplog.set_level("INFO")
    assert train_main(settings) == 0
    before = [path.read_bytes() for path in records]
    for changes, words in (
        (["optim.lr=0.02"], ["optim.lr: ", "→ 0.02", "resume=never"]), (["max_steps=1"], ["2 steps are done of 1"]),
    ):  # fmt: skip
        assert train_main([*settings, *changes]) == 1
        error = capsys.readouterr().err
        assert all(word in error for word in words), error
        assert [path.read_bytes() for path in records] == before
    assert "precision: fp32; device: cpu; processes: 1\n" in caplog.text  # not accelerate's "no" and "NO"
    assert train_main([*settings, "log.report=false"]) == 0
    caplog.clear()
    assert train_main([*settings, "max_steps=3", "optim.lr=0.02"]) == 0
    assert "optim.lr: " in caplog.text
    assert json.loads(records[0].read_text())["optim"]["lr"] == 0.02
    # A finished run's own folder holds a model, and is no checkpoint.
    for place in (tmp_path / "nowhere", tmp_path / "run"):
        assert train_main([*settings, f"resume={place}"]) == 1
        assert "no checkpoint there" in capsys.readouterr().err


def test_a_likelihood_of_other_battles_is_no_best(cached, tmp_path, caplog):
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}"]
    run = Run(load_config(None, [*settings, "max_steps=1"]))
    assert run.train() == 0
    assert run.best is not None
    for heldout, kept in (([], True), (["data.filter=rating > 0"], False), (["data.heldout_share=0.2"], False)):
        again = Run(load_config(None, [*settings, "max_steps=2", *heldout]))
        caplog.clear()
        assert again._resume() == 1
        assert (again.best is not None) == kept
        seen = "step_00000001: it held out 0.15 of the battles by battle, and this run holds out 0.2 by battle"
        assert (seen in caplog.text) == (heldout == ["data.heldout_share=0.2"])


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(trained, tmp_path, caplog):
    shutil.copytree(trained, tmp_path / "run")
    older, newest = checkpoint.list_checkpoints(tmp_path / "run")
    victim = newest / "optimizer.safetensors"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    assert checkpoint.newest_valid(tmp_path / "run") == older
    assert "optimizer.safetensors" in caplog.text
    (older / "model" / "model.safetensors").unlink()
    assert checkpoint.newest_valid(tmp_path / "run") is None
    with pytest.raises(checkpoint.CheckpointError, match="manifest"):
        checkpoint.verify(tmp_path)


def test_golden_losses_of_fifty_steps(tmp_path):
    """The loss curve on generated battles. Made anew (by deleting the file) only by a commit that says why."""
    battles = tmp_path / "battles"
    write_battles(battles, 40, seed=500, style=Style(noise=0.1, missing=0.05, max_turns=40))
    settings = [
        *(setting for setting in SMALL if setting not in SIZES), "model.preset=tiny", "model.value_bins=32",
        f"data.path={battles}", f"output={tmp_path / 'run'}", "max_steps=50", "log.every=5", "eval.every=0",
        "batch.battles=4", "objective.filter_warmup=25", "checkpoint.every=100",
    ]  # fmt: skip
    assert Run(load_config(None, settings)).train() == 0
    names = ("loss/policy", "loss/critic", "policy/nll@0.999", "filter/share_kept@0.999")
    curve = [{name: float(row[name]) for name in names} for row in rows_of(tmp_path / "run")]
    if not GOLDEN.exists():
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(json.dumps(curve, indent=1))
        pytest.fail(f"{GOLDEN} was missing and is written anew: commit it with the reason")
    expected = json.loads(GOLDEN.read_text())
    assert len(curve) == len(expected) == 11
    for i, (ours, theirs) in enumerate(zip(curve, expected, strict=True)):
        # Other processors add in another order; the difference grows along a curve that turns discrete (the filter).
        tolerance = 1e-4 if i < 3 else 0.05
        # Before the critics have learned anything, every advantage is 0 but for rounding, and so is its sign.
        for name in names if i > 5 else names[:3]:
            assert ours[name] == pytest.approx(theirs[name], rel=tolerance, abs=tolerance), (i, name)


@pytest.mark.slow
def test_thirty_battles_are_learned_by_heart(tmp_path):
    battles = tmp_path / "battles"
    write_battles(battles, 30, seed=900, style=Style(noise=0.3, missing=0.0, max_turns=16))
    settings = [
        *SMALL, f"data.path={battles}", f"output={tmp_path / 'run'}", "max_steps=90", "eval.every=0",
        "optim.lr=4.0e-3", "batch.battles=12", "objective.filter=imitation", "optim.weight_decay=0",
        "data.heldout_share=0.05", "checkpoint.every=1000", "objective.critic_weight=0.1",
    ]  # fmt: skip
    assert Run(load_config(None, settings)).train() == 0
    accuracy = [float(row["policy/accuracy@0.999"]) for row in rows_of(tmp_path / "run")[-3:]]
    assert np.mean(accuracy) > 0.95


def test_a_run_goes_to_wandb_offline_and_is_profiled(cached, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = [
        *SMALL, f"data.path={cached}", f"output={tmp_path / 'run'}", "max_steps=3", "eval.every=0", "log.every=1",
        "log.wandb=true", "log.profile=4",  # more than there are steps: those that there are
    ]  # fmt: skip
    assert Run(load_config(None, settings)).train() == 0
    (logged,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    until = time.monotonic() + 20  # its process writes on after it said that it is done
    while b"loss/total" not in logged.read_bytes() and time.monotonic() < until:
        time.sleep(0.05)
    assert b"loss/total" in logged.read_bytes()
    assert "aten::" in (tmp_path / "run" / "profile" / "table.txt").read_text()


def test_a_checkpoint_of_other_data_is_refused(trained, battles, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run")
    settings = [*SMALL, f"data.path={battles}", "max_steps=200", f"output={tmp_path / 'run'}"]
    assert train_main([*settings, "data.space=expanded"]) == 1
    assert "observation_space" in capsys.readouterr().err
    other = tmp_path / "other.json"
    Tokenizer(Tokenizer.load().words_of(range(2, 3000))).save(other)
    assert train_main([*settings, f"data.vocabulary={other}"]) == 1
    assert "vocabulary" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data.path=NOWHERE"], ["NOWHERE"]),
        (["data.formats=[gen8ou]"], ["gen8ou"]),
        (["processes=2"], ["processes", "torchrun"]),
        (["precision=fp8"], ["precision"]),
        (["model.attention=flash_attention_2"], ["model.attention", "sdpa"]),
        (["max_steps=null"], ["max_steps"]),
        (["model.value_max=110"], ["model.value_max", "1000"]),
        (["optim.name=muon", "deepspeed=ds_configs/zero1.json"], ["optim.name=muon", "DeepSpeed", "adamw"]),
        (["optim.name=muon", "parallel=fsdp2"], ["optim.name=muon", "fsdp2", "adamw"]),
        (["deepspeed=ds_configs/zero1.json", "parallel=fsdp2"], ["parallel=fsdp2", "DeepSpeed"]),
        (["output=/dev/null/run"], ["/dev/null/run", "nothing can be written"]),
        (["cuda_graphs=true", "batch.accumulate=2"], ["cuda_graphs=true", "batch.accumulate=2"]),
    ],
)
def test_a_run_that_cannot_be_is_refused_with_a_reason(cached, tmp_path, capsys, settings, words):
    assert train_main([*SMALL, f"data.path={cached}", "max_steps=1", f"output={tmp_path}", *settings]) == 1
    error = capsys.readouterr().err
    assert all(word in error for word in words), error


def test_few_cloned_battles(cached, tmp_path, capsys, caplog):
    """Evaluations that would read none are refused at the start; a step without one has no mean over its decisions,
    where it was logged as a likelihood of 0, and as a filter that keeps nothing."""
    source = DataConfig(path=str(cached), heldout_share=0.15, workers=0)
    train, heldout = (BattleDataset(source, Tokenizer.load(), side) for side in ("train", "heldout"))
    read = heldout.some(1).info(0)["player"]
    other = next(name for name in (heldout.info(row)["player"] for row in range(len(heldout))) if name != read)
    settings = [
        *SMALL, f"data.path={cached}", f"output={tmp_path}", "max_steps=3", "eval.every=0", "log.every=1",
        "log.progress=true", "batch.battles=1", f"data.clone=player in {(train.info(0)['player'], other)}",
    ]  # fmt: skip
    for few in (["eval.battles=1"], ["eval.battles=null", "eval.final_battles=1"]):
        assert train_main([*settings, *few]) == 1
        assert f"{few[-1]}: data.clone" in capsys.readouterr().err
    caplog.set_level("INFO")
    assert train_main([*settings, "eval.battles=null"]) == 0
    rows = [row for row in rows_of(tmp_path) if float(row["loss/policy"]) == 0]
    assert rows
    assert not any(value for row in rows for name, value in row.items() if name.startswith(("policy/", "filter/")))
    assert "nll@0.999 – " in caplog.text
    assert "outside 2–98%" not in caplog.text


def test_micro_steps_are_the_configurations(cached, tmp_path, monkeypatch):
    """Not the environment's: gradients were a quarter, and of several processes each kept its own."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    run = Run(load_config(None, [*SMALL, f"data.path={cached}", "max_steps=1", f"output={tmp_path}"]))
    assert run.accelerator.gradient_accumulation_steps == 1


def test_an_engine_of_accelerates_own_is_refused(cached, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert train_main([*SMALL, f"data.path={cached}", "max_steps=1", f"output={tmp_path}"]) == 1
    assert "accelerate was told to shard by FSDP" in capsys.readouterr().err
