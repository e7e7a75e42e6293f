"""One optimizer step: micro-batches → gradients of one loss → update → targets. The whole of it, on one screen."""

import math
from contextlib import contextmanager

import torch
from accelerate import Accelerator

from trainer.average import WeightAverage
from trainer.guard import SpikeGuard
from trainer.objective import OfflineRL, polyak_update
from trainer.optim import OptimConfig, learning_rate, set_learning_rate
from trainer.state import whole
from trainer.zero import keep_on_device


class TrainStep:
    """Runs optimizer steps on prepared parts.

    module: the prepared `OfflineRL`; objective: the same, unwrapped. A step's result depends on (parameters, step,
    packs, seed) alone: dropout's generator and the critics' draw are seeded from the step.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        module,
        objective: OfflineRL,
        optimizer,
        config: OptimConfig,
        seed: int,
        total: int,
        spikes: SpikeGuard | None = None,
        average: WeightAverage | None = None,
    ):
        self.accelerator, self.module, self.objective, self.optimizer = accelerator, module, objective, optimizer
        self.config, self.seed, self.total_steps = config, seed, total
        self.spikes, self.average = spikes, average
        self.engine = module if accelerator.distributed_type == "DEEPSPEED" else None
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if self.engine is not None:
            if hasattr(self.engine.optimizer, "single_partition_of_fp32_groups"):  # ZeRO 1 and 2
                keep_on_device(self.engine.optimizer)
            self.engine.optimizer.optimizer.register_step_pre_hook(self._skip_if_not_finite)

    def __call__(
        self, step: int, packs: list[dict[str, torch.Tensor]], detailed: bool = True
    ) -> dict[str, torch.Tensor]:
        """Train on this process's micro-batches of the step. Returns metrics of this process, on the device:
        summed over processes they are the step's (`_cloned`: the decisions that the policy clones); `detailed` adds
        gradient norms by part. Nothing here waits for the device."""
        accelerator, objective = self.accelerator, self.objective
        if self.spikes is not None and step == objective.config.filter_warmup:
            self.spikes.forget()  # an exponential filter's weights are several times those of before
        set_learning_rate(self.optimizer, learning_rate(step, self.total_steps, self.config))
        denominators = accelerator.reduce(sum(objective.counts(pack) for pack in packs), reduction="sum")
        subset = self._critic_subset(step, denominators.device)
        filtering = torch.full((), float(step >= objective.config.filter_warmup), device=denominators.device)
        # Data-parallel wrappers average over processes and accelerate divides by the accumulation: undo both.
        scale = accelerator.num_processes * len(packs)
        torch.manual_seed(self._seed(step, accelerator.process_index))

        metrics: dict[str, torch.Tensor] = {}
        for place, pack in enumerate(packs):
            with accelerator.accumulate(self.module):
                loss, part = self.module(pack, denominators, subset, filtering)
                for name, value in part.items():
                    metrics[name] = metrics[name] + value if name in metrics else value
                if self.spikes is not None and place == len(packs) - 1:
                    loss = self._poisoned_if_spike(loss, metrics)
                accelerator.backward(loss * scale)

        metrics["_cloned"] = (denominators[0] / accelerator.num_processes).float()
        metrics.update(self._update(detailed))
        polyak_update(objective, objective.config.tau)
        self._update_popart(metrics, denominators[1])
        if self.average is not None:
            self.average.update(objective.network, step)
        return metrics

    def _poisoned_if_spike(self, loss: torch.Tensor, metrics: dict[str, torch.Tensor]) -> torch.Tensor:
        """A spiking step's loss becomes NaN: every engine skips the update of a gradient that is not finite. Judged by
        what the guard takes the logarithm of, the terms that are positive; MaxQ's takes values off the loss."""
        config = self.objective.config
        judged = config.policy_weight * metrics["loss/policy"] + config.critic_weight * metrics["loss/critic"]
        spike = self.spikes.is_spike(self.accelerator.reduce(judged, reduction="sum"), 0)
        return loss * torch.where(spike > 0, torch.nan, 1.0)

    def _update(self, detailed: bool) -> dict[str, torch.Tensor]:
        """Clip, check, step. Under DeepSpeed the engine has done all three at the last backward."""
        share = 1.0 / self.accelerator.num_processes
        if self.engine is not None:
            norm = self._deepspeed_norm()
            return {"optim/grad_norm": norm * share, "optim/skipped": (~norm.isfinite()).float() * share}
        parts = self._norms_by_part() if detailed else {}
        parts = {f"optim/grad_norm_{name}": norm * share for name, norm in parts.items()}
        norm = whole(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip or math.inf))
        bad = (~norm.isfinite()).float()
        if self.spikes is not None:
            bad = torch.maximum(bad, self.spikes.is_spike(norm, 1))
        with found_inf(self.optimizer, bad):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"optim/grad_norm": norm * share, "optim/skipped": bad * share, **parts}

    def _deepspeed_norm(self) -> torch.Tensor:
        """The whole gradient's norm as DeepSpeed found it, inf where it is not finite."""
        norm = self.engine.optimizer._global_grad_norm
        return torch.as_tensor(0.0 if norm is None else norm, dtype=torch.float32, device=self.accelerator.device)

    def _skip_if_not_finite(self, optimizer: torch.optim.Optimizer, *_) -> None:
        """Before an update of DeepSpeed's, which makes no exception for bf16. Its own check, left off, reads
        every gradient with half a dozen kernels and waits for the answer; the norm, known by now, tells as much."""
        optimizer.found_inf = (~self._deepspeed_norm().isfinite()).float()

    def _norms_by_part(self) -> dict[str, torch.Tensor]:
        """Gradient norms of turn encoder, trunk, actor and critics: a critic that drowns the actor is seen here."""
        network = self.objective.network
        parts = {"encoder": network.model.turn_encoder, "trunk": network.model.trunk}
        parts |= {"actor": network.actor, "critics": network.critics}
        return {
            name: whole(torch.nn.utils.get_total_norm([p.grad for p in part.parameters() if p.grad is not None]))
            for name, part in parts.items()
        }

    def _update_popart(self, metrics: dict[str, torch.Tensor], targets: torch.Tensor) -> None:
        popart = self.objective.network.popart
        if popart is None:
            return
        both = torch.stack([metrics["value/target"], metrics["value/target_square"]])
        both = self.accelerator.reduce(both, reduction="sum")
        # A bad batch leaves the statistics as they are, and so does one without a target.
        kept = torch.where(both.isfinite().all() & (targets > 0), both, torch.stack([popart.mean, popart.second]))
        popart.update(kept[0], kept[1], self.objective.config.popart_rate)

    def _critic_subset(self, step: int, device) -> torch.Tensor:
        critics = self.objective.network.config.critics
        generator = torch.Generator().manual_seed(self._seed(step, -1))
        drawn = torch.randperm(critics, generator=generator)[:2]
        return (drawn if critics > 1 else drawn.repeat(2)).to(device, non_blocking=True)

    def _seed(self, step: int, process: int) -> int:
        return hash((self.seed, step, process)) % 2**63  # ints hash alike in every process


@contextmanager
def found_inf(optimizer: torch.optim.Optimizer, bad: torch.Tensor):
    """Tell torch's fused kernels, through the seam that its GradScaler uses, to leave parameters and moments as they
    are where `bad` is 1. The decision stays on the device."""
    optimizer.found_inf, optimizer.grad_scale = bad, None
    try:
        yield
    finally:
        del optimizer.found_inf, optimizer.grad_scale
