"""What a run is, in a few lines, said before its first step."""

import logging

import torch
from accelerate.utils import DistributedType

from data.dataset import BattleDataset
from trainer.objective import ObjectiveConfig
from trainer.step_costs import HOST_S, Assumed

log = logging.getLogger(__name__)


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


def warn_of_idle_gpus(run, turns: int) -> None:
    """Say where several GPUs share out so small a step that each, by counts, is done before the host has launched it.

    run: a `loop.Run` about to train on packs of so many turns.
    """
    config, accelerator, peak = run.config, run.accelerator, run.rows.peak
    world, asked = accelerator.num_processes, run.asked["batch"]["battles"]
    if world == 1 or config.batch_scaling == "multiply" or not peak:
        return
    plugin = accelerator.state.deepspeed_plugin
    stage = "fsdp2" if config.parallel == "fsdp2" else f"zero{plugin.zero_stage}" if plugin is not None else "plain"
    of_gpu, of_host = run.flops["train"] * turns / (peak * Assumed().mfu), HOST_S.get(stage, HOST_S["plain"])
    if of_gpu < of_host:
        log.warning(
            "each of %d GPUs has %d battles in a pack, some %.1f ms of its work, and the host takes some %.0f ms to "
            "launch it (by counts, as trainer.plan has them): they wait; give batch_scaling=multiply, by which each "
            "has %d, or more batch.battles",
            world, config.batch.battles, of_gpu * 1e3, of_host * 1e3, asked,
        )  # fmt: skip


def warn_of_short_reach(config: ObjectiveConfig, steps: int, dataset: BattleDataset) -> None:
    """Say where critics decide what is cloned, in a run too short for them to hear in mid-battle how battles end.

    A target sums `n_step` rewards and leans on a value that moves by a share of `tau` a step: a result goes back by
    n_step turns every 1/tau steps.
    """
    if config.filter not in ("binary", "exponential") and config.maxq_weight == 0:
        return
    reach, turns = steps * config.tau * config.n_step, dataset.mean_window()
    if reach < turns / 2:
        log.warning(
            "in %d steps a battle's result is carried back by about %.1f turns, and battles are %.0f long: the "
            "critics, which decide what is cloned, will know of their ends alone; give more steps, or "
            "objective.n_step=8 and objective.tau=0.02 (here %d and %g)",
            steps, reach, turns, config.n_step, config.tau,
        )  # fmt: skip
