"""Floating-point operations per turn, counted from the modules by torch's own counter: no formula to go stale."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.attention import BLOCK
from model.modeling_turnwise import TurnwiseConfig, TurnwiseForOfflineRL

# Dense bf16 with fp32 sums, from the vendor's data sheets. The cards for PCIe slots do less under the same name.
PEAK_FLOPS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H200 NVL": 835e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12,
    "A100": 312e12, "B200": 2250e12, "L40S": 362e12, "RTX 4090": 165.2e12, "RTX 3090": 71e12,
}  # fmt: skip
LESSER = {"Laptop", "D"}  # words of a name under which a chip does less


def peak_flops(device: str) -> float | None:
    """Dense bf16 peak, FLOP/s, of a GPU by its name (as CUDA gives it); None of one not listed."""
    words = f" {device.replace('-', ' ')} "  # whole ones: an A1000 is no A100
    if LESSER & set(words.split()):
        return None
    return next((peak for key, peak in PEAK_FLOPS.items() if f" {key} " in words), None)


def flops_per_turn(
    config: TurnwiseConfig, batch: dict[str, torch.Tensor], target_network: bool = False
) -> dict[str, float]:
    """Forward FLOPs per turn by part (encoder, trunk, actor, critics, targets) and a training step's, `train`.

    A batch gives the shapes; everything runs on the meta device, so nothing is computed. A training step counts the
    forward once, and twice more for what has a gradient. Products and attention are counted, elementwise work is not.
    Attention of the trunk is counted for the keys that the batch's turns have, themselves and those before them in
    their window, whatever else a kernel multiplies; of a batch on the meta device, which has shapes alone, as the
    blocked implementation does it. With `target_network` (`objective.target=network`) the targets have an encoder and
    a trunk of their own, forward alone.
    """
    turns = 4 * BLOCK
    with torch.device("meta"):
        meta = TurnwiseForOfflineRL(config)
    meta.attention = "sdpa"
    pack = {k: torch.empty((turns, *v.shape[1:]), dtype=v.dtype, device="meta") for k, v in batch.items()}
    counted = {}

    def count(function, *arguments):
        """(result, FLOPs a turn, those of them in attention: its products alone are batched)"""
        with FlopCounterMode(display=False) as counter:
            result = function(*arguments)
        batched = counter.get_flop_counts()["Global"].get(torch.ops.aten.bmm, 0)
        return result, counter.get_total_flops() / turns, batched / turns

    encoder = meta.model.turn_encoder
    keys = ("words", "numbers", "prev_action", "prev_action_known", "prev_reward")
    with torch.no_grad():
        (_, entities), counted["encoder"], among_words = count(encoder, *(pack[k] for k in keys))
        (hidden, _), both, attention = count(meta.features, pack)
        among_turns = attention - among_words
        counted["trunk"] = both - counted["encoder"] - among_turns * (1 - share_of_blocks(batch, config.max_turns))
        _, counted["actor"], _ = count(meta.actor, hidden, entities)
        _, counted["critics"], _ = count(meta.critics, hidden, entities)
        _, taken, _ = count(meta.critics, hidden, entities, pack["action"])
    with_gradient = counted["encoder"] + counted["trunk"] + counted["actor"] + taken
    with torch.no_grad():
        _, two, _ = count(
            lambda *x: meta.critics(*x, subset=torch.zeros(2, dtype=torch.int64, device="meta")), hidden, entities
        )
    counted["targets"] = counted["actor"] + two
    if target_network:
        counted["targets"] += counted["encoder"] + counted["trunk"]
    counted["train"] = 3 * with_gradient + counted["critics"] + counted["targets"]
    return counted


def share_of_blocks(batch: dict[str, torch.Tensor], max_turns: int) -> float:
    """Keys that the batch's real turns attend to, in those that the blocked implementation multiplies; 1 of shapes."""
    if batch["position"].is_meta:
        return 1.0
    blocks = 1 - (1 - max_turns) // BLOCK  # a turn's own, and what a window can reach back over
    return (float(batch["position"][batch["valid"]].float().mean()) + 1) / (blocks * BLOCK)
