"""What the tests of the trainer share: a small trained run, made once, and how runs of that size are made and read."""

import csv

import pytest
from filelock import FileLock

from data.cache import CacheJob, make_cache
from trainer import loop
from trainer.config import load_config
from trainer.flops import flops_per_turn, share_of_blocks
from trainer.loop import Run

# Half of `tiny` each way: a step takes half the time, and these tests take hundreds.
SIZES = [
    "model.preset=tiny", "model.hidden_size=64", "model.num_layers=2", "model.mlp_size=128", "model.word_width=8",
    "model.entity_width=32", "model.entity_hidden=64", "model.head_width=16", "model.value_bins=32",
]  # fmt: skip
SMALL = [
    *SIZES, "precision=fp32", "compile=false", "epochs=null", "data.workers=0", "data.heldout_share=0.15",
    "data.max_turns=64", "batch.battles=4", "batch.accumulate=1", "optim.warmup_steps=5", "eval.calibration_battles=8",
    "log.progress=false", "log.report=false",
]  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def index_cache(tmp_path_factory):
    """Indexes of test data are kept out of the user's cache."""
    import os

    os.environ["TURNWISE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def cached(battles, shared):
    """The shared battles as a token cache: encoded once, not in each of some hundred runs."""
    folder = shared / "cached"
    with FileLock(shared / "cached.lock"):
        if not folder.exists():
            make_cache(CacheJob(battles, folder), processes=1, progress=False)
    return folder


@pytest.fixture(scope="session")
def trained(cached, shared):
    """The folder of a finished run of 120 steps with the default objective, its likeliest checkpoint chosen."""
    output = shared / "trained"
    settings = [
        *SMALL, f"data.path={cached}", f"output={output}", "max_steps=120", "optim.lr=3.0e-3", "eval.every=60",
        "checkpoint.every=60", "objective.filter_warmup=80", "eval.choose=likelihood", "log.report=true",
    ]  # fmt: skip
    with FileLock(shared / "trained.lock"):
        if not (output / "report.html").exists():
            assert Run(load_config(None, settings)).train() == 0
    return output


@pytest.fixture(autouse=True, scope="session")
def flops_counted_once():
    """Some hundred runs have few networks among them, whose FLOPs were a fifth of a short run's time."""
    counted = {}

    def once(config, batch, target_network=False):
        shapes = tuple((key, value.shape[1:], value.dtype) for key, value in batch.items())
        asked = config.to_json_string(), shapes, share_of_blocks(batch, config.max_turns), target_network
        if asked not in counted:
            counted[asked] = flops_per_turn(config, batch, target_network)
        return dict(counted[asked])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "flops_per_turn", once)
        yield


def run_of(data, output, *settings):
    """A run of `SMALL`, logged at every step, that is yet to train."""
    common = [*SMALL, f"data.path={data}", f"output={output}", "eval.every=0", "log.every=1"]
    return Run(load_config(None, [*common, *settings]))


def rows_of(folder):
    """The rows of a run's training log, each a dictionary of texts."""
    with open(folder / "training_log.csv", newline="") as handle:
        return list(csv.DictReader(handle))
