"""Options of the optimizer on two processes: the same numbers as on one, under every engine that takes them."""

import pytest
import torch
from safetensors.torch import load_file

from launch.bench_engines import PLAIN, ROOT, Row, launch
from trainer.checkpoint import step_folder

STEPS = 6
OPTIONS = {"ema": "optim.ema=0.9", "muon": "optim.name=muon"}
CASES = [("muon", "plain"), *(("ema", engine) for engine in ("plain", "zero1", "zero2", "zero3", "fsdp2"))]


def saved(row, output, option):
    """Weights of a short run's last checkpoint: the published ones, and (where they differ) the trained ones."""
    code, text = launch(row, output, OPTIONS[option], f"data.path={ROOT / 'data' / 'sample'}", steps=STEPS)
    assert code == 0, text
    folder = step_folder(output, STEPS)
    return [load_file(path) for path in sorted([folder / "model/model.safetensors", *folder.glob("online*")])]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return {option: saved(PLAIN, tmp_path_factory.mktemp(option) / "run", option) for option in OPTIONS}


@pytest.mark.slow
@pytest.mark.parametrize(("option", "engine"), CASES)
def test_two_processes_give_the_weights_of_one(option, engine, alone, tmp_path):
    found = saved(Row("torchrun", 2, engine), tmp_path / "run", option)
    assert len(found) == len(alone[option]) == (2 if option == "ema" else 1)
    for ours, theirs in zip(found, alone[option], strict=True):
        assert ours.keys() == theirs.keys()
        assert all((ours[name] - theirs[name]).abs().max() < 1e-4 for name in theirs)
    if option == "ema":
        assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])
