"""Generated battles and one small trained run, made once for all tests of the trainer."""

import pytest

from tests.battle_files import Style, write_battles
from trainer.config import load_config
from trainer.loop import Run

SMALL = [
    "precision=fp32", "compile=false", "epochs=null", "model.preset=tiny", "model.value_bins=32", "data.workers=0",
    "data.heldout_share=0.15", "data.max_turns=64", "batch.battles=8", "batch.accumulate=1", "optim.warmup_steps=5",
    "eval.calibration_battles=60", "log.progress=false",
]  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def index_cache(tmp_path_factory):
    """Indexes of test data are kept out of the user's cache."""
    import os

    os.environ["TURNWISE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def battles(tmp_path_factory):
    """A folder of 120 generated battles, most of their choices by a rule."""
    root = tmp_path_factory.mktemp("battles")
    write_battles(root, 120, seed=1, style=Style(noise=0.05, missing=0.03, max_turns=60))
    return root


@pytest.fixture(scope="session")
def trained(battles, tmp_path_factory):
    """The folder of a finished run of 120 steps with the default objective, its likeliest checkpoint chosen."""
    output = tmp_path_factory.mktemp("run") / "trained"
    settings = [
        *SMALL, f"data.path={battles}", f"output={output}", "max_steps=120", "optim.lr=3.0e-3", "eval.every=60",
        "checkpoint.every=60", "objective.filter_warmup=80", "eval.choose=likelihood",
    ]  # fmt: skip
    assert Run(load_config(None, settings)).train() == 0
    return output
