"""The scores that a run takes of itself every few hundred steps: quickly, for training stands still meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from accelerate import Accelerator

from data.dataset import BattleDataset
from data.loader import heldout_packs
from data.reward import REWARDS
from data.sampler import BatchConfig
from model.modeling_turnwise import TurnwiseForOfflineRL
from trainer.scores import collect

BINS = 10
KEPT_BYTES = 2**28  # of a process's packs; the default's thousand battles take a tenth of it


class QuickScore:
    """Held-out NLL and top-1 over cloned battles' decisions with a choice, shared among processes.

    The first is what "best checkpoint" means. Also `value/calibration@γ` for each γ ≥ 0.999: how far V, read as a win
    chance without any fit, stands from the outcomes (expected calibration error over ten bins, 0 to 1; Naeini et al.
    2015). The battles are read at the first call, and kept where they fit into `KEPT_BYTES`.
    """

    def __init__(self, heldout: BattleDataset, accelerator: Accelerator, battles: int = 32):
        """battles: in a pack; as many as a run trains on fit into its device's memory, and few make many launches."""
        self.heldout, self.accelerator, self.battles = heldout, accelerator, battles
        self.kept: list[dict] | None = None

    def __call__(self, network: TurnwiseForOfflineRL) -> dict[str, float]:
        """Scores of a network. Raises ValueError where there is nothing to score."""
        config = network.config
        # A reward that a battle's result adds nothing to says nothing of it.
        tells = REWARDS[config.reward_kind].win != REWARDS[config.reward_kind].loss
        long = [g for g, gamma in enumerate(config.gammas) if tells and gamma >= 0.999]
        with tf32(network.device):
            decisions = collect(network, self.packs())
        choice = (decisions["legal"].sum(1) >= 2) & decisions["cloned"]
        counted = [decisions["nll"][choice].sum(), (decisions["rank"][choice] == 0).sum(), choice.sum()]
        gaps = [gap for g in long for gap in calibration_gaps(decisions, g, config.reward_kind)]
        sums = torch.tensor([float(x) for x in (*counted, *gaps)], dtype=torch.float64)
        nll, top1, count, *gaps = self.accelerator.reduce(sums.to(network.device), reduction="sum").tolist()
        if not count:
            raise ValueError(
                "no held-out turn has two actions to choose from and a recorded one: raise data.heldout_share"
            )
        scores = {"heldout/nll": nll / count, "heldout/accuracy": top1 / count, "heldout/decisions": count}
        for i, g in enumerate(long):
            *bins, known = gaps[i * (BINS + 1) : (i + 1) * (BINS + 1)]
            if known:
                scores[f"value/calibration@{config.gammas[g]}"] = sum(map(abs, bins)) / known
        return scores

    def packs(self) -> Iterator[dict]:
        """This process's share, on the CPU."""
        if self.kept is not None:
            yield from self.kept
            return
        kept, size = [], 0
        everything = heldout_packs(self.heldout, BatchConfig(battles=self.battles))
        for pack in even_share(everything, self.accelerator.process_index, self.accelerator.num_processes):
            size += sum(values.numel() * values.element_size() for values in pack.values())
            if size <= KEPT_BYTES:
                kept.append(pack)
            else:
                kept.clear()
            yield pack
        if kept:
            self.kept = kept


@contextmanager
def tf32(device: torch.device):
    """Products of fp32 in TF32 on a GPU, several times as fast as in fp32: 10 bits of mantissa, which a mean over
    thousands of decisions does not tell from 23."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def even_share(packs: Iterator[dict], rank: int, world: int) -> Iterator[dict]:
    """Packs of one process, as many for each: where parameters lie in pieces, every forward is a meeting of all.

    Where the last round lacks packs, the processes left over get its first again, without a decision to count.
    """
    while group := list(islice(packs, world)):
        if rank < len(group):
            yield group[rank]
        else:
            yield {**group[0], "decision": torch.zeros_like(group[0]["decision"])}


def calibration_gaps(decisions: dict[str, np.ndarray], g: int, reward_kind: str) -> np.ndarray:
    """[BINS + 1]: per bin of the win chance that V at discount number g says, the sum of chance − outcome; and the
    number of decisions of battles with a result. Sums, so that processes can add theirs."""
    kind = REWARDS[reward_kind]
    known = decisions["outcome"] >= 0
    chance = (decisions["values"][known, g].astype(np.float64) - kind.loss) / (kind.win - kind.loss)
    chance = chance.clip(0, 1)
    bins = np.minimum((BINS * chance).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=chance - decisions["outcome"][known], minlength=BINS)
    return np.append(gaps, known.sum())
