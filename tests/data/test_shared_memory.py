"""Little shared memory, as a container has it: fewer packs wait there, and no run waits for one that was lost."""

import logging
import subprocess
import sys
from collections import namedtuple

import pytest

from data import shared_memory
from data.shared_memory import that_fit

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("free_mb", "processes", "held", "fits"),
    [
        (4000, 1, 0, (12, 4)), (2000, 8, 0, (12, 3)), (64, 1, 0, (10, 1)), (64, 8, 0, (1, 1)), (40, 8, 0, (0, 4)),
        (0, 1, 0, (0, 4)), (64, 1, 8, (2, 1)), (64, 1, 16, (0, 4)),
    ],
)  # fmt: skip
def test_packs_ahead_and_held_take_half_of_what_is_free(monkeypatch, tmp_path, caplog, free_mb, processes, held, fits):
    monkeypatch.setattr(shared_memory, "SHARED", str(tmp_path))
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path: Usage(0, 0, free_mb * 1_000_000))
    with caplog.at_level(logging.WARNING):
        workers, prefetch = that_fit(12, 4, 3_200_000, processes, held)
    assert (workers, prefetch) == fits
    assert workers == 0 or (workers * prefetch + held) * 3.2 * processes <= free_mb / 2
    assert ("--shm-size" in caplog.text) == (fits != (12, 4))


def test_without_workers_or_without_such_a_place_nothing_changes(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path: Usage(0, 0, 0))
    assert that_fit(0, 4, 100, 1) == (0, 4)
    monkeypatch.setattr(shared_memory, "SHARED", str(tmp_path / "none"))
    assert that_fit(12, 4, 100, 1) == (12, 4)


CONSUMER = """
import sys, time
from data import loader as packs_of
from data.data_config import DataConfig
from data.dataset import BattleDataset
from data.loader import BatchConfig, make_loader
from data.tokenizer import Tokenizer
if len(sys.argv) > 2:  # something else fills it after the look at it
    packs_of.that_fit, packs_of.LOST_AFTER = lambda workers, prefetch, *rest: (workers, prefetch), 3
data = BattleDataset(DataConfig(path="data/sample", cache_dir=sys.argv[1], workers=3, prefetch=4), Tokenizer.load())
loader = make_loader(data, BatchConfig(battles=16), seed=0, max_steps=20)
packs = iter(loader)
next(packs)
time.sleep(2)  # as a compilation does: the workers run ahead as far as they may
print(1 + sum(1 for _ in packs))
"""


@pytest.mark.parametrize(
    ("looks", "said"), [(True, None), pytest.param(False, "DataLoader timed out", marks=pytest.mark.slow)]
)
def test_a_run_in_a_small_container_gets_all_its_packs(tmp_path, looks, said):
    """In a mount namespace whose /dev/shm holds 2 MB: without a look at it the workers lose packs, which is told."""
    inside = 'mount -t tmpfs -o size=2m tmpfs /dev/shm && exec "$0" -c "$1" "$2"'
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace may be made here")
    inside += "" if looks else " blind"
    command = ["unshare", "-m", "sh", "-c", inside, sys.executable, CONSUMER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip() == "20") == looks, done.stderr[-2000:]
    assert said is None or said in done.stderr
