"""FSDP2 in a world of one process: what an evaluation leaves behind. Numbers of several are in `test_engines.py`."""

import pytest
import torch

from tests.packs import random_pack, tiny_network
from trainer.objective import ObjectiveConfig, OfflineRL
from trainer.sharding import gathered, shard


@pytest.fixture
def world_of_one():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_run_that_begins_with_an_evaluation_takes_its_first_step(world_of_one):
    """As one does that was stopped before the evaluation that was due."""
    objective = OfflineRL(tiny_network(), ObjectiveConfig())
    shard(objective, 1, "cpu")
    pack = random_pack(turns=64, longest=20)
    with gathered(objective), torch.no_grad():
        objective.network.features(pack)
    loss, _ = objective(pack, torch.tensor([9.0, 9.0]), torch.tensor([0, 1]), torch.tensor(1.0))
    loss.backward()
    assert loss.isfinite()
