"""A checkpoint: told from a damaged one whichever bit it is, shown by its command, read from an older schema."""

import json
import os
import shutil
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from data.tokenizer import Tokenizer
from model.modeling_turnwise import TurnwiseForOfflineRL
from tests.packs import tiny_network
from tests.trainer.conftest import SMALL, run_of
from trainer import checkpoint, saver, versions
from trainer.export import export_model
from trainer.state import TrainingState, gather, scatter
from trainer.train import main as train_main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """A checkpoint as far as `verify` looks."""
    folder = tmp_path / "step_00000003"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "run.json").write_bytes(bytes(range(256)))
    checkpoint._write_manifest(folder)
    return folder


def test_every_flipped_bit_of_the_manifest_is_told_or_harmless(folder):
    """A flip in UTF-8, in JSON, in a field's name, in a size or a hash; only space and the schema's digit can pass."""
    path = folder / "manifest.json"
    whole, meant = path.read_bytes(), checkpoint.verify(folder)
    told = 0
    for place in range(len(whole)):
        for bit in range(8):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            path.write_bytes(data)
            try:
                found = checkpoint.verify(folder)
            except checkpoint.CheckpointError:
                told += 1
            else:
                assert found.files == meant.files
    assert told > 0.95 * 8 * len(whole.replace(b" ", b"").replace(b"\n", b""))


