"""Token caches and archives made of a folder of battles, for tests."""

import os
import tarfile

import numpy as np

from data.cache import CacheJob, make_cache
from data.dataset import BattleDataset, DataConfig
from data.tokenizer import Tokenizer

TOKENIZER = Tokenizer.load()


def read_all(battle, space):
    """Every array of a battle, cached or encoded."""
    n = len(battle)
    words = np.zeros((n, space.n_words), np.int32)
    numbers = np.zeros((n, space.n_numbers), np.float32)
    legal, forced = np.zeros((n, 13), bool), np.zeros(n, bool)
    battle.fill(0, n, words, numbers, legal, forced)
    rewards = [battle.reward(kind) for kind in ("shaped", "aggressive", "binary")]
    return [words, numbers, legal, forced, np.asarray(battle.action), *rewards], (battle.won, battle.lost, battle.team)


def assert_equal(cached, encoded, space):
    (a, facts_a), (b, facts_b) = read_all(cached, space), read_all(encoded, space)
    assert facts_a == facts_b
    assert all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def cache_of(folder, out, **options):
    options = {"unit": 4, **options}
    return make_cache(CacheJob(str(folder), str(out), **options), processes=1, progress=False)


def dataset_of(path, home, **options):
    options = {"cache_dir": str(home / "i"), "heldout_share": 0.0, "workers": 0, "max_reject_share": 0.5, **options}
    return BattleDataset(DataConfig(path=str(path), **options), TOKENIZER)


def tar_of(folder, file, name, prefix=""):
    mode = {"gz": "w:gz", "tar": "w"}[file.suffix[1:]]
    with tarfile.open(file, mode) as tar:
        for battle in sorted((folder / name).iterdir(), reverse=True):
            tar.add(battle, arcname=f"{prefix}{name}/{battle.name}")


def age(root):
    """Make every folder look long unchanged: an index of a folder changed just now is not trusted."""
    for folder in [root, *root.iterdir()]:
        os.utime(folder, (1, 1))


def paths(parts):
    return [path for part in parts for path in part.table["path"].to_pylist()]
