"""A saved model whose files did not come whole, as a copy that was stopped or a disk that was full leaves it."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from data.observation import SPACES
from data.tokenizer import Tokenizer
from model.modeling_turnwise import TurnwiseConfig, TurnwiseForOfflineRL, preset
from trainer.checkpoint import CheckpointError, load_network
from trainer.config import load_config
from trainer.evaluate import main as evaluate_main
from trainer.export import export_model
from trainer.finetune import starting_model
from trainer.hub import main as hub_main
from trainer.train import main as train_main


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    tokenizer, folder = Tokenizer.load(), tmp_path_factory.mktemp("saved")
    sizes = {**preset("tiny"), "layout": SPACES["default"].layout, "vocab_size": len(tokenizer)}
    export_model(TurnwiseForOfflineRL(TurnwiseConfig(**sizes, vocabulary_hash=tokenizer.hash)), tokenizer, folder)
    return folder


def cut(file):
    file.write_bytes(file.read_bytes()[:-10])


def without(name):
    def lacks(file):
        weights = load_file(file)
        del weights[name]
        save_file(weights, file)

    return lacks


WORDS = "model.turn_encoder.words.weight"


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("model.safetensors", cut, "not fully covered"),
        ("model.safetensors", lambda file: file.unlink(), "No such file"),
        ("model.safetensors", without("actor.features.action"), 'Missing key.*"actor.features.action"'),
        ("model.safetensors", without(WORDS), f'Missing key.*"{WORDS}"'),
        ("config.json", cut, "not a valid JSON"),
    ],
)
def test_no_run_starts_from_it_and_no_figure_is_of_it(saved, tmp_path, name, spoil, said):
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    config = load_config(None, ["data.path=x", f"output={tmp_path / 'run'}", f"model.init_from={folder}"])
    assert starting_model(config).network()
    spoil(folder / name)
    told = rf"{folder}: is cut or spoilt \(.*{said}.*\): save or fetch the model again"
    with pytest.raises((CheckpointError, ValueError), match=told):
        starting_model(config).network()
    with pytest.raises(CheckpointError, match=told):
        load_network(folder)


def test_every_command_says_it_in_a_line(saved, battles, tmp_path, capsys):
    """They ended in a traceback."""
    folder = shutil.copytree(saved, tmp_path / "model")
    cut(folder / "model.safetensors")
    settings = [f"data.path={battles}", f"output={tmp_path / 'run'}", "max_steps=1", f"model.init_from={folder}"]
    assert train_main([*settings, "precision=fp32"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {folder}: is cut or spoilt (")
    for main, command in (
        (evaluate_main, ["--checkpoint", str(folder), "--data", str(battles)]),
        (hub_main, ["pack", str(folder), "--to", str(tmp_path / "packed")]),
    ):
        assert main(command) == 1
        assert capsys.readouterr().err.startswith(f"error: {folder}: is cut or spoilt (")
    assert not (tmp_path / "packed").exists()