def test_a_checkpoint_gives_way_to_a_whole_one_alone(folder, tmp_path, monkeypatch):
    """Killed, or failed, between the two renames of a second save of one step."""
    whole = (folder / "run.json").read_bytes()
    half = tmp_path / ".step_00000003.tmp"
    folder.rename(tmp_path / ".step_00000003.old")
    half.mkdir()
    checkpoint.recover(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000003"]
    (tmp_path / ".step_00000003.old").mkdir()
    checkpoint.recover(tmp_path)
    assert (folder / "run.json").read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000003"]

    def full(source, target):
        if target == folder:
            raise OSError(28, "No space left on device")
        real(source, target)

    real = checkpoint.os.replace
    monkeypatch.setattr(checkpoint.os, "replace", full)
    monkeypatch.setattr(checkpoint, "export_model", lambda *_, **__: None)
    state = TrainingState({}, {}, {}, 0, {})
    with pytest.raises(OSError, match="No space"):
        checkpoint.write(tmp_path, 3, state, {}, None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000003"]
    assert (folder / "run.json").read_bytes() == whole


def test_all_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A machine that goes down at any moment finds a whole checkpoint of that step again, or none of it."""
    done, real = [], os.replace

    def fsync(descriptor):
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        done.extend(path.name for path in tmp_path.glob(".*.old"))

    def replace(source, target):
        done.append(f"{Path(source).name} → {Path(target).name}")
        real(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(checkpoint, "export_model", lambda *_, **__: None)
    state, name = TrainingState({}, {}, {}, 0, {"weight": torch.ones(1)}), "step_00000003"
    checkpoint.write(tmp_path, 3, state, {}, None, None)
    files = ["online.safetensors", "optimizer.safetensors", "run.json", "targets.safetensors"]
    manifest = [".manifest.json.tmp", ".manifest.json.tmp → manifest.json"]
    assert done == [*files, *manifest, f".{name}.tmp → {name}", tmp_path.name]
    done.clear()
    checkpoint.write(tmp_path, 3, state, {}, None, None)
    # The one before is there until the new one is.
    assert done[6:] == [f"{name} → .{name}.old", f".{name}.tmp → {name}", tmp_path.name, f".{name}.old"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_newest_and_the_best_are_kept_and_found(folder, tmp_path):
    for step in (1, 2, 4, 5, 10):
        shutil.copytree(folder, checkpoint.step_folder(tmp_path, step))
    (tmp_path / "step_00000011" / "model").mkdir(parents=True)  # not finished

    def steps():
        return [int(path.name[5:]) for path in checkpoint.list_checkpoints(tmp_path)]

    assert checkpoint.model_folder(tmp_path) == tmp_path / "step_00000010" / "model"
    checkpoint.prune(tmp_path, 0, None)
    assert steps() == [1, 2, 3, 4, 5, 10]
    checkpoint.prune(tmp_path, 2, 3)
    assert steps() == [3, 5, 10]
    for path, skipping in zip(checkpoint.list_checkpoints(tmp_path), (0, 0, 2), strict=True):
        (path / "manifest.json").unlink()
        (path / "run.json").write_text(json.dumps({"skipping": skipping}))
        checkpoint._write_manifest(path)
    assert checkpoint.newest_valid(tmp_path) == checkpoint.step_folder(tmp_path, 10)
    assert checkpoint.newest_valid(tmp_path, sound=True) == checkpoint.step_folder(tmp_path, 5)
    checkpoint.prune(tmp_path, 1, None)
    assert steps() == [10]
    assert (tmp_path / "step_00000011").exists()


def test_a_saver_writes_one_at_a_time_beside_training_and_tells_whether_the_last_was_written(tmp_path, monkeypatch):
    told, full = [], []

    def write(output, step, *_):
        told.append(f"begins {step}")
        time.sleep(0.1)
        if step in full:
            raise OSError(28, "No space left on device")
        told.append(f"ends {step}")
        return output / str(step)

    monkeypatch.setattr(saver, "gather", lambda *_: None)
    monkeypatch.setattr(checkpoint, "write", write)
    monkeypatch.setattr(checkpoint, "prune", lambda output, keep, best: told.append(f"keeps {keep}, {best}"))
    main = SimpleNamespace(is_main_process=True)
    saving = saver.Saver(tmp_path, main, (), None, None, keep=3, background=True)
    saving.written = lambda folder, step: told.append(f"{folder.name} is step {step}")
    full.append(2)
    saving.save(1, {"skipping": 0, "best": {"step": 1}})
    assert "ends 1" not in told
    saving.save(2, {"skipping": 0, "best": None})
    assert told[:4] == ["begins 1", "ends 1", "1 is step 1", "keeps 3, 1"]
    assert saving.take_held_s() > 0.05
    assert saving.take_held_s() == 0
    with pytest.raises(checkpoint.CheckpointError, match=r"the last checkpoint could not be written .*No space"):
        saving.finish()
    saving.save(3, {"skipping": 1, "best": None})
    saving.finish()
    assert told[4:] == ["begins 2", "begins 3", "ends 3", "3 is step 3"]  # in a stretch of skips nothing is deleted
    saving.background = False
    saving.save(4, {"skipping": 0, "best": None})
    assert told[-1] == "keeps 3, None"


def test_every_cut_of_the_manifest_is_told(folder):
    path = folder / "manifest.json"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(checkpoint.CheckpointError, match="manifest"):
            checkpoint.verify(folder)


@pytest.mark.parametrize("name", ["run.json", "model/config.json"])
def test_every_flipped_bit_of_a_file_is_told(folder, name):
    path = folder / name
    whole = path.read_bytes()
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        with pytest.raises(checkpoint.CheckpointError, match=name):
            checkpoint.verify(folder)
    path.unlink()
    with pytest.raises(checkpoint.CheckpointError, match=name):
        checkpoint.verify(folder)


def test_saved_weights_are_loaded_as_what_they_are(tmp_path):
    """Under DeepSpeed in bf16 the network at hand is bf16, and the weights that are saved its fp32 masters."""
    network = tiny_network()
    masters = {name: value.clone() for name, value in network.state_dict().items()}
    export_model(network, Tokenizer.load(), tmp_path / "plain", masters)
    export_model(network.bfloat16(), Tokenizer.load(), tmp_path / "engine", masters)
    assert (tmp_path / "engine" / "config.json").read_bytes() == (tmp_path / "plain" / "config.json").read_bytes()
    loaded = TurnwiseForOfflineRL.from_pretrained(tmp_path / "engine")
    assert all(torch.equal(value, masters[name]) for name, value in loaded.state_dict().items())


def test_a_path_that_leads_nowhere_is_no_name_on_the_hub(tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="step_00000010': no such folder: name a run, a checkpoint, "):
        checkpoint.find_model(tmp_path / "step_00000010")


def test_a_machine_without_deepspeed_trains_and_says_its_versions(monkeypatch):
    def without(name):
        if name == "deepspeed":
            raise PackageNotFoundError(name)
        return version(name)

    assert versions.versions()["deepspeed"] == version("deepspeed")
    monkeypatch.setattr(versions, "version", without)
    assert "deepspeed" not in versions.versions()
    assert versions.versions()["torch"] == version("torch")


def test_command_line_of_checkpoints(trained, tmp_path, capsys):
    assert checkpoint.main(["verify", str(trained)]) == 0
    assert checkpoint.main(["inspect", str(trained)]) == 0
    text = capsys.readouterr().out
    assert "step 120" in text
    assert f"schema {checkpoint.SCHEMA}" in text
    assert checkpoint.main(["export", str(trained), "--to", str(tmp_path / "out" / "agent")]) == 0
    checkpoint.load_network(tmp_path / "out" / "agent")
    # The run's own agent, which need not be its newest checkpoint's, with all that it needs.
    ours = {path.name: path.read_bytes() for path in (trained / "model").iterdir() if path.is_file()}
    theirs = {path.name: path.read_bytes() for path in (tmp_path / "out" / "agent").iterdir() if path.is_file()}
    assert {name: theirs[name] for name in ours} == ours
    assert theirs.keys() - ours == {"README.md", "training_curve.png"}
    assert theirs["README.md"].decode().split("---\n")[2].startswith("\n# agent\n")  # and not where it lies
    assert b"top-1" in theirs["README.md"]
    assert "calibration.json" in ours
    modes = {path.stat().st_mode for path in (trained / "model").iterdir() if path.is_file()}
    assert len(modes) == 1
    starter = str(ROOT / "battle" / "starter")
    assert checkpoint.main(["export", starter, "--to", str(tmp_path / "starter")]) == 0
    assert {"agents.py", "modeling_turnwise.py", "model.safetensors"} <= {
        p.name for p in (tmp_path / "starter").iterdir()
    }
    # Nothing but an agent gives way to one.
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    shutil.copytree(trained, tmp_path / "run")
    capsys.readouterr()
    for place, words in (("full", "thesis.txt"), ("run", ".lock"), ("full/thesis.txt", "is a file")):
        assert checkpoint.main(["export", str(trained), "--to", str(tmp_path / place)]) == 1
        assert words in capsys.readouterr().err
    assert (tmp_path / "full" / "thesis.txt").exists()
    assert len(checkpoint.list_checkpoints(tmp_path / "run")) == 2
    assert checkpoint.main(["export", str(trained), "--to", str(tmp_path / "starter")]) == 0
    victim = checkpoint.list_checkpoints(tmp_path / "run")[0] / "targets.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1])
    assert checkpoint.main(["verify", str(tmp_path / "run")]) == 1
    assert "targets.safetensors" in capsys.readouterr().out
    assert checkpoint.main(["export", str(victim.parent), "--to", str(tmp_path / "damaged")]) == 1
    assert not (tmp_path / "damaged").exists()
    assert checkpoint.main(["inspect", str(tmp_path)]) == 1
    assert "no checkpoint here" in capsys.readouterr().err


def test_an_earlier_schema_is_read(cached, tmp_path):
    """Schema 1 kept the optimizer's numbered state in optimizer.pt, and under DeepSpeed its shards."""
    run = run_of(cached, tmp_path / "run", "max_steps=4", "checkpoint.every=2")
    assert run.train() == 0
    folder = checkpoint.step_folder(tmp_path / "run", 4)
    expected = gather(run.accelerator, run.module, run.objective, run.optimizer)
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    (old / "optimizer.safetensors").unlink()
    torch.save(run.optimizer.state_dict(), old / "optimizer.pt")
    settings = json.loads((old / "run.json").read_text()) | {"schema": 1, "best": 1.25}
    (old / "run.json").write_text(json.dumps(settings))
    (old / "manifest.json").unlink()
    checkpoint._write_manifest(old)
    state, _ = checkpoint.read(old)
    assert state.updates == expected.updates == 4
    assert state.moments.keys() == expected.moments.keys()
    assert all(torch.equal(state.moments[name], expected.moments[name]) for name in expected.moments)
    (old / "deepspeed").mkdir()
    with pytest.raises(checkpoint.CheckpointError, match="init_from"):
        checkpoint.read(old)
    (folder / "run.json").write_text(json.dumps(settings | {"schema": 99}))
    (folder / "manifest.json").unlink()
    checkpoint._write_manifest(folder)
    with pytest.raises(checkpoint.CheckpointError, match="later version"):
        checkpoint.read(folder)


def test_a_state_is_a_copy_and_comes_back_whole(cached, tmp_path):
    """What training changes later stays out of it; what it does not hold is gone once it is back. The critics' running
    statistics are part of it, which are no parameters."""
    run = run_of(cached, tmp_path, "max_steps=2", "model.value_head=scalar", "optim.warmup_steps=0")
    parts = (run.accelerator, run.module, run.objective, run.optimizer)
    state = gather(*parts)
    before = {name: value.clone() for name, value in state.network.items()}
    run.course.open(0)
    run.step(0, run.course.micro(0))
    stepped = gather(*parts)
    changed = {name for name, value in stepped.network.items() if not torch.equal(value, before[name])}
    assert {"popart.mean", "critics.weight"} <= changed
    assert stepped.moments
    assert all(torch.equal(state.network[name], value) for name, value in before.items())
    scatter(state, *parts)
    back = gather(*parts)
    assert back.network.keys() == before.keys()
    assert all(torch.equal(back.network[name], value) for name, value in before.items())
    assert (back.moments, back.updates) == ({}, 0)


def test_another_network_is_refused_by_name(cached, tmp_path, capsys):
    assert run_of(cached, tmp_path, "max_steps=2").train() == 0
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}", "max_steps=4", "model.num_layers=1"]
    assert train_main(settings) == 1
    assert "num_layers is 2 there and 1 here: its model is not that of this run" in capsys.readouterr().err


@pytest.fixture(scope="module")
def begun(cached, tmp_path_factory):
    """A run that ended after one step."""
    output = tmp_path_factory.mktemp("begun")
    assert run_of(cached, output, "max_steps=1").train() == 0
    return output


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.gammas=[0.9,0.95,0.999,0.9999]", "gammas is [0.9, 0.99, 0.999, 0.9999] there"),
        ("model.value_spacing=symlog", "value_spacing is 'linear' there and 'symlog' here"),
        ("objective.reward_scale=1", "reward_scale is 10.0 there and 1.0 here"),
        ("model.num_heads=1", "num_heads is 2 there and 1 here"),
        ("model.dropout=0.1", None),
        ("model.act_gamma=0.99", None),
        ("data.max_turns=32", None),
    ],
)
def test_weights_that_would_mean_something_else_are_refused_whatever_their_shapes(
    cached, begun, tmp_path, capsys, setting, said
):
    output = shutil.copytree(begun, tmp_path / "run")
    settings = [*SMALL, f"data.path={cached}", f"output={output}", "eval.every=0", "max_steps=2", setting]
    assert train_main(settings) == (1 if said else 0)
    assert (said or "") in capsys.readouterr().err
