"""An exponential moving average of the weights in fp32 (`optim.ema`): evaluated and published in their place.

Averages of late iterates generalize like a lower learning rate would, without the wait (Polyak & Juditsky 1992;
Izmailov et al. 2018).
"""

import copy

import torch

from model.modeling_turnwise import TurnwiseForOfflineRL
from trainer.masters import fp32_master

CHUNK = 32  # parameters gathered at once where they lie in pieces


class WeightAverage:
    """A network of its own whose fp32 parameters follow another's: average ← d·average + (1−d)·online.

    d is `decay`, and less in the first steps, (1+t)/(10+t) at step t from 0 (as in TensorFlow), so that the random
    start is soon forgotten. Buffers (PopArt's statistics) are the online ones.
    """

    def __init__(self, network: TurnwiseForOfflineRL, decay: float):
        self.decay = decay
        # Whole on every process, and out of every wrapper's reach, as the target heads are.
        self.network = copy.deepcopy(network).float().eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, online: TurnwiseForOfflineRL, step: int) -> None:
        """Follow the online network after optimizer step `step`. Under ZeRO and FSDP2 every process must call it."""
        rate = 1.0 - min(self.decay, (1 + step) / (10 + step))
        slow, fast = list(self.network.parameters()), list(online.parameters())
        for at in range(0, len(slow), CHUNK):
            masters = [fp32_master(parameter) for parameter in fast[at : at + CHUNK]]
            torch._foreach_lerp_(slow[at : at + CHUNK], masters, rate)
        for buffer, other in zip(self.network.buffers(), online.buffers(), strict=True):
            buffer.copy_(other)

    @torch.no_grad()
    def load(self, values: dict[str, torch.Tensor]) -> None:
        """Take over saved values: fp32 parameters and persistent buffers by name."""
        self.network.load_state_dict(values)
