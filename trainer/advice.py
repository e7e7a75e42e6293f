"""What a run's settings, taken together, will not do as they were meant: said at its start, and left as it is."""

import logging
from typing import Any

from data.dataset import BattleDataset
from trainer.config import RunConfig, to_tree
from trainer.objective import OfflineRL
from trainer.optim import learning_rate
from trainer.step_costs import HOST_S, Assumed
from trainer.wording import flat

log = logging.getLogger(__name__)

# Settings that are not read under some choices: (choice, its values, settings).
_IDLE = (
    ("objective.filter", ("imitation", "winners", "binary"), ("objective.beta", "objective.clip")),
    ("objective.filter", ("imitation",), ("objective.filter_floor",)),
    ("optim.name", ("adamw", "sgd"), ("optim.muon_momentum", "optim.muon_scale")),
    ("optim.schedule", ("constant",), ("optim.min_lr_ratio",)),
    ("model.value_head", ("scalar",), ("model.value_bins", "model.value_spacing")),
    ("model.value_head", ("two_hot",), ("objective.popart_rate",)),
    ("model.turn_encoder", ("transformer",), ("model.word_width", "model.entity_hidden", "model.matchup_width")),
    ("model.turn_encoder", ("blocks",), (
        "model.encoder_width", "model.encoder_layers", "model.encoder_heads", "model.encoder_numeric_tokens",
        "model.encoder_scratch_tokens",
    )),
)  # fmt: skip


def warn_of_idle_settings(config: RunConfig) -> None:
    """Say which settings nothing reads."""
    for name, value, choice, chosen in idle_settings(config):
        log.warning("%s=%s does nothing: %s is %r", name, value, choice, chosen)


def idle_settings(config: RunConfig) -> list[tuple[str, Any, str, str]]:
    """(setting, its value, choice, its value) of settings that are other than by default and that nothing reads by the
    choice made: a sweep over one trains the same agent again and again. A model to start from brings choices too."""
    default, asked = flat(to_tree(RunConfig())), flat(to_tree(config))
    return [
        (name, asked[name], choice, asked[choice])
        for choice, values, names in _IDLE
        if asked[choice] in values and not (config.model.init_from and choice.startswith("model."))
        for name in names
        if asked[name] != default[name]
    ]


def warn_of_unsaved(objective: OfflineRL) -> None:
    """Say what of an objective of one's own no checkpoint holds: parameters and buffers outside its network."""
    if own := [name for name in objective.state_dict() if not name.startswith("network.")]:
        log.warning(
            "objective: no checkpoint holds %s, outside its network: a run that goes on begins with it anew",
            ", ".join(own),
        )


def warn_of_late_starts(config: RunConfig, steps: int) -> None:
    """Say where the run's steps are over before the filter comes on, or before the learning rate is what was asked."""
    if config.objective.filter != "imitation" and config.objective.filter_warmup >= steps:
        log.warning(
            "objective.filter_warmup=%d: the filter never comes on in %d steps, every action is cloned; lower it, "
            "or say objective.filter=imitation",
            config.objective.filter_warmup, steps,
        )  # fmt: skip
    if config.optim.warmup_steps > steps:
        log.warning(
            "optim.warmup_steps=%d: in %d steps the learning rate gets to %.3g and not to optim.lr=%.3g; lower it",
            config.optim.warmup_steps, steps, learning_rate(steps - 1, steps, config.optim), config.optim.lr,
        )  # fmt: skip


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
    of_gpu, of_host = run.flops["train"] * turns / (peak * Assumed().mfu), HOST_S[stage]
    if of_gpu < of_host:
        log.warning(
            "each of %d GPUs has %d battles in a pack, some %.1f ms of its work, and the host takes some %.0f ms to "
            "launch it (by counts, as trainer.plan has them): they wait; give batch_scaling=multiply, by which each "
            "has %d, or more batch.battles",
            world, config.batch.battles, of_gpu * 1e3, of_host * 1e3, asked,
        )  # fmt: skip


def warn_of_short_reach(run: RunConfig, steps: int, dataset: BattleDataset) -> None:
    """Say where critics decide what is cloned, in a run too short for them to hear in mid-battle how battles end; those
    of a model to start from have heard.

    A target sums `n_step` rewards and leans on a value that moves by a share of `tau` a step: a result goes back by
    n_step turns every 1/tau steps.
    """
    config = run.objective
    critics_decide = config.filter in ("binary", "exponential") or config.maxq_weight > 0
    if run.model.init_from or not critics_decide:
        return
    reach, turns = steps * config.tau * config.n_step, dataset.mean_window()
    if reach < turns / 2:
        log.warning(
            "in %d steps a battle's result is carried back by about %.1f turns, and battles are %.0f long: the "
            "critics, which decide what is cloned, will know of their ends alone; give more steps, or "
            "objective.n_step=8 and objective.tau=0.02 (here %d and %g)",
            steps, reach, turns, config.n_step, config.tau,
        )  # fmt: skip
