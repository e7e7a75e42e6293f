"""The optimizer, weight decay on matrices only, and a learning rate that is a function of the optimizer step."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from model.heads import Critics
from trainer.limits import not_negative, positive, refuse_unless
from trainer.muon import MuonAdamW, matrices_of


@dataclass
class OptimConfig:
    lr: float = 3e-4  # at the default global batch of 128 battles
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.01  # the reference: 1e-4, as an L2 term on everything
    warmup_steps: int = 500
    min_lr_ratio: float = 0.1
    schedule: str = "cosine"  # cosine | constant
    grad_clip: float = 1.0  # largest global norm, 0: no clipping; the reference: 1.5
    name: str = "adamw"  # adamw | muon (AdamW but for the trunk's matrices) | sgd (plain, for parity checks)
    ema: float = 0.0  # decay of an average of the weights, evaluated and published in their place; 0: none
    muon_momentum: float = 0.95
    muon_scale: float = 1.0  # of Muon's learning rate, over `lr`

    def check(self) -> None:
        """Raises ValueError naming the key."""
        rules = [
            ("lr", not_negative(self.lr), "a number of 0 or more"),
            ("betas", all(0 <= beta < 1 for beta in self.betas), "two numbers from 0 to below 1"),
            ("eps", positive(self.eps), "a number above 0"),
            ("weight_decay", not_negative(self.weight_decay), "0 or more"),
            ("warmup_steps", self.warmup_steps >= 0, "0 or more"),
            ("min_lr_ratio", 0 <= self.min_lr_ratio <= 1, "a number from 0 to 1"),
            ("schedule", self.schedule in ("cosine", "constant"), "cosine or constant"),
            ("grad_clip", not_negative(self.grad_clip), "a norm above 0, or 0 for no clipping"),
            ("name", self.name in ("adamw", "muon", "sgd"), "adamw, muon or sgd"),
            ("ema", 0 <= self.ema < 1, "0 (no average) or a number below 1"),
            ("muon_momentum", 0 <= self.muon_momentum < 1, "a number from 0 to below 1"),
            ("muon_scale", positive(self.muon_scale), "a number above 0"),
        ]
        refuse_unless("optim.", self, rules)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: matrices of linear layers (decayed), and everything else (norms, biases, embeddings, slots).

    Raises AssertionError unless every trainable parameter is in exactly one group.
    """
    matrices = {
        id(part.weight) for part in module.modules() if isinstance(part, nn.Linear | Critics) and part.weight.dim() >= 2
    }
    trainable = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in trainable if id(p) in matrices]
    plain = [p for p in trainable if id(p) not in matrices]
    ids = [id(p) for p in decayed + plain]
    assert len(ids) == len(set(ids)) == len(trainable), "a parameter is missing from the optimizer, or in it twice"
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def build_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer that `config.name` names for an `OfflineRL`; all skip a non-finite update on the device."""
    groups = parameter_groups(module, config.weight_decay)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=tuple(config.betas), eps=config.eps, fused=True)
    if config.name == "muon":
        matrices = matrices_of(module.network.model.trunk)
        others = [{**g, "params": [p for p in g["params"] if p not in matrices]} for g in groups]
        return MuonAdamW(
            matrices, others, lr=config.lr, betas=tuple(config.betas), eps=config.eps,
            weight_decay=config.weight_decay, momentum=config.muon_momentum, scale=config.muon_scale,
        )  # fmt: skip
    return torch.optim.SGD(groups, lr=config.lr, fused=True)


def learning_rate(step: int, total_steps: int, config: OptimConfig) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up, then a cosine to `min_lr_ratio`·lr, or flat."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * done)))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group `lr`, times the group's own `scale` where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("scale", 1.0)
