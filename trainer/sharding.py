"""FSDP2: torch's `fully_shard` over the trunk's layers and the rest, for `parallel=fsdp2`.

Parameters, gradients and the optimizer's moments lie in pieces on all processes and are gathered layer by layer, in
fp32: the forward's autocast is that of plain training, so are its numbers. (ZeRO 3 gathers in bf16.)
"""

from contextlib import contextmanager

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from trainer.objective import OfflineRL


def shard(objective: OfflineRL, world: int, device_type: str) -> None:
    """Shard in place; to be called before the optimizer is built, for parameters become DTensors."""
    mesh = init_device_mesh(device_type, (world,))
    for layer in objective.network.model.trunk.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)


@contextmanager
def gathered(objective: OfflineRL):
    """Inside, the network can be called by itself, past the objective's own forward: all of it is on every process.
    Does nothing where it is not sharded."""
    pieces = [module for module in objective.modules() if isinstance(module, FSDPModule)]
    if pieces:
        # A layer that is called before the objective ever was (an evaluation that a stopped run owed) would take itself
        # for the root of all, and the first step be refused.
        objective._get_fsdp_state()._lazy_init()
    for piece in pieces:
        piece.unshard()
    try:
        yield
    finally:
        for piece in pieces:
            piece.reshard()
