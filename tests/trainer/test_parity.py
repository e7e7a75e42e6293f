"""The accumulated gradient is one number for one set of battles, however they are cut into micro-batches and ranks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainer import one_step
from tests.trainer.conftest import SMALL

ROOT = Path(__file__).parents[2]


def step_of(battles, out, micro, accumulate, processes=1):
    settings = [
        *SMALL, f"data.path={battles}", f"output={out.parent / 'run'}", "max_steps=1", "optim.name=sgd",
        "optim.lr=0.01",
        "optim.warmup_steps=0", "optim.grad_clip=1.0e9", "batch.plan=battles", f"batch.battles={micro}",
        f"batch.accumulate={accumulate}", f"batch.turns={64 * micro}", "data.heldout_share=0.02",
        "objective.filter_warmup=0", "batch_scaling=multiply", "lr_scaling=none",
    ]  # fmt: skip
    if processes == 1:
        one_step.main(str(out), settings)
    else:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        done = subprocess.run(
            [sys.executable, *torchrun, "-m", "tests.trainer.one_step", str(out), *settings], cwd=ROOT,
            capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def whole(cached, tmp_path_factory):
    return step_of(cached, tmp_path_factory.mktemp("one") / "whole.pt", 16, 1)


@pytest.mark.parametrize(
    ("micro", "accumulate", "processes"), [(4, 4, 1), pytest.param(2, 4, 2, marks=pytest.mark.slow)]
)
def test_gradients_and_parameters_do_not_depend_on_the_cut(whole, cached, tmp_path, micro, accumulate, processes):
    cut = step_of(cached, tmp_path / "cut.pt", micro, accumulate, processes)
    norm = torch.stack([g.norm() for g in whole["gradient"].values()]).norm()
    difference = torch.stack([(cut["gradient"][n] - g).norm() for n, g in whole["gradient"].items()]).norm()
    assert difference / norm < 1e-5
    for name, value in whole["parameters"].items():
        assert (cut["parameters"][name] - value).abs().max() < 1e-6, name
    for name, value in whole["targets"].items():
        assert (cut["targets"][name] - value).abs().max() < 1e-6, name
