"""A damaged checkpoint is told from a whole one, whichever bit it is."""

from importlib.metadata import PackageNotFoundError, version

import pytest

from trainer import checkpoint
from trainer.state import TrainingState


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


def test_a_path_that_leads_nowhere_is_no_name_on_the_hub(tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="step_00000010': no such folder: name a run, a checkpoint, "):
        checkpoint.find_model(tmp_path / "step_00000010")


def test_a_machine_without_deepspeed_trains_and_says_its_versions(monkeypatch):
    def without(name):
        if name == "deepspeed":
            raise PackageNotFoundError(name)
        return version(name)

    assert checkpoint.versions()["deepspeed"] == version("deepspeed")
    monkeypatch.setattr(checkpoint, "version", without)
    assert "deepspeed" not in checkpoint.versions()
    assert checkpoint.versions()["torch"] == version("torch")
