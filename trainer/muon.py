"""Muon for the trunk's matrices and AdamW for the rest, as one optimizer (Jordan et al. 2024; arXiv 2502.16982).

torch's own `torch.optim.Muon` takes one matrix at a time and always computes in bf16, which a CPU does thirty times
slower than fp32. Here equal shapes go through one batched product, a fused matrix (q, k, v; value and gate) counts as
the matrices that it is made of, and a non-finite update is skipped on the device as the fused AdamW skips it. A test
holds both against each other.
"""

import math
from collections import defaultdict

import torch
from torch import nn

from model.trunk import Trunk

# The quintic's coefficients and number of steps: those of Jordan et al., and of torch.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
EPS = 1e-7


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """[n, rows, cols] → about U·Vᵀ of each one's singular value decomposition, by Newton–Schulz steps.

    Singular values come out between 0.7 and 1.2. bf16 inside on CUDA, fp32 elsewhere; returned in the input's dtype.
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(EPS)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def matrices_of(trunk: Trunk) -> dict[nn.Parameter, int]:
    """The trunk's matrices → how many matrices each is made of, row by row: q, k and v; value and gate."""
    found = {}
    for layer in trunk.layers:
        attention, mlp = layer.attention, layer.mlp
        found |= {attention.qkv.weight: 3, attention.proj.weight: 1, mlp.up.weight: 2, mlp.down.weight: 1}
    return found


class MuonAdamW(torch.optim.Optimizer):
    """One step of Muon on `matrices`, one of fused AdamW on the groups of `others`.

    matrices: {parameter [rows, cols]: number of matrices stacked in its rows}. A matrix moves by 0.2·√max(rows, cols)
    ·lr in spectral norm, so that its entries move as far as AdamW's and one lr serves both (arXiv 2502.16982); `scale`
    is a factor on top of it. State: `momentum_buffer` of a matrix, AdamW's of the others.
    """

    def __init__(
        self,
        matrices: dict[nn.Parameter, int],
        others: list[dict],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        momentum: float,
        scale: float,
    ):
        stacked = defaultdict(list)
        for parameter, pieces in matrices.items():
            stacked[pieces].append(parameter)
        muon = {"weight_decay": weight_decay, "momentum": momentum, "scale": scale, "moments": ("momentum_buffer",)}
        groups = [{"params": found, "pieces": pieces, **muon} for pieces, found in stacked.items()]
        adam = {"moments": ("exp_avg", "exp_avg_sq")}
        super().__init__([*groups, *({**group, **adam} for group in others)], {"lr": lr, "pieces": 0})
        # Works on the same groups and the same state.
        self.adamw = torch.optim.AdamW(self._groups(False), lr=lr, betas=betas, eps=eps, fused=True)

    def _groups(self, muon: bool) -> list[dict]:
        return [group for group in self.param_groups if (group["pieces"] > 0) == muon]

    @torch.no_grad()
    def step(self, closure=None):
        """One update. With `found_inf` set to 1 (the seam that torch's GradScaler uses) nothing changes."""
        bad = getattr(self, "found_inf", None)
        self.adamw.param_groups, self.adamw.state = self._groups(False), self.state
        self.adamw.found_inf, self.adamw.grad_scale = bad, None
        self.adamw.step()
        for group in self._groups(True):
            self._step_matrices(group, bad)

    def _step_matrices(self, group: dict, bad: torch.Tensor | None) -> None:
        by_shape, pieces = defaultdict(list), group["pieces"]
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape[parameter.shape].append(parameter)
        for (rows, cols), parameters in by_shape.items():
            updates = []
            for parameter in parameters:
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                slow = state["momentum_buffer"].lerp(parameter.grad, 1 - group["momentum"])
                updates.append(parameter.grad.lerp(slow, group["momentum"]))  # Nesterov's
                _replace(state["momentum_buffer"], slow, bad)
            whole = torch.stack(updates).view(-1, rows // pieces, cols)
            moves = orthogonalized(whole).reshape(-1, rows, cols)
            reach = 0.2 * math.sqrt(max(rows // pieces, cols)) * group["lr"]
            for parameter, move in zip(parameters, moves, strict=True):
                moved = parameter * (1 - group["lr"] * group["weight_decay"]) - reach * move
                _replace(parameter, moved, bad)


def _replace(old: torch.Tensor, new: torch.Tensor, bad: torch.Tensor | None) -> None:
    """old ← new, unless `bad` is 1; decided on the device."""
    old.copy_(new if bad is None else torch.where(bad > 0, old, new))
