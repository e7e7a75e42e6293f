"""What a run is, in a few lines, said before its first step."""

import torch
from accelerate.utils import DistributedType


def summary(run, packs: list[dict[str, torch.Tensor]], shares: dict[str, float]) -> str:
    """run: a `loop.Run` about to train on `packs`; shares: of unknown, padding and blank words among their turns."""
    network, batch, accelerator = run.objective.network, run.config.batch, run.accelerator
    world = accelerator.num_processes
    parts = {**network.model.count_parameters(), **network.count_parameters()}
    parts.pop("model")
    turns = packs[0]["words"].shape[0]
    precision = "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
    engine = "" if accelerator.distributed_type == DistributedType.NO else f" ({accelerator.distributed_type.value})"
    lines = [
        "parameters: " + ", ".join(f"{name} {count / 1e6:.2f}M" for name, count in parts.items()),
        "FLOPs per turn, forward: "
        + ", ".join(f"{name} {count / 1e6:.2f}M" for name, count in run.flops.items() if name != "train")
        + f"; a training step {run.flops['train'] / 1e6:.2f}M",
        f"attention: {network.attention}; precision: {precision}; device: {accelerator.device}; "
        f"processes: {world}{engine}",
        f"step: {batch.battles} battles × {batch.accumulate} micro-batches × {world} processes; packs of {turns} "
        f"turns, {turns * batch.accumulate * world} turns a step; {run.course.total} steps",
        "battles: " + ", ".join(f"{name} {count}" for name, count in run.data_report.files.items())
        + f"; held out {len(run.heldout)}; rejected {run.data_report.rejected}",
        f"words: unknown {100 * shares['data/unknown_words']:.3f}%, padding {100 * shares['data/padding_words']:.3f}%, "
        f"<blank> {100 * shares['data/blank_words']:.1f}%",
    ]  # fmt: skip
    return "\n".join(lines)
